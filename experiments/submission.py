"""Submit a plan to Slurm, complete a submission, show its state, cancel it.

submitted.json in the folder `slurm` of the runs holds the job of each unit, and the plans that wait
for it. It is written after every call of sbatch, so that the same command completes a submission
that failed half-way.
"""

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments import slurm
from experiments.batch_scripts import BatchScripts
from experiments.jobs import Job
from experiments.lanes import Lanes
from experiments.slurm import QueuedJob
from experiments.units import Array, Unit, arrays_of, units_of
from utils.cli import UserError
from utils.files import lock_folder, read_json, write_json

AFTER_ALL = "After all other jobs, however they end."


@dataclass
class Submission:
    """A plan and its jobs. `report`: the key of the report's job. `report_line`: its command."""

    scripts: BatchScripts
    planned: list[Job]
    report: str
    report_line: list[str]
    units: list[Unit] = field(init=False)
    jobs: dict[str, dict] = field(init=False, default_factory=dict)  # of all plans, by key
    states: dict[str, QueuedJob] = field(init=False, default_factory=dict)  # by key

    def __post_init__(self) -> None:
        self.units = units_of(self.planned, self.scripts.runs)

    @property
    def file(self) -> Path:
        return self.scripts.folder / "submitted.json"

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """As `look`, while no other process changes what was submitted."""
        with lock_folder(self.scripts.folder, "submit.lock"):
            self.look()
            yield

    def look(self) -> None:
        """Read what was submitted, and what has become of it."""
        self.jobs = read_json(self.file).get("jobs", {}) if self.file.is_file() else {}
        queued = slurm.queue() if self.jobs else {}
        if queued is None:
            queued = {job["id"]: QueuedJob("PENDING") for job in self.jobs.values()}
        for job in self.planned:  # after Slurm's answer: what has left the queue may be finished
            job.look()
        self.units = units_of(self.planned, self.scripts.runs)
        known = [*(unit.key for unit in self.units), self.report]
        ids = {key: self.jobs[key]["id"] for key in known if key in self.jobs}
        gone = slurm.ended([number for number in ids.values() if number not in queued])
        # An ended job that is unknown everywhere is judged by its folder.
        unknown = QueuedJob("COMPLETED")
        self.states = {key: queued.get(n) or gone.get(n, unknown) for key, n in ids.items()}

    def save(self) -> None:
        write_json(self.file, {"jobs": self.jobs})

    def is_active(self, key: str) -> bool:
        return key in self.states and self.states[key].is_active

    def log_of(self, key: str) -> Path:
        return self.scripts.folder / self.jobs[key]["log"]

    @property
    def failed(self) -> list[Unit]:
        """Units whose job has ended without their results."""
        return [
            unit
            for unit in self.units
            if unit.key in self.states and not unit.finished and not self.is_active(unit.key)
        ]

    def why(self, unit: Unit) -> str:
        """Why a unit failed: the last line of its log."""
        number, state = self.jobs[unit.key]["id"], self.states[unit.key]
        about = f"job {number}" + (f", {state.state}" if state.state != "COMPLETED" else "")
        log = self.log_of(unit.key)
        lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
        written = [line.strip() for line in lines if line.strip()]
        if written:
            return f"{about}: {written[-1]} ({log})"
        failed = [need for need in unit.needs if need in {u.key for u in self.failed}]
        if failed:
            return f"{about}: not run, because it needs {failed[0]}"
        return f"{about}: it left no log; it was cancelled, or its node does not see {log.parent}"


def write_scripts(plan: Submission) -> list[Path]:
    """The scripts of all that is not finished, for --dry_run."""
    unfinished = [unit for unit in plan.units if not unit.finished]
    arrays = arrays_of(unfinished, {unit.key for unit in unfinished})
    for array in arrays:
        plan.scripts.write(array)
    plan.scripts.write_one(plan.report, plan.report_line, AFTER_ALL, 0)
    return plan.scripts.written


