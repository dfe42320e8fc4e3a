"""The study's table of searches, from invented runs."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import fails
from record_tools import SEARCH, TASK, rows_of, study, study_flags

from reporting import style
from training import deviations
from utils import files

pytestmark = pytest.mark.usefixtures("undrawn")


def search_run(folder: Path, seed: int, dev: tuple[float, ...], task: str = TASK, **other) -> None:
    """A finished search: dev accuracies of its tickets by epoch; R(m) falls by .1 an epoch."""
    encoder = other.pop("encoder", "builtin/minilm")
    data = {"splits": {"train": {"fingerprint": other.pop("data", "a")}}}
    args = SEARCH | {
        "epochs": len(dev),
        "adv_steps": 3,
        "lambda_amp": 0.5,
        "seed": seed,
        "output_dir": str(folder),
    }
    run = {
        "stage": "search",
        "status": "finished",
        "task": task,
        "encoder": {"name": encoder},
        "data": data,
        "args": args | other,
    }
    files.write_json(folder / "run.json", run)
    for epoch, accuracy in enumerate(dev, 1):
        files.append_jsonl(folder / "log.jsonl", {"optimizer_step": epoch, "penalty": 0.9})
        found = {"dev_accuracy_ticket_percent": accuracy, "penalty_of_all_gates": 1 - epoch / 10}
        files.append_jsonl(folder / "log.jsonl", {"finished_epochs": epoch, "dev": found})


def searches_of(tmp_path: Path) -> dict[tuple[str, str], list[str]]:
    """The table of the study's searches: cells by row and quantity."""
    study(tmp_path, "--tasks", TASK)
    lines = (tmp_path / "out" / "study-searches.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return {(row[0], row[1]): row[2:] for row in rows[2:]}


@pytest.mark.slow
@pytest.mark.draws
def test_the_studys_searches_are_kept_epoch_by_epoch(tmp_path):
    search_run(tmp_path / "runs" / "a", 1, (60, 70))
    search_run(tmp_path / "runs" / "b", 2, (64, 72))
    search_run(tmp_path / "runs" / "c", 1, (50, 51), penalty_mean="matrices")
    found = searches_of(tmp_path)
    assert found["RobustT", "R(m) %"] == ["90.0 ± 0.0 (n=2)", "80.0 ± 0.0 (n=2)"]
    assert found["RobustT", "dev accuracy %"] == ["62.0 ± 2.8 (n=2)", "71.0 ± 1.4 (n=2)"]
    assert found["D9, mean in R(m)", "dev accuracy %"] == ["50.0 (n=1)", "51.0 (n=1)"]
    out = tmp_path / "out"
    shown = rows_of(out / "study-searches.csv", quantity="dev accuracy", curve="RobustT")
    assert [row["values_by_seed"] for row in shown] == ["1:0.6;2:0.64", "1:0.7;2:0.72"]
    assert all((out / f"study-searches.{kind}").stat().st_size > 500 for kind in ("png", "pdf"))
    # The runs may be gone: what was kept is shown again, and a further search beside it.
    shutil.rmtree(tmp_path / "runs")
    search_run(tmp_path / "runs" / "d", 3, (68, 74))
    found = searches_of(tmp_path)
    assert found["RobustT", "dev accuracy %"] == ["64.0 ± 4.0 (n=3)", "72.0 ± 2.0 (n=3)"]


@pytest.mark.parametrize(
    "other",
    [
        {"lr": 7},
        {"lambda_amp": 1.0},
        {"mask_p": 0.99},
        {"data": "b"},
        {"max_seq_length": 9},
        {"encoder": "bert-base-uncased"},
        {"task": "imdb"},
    ],
)
def test_searches_of_another_kind_are_in_no_row_of_the_study(tmp_path, other):
    """Though they have more epochs, and the same seeds."""
    for seed in (1, 2):
        search_run(tmp_path / "runs" / f"a{seed}", seed, (60, 70))
    before = searches_of(tmp_path)
    search_run(tmp_path / "runs" / "z", 1, (11, 11, 11, 11, 11), **other)
    assert searches_of(tmp_path) == before


def test_all_rows_of_the_studys_searches_look_different(tmp_path):
    switches = {
        "w/o Adv": {"adv_steps": 0},
        "RobustT": {},
        "released search": deviations.SEARCH["released"] | {"protocol": "released"},
        "D1, lambda's clock": {"lambda_clock": "tensors"},
        "D2, what is clipped": {"clip_over": "accumulated"},
        "D9, mean in R(m)": {"penalty_mean": "matrices"},
        "D10, the last pass alone": {"adv_gradient": "last"},
        "D14, AdamW": {"adamw": "released"},
        "D17, length of the schedule": {"schedule_length": "examples"},
    }
    for i, own in enumerate(switches.values()):
        search_run(tmp_path / "runs" / str(i), 1, (60 + i, 70), **own)
    found = searches_of(tmp_path)
    dev = {label: found[label, "dev accuracy %"][0] for label in switches}
    assert dev == {label: f"{60 + i}.0 (n=1)" for i, label in enumerate(switches)}
    looks = [tuple(look.values()) for look in style.looks(switches).values()]
    assert len(set(looks)) == len(switches)


@pytest.mark.parametrize(
    "damage",
    [
        {"search": None},
        {"seed": "1"},
        {"epochs": []},
        {"epochs": [{"epoch": 1}]},
        {"task": None},
        {"search": {"epochs": [6], "adv_steps": 3}},
        {"search": {"epochs": 6}},
        {"data": 1},
        {"epochs": [{"epoch": 1, "open_gates_percent": "9", "dev_accuracy_ticket_percent": 1}]},
    ],
)
def test_a_damaged_search_of_the_study_is_one_line(tmp_path, capsys, damage):
    search_run(tmp_path / "runs" / "a", 1, (60, 70))
    searches_of(tmp_path)
    path = tmp_path / "out" / "study-searches.jsonl"
    kept = json.loads(path.read_text())
    path.write_text("".join(json.dumps(line) + "\n" for line in (kept | damage, kept)))
    said = fails(capsys, "report", *study_flags(tmp_path))
    assert "study-searches.jsonl, line 1 is damaged" in said
