"""The study's log of searches: lines of this version and of earlier ones."""

import json
from pathlib import Path

import pytest

from reporting import search_epochs
from utils.cli import UserError

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"epochs": 1, "adv_steps": 3, "lr": 0.1, "lambda_clock": "steps"}


def line(**settings) -> dict:
    return {
        "encoder": "tiny",
        "task": "sst2",
        "seed": 1,
        "search": SETTINGS | settings,
        "data": {"train": "a", "max_seq_length": 64},
        "epochs": [
            {"epoch": 1, "open_gates_percent": 95.0, "dev_accuracy_ticket_percent": 60.0},
        ],
    }


@pytest.mark.parametrize(("deviations", "length"), [("paper", "steps"), ("released", "examples")])
def test_settings_of_an_earlier_version_get_todays_names(deviations, length):
    """It had no switch for the length of the schedule: the deviations set it."""
    earlier = search_epochs.Search.read(line(protocol=deviations), "here")
    today = search_epochs.Search.read(line(deviations=deviations, schedule_length=length), "here")
    assert earlier == today and earlier.identity == today.identity
    assert earlier.search["schedule_length"] == length and "protocol" not in earlier.search


def test_a_schedule_of_its_own_stays():
    search = search_epochs.Search.read(line(deviations="paper", schedule_length="examples"), "here")
    assert search.search["schedule_length"] == "examples"


def test_the_studys_log_can_be_read():
    path = ROOT / "results" / "study" / "study-searches.jsonl"
    searches = search_epochs.update(path, [], "builtin/minilm", [])
    assert {(s.task, s.seed) for s in searches} >= {("sst2", seed) for seed in (1, 2, 3)}
    assert {s.search["deviations"] for s in searches} == {"paper"}
    assert all(s.kind == "robust" and len(s.epochs) == 6 for s in searches)


def test_what_is_missing_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(line()) + "\n" + json.dumps(line() | {"epochs": [{"epoch": 1}]}))
    with pytest.raises(
        UserError, match="line 2 is damaged: epochs.0..open_gates_percent is missing"
    ):
        search_epochs.update(path, [], "tiny", ["sst2"])
