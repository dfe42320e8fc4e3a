"""Slurm's commands as scripts that note their calls and answer from files; a plan to submit."""

import os
import stat
from pathlib import Path

import pytest
from conftest import call, sentences, write_tsv

import reproduce
from experiments import planner

SCRIPTS = {
    # Fails at the call whose number is in the file `fails_at`, with the text in `message`.
    "sbatch": """\
n=$(($(cat count) + 1))
echo $n >count
printf '%s\\n' "$@" >call$n
[ "$n" != "$(cat fails_at)" ] || { cat message >&2; exit 1; }
echo "$n;cluster"
""",
    "squeue": "cat queue\n",
    "scancel": 'echo "$@" >>cancelled\n',
    "sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1\n",
    "sacctmgr": "cat limit\n",
    "sinfo": "cat nodes\n",
}


class FakeSlurm:
    """The commands in a folder, which goes to the front of PATH."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder = folder
        folder.mkdir()
        for name, text in SCRIPTS.items():
            script = folder / name
            script.write_text(f"#!/bin/sh\ncd '{folder}' || exit 1\n{text}")
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
        for name in ("queue", "fails_at", "message", "cancelled", "limit"):
            (folder / name).touch()
        (folder / "count").write_text("0")
        (folder / "nodes").write_text("localhost main*\n")
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def queue(self, *jobs: str) -> None:
        """`jobs`: such as "3 PENDING" or "4_1 RUNNING"."""
        lines = [f"{number}|{state}|None|N/A|" for number, state in map(str.split, jobs)]
        self.write("queue", "".join(line + "\n" for line in lines))

    def fail_at(self, call: int, message: str) -> None:
        self.write("fails_at", str(call))
        self.write("message", message)

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each call of sbatch."""
        count = int((self.folder / "count").read_text())
        return [(self.folder / f"call{i + 1}").read_text().splitlines() for i in range(count)]

    @property
    def cancelled(self) -> list[str]:
        return (self.folder / "cancelled").read_text().split()


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin", monkeypatch)


# Of the keys of 9 units: the random scores and ticket, its 2 attacks; dense, search, ticket, its 2.
FIRST = "tiny/sst2/seed42/"


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """A folder whose name has spaces, quotes and a percent sign, with data and an encoder."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = tmp_path / 'it\'s "my" 100% folder'
    for name in ("train", "dev"):
        write_tsv(folder / "data" / "sst2" / f"{name}.tsv", sentences(20, 1))
    (folder / "tiny").mkdir()
    return folder


def plan_words(
    ground: Path, *more: object, rows: tuple = ("RobustT", "Rand (global)")
) -> list[str]:
    flags = ["table1", "--scale", "mini", "--tasks", "sst2", "--rows", *rows, "--no-controls"]
    flags += ["--data", ground / "data", "--encoder", ground / "tiny", "--runs", ground / "runs"]
    flags += ["--recipes", "deepwordbug", "pwws", "--output_dir", ground / "out"]
    return [str(word) for word in [*flags, "--cluster", "slurm", *more]]


def run_plan(capsys, ground: Path, *more: object, **options) -> str:
    """What the command prints."""
    capsys.readouterr()
    call("reproduce", *plan_words(ground, *more, **options))
    return capsys.readouterr().out


def scripts_of(ground: Path) -> dict[str, str]:
    folder = ground / "runs" / "slurm"
    return {path.name: path.read_text() for path in folder.glob("*.sh")}


def jobs_of(ground: Path, **options) -> list:
    return planner.make_plan(reproduce.parse_args(plan_words(ground, **options)))
