"""Record files, measures, the report script, and rules for the code."""

import ast
import csv
from pathlib import Path

import pytest
from conftest import call, fails

from training.metrics import classification_measures, wilson_interval
from utils import files, runs
from utils.cli import UserError

ROOT = Path(__file__).resolve().parents[2]


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


def test_seeds_depend_on_each_argument():
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


@pytest.mark.slow
def test_report_builds_tables_only_from_records(tmp_path, capsys):
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
    assert text.count("## ") == 2  # each attack has its own table
    assert "| dense fine-tuned | 0 % | 3 | 90.0 [82.6, 94.5] | 40.0 [30.9, 49.8] |" in text
    # Two seeds without row outcomes: a mean, but no interval.
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


# A package imports only packages after it in this list, and itself.
LAYERS = ("reporting", "experiments", "evaluation", "training", "masking", "utils")


def python_files() -> list[Path]:
    listed = [*ROOT.glob("*.py"), *ROOT.glob("analysis/*.py"), *ROOT.glob("benchmarks/*.py")]
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


# Of `masking`; all but encoders.py for types alone.
USE_TRANSFORMERS = ("encoders", "removal", "structures", "surgery", "unit_gates")


def test_the_direction_of_imports():
    scripts = {p.stem for p in ROOT.glob("*.py")} | {"analysis"}
    for path in python_files():
        relative = path.relative_to(ROOT)
        tops = {name.split(".")[0] for name in imported(path)}
        package = relative.parts[0]
        is_of_scripts = package == "benchmarks"  # they time them
        assert is_of_scripts or not tops & (scripts - {path.stem}), f"{relative} imports a script"
        if package in LAYERS:
            above = set(LAYERS[: LAYERS.index(package)])
            assert not tops & above, f"{relative} imports {tops & above}"
        if package == "masking":
            assert "utils" not in tops, f"{relative} imports utils"
            assert "transformers" not in tops or path.stem in USE_TRANSFORMERS, relative
        if "textattack" in tops:
            assert package == "evaluation" or relative.name == "attack_speed.py", relative


def test_nothing_is_unpickled():
    for path in python_files():
        text = path.read_text()
        assert "import pickle" not in text and "allow_pickle=True" not in text, path
        assert "trust_remote_code=True" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True"), path


def test_help_needs_no_data(capsys):
    for script in (
        "export",
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
        shown = capsys.readouterr()
        assert stop.value.code == 0 and shown.err == ""
        assert "default: None" not in shown.out
