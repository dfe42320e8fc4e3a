"""Slurm's commands: submit a script, ask for jobs, cancel them, and what limits a submission."""

import getpass
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from utils.cli import UserError, warn

ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}
# Of sbatch, where it accepts no more jobs of a user.
LIMIT_REACHED = re.compile(r"submit limit|SubmitJob|MaxSubmit|MaxJobCount|Resource temporarily")
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay"}
EXPORTS = ("/etc/exports", "/var/lib/nfs/etab")


@dataclass(frozen=True)
class QueuedJob:
    """A job as squeue or sacct shows it. `start`: when it began or will begin, if that is known."""

    state: str
    reason: str = ""
    start: str = ""
    node: str = ""

    @property
    def is_active(self) -> bool:
        return self.state not in ENDED


class Refused(Exception):
    """A command of Slurm failed. The message is Slurm's own, in one line."""


def call(program: str, *arguments: str) -> str:
    """The output of one of Slurm's commands. Raises Refused with its message."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, errors="replace"
        )
    except OSError as e:
        raise Refused(f"{program}: {e.strerror}") from e
    if done.returncode:
        messages = [line for line in done.stderr.splitlines() if line.strip()]
        raise Refused(
            messages[-1].strip() if messages else f"{program} ends with {done.returncode}"
        )
    return done.stdout


def check_here() -> None:
    if shutil.which("sbatch") is None:
        raise UserError(
            "no sbatch on the PATH: run this on a machine that submits to Slurm, or use --dry_run, "
            "which only writes the scripts"
        )


def submit(script: Path, log: Path, needs: list[str], after: list[str]) -> str:
    """Submit a script; the id of its job.

    `needs`: ids of the jobs that must end well before. `after`: of those that must end somehow.
    `log`: %a in its name, not in its folder, stands for the number of an array's task.
    """
    folder = str(log.parent).replace("%", "%%")
    words = ["--parsable", f"--output={folder}/{log.name}"]
    conditions = {"afterok": needs, "afterany": [n for n in after if n not in needs]}
    waits = [":".join([name, *ids]) for name, ids in conditions.items() if ids]
    words += [f"--dependency={','.join(waits)}"] if waits else []
    words += ["--kill-on-invalid-dep=yes"] if needs else []
    answer = call("sbatch", *words, str(script)).strip().splitlines()
    number = answer[-1].split(";")[0] if answer else ""  # ID;CLUSTER
    if not number.isdigit():
        raise Refused(f"sbatch answers {' '.join(answer)!r}, not the id of a job")
    return number


def cancel(ids: list[str]) -> None:
    if ids:
        call("scancel", *ids)


def queue() -> dict[str, QueuedJob] | None:
    """Your jobs that wait, run, or have just ended, by id (array tasks: 12_3). None if squeue does
    not answer."""
    user, columns = getpass.getuser(), "%i|%T|%r|%S|%N"
    try:
        text = call("squeue", "-h", "-r", "-t", "all", f"--user={user}", "-o", columns)
    except Refused as e:
        warn(f"squeue does not answer ({e}): what was submitted counts as queued")
        return None
    jobs = {}
    for line in text.splitlines():
        number, *facts = line.split("|")
        jobs[number.strip()] = QueuedJob(*(fact.strip() for fact in facts[:4]))
    return jobs


def ended(ids: list[str]) -> dict[str, QueuedJob]:
    """What the accounting knows of jobs that squeue no longer shows; nothing without accounting."""
    if not ids:
        return {}
    try:
        text = call("sacct", "-n", "-P", "-X", "-j", ",".join(ids), "-o", "JobID,State,ExitCode")
    except Refused:
        return {}
    rows = [line.split("|") for line in text.splitlines() if line.count("|") >= 2]
    return {row[0]: QueuedJob(row[1].split()[0], f"exit status {row[2]}") for row in rows}


def most_jobs() -> int | None:
    """How many jobs Slurm lets you have in the queue; None if it does not say so."""
    user = f"user={getpass.getuser()}"
    try:
        text = call("sacctmgr", "-n", "-P", "show", "assoc", user, "format=MaxSubmitJobs")
    except Refused:
        return None
    numbers = [int(line) for line in text.split() if line.isdigit()]
    return min(numbers, default=None)


def check_places(places: list[Path], partition: str | None) -> None:
    """UserError if a folder is on a disk of this machine, and a node is another machine."""
    try:
        words = ["-p", partition] if partition else []
        lines = call("sinfo", "-h", "-N", "-o", "%n %P", *words).splitlines()
    except Refused:
        return  # the jobs look for themselves
    # Without a partition, the jobs go to that with a star.
    nodes = {line.split()[0] for line in lines if partition or line.rstrip().endswith("*")}
    name = socket.gethostname()
    others = sorted(nodes - {name, name.split(".")[0], socket.getfqdn(), "localhost"})
    if not others:
        return
    for place in places:
        kind = file_system(place)
        if kind in LOCAL and not _is_exported(place):
            raise UserError(
                f"{place} is on a local disk ({kind}), which the node {others[0]} does not see: "
                "put it on a file system that all nodes share"
            )


def file_system(place: Path) -> str:
    """The type of the file system that holds a path, such as ext4 or nfs4."""
    path = os.path.realpath(place)
    best = ("", "")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split()[4].replace("\\040", " ")
        is_inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if is_inside and len(mount) >= len(best[0]):
            best = (mount, after.split()[0])
    return best[1]


def _is_exported(place: Path) -> bool:
    """Whether this machine is the file server of the nodes."""
    tables = [Path(name) for name in EXPORTS if os.access(name, os.R_OK)]
    lines = [line for table in tables for line in table.read_text().splitlines()]
    folders = [line.split()[0] for line in lines if line.startswith("/")]
    return any(Path(os.path.realpath(place)).is_relative_to(folder) for folder in folders)
