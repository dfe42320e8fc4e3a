"""Run jobs on the visible devices, one on each at a time, in an order that their needs allow."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

from utils.planning import Job, duration

ROOT = Path(__file__).resolve().parent.parent


def devices(gpus: str | None, jobs_on_cpu: int) -> list[dict[str, str]]:
    """Environment of each worker: one per GPU, or `jobs_on_cpu` that share the cores."""
    if gpus is None:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible if count and visible else ",".join(map(str, range(count)))
    ids = [part.strip() for part in gpus.split(",") if part.strip()]
    if ids:
        return [{"GPUS": gpu} for gpu in ids]
    threads = max(1, (os.cpu_count() or 1) // jobs_on_cpu)
    shared = {"OMP_NUM_THREADS": str(threads)} if jobs_on_cpu > 1 else {}
    return [dict(shared) for _ in range(jobs_on_cpu)]


def execute(jobs: list[Job], gpus: str | None, jobs_on_cpu: int) -> list[Job]:
    """Run all that is not finished; the jobs that failed, or whose needs did."""
    waiting = [job for job in jobs if not job.finished]
    if not waiting:
        return []
    workers = devices(gpus, jobs_on_cpu)
    free: SimpleQueue = SimpleQueue()
    for worker in workers:
        free.put(worker)
    bad: dict[str, Job] = {}
    pending = {job.name for job in waiting}
    running: dict[Future, Job] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            while waiting or running:
                for job in [job for job in waiting if bad.keys() & set(job.needs)]:
                    waiting.remove(job)
                    bad[job.name] = job
                ready = [job for job in waiting if not pending & set(job.needs)]
                for job in ready[: len(workers) - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(_run, job, free, len(workers) > 1, stop)] = job
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    if future.result():
                        pending.discard(job.name)
                    else:
                        bad[job.name] = job
        except KeyboardInterrupt:
            stop.set()  # the stage scripts got the signal, too, and stop by themselves
            raise
    return list(bad.values())


def _run(job: Job, free: SimpleQueue, to_a_file: bool, stop: threading.Event) -> bool:
    """One stage script on one free device; whether its job is finished afterwards."""
    if stop.is_set():
        return False
    worker, start = free.get(), time.monotonic()
    environment = os.environ | job.variables | worker
    command = ["sh", str(ROOT / job.script), *job.flags]
    log = job.folder.parent / "logs" / f"{job.folder.name}.log"
    print(f"running {job.name}" + (f" (output in {log})" if to_a_file else ""), flush=True)
    try:
        if to_a_file:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a", encoding="utf-8") as f:
                status = subprocess.run(command, env=environment, stdout=f, stderr=f).returncode
        else:
            status = subprocess.run(command, env=environment).returncode
    finally:
        free.put(worker)
    job.look()
    took = duration(time.monotonic() - start)
    if status or not job.finished:
        where = f"; see {log}" if to_a_file else ""
        print(f"failed  {job.name} (status {status}){where}", file=sys.stderr, flush=True)
        return False
    print(f"done    {job.name} in {took}", flush=True)
    return True
