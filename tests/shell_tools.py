"""Shell scripts in a bare environment, with a `python` that prints its arguments."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ["stage1-finetune.sh", "stage2-search-ticket.sh", "stage3-draw-retrain_ticket.sh"]


def stages_of_variables() -> dict[str, set[str]]:
    """The table of scripts/variables.sh: variable -> stages, such as {"1a", "3"}."""
    lines = (ROOT / "scripts" / "variables.sh").read_text().split("'")[1].strip().splitlines()
    return {line.split()[0]: set(line[17:26].split()) for line in lines}


def shell(script: str, env: dict | None = None, *arguments) -> subprocess.CompletedProcess:
    """Run a shell script in an environment that holds only `env` and PATH."""
    return subprocess.run(
        ["sh", str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **(env or {})},
    )


@pytest.fixture
def copied_scripts(tmp_path) -> Path:
    """A checkout that holds only the shell scripts, without .venv."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for script in ROOT.glob("*.sh"):
        shutil.copy(script, root)
    return root


@pytest.fixture
def echo_python(tmp_path) -> str:
    """A `python` that prints its arguments in <>, one command per line."""
    path = tmp_path / "a python"
    path.write_text('#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done\necho\n')
    path.chmod(0o755)
    return str(path)
