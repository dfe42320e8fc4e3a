"""Windows line endings: in variables, in flags and in the shell scripts themselves."""

import shutil
import subprocess

import pytest
from shell_tools import ROOT, STAGES, shell


@pytest.mark.parametrize(
    ("script", "names"),
    [
        *((script, ["TASKS", "SEEDS", "MODEL", "PYTHON", "ATTACK", "LAMBDA"]) for script in STAGES),
        ("reproduce.sh", ["PYTHON"]),
        ("quickstart.sh", ["PRESET"]),
        ("scripts/setup.sh", ["PYTHON"]),
        ("scripts/second_half.sh", ["DATA", "RUNS", "NEIGHBOURS", "DRY_RUN", "PYTHON", "SEEDS"]),
    ],
)
def test_carriage_returns_in_variables_are_named(script, names, echo_python, copied_scripts):
    usual = {"PYTHON": echo_python, "TASKS": "sst2", "NEIGHBOURS": "n.json"}
    before = sorted(copied_scripts.rglob("*"))
    for name in names:
        done = shell(str(copied_scripts / script), usual | {name: usual.get(name, "") + "\r"}, "1")
        assert done.returncode == 2 and not done.stdout
        line = f"error: {name} contains a carriage return (Windows line endings?); remove it\n"
        assert done.stderr == line
    assert sorted(copied_scripts.rglob("*")) == before


@pytest.mark.parametrize("script", STAGES)
def test_carriage_returns_in_flags_are_refused(script, echo_python):
    done = shell(
        script, {"PYTHON": echo_python, "KINDS": "" if "1" in script else "robust"}, "-q\r"
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "error: a flag contains a carriage return; remove it\n"


def every_script() -> list[str]:
    paths = [*ROOT.glob("*.sh"), *ROOT.glob("benchmarks/*.sh"), *ROOT.glob("scripts/*.sh")]
    sourced = {"common.sh", "variables.sh", "line_endings.sh"}
    return sorted(str(path.relative_to(ROOT)) for path in paths if path.name not in sourced)


@pytest.mark.parametrize("script", every_script())
@pytest.mark.parametrize("converted", ["all", "the script"])
def test_windows_line_endings_are_named(script, converted, copied_scripts):
    shutil.copytree(ROOT / "benchmarks", copied_scripts / "benchmarks")
    path = copied_scripts / script
    for file in [path] if converted == "the script" else copied_scripts.rglob("*.sh"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    done = shell(str(path))
    assert done.returncode == 2 and not done.stdout
    remedy = f"error: Windows line endings; remove them: sed -i 's/\\r//' {path}"
    assert done.stderr.startswith(remedy) and done.stderr.count("\n") == 1
    subprocess.run(["sh", "-c", done.stderr.partition("them: ")[2]], check=True)
    assert b"\r" not in path.read_bytes()
