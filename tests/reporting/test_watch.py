"""report.py --watch: what it reads of runs while they are going."""

import fcntl
import io
import os
from datetime import datetime

import pytest
from conftest import call, fails
from rich.console import Console

from reporting import watch
from utils.files import append_jsonl, is_locked, write_json

T = 1_000_000.0


def begin(folder, stage="finetune", status="running", steps=100, at=T):
    write_json(folder / "run.json", {"stage": stage, "status": status, "optimizer_steps": steps})
    (folder / "run.lock").touch()
    os.utime(folder / "run.json", (at, at))


def log(folder, *lines, at):
    for line in lines:
        append_jsonl(folder / "log.jsonl", line)
    os.utime(folder / "log.jsonl", (at, at))


@pytest.fixture
def locked(monkeypatch):
    monkeypatch.setattr(watch, "is_locked", lambda path: "going" in str(path))


def test_progress_loss_dev_accuracy_and_expected_end(tmp_path, locked):
    begin(tmp_path / "going")
    log(tmp_path / "going", {"optimizer_step": 10, "loss": 0.5}, at=T + 20)
    watcher = watch.Watcher([tmp_path], clock=lambda: T + 20)
    [state] = watcher.states()
    # 10 of 100 steps in 20 seconds: 180 seconds are left.
    assert state == watch.State("going", "finetune", "running", 10, 100, 0.5, None, 180.0)
    epoch = {"optimizer_step": 20, "finished_epochs": 1, "dev_accuracy_percent": 80.0}
    log(tmp_path / "going", {"optimizer_step": 20, "loss": "nan"}, epoch, at=T + 30)
    watcher._clock = lambda: T + 40
    [state] = watcher.states()
    # 10 steps in 10 seconds since the first look: 80 seconds from the last step, 10 have passed.
    assert (state.done, state.loss, state.dev_percent, state.seconds_left) == (20, 0.5, 80.0, 70.0)


def test_a_half_written_line_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = watch.Log(path)
    path.write_text('{"optimizer_step": 1, "loss": 2.0}\n{"optimizer_st')
    lines.look()
    assert (lines.done, lines.loss) == (1, 2.0)
    path.write_text(path.read_text() + 'ep": 2}\n')
    lines.look()
    assert lines.done == 2
    path.write_text('{"optimizer_step": 1, "loss": 2.0}\n')  # resumed: the log was cut
    lines.look()
    assert lines.done == 1


def test_a_resumed_run_has_no_end_until_its_speed_is_known(tmp_path, locked):
    begin(tmp_path / "going", stage="search")
    (tmp_path / "going" / "state.pt").touch()
    os.utime(tmp_path / "going" / "state.pt", (T - 10, T - 10))
    dev = {"dev_accuracy_ticket_percent": 70.0}
    log(tmp_path / "going", {"optimizer_step": 60, "finished_epochs": 1, "dev": dev}, at=T + 5)
    [state] = watch.Watcher([tmp_path], clock=lambda: T + 5).states()
    assert (state.done, state.dev_percent, state.seconds_left) == (60, 70.0, None)


def test_finished_and_interrupted_runs_and_attacks(tmp_path, locked):
    begin(tmp_path / "a", status="finished")
    begin(tmp_path / "b")
    attack = tmp_path / "b" / "attacks" / "name"
    write_json(attack / "attack.json", {"row_ids": ["1", "2", "3", "4"]})
    append_jsonl(attack / "rows.jsonl", {"row_id": "1", "outcome": "failed"})
    done = tmp_path / "b" / "attacks" / "done"
    write_json(done / "attack.json", {"row_ids": ["1"]})
    write_json(done / "summary.json", {})
    states = watch.Watcher([tmp_path]).states()
    assert [(s.name, s.stage, s.status, s.done, s.total) for s in states] == [
        ("b/attacks/name", "attack", "stopped", 1, 4),
        ("b", "finetune", "stopped", 0, 100),
        ("a", "finetune", "finished", 100, 100),
    ]


def test_the_table_names_each_run(tmp_path, locked):
    begin(tmp_path / "going")
    log(tmp_path / "going", {"optimizer_step": 10, "loss": 0.1234}, at=T + 20)
    states = watch.Watcher([tmp_path], clock=lambda: T + 20).states()
    console = Console(width=100, file=io.StringIO())
    console.print(watch.table_of(states, datetime(2026, 1, 2, 23, 58)))
    text = console.file.getvalue()
    line = ["going", "finetune", "running", "10", "%", "of", "100", "0.123"]
    assert text.split()[-11:] == [*line, "Jan", "03,", "00:01"]


def test_without_a_terminal_it_prints_once(tmp_path, capsys):
    begin(tmp_path / "runs" / "sst2")
    call("report", "--watch", tmp_path / "runs")
    assert "sst2  " in capsys.readouterr().out
    assert "is not a folder" in fails(capsys, "report", "--watch", tmp_path / "none")
    assert "required: --records" in fails(capsys, "report", "--output_dir", tmp_path / "out")
    assert "required: --output_dir" in fails(capsys, "report", "--records", tmp_path)


def test_a_lock_is_seen_without_taking_it(tmp_path):
    path = tmp_path / "run.lock"
    assert not is_locked(path)
    with open(path, "w") as f:
        assert not is_locked(path)
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert is_locked(path)
    assert not is_locked(path)
