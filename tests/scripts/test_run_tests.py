"""run_tests.sh: which checks it runs, and its status when one fails."""

from pathlib import Path

import pytest
from doc_tools import ROOT
from shell_tools import shell


def python_that_fails_at(root: Path, words: str, status: int = 3) -> None:
    """The .venv of a checkout that is set up; its python prints its arguments."""
    (root / "scripts" / "setup.sh").write_text("exit 0\n")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$*"\ncase "$*" in *"{words}"*) exit {status};; esac\n')
    python.chmod(0o755)


HALF = "tests/scripts tests/benchmarks tests/hub tests/utils"
REST = " ".join(f"--ignore {folder}" for folder in HALF.split())


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("failing", ["-rs tests/cluster", f"-rs {HALF}", "--ignore"])
def test_all_tests_run_in_three_processes(failing, status, copied_scripts):
    python_that_fails_at(copied_scripts, failing, status)
    done = shell(str(copied_scripts / "run_tests.sh"))
    assert done.returncode == status
    assert done.stdout.splitlines()[-4:] == [
        f"-m pytest -q --ignore tests/cluster {REST}",
        "-m pytest -q -rs tests/cluster",
        f"-m pytest -q -rs {HALF}",
        "-m mypy",
    ]
    assert all((ROOT / folder).is_dir() for folder in HALF.split())


def test_the_fast_tests_run_in_two_processes(copied_scripts):
    python_that_fails_at(copied_scripts, "nothing")
    done = shell(str(copied_scripts / "run_tests.sh"), None, "--fast")
    more = ["tests/docs", "tests/experiments"]
    ignored = " ".join(f"--ignore {folder}" for folder in more)
    assert done.stdout.splitlines()[-3:] == [
        f"-m pytest -q -m not slow {REST} {ignored}",
        f"-m pytest -q -rs -m not slow {HALF} {' '.join(more)}",
        "-m mypy",
    ]


@pytest.mark.parametrize(
    "failing", ["ruff check", "ruff format", "codespell_lib", "mypy", "pytest", "nothing"]
)
def test_each_check_of_the_tests_fails_the_command_and_is_shown(failing, copied_scripts):
    python_that_fails_at(copied_scripts, failing)
    done = shell(str(copied_scripts / "run_tests.sh"), None, "--fast", "-x")
    assert done.returncode == (0 if failing == "nothing" else 3)
    if failing in ("mypy", "pytest", "nothing"):
        assert "-m pytest -q -m not slow -x\n-m mypy\n" in done.stdout
    else:
        assert failing in done.stdout.splitlines()[-1]
