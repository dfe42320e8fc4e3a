"""When a run saves its resume point, and how it leaves when it is asked to.

SIGTERM and SIGINT are noted while a training loop runs; the loop saves behind the step that it is
in and leaves. An attack, whose rows are written one by one, leaves at once. A time budget that is
spent is a signal, too (SIGALRM). Without torch.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
STATUS_OUT_OF_TIME = 124  # as of timeout(1)


class Stopped(BaseException):
    """Somebody asked the process to leave; not an Exception, so that no library swallows it."""

    def __init__(self, number: int, where: str = "where it was saved last"):
        out_of_time = number == signal.SIGALRM
        why = "the time budget is spent" if out_of_time else f"stopped by {_name(number)}"
        super().__init__(f"{why}; the same command goes on {where}")
        self.status = STATUS_OUT_OF_TIME if out_of_time else 128 + number


def _name(number: int) -> str:
    return signal.Signals(number).name


_received: list[int] = []
_noted: list[float] = []  # when
_before: dict[int, object] = {}


def note_signals() -> None:
    """From now on a signal only sets what `requested` tells; a second one leaves at once."""

    def note(number: int, _frame) -> None:
        now = time.monotonic()
        if _received and now - _noted[-1] > 2:  # launchers send a signal to all, and once more
            raise Stopped(number)
        _received.append(number)
        _noted.append(now)

    _handle(note)


def raise_on_signals(where: str = "behind the last row that was written") -> None:
    """From now on a signal raises Stopped wherever the process just is."""

    _handle(lambda number, _frame: _leave(number, where))


def _handle(handler) -> None:
    for number in SIGNALS:
        _handle_one(number, handler)


def _handle_one(number: int, handler) -> None:
    if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and '&' ask for
        old = signal.signal(number, handler)
        _before.setdefault(number, old)


def limit_time(seconds: float | None) -> None:
    """From now on so many seconds are left; then it is as if somebody asked the process to leave.

    None: as long as it takes. What was saved or written until then is gone on with.
    """
    if seconds is not None:
        _handle_one(signal.SIGALRM, lambda number, _frame: _leave(number))
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _leave(number: int, where: str = "where it was saved last") -> None:
    raise Stopped(number, where)


def release_signals() -> None:
    """Handle signals as before."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, old in _before.items():
        signal.signal(number, old)
    _before.clear()
    _received.clear()
    _noted.clear()


def requested(accelerator: Accelerator) -> bool:
    """Whether a signal came; with several processes, whether one came to any of them."""
    if accelerator.num_processes == 1:
        return bool(_received)
    import torch

    flag = torch.tensor(float(bool(_received)), device=accelerator.device)
    if bool(accelerator.reduce(flag, "sum") > 0) and not _received:
        _received.append(signal.SIGTERM)
    return bool(_received)


def leave_if_requested(where: str = "where it was saved last") -> None:
    """Raise Stopped where a signal came."""
    if _received:
        raise Stopped(_received[0], where)


class SavePoints:
    """Which optimizer steps end with a resume point: `every` ("steps", n) or ("minutes", x)."""

    def __init__(self, every: tuple[str, float]):
        self.unit, self.count = every
        self.last = time.monotonic()

    def due(self, step: int, accelerator: Accelerator) -> bool:
        """Whether to save behind `step`: it is time, or somebody asked the process to leave."""
        if self.unit == "steps":
            on_time = bool(self.count) and step % int(self.count) == 0
        else:
            on_time = time.monotonic() - self.last >= 60 * self.count
        if not (requested(accelerator) or on_time):
            return False
        self.last = time.monotonic()
        return True

    def due_at_epoch_end(self, step: int, accelerator: Accelerator) -> bool:
        """Counted in minutes, an epoch's end is saved only if it is time: epochs may be short."""
        return self.due(step, accelerator) or self.unit == "steps"
