"""Slurm's commands as shell scripts that note their calls and answer from files."""

import os
import stat
from pathlib import Path

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
