"""Runs and attacks that are finished are reused by a plan, if they have its settings."""

import hashlib
import json
from pathlib import Path

import pytest
from plan_tools import finish, plan

from evaluation import checkpoints
from experiments import commands
from experiments.jobs import Attack
from utils.cli import UserError
from utils.files import write_json

pytestmark = pytest.mark.usefixtures("plain_environment")


def test_what_is_finished_is_reused_and_tables_share_runs(tmp_path):
    for job in plan("table1", tmp_path).values():
        finish(job)
    assert all(job.finished for job in plan("table1", tmp_path).values())
    third = plan("table3", tmp_path)
    missing = {name for name, job in third.items() if not job.finished}
    assert missing == {
        "scores-imp_freelb",
        "ticket-imp_freelb-0.3",
        "search-no_adversary",
        "ticket-no_adversary-0.3",
    }
    assert {n for n, j in plan("table4", tmp_path).items() if not j.finished} == {
        "ticket-robust-0.3-reinit_ticket",
        "ticket-robust-0.3-reinit_rest",
        "ticket-robust-0.3-reinit_rest-epochs10",
    }


def test_a_run_without_its_attacks_is_not_finished(tmp_path):
    job = plan("table1", tmp_path)["dense"]
    finish(job, attacks=False)
    job.look()
    assert job.state == "unattacked" and not job.finished
    write_json(job.folder / "run.json", {"stage": "x", "status": "running"})
    job.look()
    assert job.state == "begun"


def test_a_run_made_with_other_settings_is_named(tmp_path, monkeypatch):
    job = plan("table1", tmp_path)["search-robust"]
    args = {"epochs": 4, "adv_steps": 2, "max_train_rows": 2000, "seed": 42, "lr": 0.1}
    write_json(job.folder / "run.json", {"stage": "search", "status": "finished", "args": args})
    assert plan("table1", tmp_path)["search-robust"].finished
    monkeypatch.setenv("MAX_TRAIN_ROWS", "50")
    with pytest.raises(UserError, match="max_train_rows 2000, not 50"):
        plan("table1", tmp_path)
    monkeypatch.delenv("MAX_TRAIN_ROWS")
    monkeypatch.setenv("MODEL", "x")
    with pytest.raises(UserError, match="--encoder"):
        plan("table1", tmp_path)


# Each: a run of Table 1, a variable, a value that makes another run of it, and what differs.
OTHER_SETTINGS = [
    ("dense", "WEIGHT_DECAY", "0.5", "weight_decay 0.01, not 0.5"),
    ("dense", "PRECISION", "bf16", "precision auto, not bf16"),
    ("dense", "WARMUP_RATIO", "0.5", "warmup_ratio 0.1, not 0.5"),
    ("dense", "MAX_SEQ_LENGTH", "32", "max_seq_length 64, not 32"),
    ("dense", "GROUP_BY_LENGTH", "no", "group_by_length True, not False"),
    ("dense-freelb", "FREELB_ADV_LR", "0.3", "adv_lr 0.1, not 0.3"),
    ("search-robust", "ADV_LR", "0.3", "adv_lr 0.03, not 0.3"),
    ("search-robust", "ADV_INIT", "0.3", "adv_init_mag 0.05, not 0.3"),
    ("search-robust", "MASK_LR", "0.3", "lr 0.1, not 0.3"),
    ("search-robust", "LAMBDA", "0.3", "lambda_amp 0.5, not 0.3"),
    ("search-robust", "SEARCH_WEIGHT_DECAY", "0.5", "weight_decay 1e-06, not 0.5"),
    ("search-robust", "PENALTY_MEAN", "matrices", "penalty_mean entries, not matrices"),
    ("scores-imp", "IMP_LR", "0.3", "lr 0.0001, not 0.3"),
    ("scores-imp", "IMP_SHARE", "0.2", "share_per_round 0.1, not 0.2"),
    ("dense", "QUERY_BUDGET", "20", "query_budget None, not 20"),
    ("dense", "SIMILARITY_THRESHOLD", "0.5", "no effect with the recipe"),
    ("dense", "ATTACK_PRECISION", "bf16", "precision fp32, not bf16"),
]


