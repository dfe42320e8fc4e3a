"""Run jobs on the visible devices, one on each at a time, in an order that their needs allow."""

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

from experiments.jobs import Job, duration
from utils.cli import UserError

ROOT = Path(__file__).resolve().parent.parent
DEFINING = {
    "TASKS",
    "SEEDS",
    "MODEL",
    "DATA",
    "RUNS",
    "TAG",
    "SCORES_TAG",
    "EPOCHS",
    "LAMBDA",
    "KINDS",
    "METHODS",
    "SPARSITIES",
    "REINIT",
    "IMP_SPARSITY",
    "ATTACK",
    "ATTACK_EPOCHS",
    "RECIPES",
    "NUM_EXAMPLES",
    "GPUS",
    "STOP_AT_LOSS",
}


def visible_gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return chosen.split(",") if chosen else [str(i) for i in range(torch.cuda.device_count())]


def devices(gpus: str | None, jobs_on_cpu: int) -> list[dict[str, str]]:
    """Environment of each worker: one per GPU, or `jobs_on_cpu` that share the cores.

    `gpus`: CUDA ids; None for all that are visible, "" for none of them.
    """
    visible = visible_gpus()
    ids = visible if gpus is None else [part.strip() for part in gpus.split(",") if part.strip()]
    wrong = [part for part in ids if part not in visible]
    if wrong:
        raise UserError(f"--gpus {gpus}: CUDA sees no GPU {wrong[0]!r} here")
    if ids:
        return [{"GPUS": gpu} for gpu in ids]
    threads = max(1, (os.cpu_count() or 1) // jobs_on_cpu)
    shared = {"OMP_NUM_THREADS": str(threads)} if jobs_on_cpu > 1 else {}
    return [{"CUDA_VISIBLE_DEVICES": ""} | shared for _ in range(jobs_on_cpu)]


def execute(
    jobs: list[Job],
    gpus: str | None,
    jobs_on_cpu: int,
    after_each: Callable[[list[Job]], None] = lambda _: None,
) -> list[Job]:
    """Run all that is not finished; the jobs that failed, or whose needs did.

    `after_each`: called with all jobs when one has been run.
    """
    waiting = [job for job in jobs if not job.finished]
    if not waiting:
        return []
    workers = devices(gpus, jobs_on_cpu)
    free: SimpleQueue = SimpleQueue()
    for worker in workers:
        free.put(worker)
    bad: list[Job] = []
    pending = {job.name for job in waiting if not job.trained}
    running: dict[Future, Job] = {}
    stop, processes = threading.Event(), set()
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            while waiting or running:
                ready = [job for job in waiting if not pending & set(job.needs)]
                for job in ready[: len(workers) - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(_run, job, free, len(workers) > 1, stop, processes)] = job
                if not running:
                    break  # what still waits needs something that failed
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    if not future.result():
                        bad.append(job)
                    if job.trained:  # whoever needs it does not need its attacks
                        pending.discard(job.name)
                    after_each(jobs)
        except BaseException:  # Ctrl-C or SIGTERM: the stages save and leave by themselves
            stop.set()
            for process in list(processes):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            raise
    return bad + waiting


def _run(
    job: Job, free: SimpleQueue, to_a_file: bool, stop: threading.Event, processes: set
) -> bool:
    """One stage script on one free device; whether its job is finished afterwards."""
    if stop.is_set():
        return False
    worker, start = free.get(), time.monotonic()
    # What defines a job comes from the plan alone, whatever the caller's shell has set.
    outside = {k: v for k, v in os.environ.items() if k not in DEFINING}
    environment = outside | job.variables | worker
    command = ["sh", str(ROOT / job.script), *job.flags]
    log = job.folder.parent / "logs" / f"{job.folder.name}.log"
    print(f"running {job.name}" + (f" (output in {log})" if to_a_file else ""), flush=True)
    try:
        if to_a_file:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a", encoding="utf-8") as f:
                status = _wait_for(processes, command, env=environment, stdout=f, stderr=f)
        else:
            status = _wait_for(processes, command, env=environment)
    finally:
        free.put(worker)
    if stop.is_set():
        return False
    job.look()
    took = duration(time.monotonic() - start)
    if status or not job.finished:
        where = f"; see {log}" if to_a_file else ""
        print(f"failed  {job.name} (status {status}){where}", file=sys.stderr, flush=True)
        return False
    print(f"done    {job.name} in {took}", flush=True)
    return True


def _wait_for(processes: set, command: list[str], **how) -> int:
    """Run a command in a process group of its own, which the signals are sent on to."""
    process = subprocess.Popen(command, start_new_session=True, **how)
    processes.add(process)
    try:
        return process.wait()
    finally:
        processes.discard(process)
