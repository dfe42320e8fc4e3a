"""Run jobs, one at a time on each device, in an order that their needs allow."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from experiments.jobs import Job, duration
from utils.cli import UserError

SECONDS_BETWEEN_LOOKS = 0.1


def visible_gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return chosen.split(",") if chosen else [str(i) for i in range(torch.cuda.device_count())]


def devices(gpus: str | None, jobs_on_cpu: int) -> list[dict[str, str]]:
    """Environment of each worker: one per GPU, or `jobs_on_cpu` that share the cores.

    `gpus`: CUDA ids; None for all visible ones, "" for none of them.
    """
    visible = visible_gpus()
    ids = visible if gpus is None else [part.strip() for part in gpus.split(",") if part.strip()]
    wrong = [part for part in ids if part not in visible]
    if wrong:
        raise UserError(f"--gpus {gpus}: CUDA sees no GPU {wrong[0]!r} here")
    if ids:
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ids]
    threads = max(1, (os.cpu_count() or 1) // jobs_on_cpu)
    shared = {"OMP_NUM_THREADS": str(threads)} if jobs_on_cpu > 1 else {}
    return [{"CUDA_VISIBLE_DEVICES": ""} | shared for _ in range(jobs_on_cpu)]


def execute(
    jobs: list[Job],
    gpus: str | None,
    jobs_on_cpu: int,
    after_each: Callable[[list[Job]], None] = lambda _: None,
) -> list[Job]:
    """Run every unfinished job; return the jobs that failed or whose needs failed.

    `after_each`: called with all jobs after each one that ran.
    """
    waiting = [job for job in jobs if not job.finished]
    if not waiting:
        return []
    free = devices(gpus, jobs_on_cpu)
    has_logs = len(free) > 1
    failed: list[Job] = []
    untrained = {job.name for job in waiting if not job.trained}
    running: list[Running] = []
    try:
        while waiting or running:
            ready = [job for job in waiting if not untrained & set(job.needs)]
            for job in ready[: len(free)]:
                waiting.remove(job)
                running.append(Running(job, free.pop(0), has_logs))
            if not running:
                break  # every waiting job needs one that failed
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for ended in [run for run in running if run.has_ended()]:
                running.remove(ended)
                free.append(ended.device)
                if not ended.succeeded():
                    failed.append(ended.job)
                if ended.job.trained:  # the jobs that need it do not need its attacks
                    untrained.discard(ended.job.name)
                after_each(jobs)
    except BaseException:  # Ctrl-C or SIGTERM: the scripts save and exit by themselves
        for run in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGTERM)
        for run in running:
            run.process.wait()
        raise
    return failed + waiting


class Running:
    """A job on one device: the commands that are left of it, one after the other.

    A failed attack does not stop the other attacks; a failed training or a signal ends the job.
    """

    def __init__(self, job: Job, device: dict[str, str], has_log: bool):
        self.job, self.device, self.begin = job, device, time.monotonic()
        self.log = job.folder.parent / "logs" / f"{job.folder.name}.log" if has_log else None
        print(f"running {job.name}" + (f" (output in {self.log})" if has_log else ""), flush=True)
        self.commands, self.status = job.commands_left, 0
        self.start_next()

    def start_next(self) -> None:
        self.command = self.commands.pop(0)
        # Threads that wait without spinning: little slower alone, twice as fast next to a job.
        environment = {"OMP_WAIT_POLICY": "passive"} | os.environ | self.device
        if self.log:
            self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") if self.log else contextlib.nullcontext() as output:
            self.process = subprocess.Popen(
                self.command.line,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a process group, which gets the signals
            )

    def has_ended(self) -> bool:
        """Whether no command is left; starts the next one if there is one and none runs."""
        status = self.process.poll()
        if status is None:
            return False
        self.status = self.status or status  # of the first command that failed
        continues = not status or (self.command.script == "attack" and 0 < status < 128)
        if continues and self.commands:
            self.start_next()
            return False
        return True

    def succeeded(self) -> bool:
        """Look at what the job left behind, and report it."""
        self.job.look()
        took = duration(time.monotonic() - self.begin)
        if self.status or not self.job.finished:
            where = f"; see {self.log}" if self.log else ""
            message = f"failed  {self.job.name} (status {self.status}){where}"
            print(message, file=sys.stderr, flush=True)
            return False
        print(f"done    {self.job.name} in {took}", flush=True)
        return True
