"""run_tests.sh: which checks it runs, and its status when one fails."""

from pathlib import Path

import pytest
from shell_tools import shell


def python_that_fails_at(root: Path, words: str, status: int = 3) -> None:
    """The .venv of a checkout that is set up; its python prints its arguments."""
    (root / "scripts" / "setup.sh").write_text("exit 0\n")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$*"\ncase "$*" in *"{words}"*) exit {status};; esac\n')
    python.chmod(0o755)


@pytest.mark.parametrize("status", [0, 3])
def test_all_tests_run_next_to_those_of_a_cluster(status, copied_scripts):
    python_that_fails_at(copied_scripts, "-rs tests/cluster", status)
    done = shell(str(copied_scripts / "run_tests.sh"))
    assert done.returncode == status
    lines = done.stdout.splitlines()
    assert lines[-3] == "-m pytest -q --ignore tests/cluster"
    assert lines[-2:] == ["-m pytest -q -rs tests/cluster", "-m mypy"]


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
