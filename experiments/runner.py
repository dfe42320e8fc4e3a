"""Run jobs, one at a time on each device, in an order that their needs allow."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

from experiments.commands import Command
from experiments.jobs import Job, duration
from utils.cli import UserError


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
    workers = Workers(devices(gpus, jobs_on_cpu))
    failed: list[Job] = []
    untrained = {job.name for job in waiting if not job.trained}
    running: dict[Future, Job] = {}
    with ThreadPoolExecutor(workers.count) as pool:
        try:
            while waiting or running:
                ready = [job for job in waiting if not untrained & set(job.needs)]
                for job in ready[: workers.count - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(workers.run, job)] = job
                if not running:
                    break  # every waiting job needs one that failed
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    if not future.result():
                        failed.append(job)
                    if job.trained:  # the jobs that need it do not need its attacks
                        untrained.discard(job.name)
                    after_each(jobs)
        except BaseException:  # Ctrl-C or SIGTERM: the scripts save and exit by themselves
            workers.stop()
            raise
    return failed + waiting


class Workers:
    """The devices and the processes that run on them."""

    def __init__(self, environments: list[dict[str, str]]):
        self.count = len(environments)
        self._free: SimpleQueue = SimpleQueue()
        for environment in environments:
            self._free.put(environment)
        self._stopped = threading.Event()
        self._processes: set[subprocess.Popen] = set()

    def stop(self) -> None:
        """Send SIGTERM to every process and start no more."""
        self._stopped.set()
        for process in list(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    def run(self, job: Job) -> bool:
        """Run what is left of a job on one free device; whether it is finished afterwards."""
        if self._stopped.is_set():
            return False
        device, start = self._free.get(), time.monotonic()
        log = job.folder.parent / "logs" / f"{job.folder.name}.log" if self.count > 1 else None
        print(f"running {job.name}" + (f" (output in {log})" if log else ""), flush=True)
        try:
            status = self._run_all(job.commands_left, device, log)
        finally:
            self._free.put(device)
        if self._stopped.is_set():
            return False
        job.look()
        took = duration(time.monotonic() - start)
        if status or not job.finished:
            where = f"; see {log}" if log else ""
            print(f"failed  {job.name} (status {status}){where}", file=sys.stderr, flush=True)
            return False
        print(f"done    {job.name} in {took}", flush=True)
        return True

    def _run_all(self, commands: list[Command], device: dict[str, str], log: Path | None) -> int:
        """Status of the first command that failed, or 0. A failed attack does not stop the other
        attacks; a failed training or a signal ends the job."""
        first_failure = 0
        for command in commands:
            if self._stopped.is_set():
                break
            status = self._run(command, device, log)
            first_failure = first_failure or status
            if status and (command.script != "attack" or status < 0 or status >= 128):
                break
        return first_failure

    def _run(self, command: Command, device: dict[str, str], log: Path | None) -> int:
        # Threads that wait without spinning: little slower alone, twice as fast next to a job.
        environment = {"OMP_WAIT_POLICY": "passive"} | os.environ | device
        with contextlib.ExitStack() as stack:
            output = None
            if log:
                log.parent.mkdir(parents=True, exist_ok=True)
                output = stack.enter_context(open(log, "a", encoding="utf-8"))
            process = subprocess.Popen(
                command.line,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a process group, which gets the signals
            )
            self._processes.add(process)
            try:
                return process.wait()
            finally:
                self._processes.discard(process)
