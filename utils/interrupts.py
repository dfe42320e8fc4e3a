"""When a run saves its resume point, and how it exits when it is asked to stop.

A training loop notes SIGTERM and SIGINT, finishes its step, saves and exits. An attack writes every
row as it is done, so it exits at once. A spent time budget is a signal too (SIGALRM). No torch at
import.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
STATUS_OUT_OF_TIME = 124  # that of timeout(1)
SECONDS_OF_ONE_REQUEST = 2  # launchers send a signal to all processes, and then once more
LAST_SAVED = "from where it was saved last"
LAST_ROW = "after the last row that was written"


class Stopped(BaseException):
    """A request to stop. Not an Exception, so that no library swallows it."""

    def __init__(self, number: int, where: str = LAST_SAVED):
        out_of_time = number == signal.SIGALRM
        name = signal.Signals(number).name
        why = "the time budget is spent" if out_of_time else f"stopped by {name}"
        super().__init__(f"{why}; the same command resumes {where}")
        self.status = STATUS_OUT_OF_TIME if out_of_time else 128 + number


_received: list[int] = []
_received_at: list[float] = []
_handlers_before: dict[int, object] = {}


def note_signals() -> None:
    """Let the first signal only set what `requested` returns, and a second one stop at once."""

    def note(number: int, _frame) -> None:
        now = time.monotonic()
        if _received and now - _received_at[-1] > SECONDS_OF_ONE_REQUEST:
            raise Stopped(number)
        _received.append(number)
        _received_at.append(now)

    for number in SIGNALS:
        _handle(number, note)


def raise_on_signals(where: str = LAST_ROW) -> None:
    """Let a signal raise Stopped at once. `where`: the point from which the command resumes."""
    for number in SIGNALS:
        _handle(number, lambda number, _frame: _stop(number, where))


def limit_time(seconds: float | None) -> None:
    """Request a stop after `seconds`; None: no limit."""
    if seconds is not None:
        _handle(signal.SIGALRM, lambda number, _frame: _stop(number))
        signal.setitimer(signal.ITIMER_REAL, seconds)


def release_signals() -> None:
    """Put back the handlers that were there before the functions above, and stop the timer."""
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
    """Whether a signal came to this process or, with several processes, to any of them."""
    if accelerator.num_processes == 1:
        return bool(_received)
    import torch

    flag = torch.tensor(float(bool(_received)), device=accelerator.device)
    if bool(accelerator.reduce(flag, "sum") > 0) and not _received:
        _received.append(signal.SIGTERM)
    return bool(_received)


def leave_if_requested(where: str = LAST_SAVED) -> None:
    """Raise Stopped if a signal came."""
    if _received:
        raise Stopped(_received[0], where)


class SavePoints:
    """Which optimizer steps end with a resume point: `every` is ("steps", n) or ("minutes", x)."""

    def __init__(self, every: tuple[str, float]):
        self.unit, self.count = every
        self.last = time.monotonic()

    def due(self, step: int, accelerator: Accelerator) -> bool:
        """Whether to save after `step`: it is time to, or a stop was requested."""
        if self.unit == "steps":
            on_time = bool(self.count) and step % int(self.count) == 0
        else:
            on_time = time.monotonic() - self.last >= 60 * self.count
        if not (requested(accelerator) or on_time):
            return False
        self.last = time.monotonic()
        return True

    def due_at_epoch_end(self, step: int, accelerator: Accelerator) -> bool:
        """Counted in steps, every epoch ends with a save; in minutes, only if it is time to."""
        return self.due(step, accelerator) or self.unit == "steps"
