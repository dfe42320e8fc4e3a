"""The three stages by their scripts and the paper's defaults, with models and data from a hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub.clients import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_papers_pipeline_from_the_hub_and_then_from_the_cache(hub, tmp_path):
    """MODEL is bert-base-uncased and DATA is unset. Stage 3 runs without a network."""
    usual = environment(hub, tmp_path / "cache") | {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHON": sys.executable,
        "RUNS": str(tmp_path / "runs"),
        "TASKS": "sst2",
        "OMP_NUM_THREADS": "1",
    }
    for script, settings in (
        ("stage1-finetune.sh", {"EPOCHS": "1"}),
        ("stage2-search-ticket.sh", {"SEARCH_EPOCHS": "1"}),
        ("stage3-draw-retrain_ticket.sh", {"EPOCHS": "1", "ATTACK": "no", "HF_HUB_OFFLINE": "1"}),
    ):
        asked = len(hub.requests)
        done = subprocess.run(
            ["sh", str(ROOT / script), "--quiet"],
            env=usual | settings,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert len(hub.requests) == asked
    runs = tmp_path / "runs" / "bert-base-uncased" / "sst2" / "seed42"
    made = {path.name: json.loads((path / "run.json").read_text()) for path in runs.iterdir()}
    assert {*made} == {"dense", "search-robust", "ticket-robust-0.3"}
    for run in made.values():
        assert run["status"] == "finished"
        assert run["data"]["splits"]["train"]["source"] == "hub:nyu-mll/glue/train"
    assert made["ticket-robust-0.3"]["encoder"]["name"] == "bert-base-uncased"
