"""Rows attacked one after the other, or by several processes on the visible devices.

What comes out of a row depends on the row and the seed alone, so it does not matter who attacks it.
TextAttack is imported by each process itself, behind resources.import_textattack.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from evaluation import checkpoints, resources
from training.splits import Rows
from training.tasks import Task
from utils.cli import UserError


@dataclass(frozen=True)
class Setup:
    """All that an attack on one checkpoint is built from; it can be sent to another process."""

    target: checkpoints.Target
    label_order: list[int]
    task: Task
    rows: Rows
    seed: int
    recipe: str
    paths: dict[str, Path]
    score_with: str
    similarity_threshold: float | None
    query_budget: int | None
    max_seq_length: int
    batch_size: int
    precision: str
    device: str

    def victim(self, device: str | None = None, temperature: float = 1.0):
        """The checkpoint as TextAttack sees it (attack/victim.py)."""
        from evaluation.victim import Victim

        model, tokenizer = checkpoints.load_classifier(self.target)
        return Victim(
            model,
            tokenizer,
            self.label_order,
            self.max_seq_length,
            self.batch_size,
            self.precision,
            device or self.device,
            temperature,
        )

    def attack(self, victim, loaded):
        """TextAttack's Attack on the victim; `loaded`: of recipes.load."""
        from evaluation import recipes

        return recipes.build(
            self.recipe,
            victim,
            self.task,
            loaded,
            self.score_with,
            self.similarity_threshold,
            self.query_budget,
        )


def attack_rows(
    setup: Setup, attack, victim, positions: list[int], processes: int
) -> Iterator[dict]:
    """Lines of the rows at `positions`, in the order in which they are done.

    With one process `attack` on `victim` does it; several build their own, on one device each in
    turn, or on a CPU with a share of its threads.
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
            "a process of the attack ended before its rows did (killed, or out of memory?): the "
            "same command goes on behind the rows that are written; use fewer --processes"
        ) from e
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _submitted(pool: ProcessPoolExecutor, positions: list[int]) -> list[Future]:
    try:
        return [pool.submit(_attack, position) for position in positions]
    except OSError as e:  # a process died while the next one was started: its pipes are closed
        raise BrokenProcessPool(str(e)) from e


_worker: dict = {}  # of this process: what _start has built


def _start(setup: Setup, temperature: float, processes: int, started) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first one ends the rest
    threading.Thread(target=_leave_with_parent, daemon=True).start()
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


def _leave_with_parent() -> None:
    """A process whose parent was killed would wait for rows for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _attack(position: int) -> dict:
    return _attack_row(_worker["setup"], _worker["attack"], _worker["victim"], position)


def _attack_row(setup: Setup, attack, victim, position: int) -> dict:
    from evaluation.attack_rows import attack_row

    return attack_row(attack, victim, setup.task, setup.rows, position, setup.seed)
