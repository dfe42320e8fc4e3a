"""When a run saves its resume point, and how it leaves when it is asked to.

SIGTERM and SIGINT are noted while a training loop runs; the loop saves behind the step that it is
in and leaves. An attack, whose rows are written one by one, leaves at once. Without torch.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Somebody asked the process to leave; not an Exception, so that no library swallows it."""

    def __init__(self, number: int, where: str = "where it was saved last"):
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on "
                         f"{where}")  # fmt: skip
        self.status = 128 + number


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

    def leave(number: int, _frame) -> None:
        raise Stopped(number, where)

    _handle(leave)


def _handle(handler) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and '&' ask for
            old = signal.signal(number, handler)
            _before.setdefault(number, old)


def release_signals() -> None:
    """Handle signals as before."""
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
