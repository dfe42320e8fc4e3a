"""scripts/setup.sh with Pythons that only note what they do, and the lock of packages."""

import os
import re
import shutil
from pathlib import Path

import pytest
from shell_tools import ROOT, shell


@pytest.mark.parametrize("script", ["reproduce.sh", "scripts/setup.sh"])
def test_a_python_of_that_name_must_exist(script, copied_scripts):
    """Neither a set-up nor another interpreter replaces it."""
    done = shell(copied_scripts / script, {"PYTHON": "nowhere/python"})
    assert done.returncode == 2 and "PYTHON=nowhere/python" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (copied_scripts / ".venv").exists()


@pytest.fixture
def pythons(tmp_path, copied_scripts) -> Path:
    """A folder of Pythons that write what they do to `done`. Those named in `old` do not fit."""
    for file in ROOT.glob("requirements*"):
        shutil.copy(file, copied_scripts)
    folder = tmp_path / "pythons"
    folder.mkdir()
    (folder / "old").touch()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (folder / name).write_text(
            f"""#!/bin/sh
case "$1 $2" in
    "-c "*) ! grep -qx "$(basename "$0")" {folder}/old ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "{name} $3" >>{folder}/done ;;
    *) echo "$*" >>{folder}/done ;;
esac
"""
        )
        (folder / name).chmod(0o755)
    return folder


def set_up(checkout: Path, pythons: Path, *words, **settings) -> list[str]:
    env = {"PATH": f"{pythons}:{os.environ['PATH']}"} | settings
    done = shell(str(checkout / "scripts" / "setup.sh"), env, *words)
    assert done.returncode == 0 and not done.stderr
    log = pythons / "done"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_set_up_takes_the_newest_python_that_fits(copied_scripts, pythons):
    venv = copied_scripts / ".venv"
    for old, chosen in (
        ("", "python3.13"),
        ("python3.13", "python3.12"),
        ("python3.13\npython3.12", "python3.11"),
        ("python3.13\npython3.12\npython3.11", "python3"),
    ):
        (pythons / "old").write_text(old)
        created, *installed = set_up(copied_scripts, pythons)
        assert created == f"{chosen} {venv}" and installed[-1].endswith("/requirements.txt")
        assert set_up(copied_scripts, pythons) == []  # done already
        shutil.rmtree(venv)
    (pythons / "old").write_text("")
    assert set_up(copied_scripts, pythons, PYTHON="python3.12")[0] == f"python3.12 {venv}"
    shutil.rmtree(venv)
    (pythons / "old").write_text("python3.13")
    done = shell(str(copied_scripts / "scripts/setup.sh"), {"PYTHON": str(pythons / "python3.13")})
    assert done.returncode == 2 and "python3.13 is not a Python 3.11, 3.12 or 3.13" in done.stderr


def test_set_up_for_transformers_5_installs_the_training_half(copied_scripts, pythons):
    venv = copied_scripts / ".venv-transformers5"
    created, installed = set_up(copied_scripts, pythons, "--transformers5")
    assert created == f"python3.13 {venv}" and installed.endswith(f"{venv}/requirements.txt")
    lines = [
        line.partition("#")[0] for line in (venv / "requirements.txt").read_text().splitlines()
    ]
    wanted = {re.split("[=><]", line)[0]: line for line in lines if line.strip()}
    assert wanted["transformers"] == "transformers>=5,<6"
    assert {"torch", "datasets", "matplotlib", "pytest"} < wanted.keys()
    assert not {"textattack", "tensorflow", "nltk"} & wanted.keys()
    assert set_up(copied_scripts, pythons, "--transformers5") == []
    assert not (copied_scripts / ".venv").exists()
    done = shell(str(copied_scripts / "scripts/setup.sh"), {}, "--transformers6")
    assert done.returncode == 2 and "unknown argument '--transformers6'" in done.stderr


def test_each_locked_package_has_a_file_for_each_python():
    """One hash for a package that all Pythons share, or more; one file may serve two Pythons."""
    text = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"\n(?=[A-Za-z])", text.partition("\nabsl-py")[2])
    counts = {package.count("--hash=sha256:") for package in packages}
    assert len(packages) > 140 and counts <= {1, 2, 3, 4}
