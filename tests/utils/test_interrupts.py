"""Signals, and the moments at which a run saves."""

import os
import signal
import time

import pytest
from accelerate import Accelerator

from utils import cli, interrupts

pytestmark = pytest.mark.usefixtures("signals_as_in_a_terminal")


def test_a_second_signal_exits_at_once():
    interrupts.note_signals()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a repeated signal of a launcher
        interrupts._received_at[-1] -= 3
        with pytest.raises(interrupts.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    finally:
        interrupts.release_signals()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_save_points_by_steps_and_by_minutes(monkeypatch):
    accelerator, now = Accelerator(cpu=True), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    steps = interrupts.SavePoints(("steps", 3))
    assert [s for s in range(1, 8) if steps.due(s, accelerator)] == [3, 6]
    minutes = interrupts.SavePoints(("minutes", 0.5))
    due = []
    for step in range(1, 9):
        now[0] = 10.0 * step
        due += [step] if minutes.due(step, accelerator) else []
    assert due == [3, 6]
    assert not any(interrupts.SavePoints(("steps", 0)).due(s, accelerator) for s in range(9))
    assert cli.save_interval("10m") == ("minutes", 10.0) and cli.save_interval("7") == ("steps", 7)
