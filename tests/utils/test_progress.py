"""Progress: a bar in a terminal, plain lines elsewhere."""

import io

import pytest

from utils.progress import PlainProgress, clock_time, make_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(seconds_per_step: float, steps: int, done: int = 0, note: str = "") -> list[str]:
    out, now = io.StringIO(), [100.0]
    progress = PlainProgress(steps, done, "step", "search", out, lambda: now[0])
    for _ in range(steps - done):
        now[0] += seconds_per_step
        progress.set_postfix_str(note)
        progress.update()
    progress.close()
    return out.getvalue().splitlines()


def test_one_line_every_30_seconds_and_one_at_the_end():
    assert lines_of(10, 7) == [
        "search: 3 of 7 steps (42 %), 0:30 elapsed, about 0:40 left",
        "search: 6 of 7 steps (85 %), 1:00 elapsed, about 0:10 left",
        "search: 7 of 7 steps (100 %), 1:10 elapsed",
    ]


def test_the_estimate_ignores_steps_before_a_resume_point():
    assert lines_of(30, 10, done=8, note="loss 0.4") == [
        "search: 9 of 10 steps (90 %), 0:30 elapsed, about 0:30 left; loss 0.4",
        "search: 10 of 10 steps (100 %), 1:00 elapsed; loss 0.4",
    ]


def test_a_loop_of_less_than_30_seconds_prints_nothing():
    assert lines_of(1, 29) == []


def test_a_file_gets_no_carriage_return_and_a_terminal_gets_a_bar(monkeypatch):
    for stream, returns in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr("utils.progress.SECONDS_BETWEEN_LINES", 0.0)
        with make_progress(2, 0, "row", "attack") as progress:
            progress.update()
            progress.set_postfix({"loss": "0.4"})
            progress.update()
        assert ("\r" in stream.getvalue()) == returns and "2" in stream.getvalue()


def test_quiet_prints_nothing(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr("utils.progress.SECONDS_BETWEEN_LINES", 0.0)
    with make_progress(1, 0, "row", "attack", quiet=True) as progress:
        progress.update()
    import sys

    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "0:05"), (65, "1:05"), (3723, "1:02:03")])
def test_times_are_those_of_a_clock(seconds, text):
    assert clock_time(seconds) == text
