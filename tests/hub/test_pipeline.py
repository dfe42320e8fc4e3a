"""The three stages by their scripts and the paper's defaults, with models and data from a hub."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import call
from hub.clients import clients_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = (
    ("stage1-finetune.sh", {"EPOCHS": "1"}),
    ("stage2-search-ticket.sh", {"SEARCH_EPOCHS": "1"}),
    ("stage3-draw-retrain_ticket.sh", {"EPOCHS": "1", "ATTACK": "no"}),
)


def commands_of(script: str, environment: dict[str, str], folder: Path) -> list[list[str]]:
    """The Python commands of a shell script; they are not run."""
    python, journal = folder / "python", folder / "commands"
    python.write_text(f"#!/bin/sh\nprintf '%s\\n' --- \"$@\" >>'{journal}'\n")
    python.chmod(0o755)
    journal.write_text("")
    environment = environment | {"PATH": os.environ["PATH"], "PYTHON": str(python)}
    subprocess.run(["sh", str(ROOT / script), "--quiet"], env=environment, check=True)
    return [text.strip().split("\n") for text in journal.read_text().split("---\n")[1:]]


@pytest.mark.slow
def test_the_papers_pipeline_from_the_hub_and_then_from_the_cache(hub, tmp_path, monkeypatch):
    """MODEL is bert-base-uncased and DATA is unset. Stage 3 runs without a network.

    The commands of the scripts run in this process, because a new one imports for seconds.
    """
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path / "own"))
    variables = {"RUNS": str(tmp_path / "runs"), "TASKS": "sst2"}
    for script, settings in SCRIPTS:
        asked, offline = len(hub.requests), "retrain" in script
        with clients_of(hub, tmp_path / "cache", offline):
            for path, *words in commands_of(script, variables | settings, tmp_path):
                call(Path(path).stem, *words)
    assert len(hub.requests) == asked > 0
    runs = tmp_path / "runs" / "bert-base-uncased" / "sst2" / "seed42"
    made = {path.name: json.loads((path / "run.json").read_text()) for path in runs.iterdir()}
    assert {*made} == {"dense", "search-robust", "ticket-robust-0.3"}
    for run in made.values():
        assert run["status"] == "finished"
        assert run["data"]["splits"]["train"]["source"] == "hub:nyu-mll/glue/train"
    assert made["ticket-robust-0.3"]["encoder"]["name"] == "bert-base-uncased"