@pytest.mark.parametrize(("run", "variable", "value", "difference"), OTHER_SETTINGS)
def test_a_finished_run_with_other_settings_is_not_the_planned_one(
    tmp_path, monkeypatch, run, variable, value, difference
):
    for job in plan("table1", tmp_path).values():
        finish(job)
    assert all(job.finished for job in plan("table1", tmp_path).values())
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=difference) as refusal:
        plan("table1", tmp_path)
    assert f"/{run} was made with other settings" in str(refusal.value) or "no effect" in difference


def test_runs_may_move_and_keep_more_than_the_plan_needs(tmp_path, monkeypatch):
    for job in plan("table1", tmp_path / "runs").values():
        finish(job)
        run = json.loads((job.folder / "run.json").read_text())
        if "keep_scores" in run["args"]:
            run["args"]["keep_scores"] = [1, 2]
        del run["args"]["warmup_ratio"]  # of a version that did not have it
        write_json(job.folder / "run.json", run)
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert all(job.finished for job in plan("table1", tmp_path / "moved").values())
    monkeypatch.chdir(tmp_path)
    assert all(job.finished for job in plan("table1", Path("moved")).values())


def test_the_models_of_an_intersection_are_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTACK_PRESET", "intersection")
    for name, weights in (("a", b"1"), ("b", b"2"), ("dense", b"3")):
        (tmp_path / name / "last").mkdir(parents=True)
        (tmp_path / name / "last" / "config.json").write_text("{}")
        (tmp_path / name / "last" / "model.safetensors").write_bytes(weights)
        write_json(tmp_path / name / "run.json", {"stage": "finetune", "status": "finished"})
    digests = {
        name: checkpoints.weights_digest(checkpoints.find_targets(tmp_path / name, "last", None)[0])
        for name in ("a", "b", "dense")
    }

    def differing(*compared: str) -> list[str]:
        monkeypatch.setenv("COMPARED_WITH", " ".join(str(tmp_path / name) for name in compared))
        planned = {"model_name": tmp_path / "dense", "recipe": "pwws", "num_examples": 9}
        attack = Attack(commands.make("attack", planned), tmp_path / "dense")
        rows = {"chosen": "intersection", "right_for": sorted([digests["a"], digests["dense"]])}
        return attack.differing({"attack_seed": 42, "rows": rows})

    assert differing("a") == []
    assert differing("b")[0].startswith("compared_with other models, not")
    assert differing("a", "b")


def test_the_length_and_the_resources_of_an_attack_are_compared(tmp_path, monkeypatch):
    tables = [tmp_path / "a" / "table.json", tmp_path / "b" / "table.json"]
    for text, path in zip(("{}", '{"good": ["fine"]}'), tables, strict=True):
        path.parent.mkdir()
        path.write_text(text)
    table = {"name": "table.json", "sha256": hashlib.sha256(b"{}").hexdigest()[:16]}
    settings = {"max_seq_length": 64, "resources": {"neighbours": table}}

    def differing(recipe: str = "textfooler-neighbours", **variables) -> list[str]:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, str(value))
            command = commands.make("attack", {"model_name": "run", "recipe": recipe})
        return Attack(command, tmp_path).differing(settings)

    assert differing() == differing(NEIGHBOURS=tables[0], ATTACK_MAX_SEQ_LENGTH="64") == []
    assert differing(ATTACK_MAX_SEQ_LENGTH="128") == ["max_seq_length 64, not 128"]
    other = f"neighbours table.json (another file), not {tables[1]}"
    assert differing(NEIGHBOURS=tables[1]) == [other]
    # A file that is gone is compared by its name; another recipe does not read it.
    assert differing(NEIGHBOURS="gone/table.json") == []
    assert len(differing(NEIGHBOURS="gone/others.json")) == 1
    assert differing("textfooler-minilm", NEIGHBOURS=tables[1]) == []


def test_an_attack_without_its_settings_is_not_finished(tmp_path):
    job = plan("table1", tmp_path)["dense"]
    finish(job)
    (job.attack_folders[0] / "attack.json").unlink()
    job.look()
    assert job.state == "unattacked" and job.missing_attacks == job.attack_folders[:1]


def test_what_is_left_of_an_unattacked_run_is_its_attacks(tmp_path):
    job = plan("table1", tmp_path)["dense"]
    assert job.seconds_left == pytest.approx(job.seconds + 3 * job.attack_seconds)
    finish(job, attacks=False)
    job.look()
    assert job.seconds_left == pytest.approx(3 * job.attack_seconds)
