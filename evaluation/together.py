"""Attack several rows at a time in one process, and compute their queries in common batches.

An attack on one short sentence asks for a few dozen texts at a time, which do not fill a GPU. Here
each row has a thread, of which one runs at a time: until it asks for outputs of a model. When all
threads wait, the texts of all are computed together, and each thread gets its own. Each row has the
global generators to itself, so its outcome is that of an attack on it alone.
"""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from evaluation.attack_setup import Setup
from utils import process_state


class _Cancelled(BaseException):
    """Ends a thread. Not an Exception, so that no handler inside TextAttack stops it."""


class _Row(threading.Thread):
    """A thread that attacks one row after the other. `work`: called with the thread."""

    def __init__(self, work: Callable[["_Row"], Iterator[dict]]):
        super().__init__(daemon=True)
        self._work = work
        self._resume, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._is_cancelled = False
        self._generators: tuple | None = None
        self.is_finished = False
        self.error: BaseException | None = None
        self.lines: list[dict] = []
        self.asked: tuple[Callable[[list], list], list] | None = None
        self.answer: list = []

    def ask(self, compute: Callable[[list], list], items: list) -> list:
        """compute(items), computed with the items of the other rows. Called in the thread."""
        if not items:
            return []
        self.asked = compute, items
        self._paused.release()
        self._wait()
        return self.answer

    def _wait(self) -> None:
        self._resume.acquire()
        if self._is_cancelled:
            raise _Cancelled

    def run(self) -> None:
        try:
            self._wait()
            for line in self._work(self):
                self.lines.append(line)
        except BaseException as e:  # raised again where the rows are run
            self.error = e
        finally:
            self.is_finished = True
            self._paused.release()

    def run_until_it_asks(self) -> list[dict]:
        """Run the thread until it asks or ends; the lines of the rows that are done."""
        before = process_state.states_of_generators()
        if self._generators is not None:
            process_state.set_generators(self._generators)
        self._resume.release()
        self._paused.acquire()
        self._generators = process_state.states_of_generators()
        process_state.set_generators(before)
        if self.error is not None:
            raise self.error
        lines, self.lines = self.lines, []
        return lines

    def cancel(self) -> None:
        self._is_cancelled = True
        self._resume.release()


def attack_rows(
    attack_row: Callable[..., dict],
    setup: Setup,
    victim: Any,
    loaded: Any,
    positions: list[int],
) -> Iterator[dict]:
    """Yield the line of each row at `positions`, as soon as it is done.

    `attack_row`: see evaluation.attack_rows. `victim`, `loaded`: see Setup.attack.
    """
    count = min(setup.rows_at_once, len(positions))
    if count == 1:
        attack = setup.attack(victim, loaded)
        for position in positions:
            yield attack_row(attack, victim, setup.task, setup.rows, position, setup.args.seed)
        return
    waiting = iter(positions)

    def work(row: _Row) -> Iterator[dict]:
        # Copies with caches of their own, which share the models.
        asking = _asking(victim, row)
        encoders = {"minilm": loaded.minilm, "use3": loaded.use3}
        copies = {name: encoder and _asking(encoder, row) for name, encoder in encoders.items()}
        resources = replace(loaded, **copies)
        attack = setup.attack(asking, resources)
        for position in waiting:
            yield attack_row(attack, asking, setup.task, setup.rows, position, setup.args.seed)

    rows = [_Row(work) for _ in range(count)]
    for row in rows:
        row.start()
    try:
        active, before = rows, time.monotonic()
        while active:
            for row in active:
                for line in row.run_until_it_asks():
                    # The time since the row before: the sum over rows is the time of all.
                    now = time.monotonic()
                    yield line | {"seconds": round(now - before, 3)}
                    before = now
            active = [row for row in active if not row.is_finished]
            _answer(active)
    finally:
        for row in rows:
            row.cancel()


def _asking(model: Any, row: _Row) -> Any:
    """A copy of a Victim or an encoder that lets the row ask for its outputs."""
    asking, compute = copy.copy(model), model.compute
    asking.known, asking.compute = {}, lambda items: row.ask(compute, items)
    return asking


def _answer(rows: list[_Row]) -> None:
    """Compute what the rows ask for, in one call for each model."""
    by_model: dict[Callable, list[_Row]] = {}
    for row in rows:
        assert row.asked is not None
        by_model.setdefault(row.asked[0], []).append(row)
    for compute, asking in by_model.items():
        items = [item for row in asking for item in row.asked[1]]
        answers = iter(compute(items))
        for row in asking:
            row.answer = [next(answers) for _ in row.asked[1]]
