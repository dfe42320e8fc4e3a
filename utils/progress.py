"""Progress of a long loop: a bar in a terminal, a plain line every 30 seconds elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class PlainProgress:
    """Progress in lines: `what: 120 of 630 steps (19 %), 2:00 elapsed, about 8:30 left; loss 0.43`.

    The class has the methods of a tqdm bar that the scripts use. A loop shorter than 30 seconds
    prints nothing.
    """

    def __init__(
        self,
        total: int,
        done: int,
        unit: str,
        what: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.n, self.unit, self.what = total, done, unit, what
        self._stream, self._clock = stream or sys.stderr, clock
        self._first, self._begin = done, clock()
        self._printed_at, self._printed_n = self._begin, None
        self._note = ""

    def update(self, n: int = 1) -> None:
        """Count `n` more units."""
        self.n += n
        if self._clock() - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._print()

    def set_postfix(self, values: dict[str, str], refresh: bool = True) -> None:
        """Append the names and values to the next line."""
        self._note = ", ".join(f"{name} {value}" for name, value in values.items())

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Append `text` to the next line."""
        self._note = text

    def close(self) -> None:
        """Print a last line if there was a line before."""
        if self._printed_n not in (None, self.n):
            self._print()

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _print(self) -> None:
        self._printed_at, self._printed_n = self._clock(), self.n
        elapsed, counted = self._printed_at - self._begin, self.n - self._first
        line = f"{self.what}: {self.n} of {self.total} {self.unit}s"
        line += f" ({100 * self.n // max(1, self.total)} %), {clock_time(elapsed)} elapsed"
        if counted and self.n < self.total:
            line += f", about {clock_time(elapsed / counted * (self.total - self.n))} left"
        line += f"; {self._note}" if self._note else ""
        print(line, file=self._stream, flush=True)


def clock_time(seconds: float) -> str:
    """Format a duration in seconds: 65.2 -> "1:05", 3723 -> "1:02:03"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def make_progress(total: int, done: int, unit: str, what: str, quiet: bool = False):
    """A tqdm bar if standard error is a terminal (or with `quiet`), else PlainProgress.

    `total`: number of units. `done`: units before the start, such as the steps before a resume
    point, which do not count for the speed.
    """
    if quiet or sys.stderr.isatty():
        return tqdm(total=total, initial=done, unit=unit, desc=what, disable=quiet)
    return PlainProgress(total, done, unit, what)
