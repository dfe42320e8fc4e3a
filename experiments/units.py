"""The parts of a plan that a batch system runs as jobs of their own, and the arrays they form."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from experiments import estimates
from experiments.commands import Command
from experiments.jobs import Job
from utils.runs import read_run

SHORT_SECONDS = 3600  # expected time up to which jobs of one kind form an array
LARGEST_ARRAY = 1000  # Slurm's usual MaxArraySize, 1001, is above the largest index


@dataclass
class Unit:
    """One job of a batch system: scores that take seconds, a training, or one attack.

    `key`: its folder, relative to that of the runs. `needs`: keys of the units that must end well
    before. `locks`: files that the command locks. `finished`: whether its results are there.
    """

    key: str
    command: Command
    kind: str
    needs: tuple[str, ...]
    seconds: float
    locks: tuple[Path, ...]
    finished: bool

    @property
    def is_training(self) -> bool:
        """Whether several processes can share the work, one on each GPU."""
        return self.command.script not in ("make_scores", "attack", "export")


@dataclass
class Array:
    """Units of one kind that wait for the same ones: one job, or one array of jobs."""

    kind: str
    needs: tuple[str, ...]
    units: list[Unit] = field(default_factory=list)


def units_of(jobs: list[Job], runs: Path) -> list[Unit]:
    """The units of a plan, each after those that it needs.

    What needs a run needs its trained model, not its attacks. Scores that several tickets share
    are one unit, because two processes cannot write them at the same time.
    """
    by_name = {job.name: job for job in jobs}
    units: dict[str, Unit] = {}

    def key_of(folder: Path) -> str:
        return folder.relative_to(runs).as_posix()

    for job in jobs:
        # A plan of the study holds only what its records lack.
        needs = tuple(key_of(by_name[name].folder) for name in job.needs if name in by_name)
        if job.prepare is not None:
            folder = Path(job.prepare.args.output_dir)
            is_there = job.trained or (read_run(folder) or {}).get("status") == "finished"
            facts = (needs, estimates.START_SECONDS, (folder / "run.lock",), is_there)
            units.setdefault(key_of(folder), Unit(key_of(folder), job.prepare, "scores", *facts))
            needs = (*needs, key_of(folder))
        key, lock = key_of(job.folder), (job.folder / "run.lock",)
        kind = job.training.script
        units[key] = Unit(key, job.training, kind, needs, job.seconds, lock, job.trained)
        for attack in job.attacks:
            folders = attack.folders
            units[key_of(folders[0])] = Unit(
                key_of(folders[0]),
                attack.command,
                "attack",
                (key,),
                len(attack.missing or folders) * job.attack_seconds,
                tuple(folder / "attack.lock" for folder in folders),
                job.trained and not attack.missing,
            )
    return list(units.values())


def arrays_of(units: Iterable[Unit], unfinished: set[str]) -> list[Array]:
    """The units in arrays, each after those that it needs.

    Short units of one kind form an array if they wait for the same ones. `unfinished`: keys of the
    units to wait for.
    """
    arrays: list[Array] = []
    open_arrays: dict[tuple, Array] = {}
    for unit in units:
        needs = tuple(need for need in unit.needs if need in unfinished)
        what = (unit.kind, needs)
        array = open_arrays.get(what)
        is_short = unit.seconds <= SHORT_SECONDS
        if not is_short or array is None or len(array.units) == LARGEST_ARRAY:
            array = Array(*what)
            arrays.append(array)
            if is_short:
                open_arrays[what] = array
        array.units.append(unit)
    return arrays


def cost_of(units: Iterable[Unit], size: str) -> tuple[int, float, float]:
    """Of the units that are not finished: jobs with that of the report, expected hours, and
    gigabytes on the disk."""
    left = [unit for unit in units if not unit.finished]
    hours = sum(unit.seconds for unit in left) / 3600
    disk = sum(estimates.disk_bytes(u.command.script, u.command.args, size) for u in left)
    return len(left) + 1, hours, disk / 1e9