def submit(plan: Submission) -> int:
    """Submit what is neither finished nor queued, then the report; the number of units.

    Raises UserError if Slurm refuses a job. What was submitted before stays, except where the
    plan is larger than Slurm lets you submit.
    """
    plan.scripts.logs.mkdir(parents=True, exist_ok=True)  # Slurm does not make it
    for unit in plan.failed:
        print(f"failed     {unit.key}: {plan.why(unit)}")
    waiting = _queued(plan)
    missing = [u for u in plan.units if not u.finished and u.key not in waiting]
    report_is_there = plan.is_active(plan.report)
    limit = slurm.most_jobs() if missing else None
    if limit is not None and len(waiting) + len(missing) + 1 > limit:
        raise UserError(
            f"the plan has {len(waiting) + len(missing) + 1} jobs, but Slurm lets you submit "
            f"{limit}: choose fewer --tasks, --seeds or --rows"
        )
    for key in waiting:  # also a plan that finds a job in the queue waits for it
        if plan.report not in plan.jobs[key]["plans"]:
            plan.jobs[key]["plans"].append(plan.report)
    lanes = Lanes(plan.scripts.args.max_jobs)
    for unit in plan.units:
        if unit.key in waiting:
            job = plan.jobs[unit.key]
            lanes.hold(unit.key, unit.seconds, job["id"], job.get("lanes", []))
    submitted: list[str] = []
    try:
        for array in arrays_of(missing, waiting | {unit.key for unit in missing}):
            submitted += _submit_array(plan, array, lanes)
        if missing or not report_is_there:
            if report_is_there:  # it would not wait for the new jobs
                slurm.cancel([plan.jobs[plan.report]["id"]])
            _submit_report(plan, waiting | set(submitted))
    except slurm.Refused as e:
        if submitted and slurm.LIMIT_REACHED.search(str(e)):
            _take_back(plan, submitted)
            raise UserError(
                f"Slurm does not let you submit the {len(missing) + 1} jobs of the plan ({e}), so "
                "none is submitted: choose fewer --tasks, --seeds or --rows"
            ) from e
        rest = f"; {len(submitted)} of {len(missing)} jobs are submitted, and the same command "
        raise UserError(str(e) + (rest + "submits the others" if submitted else "")) from e
    finally:
        plan.save()
    return len(missing)


def _queued(plan: Submission) -> set[str]:
    """Keys of the units whose jobs wait or run; cancels jobs that wait for one that failed."""
    waiting: set[str] = set()
    done = {unit.key for unit in plan.units if unit.finished}
    in_vain = []
    for unit in plan.units:
        if unit.finished or not plan.is_active(unit.key):
            continue
        is_waiting = plan.states[unit.key].state == "PENDING"
        if is_waiting and not waiting | done >= set(unit.needs):
            in_vain.append(plan.jobs[unit.key]["id"])
            continue
        if plan.jobs[unit.key]["command"] != shlex.join(unit.command.line):
            raise UserError(
                f"{unit.key} is in the queue with other settings: cancel it with --cancel and the "
                "flags and variables of its submission, or choose another --runs"
            )
        waiting.add(unit.key)
    slurm.cancel(in_vain)
    return waiting


def _submit_array(plan: Submission, array: Array, lanes: Lanes) -> list[str]:
    """Submit the units of an array; their keys."""
    chosen = lanes.choose(array)
    keys, is_one = [unit.key for unit in array.units], len(array.units) == 1
    script = plan.scripts.write(array)
    log = plan.scripts.logs / (script.stem + (".log" if is_one else "-%a.log"))
    needs = [plan.jobs[need]["id"] for need in array.needs]
    number = slurm.submit(script, log, needs, lanes.waits_for(chosen))
    lanes.put(array, number, chosen)
    for i, unit in enumerate(array.units):
        plan.jobs[unit.key] = {
            "id": number if is_one else f"{number}_{i}",
            "log": f"logs/{log.name.replace('%a', str(i))}",
            "command": shlex.join(unit.command.line),
            "lanes": chosen,
            "plans": [plan.report],
        }
    plan.save()
    more = "" if is_one else f" and {len(keys) - 1} more of its kind"
    print(f"submitted  {keys[0]}{more}: job {number}")
    return keys


def _submit_report(plan: Submission, after: set[str]) -> None:
    script = plan.scripts.write_one(plan.report, plan.report_line, AFTER_ALL, 0)
    log = plan.scripts.logs / f"{script.stem}.log"
    ids = dict.fromkeys(plan.jobs[key]["id"].split("_")[0] for key in sorted(after))
    number = slurm.submit(script, log, [], list(ids))
    job = {"id": number, "log": f"logs/{log.name}", "plans": [plan.report]}
    plan.jobs[plan.report] = job | {"command": shlex.join(plan.report_line)}
    print(f"submitted  the report, after all of them: job {number}")


def _take_back(plan: Submission, keys: list[str]) -> None:
    with contextlib.suppress(slurm.Refused):  # if it fails, they stay submitted
        slurm.cancel([plan.jobs[key]["id"] for key in keys])
        for key in keys:
            del plan.jobs[key]
