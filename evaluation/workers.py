"""Attack rows in this process, or in several processes on the visible devices.

The outcome of a row depends only on the row and the seed, not on the process that attacks it. Each
process imports TextAttack itself, through `resources.import_textattack`.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from evaluation import resources
from evaluation.attack_setup import Setup
from utils.cli import UserError


def attack_rows(
    setup: Setup, attack, victim, positions: list[int], processes: int
) -> Iterator[dict]:
    """Yield the line of each row at `positions`, as soon as it is done.

    One process uses `attack` and `victim`. Several processes build their own: on CUDA they take the
    visible devices in turn, on a CPU each takes a share of the threads.
    Raises UserError if a process dies.
    """
    if processes == 1 or len(positions) < 2:
        for position in positions:
            yield _attack_row(setup, attack, victim, position)
        return
    context = multiprocessing.get_context("spawn")  # CUDA cannot be forked
    started = context.Value("i", 0)
    pool = ProcessPoolExecutor(
        min(processes, len(positions)),
        context,
        _start,
        (setup, victim.temperature, processes, started),
    )
    try:
        for done in as_completed(_submitted(pool, positions)):
            yield done.result()
    except BrokenProcessPool as e:
        raise UserError(
            "a process of the attack ended before its rows were done (killed, or out of memory?); "
            "run the same command again, with fewer --processes, to resume"
        ) from e
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _submitted(pool: ProcessPoolExecutor, positions: list[int]) -> list[Future]:
    try:
        return [pool.submit(_attack, position) for position in positions]
    except OSError as e:  # a process died while the next one started, and its pipes are closed
        raise BrokenProcessPool(str(e)) from e


_worker: dict = {}  # what _start builds in a worker process


def _start(setup: Setup, temperature: float, processes: int, started) -> None:
    """Build the attack in a worker process, which it configures for itself alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends the workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with started.get_lock():
        number = started.value
        started.value += 1
    device = setup.device
    if device == "cuda":
        device = f"cuda:{number % torch.cuda.device_count()}"
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    resources.import_textattack(device)
    from evaluation import recipes

    victim = setup.victim(device, temperature)
    loaded = recipes.load(setup.recipe, setup.paths, device)
    _worker.update(setup=setup, victim=victim, attack=setup.attack(victim, loaded))


def _exit_with_parent() -> None:
    """Exit when the parent dies; otherwise the process would wait for rows forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _attack(position: int) -> dict:
    return _attack_row(_worker["setup"], _worker["attack"], _worker["victim"], position)


def _attack_row(setup: Setup, attack, victim, position: int) -> dict:
    from evaluation.attack_rows import attack_row

    return attack_row(attack, victim, setup.task, setup.rows, position, setup.seed)
