"""When a run saves its resume point, and how it exits after a request to stop.

On SIGTERM or SIGINT, a training loop finishes its step, saves and exits. An attack exits at once,
because it writes each row when the row is done. The end of the time budget is the signal SIGALRM.
This module does not import torch at its top.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
STATUS_OUT_OF_TIME = 124  # the exit status of timeout(1)
SECONDS_OF_ONE_REQUEST = 2  # a launcher can send a signal twice
LAST_SAVED = "from where it was saved last"
LAST_ROW = "after the last row that was written"
NOTHING_SAVED = "from its beginning"


class Stopped(BaseException):
    """A request to stop. Not an Exception, so that no library swallows it."""

    def __init__(self, number: int, where: str = LAST_SAVED):
        out_of_time = number == signal.SIGALRM
        name = signal.Signals(number).name
        why = "the time budget is spent" if out_of_time else f"stopped by {name}"
        super().__init__(f"{why}; the same command resumes {where}")
        self.has_saved = where != NOTHING_SAVED
        self.status = STATUS_OUT_OF_TIME if out_of_time else 128 + number


_received: list[int] = []
_received_at: list[float] = []
_handlers_before: dict[int, object] = {}


def note_signals() -> None:
    """Note the first signal, so that `requested` returns True. Stop at once on a second one."""

    def note(number: int, _frame) -> None:
        now = time.monotonic()
        if _received and now - _received_at[-1] > SECONDS_OF_ONE_REQUEST:
            raise Stopped(number)
        _received.append(number)
        _received_at.append(now)

    for number in SIGNALS:
        _handle(number, note)


def raise_on_signals(where: str = LAST_ROW) -> None:
    """Raise Stopped at once on a signal. `where`: the point from which the command resumes."""
    for number in SIGNALS:
        _handle(number, lambda number, _frame: _stop(number, where))


def limit_time(seconds: float | None) -> None:
    """Request a stop after `seconds`; None: no limit."""
    if seconds is not None:
        _handle(signal.SIGALRM, lambda number, _frame: _stop(number))
        signal.setitimer(signal.ITIMER_REAL, seconds)


def release_signals() -> None:
    """Restore the handlers before the calls of the functions above, and stop the timer."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in _handlers_before.items():
        signal.signal(number, handler)
    _handlers_before.clear()
    _received.clear()
    _received_at.clear()


def _handle(number: int, handler) -> None:
    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and '&' ignore signals on purpose
        _handlers_before.setdefault(number, signal.signal(number, handler))


def _stop(number: int, where: str = LAST_SAVED) -> None:
    raise Stopped(number, where)


def requested(accelerator: Accelerator) -> bool:
    """Whether this process or, with several processes, any of them has received a signal."""
    if accelerator.num_processes == 1:
        return bool(_received)
    import torch

    flag = torch.tensor(float(bool(_received)), device=accelerator.device)
    if bool(accelerator.reduce(flag, "sum") > 0) and not _received:
        _received.append(signal.SIGTERM)
    return bool(_received)


def leave_if_requested(where: str = LAST_SAVED) -> None:
    """Raise Stopped if this process has received a signal."""
    if _received:
        raise Stopped(_received[0], where)


class SavePoints:
    """The optimizer steps after which to save. `every`: ("steps", n) or ("minutes", x)."""

    def __init__(self, every: tuple[str, float]):
        self.unit, self.count = every
        self.last = time.monotonic()

    def due(self, step: int, accelerator: Accelerator) -> bool:
        """Whether to save after `step`: the interval is over, or a stop was requested."""
        if self.unit == "steps":
            on_time = bool(self.count) and step % int(self.count) == 0
        else:
            on_time = time.monotonic() - self.last >= 60 * self.count
        if not (requested(accelerator) or on_time):
            return False
        self.last = time.monotonic()
        return True

    def due_at_epoch_end(self, step: int, accelerator: Accelerator) -> bool:
        """As `due`, at the end of an epoch. With an interval in steps, always True."""
        return self.due(step, accelerator) or self.unit == "steps"
