"""Wrong input: one clear line, status 2, nothing written. Shell scripts, conventions, report."""

import ast
import csv
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import call, fails

from training.metrics import classification_measures, wilson_interval
from utils import files, runs
from utils.cli import UserError

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["stage1-finetune.sh", "stage2-search-ticket.sh", "stage3-draw-retrain_ticket.sh"]


def test_record_files(tmp_path):
    path = tmp_path / "r.jsonl"
    files.append_jsonl(path, {"a": 1})
    with open(path, "a") as f:
        f.write('{"b": 2')  # the writer was killed
    assert files.read_jsonl(path) == [{"a": 1}]
    path.write_text('{"a": 1}\nnonsense\n{"b": 2}\n')
    with pytest.raises(UserError, match="line 2, is not JSON"):
        files.read_jsonl(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        files.read_jsonl(path)


def test_seeds_depend_on_all_they_are_given():
    found = {
        runs.seed_for(*key) for key in ((1, "a"), (2, "a"), (1, "b"), (1, "a", 0), (1, "a", 1))
    }
    assert len(found) == 5 and all(0 <= s < 2**63 for s in found)
    assert runs.seed_for(1, "a", 3) == runs.seed_for(1, "a", 3)


def test_measures_against_a_worked_example():
    # labels 0 0 0 1 1 2, predictions 0 0 1 1 2 2
    m = classification_measures([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2], 3)
    assert m["accuracy_percent"] == pytest.approx(400 / 6)
    assert m["precision_per_class_percent"] == pytest.approx([100, 50, 50])
    assert m["recall_per_class_percent"] == pytest.approx([200 / 3, 50, 100])
    f1 = [80, 50, 200 / 3]
    assert m["f1_per_class_percent"] == pytest.approx(f1)
    assert m["f1_macro_percent"] == pytest.approx(sum(f1) / 3)
    assert m["f1_weighted_percent"] == pytest.approx((3 * f1[0] + 2 * f1[1] + f1[2]) / 6)
    assert m["f1_micro_percent"] == pytest.approx(400 / 6)
    assert classification_measures([0, 1], [0, 0], 2)["precision_per_class_percent"] == [50, 0]


def test_wilson_interval_against_its_published_example():
    # Newcombe (1998), 81 of 263: 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson_interval(0, 10)[0] == 0 and wilson_interval(0, 0) is None


def attack_record(**changes) -> dict:
    record = {
        "kind": "attack",
        "attack_id": "x",
        "task": "sst2",
        "encoder": {"name": "tiny"},
        "ticket": None,
        "seed": 1,
        "epochs": 3,
        "protocol": "paper",
        "checkpoint": "last",
        "recipe": "pwws",
        "score_with": "log_odds",
        "similarity_threshold": None,
        "max_seq_length": 64,
        "rows": {"ids_fingerprint": "a", "fingerprint": "b"},
        "rows_attacked": 100,
        "clean_percent": 90.0,
        "aua_percent": 40.0,
        "suc_percent": 55.6,
        "queries_per_row": 70.0,
        "words_changed_percent": 12.0,
        "mean_training_loss": 0.1,
        "clean_full_test_percent": 91.0,
        "intervals_95": {
            "clean_percent": [82.6, 94.5],
            "aua_percent": [30.9, 49.8],
            "suc_percent": [45.0, 65.0],
        },
    }
    return record | changes


def test_report_builds_tables_from_records_alone(tmp_path, capsys):
    ticket = {"kind": "robust", "sparsity_asked": 0.3}
    records = [
        attack_record(attack_id="a"),
        attack_record(attack_id="b", ticket=ticket, aua_percent=60.0),
        attack_record(attack_id="c", ticket=ticket, aua_percent=50.0, seed=2),
        attack_record(attack_id="d", recipe="deepwordbug"),
        {"kind": "evaluation"},
    ]
    for record in [*records, records[0]]:  # one attack recorded twice counts once
        files.append_jsonl(tmp_path / "runs" / "x" / "records.jsonl", record)
    call("report", "--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.count("## ") == 2  # two attacks are never one table
    assert "| dense fine-tuned | 0 % | 3 | 90.0 [82.6, 94.5] | 40.0 [30.9, 49.8] |" in text
    # Two seeds of records without outcomes row by row: a mean, and no interval.
    assert "| robust ticket (control missing) | 30 % | 3 |" in text and "| 55.0 ± 7.1 |" in text
    with open(tmp_path / "out" / "table.csv") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 3
    assert len(files.read_jsonl(tmp_path / "out" / "records.jsonl")) == 4
    call("report", "--records", tmp_path / "out", "--output_dir", tmp_path / "again")
    assert (tmp_path / "again" / "table.md").read_text() == text
    assert {r["aua_percent_by_seed"] for r in rows} == {"1:40", "1:60;2:50"}
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000


def test_report_refuses(tmp_path, capsys):
    def refused(*paths):
        return fails(capsys, "report", "--records", *paths, "--output_dir", tmp_path / "out")

    assert "does not exist" in refused(tmp_path / "none")
    assert "no attack records" in refused(tmp_path)
    record = attack_record()
    del record["aua_percent"]
    files.append_jsonl(tmp_path / "r.jsonl", record)
    assert "aua_percent is missing" in refused(tmp_path / "r.jsonl")
    assert not (tmp_path / "out").exists()


def shell(script: str, env: dict | None = None, *arguments) -> subprocess.CompletedProcess:
    """A shell script with a `python` that prints its arguments, one command a line."""
    return subprocess.run(
        ["sh", str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **(env or {})},
    )


@pytest.fixture
def echo_python(tmp_path) -> str:
    path = tmp_path / "a python"
    path.write_text('#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done\necho\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("script", STAGES)
def test_stage_scripts_know_every_task_and_pass_overrides_on(script, echo_python, tmp_path):
    done = shell(
        script,
        {
            "PYTHON": echo_python,
            "SEEDS": "1 2",
            "RUNS": f"{tmp_path}/a b",
            "ATTACK": "no",
            "TASKS": "imdb ag_news sst2 qnli qqp mnli builtin/imdb",
            "EPOCHS": "7",
            "DATA": "a folder",
        },
        "--quiet",
    )
    assert done.returncode == 0 and not done.stderr
    lines = [line for line in done.stdout.splitlines() if "make_scores" not in line]
    assert len(lines) == 14
    for line in lines:
        assert "<--epochs><7>" in line and "<--data_dir><a folder>" in line
        assert line.endswith("<--quiet>") and "/a b/bert-base-uncased/" in line
    assert sum("<--seed><2>" in line for line in lines) == 7


def test_stage_2_sets_the_papers_table_6(echo_python):
    done = shell(STAGES[1], {"PYTHON": echo_python, "TASKS": "sst2 imdb ag_news qqp qnli mnli"})
    want = {  # eta, mask lr, lambda, K
        "sst2": ("0.03", "0.1", "0.5", "5"),
        "imdb": ("0.03", "0.1", "0.5", "5"),
        "ag_news": ("0.03", "0.05", "0.5", "5"),
        "qqp": ("0.04", "0.05", "0.1", "3"),
        "qnli": ("0.04", "0.05", "0.1", "3"),
        "mnli": ("0.2", "0.1", "0.1", "2"),
    }
    for line in done.stdout.splitlines():
        task = re.search(r"<--task_name><(\w+)>", line).group(1)
        values = tuple(
            re.search(rf"<--{flag}><([\d.e-]+)>", line).group(1)
            for flag in ("adv_lr", "lr", "lambda_amp", "adv_steps")
        )
        assert values == want.pop(task)
        assert "<--adv_init_mag><0.05>" in line and "<--weight_decay><1e-6>" in line
        assert "<--epochs><20>" in line and "<--bsz><32>" in line
    assert not want


def test_stage_3_wires_every_kind_and_attack(echo_python):
    done = shell(
        STAGES[2],
        {
            "PYTHON": echo_python,
            "TASKS": "ag_news",
            "GPUS": "0,1",
            "KINDS": "robust random random_matched magnitude",
        },
    )
    lines = done.stdout.splitlines()
    assert sum("make_scores.py" in line for line in lines) == 3
    retrain = [line for line in lines if "retrain_ticket.py" in line]
    assert len(retrain) == 4 and "/search-robust>" in retrain[0]
    assert all("<--sparsity><0.4>" in line for line in retrain)
    launched = "<torch.distributed.run><--standalone><--nproc_per_node><2>"
    assert all(launched in line for line in retrain)
    attacks = [line for line in lines if "attack.py" in line]
    assert len(attacks) == 12
    assert all("<--num_examples><1000>" in line for line in attacks)
    recipes = {re.search(r"<--recipe><([\w-]+)>", line).group(1) for line in attacks}
    assert recipes == {"bertattack", "textfooler", "textbugger"}


def test_the_baselines_have_their_authors_settings(echo_python):
    done = shell(
        STAGES[0],
        {
            "PYTHON": echo_python,
            "METHODS": "plain freelb infobert pgd",
            "TASKS": "sst2 imdb ag_news qnli qqp mnli",
        },
    )
    want = {
        "sst2": "0.1 0.6 0 2",
        "imdb": "0.1 0.6 0 2",
        "ag_news": "0.1 0.6 0 2",
        "qnli": "0.05 0.1 0 3",
        "qqp": "0.2 0.32 0.7 3",
        "mnli": "0.04 0.08 0 3",
    }
    lines = done.stdout.splitlines()
    assert len(lines) == 24
    for line in lines:
        task = re.search(r"<--task_name><(\w+)>", line).group(1)
        method = re.search(r"<--method><(\w+)>", line)
        assert ("/dense>" in line) == (method is None)
        if method is None:
            assert "--adv" not in line
            continue
        values = [
            re.search(rf"<--adv_{flag}><([\d.]+)>", line).group(1)
            for flag in ("lr", "init_mag", "max_norm", "steps")
        ]
        infobert = method.group(1) == "infobert"
        assert " ".join(values) == ("0.04 0.08 0 3" if infobert else want[task])
        assert f"/dense-{method.group(1)}>" in line


def test_stage_2_finds_tickets_in_every_way(echo_python):
    done = shell(
        STAGES[1],
        {"PYTHON": echo_python, "TASKS": "imdb", "KINDS": "robust no_adversary imp imp_freelb"},
    )
    robust, without, imp, imp_freelb = done.stdout.splitlines()
    assert "<--adv_steps><5>" in robust and "/search-robust>" in robust
    assert "<--adv_steps><0>" in without and "/search-no_adversary>" in without
    assert "prune_iteratively.py" in imp and "/scores-imp>" in imp and "--method" not in imp
    assert "<--to_sparsity><0.2><--share_per_round><0.1><--epochs><3>" in imp
    assert "<--method><freelb>" in imp_freelb and "/scores-imp_freelb>" in imp_freelb


def test_stage_3_reinitialises_and_draws_from_every_kind(echo_python):
    kinds = "no_adversary imp imp_freelb magnitude_finetuned complement"
    done = shell(
        STAGES[2],
        {
            "PYTHON": echo_python,
            "TASKS": "sst2",
            "ATTACK": "no",
            "KINDS": kinds,
            "REINIT": "ticket rest",
            "TAG": "-x",
        },
    )
    lines = [line for line in done.stdout.splitlines() if "retrain_ticket" in line]
    assert len(lines) == 10
    for kind, line in zip(kinds.split(), lines[::2], strict=True):
        folder = "search-" if kind == "no_adversary" else "scores-"
        assert f"/{folder}{kind}>" in line and "<--reinitialise><ticket>" in line
        assert f"/ticket-{kind}-0.3-reinit_ticket-x>" in line
    made = [line for line in done.stdout.splitlines() if "make_scores" in line]
    assert "<--kind><magnitude>" in made[0] and "/dense/best>" in made[0]
    assert "<--kind><complement>" in made[1] and "/search-robust>" in made[1]


# From the top down: a package imports those after it in this list, and itself.
LAYERS = ("reporting", "experiments", "evaluation", "training", "masking", "utils")


def python_files() -> list[Path]:
    listed = [*ROOT.glob("*.py"), *ROOT.glob("analysis/*.py")]
    for package in LAYERS:
        found = [*ROOT.glob(f"{package}/**/*.py")]
        assert len(found) > 2, package
        listed += found
    return listed


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_the_direction_of_imports():
    scripts = {p.stem for p in ROOT.glob("*.py")} | {"analysis"}
    for path in python_files():
        relative = path.relative_to(ROOT)
        tops = {name.split(".")[0] for name in imported(path)}
        package = relative.parts[0]
        assert not tops & (scripts - {path.stem}), f"{relative} imports a script"
        if package in LAYERS:
            above = set(LAYERS[: LAYERS.index(package)])
            assert not tops & above, f"{relative} imports {tops & above}"
        if package == "masking":
            assert "utils" not in tops, f"{relative} imports utils"
            assert "transformers" not in tops or path.stem == "surgery", relative
        if "textattack" in tops:
            assert package == "evaluation", relative


def test_nothing_is_unpickled():
    for path in python_files():
        text = path.read_text()
        assert "import pickle" not in text and "allow_pickle=True" not in text, path
        assert "trust_remote_code=True" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True"), path


def test_help_needs_no_data(capsys):
    for script in (
        "finetune",
        "search_ticket",
        "make_scores",
        "prune_iteratively",
        "reproduce",
        "retrain_ticket",
        "attack",
        "report",
        "analysis.compare_tickets",
        "analysis.text_quality",
        "analysis.transfer",
    ):
        with pytest.raises(SystemExit) as stop:
            call(script, "--help")
        assert stop.value.code == 0 and "--output_dir" in capsys.readouterr().out
