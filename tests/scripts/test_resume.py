"""Runs exit on request at any moment, and resume to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import call, log_lines, words_of
from script_tools import Killed, at_call, forget, without_times
from stage_runs import QUICK, RESULTS, command

from training import optim, prediction
from utils import files

pytestmark = pytest.mark.usefixtures("signals_as_in_a_terminal")

ROOT = Path(__file__).resolve().parents[2]


def same_run(folder: Path, other: Path, stage: str) -> None:
    name = RESULTS[stage]
    assert (folder / name).read_bytes() == (other / name).read_bytes()
    for file in ("records.jsonl", "log.jsonl"):
        assert without_times(folder / file) == without_times(other / file)
    left = {p.name for p in folder.iterdir()} - {p.name for p in other.iterdir()}
    assert not left, left


def interrupted(monkeypatch, capsys, arguments, at: int, number: int, where=(optim, "set_lr")):
    """Call a script that receives signal `number` in call number `at` of a function."""
    module, name = where
    signalled = at_call(at, lambda: os.kill(os.getpid(), number), getattr(module, name))
    capsys.readouterr()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(module, name, signalled)
        call(*arguments)
    assert stop.value.code == 128 + number
    forget(stop)
    err = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("warning")]
    assert len(err) == 1 and f"stopped by {signal.Signals(number).name}" in err[0]
    assert "the same command resumes" in err[0]


@pytest.mark.parametrize("stage", RESULTS)
@pytest.mark.parametrize("at", [1, 5, 6, 11])
def test_a_signal_saves_and_the_same_command_ends_with_the_same_bytes(
    stage, at, whole, encoder, sst2_folder, tmp_path, monkeypatch, capsys
):
    """Six steps per epoch: the first, the last two of an epoch, and the last of the run."""
    number = signal.SIGTERM if at % 2 else signal.SIGINT
    arguments = command(stage, encoder, sst2_folder, whole, tmp_path / "run")
    interrupted(monkeypatch, capsys, arguments, at, number)
    state = tmp_path / "run" / "state.pt"
    assert state.is_file()
    call(*arguments)
    same_run(tmp_path / "run", whole / stage, stage)
    steps = [x["optimizer_step"] for x in log_lines(tmp_path / "run") if "lr" in x]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("stage", ["finetune", "search_ticket", "prune_iteratively"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_signal_during_an_evaluation(
    stage, at, whole, encoder, sst2_folder, tmp_path, monkeypatch, capsys
):
    """In the evaluation on dev of the first epoch, of the last, or of the search's ticket."""
    arguments = command(stage, encoder, sst2_folder, whole, tmp_path / "run")
    interrupted(monkeypatch, capsys, arguments, at, signal.SIGTERM, (prediction, "collate"))
    call(*arguments)
    same_run(tmp_path / "run", whole / stage, stage)


@pytest.mark.parametrize("stage", RESULTS)
@pytest.mark.parametrize("at", [1, 3, 6, 7, 8, 11])
def test_killed_while_a_file_is_renamed(
    stage, at, whole, encoder, sst2_folder, tmp_path, monkeypatch
):
    """The process dies between the write and the rename of several files of the run."""
    arguments = command(stage, encoder, sst2_folder, whole, tmp_path / "run")
    replace, rename, calls = os.replace, os.rename, []

    def dies(real):
        def renames(source, target):
            calls.append(1)
            if len(calls) == at:
                raise Killed
            real(source, target)

        return renames

    with monkeypatch.context() as patch, pytest.raises(Killed) as stop:
        patch.setattr(os, "replace", dies(replace))
        patch.setattr(os, "rename", dies(rename))  # of whole checkpoints
        call(*arguments, checkpoint_every=2)
    forget(stop)
    call(*arguments, checkpoint_every=2)
    same_run(tmp_path / "run", whole / stage, stage)


def test_a_process_killed_by_the_system(whole, tmp_path, pytestconfig):
    """Send SIGKILL to a search in another process, then run the same command."""
    if pytestconfig.getoption("--no-bf16"):
        pytest.skip("the other process would compute in bf16")
    flags = {"model_name": whole / "finetune", "output_dir": tmp_path / "run", "adv_steps": 2}
    flags |= QUICK | {"checkpoint_every": 1}
    line = [sys.executable, str(ROOT / "search_ticket.py"), *words_of(flags)]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    call("search_ticket", **flags)
    same_run(tmp_path / "run", whole / "search_ticket", "search_ticket")


def test_tensorboard_and_the_environment_in_records(whole, encoder, sst2_folder, tmp_path):
    arguments = command("finetune", encoder, sst2_folder, whole, tmp_path / "run")
    call(*arguments, tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    found = files.read_jsonl(tmp_path / "run" / "records.jsonl")[0]["environment"]
    assert len(found["installed"]) == 16 and found["versions"]["torch"]
    name = RESULTS["finetune"]
    assert (tmp_path / "run" / name).read_bytes() == (whole / "finetune" / name).read_bytes()
