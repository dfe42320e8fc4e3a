"""Runs exit on request at any moment and resume to the same bytes. Also locks and damage."""

import dataclasses
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import call, fails, log_lines, skip_without_textattack, words_of
from script_tools import Killed, at_call, finetune, retrain, search, without_times

from training import optim, prediction
from utils import cli, files, interrupts, resume_point, runs
from utils.cli import UserError
from utils.settings import Role, setting

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"quiet": True, "bsz": 16, "epochs": 2, "lr": 1e-2}
RESULTS = {
    "finetune": "last/model.safetensors",
    "search_ticket": "scores.safetensors",
    "retrain_ticket": "last/model.safetensors",
    "prune_iteratively": "scores.safetensors",
}


@dataclasses.dataclass
class Settings:
    """Settings of an example script."""

    a: int = setting(0, "number")
    scores: str | None = setting(None, "file", role=Role.PLACE)
    overwrite: bool = setting(False, "start over", role=Role.OUTPUT)


def command(stage: str, encoder, data, runs_folder: Path, folder: Path) -> tuple:
    """Script and arguments of a small run of a stage in `folder`."""
    rows = {"task_name": "sst2", "data_dir": data, "max_train_rows": 96, "max_eval_rows": 40}
    scores = runs_folder / "search_ticket"
    flags = {
        "finetune": {"model_name": encoder, "method": "freelb"} | rows,
        "search_ticket": {"model_name": runs_folder / "finetune", "adv_steps": 2},
        "retrain_ticket": {"model_name": encoder, "scores": scores, "sparsity": 0.4},
        "prune_iteratively": {"model_name": encoder, "to_sparsity": 0.2} | rows,
    }[stage]
    return stage, *words_of(flags | QUICK | {"output_dir": folder})


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A shell that runs the tests in the background makes them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole(encoder, sst2_folder, tmp_path_factory):
    """An uninterrupted run of each stage."""
    root = tmp_path_factory.mktemp("whole")
    for stage in RESULTS:
        call(*command(stage, encoder, sst2_folder, root, root / stage))
    return root


def same_run(folder: Path, other: Path, stage: str) -> None:
    name = RESULTS[stage]
    assert (folder / name).read_bytes() == (other / name).read_bytes()
    for file in ("records.jsonl", "log.jsonl"):
        assert without_times(folder / file) == without_times(other / file)
    left = {p.name for p in folder.iterdir()} - {p.name for p in other.iterdir()}
    assert not left, left


def _forget(stop) -> None:
    """Release the frames of an interrupted run and thus its lock, like the end of a process."""
    error = stop.value
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
    stop._excinfo = None
    gc.collect()


def interrupted(monkeypatch, capsys, arguments, at: int, number: int, where=(optim, "set_lr")):
    """Call a script that receives signal `number` in call number `at` of a function."""
    module, name = where
    signalled = at_call(at, lambda: os.kill(os.getpid(), number), getattr(module, name))
    capsys.readouterr()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(module, name, signalled)
        call(*arguments)
    assert stop.value.code == 128 + number
    _forget(stop)
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
    _forget(stop)
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
    from accelerate import Accelerator

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


@pytest.mark.parametrize("offset", [0, 50, 1000, -40, -1])
def test_an_altered_resume_point_is_named(offset, tmp_path):
    import torch

    run = runs.Run(tmp_path / "r", "x", Settings())
    run.begin({})
    run.save_state({"tensor": torch.arange(500.0)})
    assert torch.equal(run.load_state()["tensor"], torch.arange(500.0))
    path = tmp_path / "r" / "state.pt"
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(UserError, match="state.pt is damaged"):
        run.load_state()
    path.write_bytes(data[:100])
    with pytest.raises(UserError, match="state.pt is damaged"):
        run.load_state()


def test_a_resume_point_of_another_version_is_named(tmp_path, monkeypatch):
    run = runs.Run(tmp_path / "r", "x", Settings())
    run.begin({})
    with monkeypatch.context() as patch:
        patch.setattr(resume_point, "STATE_FORMAT", 1)
        run.save_state({})
    with pytest.raises(UserError, match="by another version"):
        run.load_state()


def test_two_processes_in_one_folder(tmp_path):
    first = runs.Run(tmp_path / "r", "x", Settings(a=1))
    second = runs.Run(tmp_path / "r", "x", Settings(a=1))
    first.begin({})
    with pytest.raises(UserError, match="another process is at work"):
        second.begin({})
    first.finish({}, [])
    with pytest.raises(
        UserError, match="has been at work"
    ):  # finished after `second` read the folder
        second.begin({})
    assert runs.Run(tmp_path / "r", "x", Settings(a=1)).finished


def test_inputs_that_changed_since_the_run_began(tmp_path):
    data = {"splits": {"train": {"rows": 3, "fingerprint": "a"}}}
    runs.Run(tmp_path / "r", "x", Settings(a=1)).begin({"data": data})
    gc.collect()
    again = runs.Run(tmp_path / "r", "x", Settings(a=1))
    with pytest.raises(UserError, match="the data of the run in .* has changed since it began"):
        again.begin({"data": {"splits": {"train": {"rows": 3, "fingerprint": "b"}}}})
    del again
    gc.collect()
    runs.Run(tmp_path / "r", "x", Settings(a=1)).begin({"data": data})


def test_an_overwrite_that_was_killed_while_it_deleted(tmp_path, monkeypatch):
    run = runs.Run(tmp_path / "r", "x", Settings(a=1))
    run.begin({})
    (tmp_path / "r" / "last").mkdir()
    (tmp_path / "r" / "link").symlink_to(tmp_path)
    run.finish({}, [])
    with monkeypatch.context() as patch, pytest.raises(Killed) as stop:
        patch.setattr(shutil, "rmtree", lambda _: (_ for _ in ()).throw(Killed))
        runs.Run(tmp_path / "r", "x", Settings(a=2, overwrite=True)).begin({})
    _forget(stop)
    third = runs.Run(tmp_path / "r", "x", Settings(a=2))
    third.begin({})
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["run.json", "run.lock"]
    assert not third.finished


def test_attacks_on_an_unfinished_run_keep_their_records(tmp_path):
    run = runs.Run(tmp_path / "r", "x", Settings())
    run.begin({})
    files.append_jsonl(tmp_path / "r" / "records.jsonl", {"kind": "attack", "attack_id": "a"})
    run.finish({}, [{"kind": "evaluation"}])
    kinds = [r["kind"] for r in files.read_jsonl(tmp_path / "r" / "records.jsonl")]
    assert kinds == ["evaluation", "attack"]


def test_a_complete_record_without_a_line_end_is_kept(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}')
    files.append_jsonl(path, {"c": 3})
    path.write_text(path.read_text() + '{"torn": ')
    files.append_jsonl(path, {"d": 4})
    assert files.read_jsonl(path) == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]


def test_a_damaged_token_cache_is_replaced(sst2_folder, tmp_path, monkeypatch):
    from conftest import make_tokenizer

    from training import batching
    from training.rows import Rows

    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path))
    rows = Rows([("a good film",), ("a bad film",)], [1, 0], ["x:0", "x:1"], "made")
    good = batching.encode(rows, make_tokenizer(), 32)
    (path,) = (tmp_path / "tokens").iterdir()
    whole = path.read_bytes()
    for offset in (5, 60, -1, -20, len(whole) // 2):
        data = bytearray(whole)
        data[offset] ^= 2
        path.write_bytes(data)
        again = batching.encode(rows, make_tokenizer(), 32)
        assert [a.tolist() for a in again.input_ids] == [a.tolist() for a in good.input_ids]
    assert path.read_bytes() == whole


def test_overwrite_deletes_runs_and_nothing_else(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds no run"):
            runs.Run(home, "x", Settings(overwrite=overwrite))
    run = runs.Run(tmp_path / "r", "x", Settings(a=1))
    run.begin({})
    (tmp_path / "r" / "big").mkdir()
    run.finish({}, [])
    with pytest.raises(UserError, match="a 1 then, 2 now"):
        runs.Run(tmp_path / "r", "x", Settings(a=2))
    # It does not delete its inputs either, because the run reads them later.
    for source in (tmp_path / "r", tmp_path / "r" / "big"):
        with pytest.raises(UserError, match="--scores .* lies in the --output_dir"):
            runs.Run(tmp_path / "r", "x", Settings(scores=str(source), overwrite=True))
    assert (tmp_path / "r" / "big").exists()
    runs.Run(tmp_path / "r", "x", Settings(a=2, overwrite=True)).begin({})
    assert not (tmp_path / "r" / "big").exists() and not (tmp_path / "r" / "result.json").exists()


@pytest.mark.parametrize("name", ["last", "best"])
def test_an_altered_checkpoint_is_named(name, whole, tmp_path, capsys):
    skip_without_textattack()
    shutil.copytree(whole / "finetune", tmp_path / "d")
    path = tmp_path / "d" / name / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    for script, flags in (
        ("search_ticket", {"start_from": name, "output_dir": tmp_path / "s"}),
        ("attack", {"checkpoint": name, "recipe": "deepwordbug"}),
    ):
        line = fails(capsys, script, **flags, model_name=tmp_path / "d")
        assert f"{name}/model.safetensors is missing or damaged" in line


def test_steps_that_are_not_finite_are_skipped_up_to_a_limit(
    encoder, sst2_folder, whole, tmp_path, monkeypatch, capsys
):
    from utils import devices

    real, bad = devices.sum_over_processes, set()

    def poisoned(accelerator, parameters):
        parameters, calls = list(parameters), len(seen)
        real(accelerator, parameters)
        seen.append(1)
        if calls in bad:
            next(p for p in parameters if p.grad is not None).grad.fill_(float("inf"))

    monkeypatch.setattr(devices, "sum_over_processes", poisoned)
    for stage in RESULTS:
        seen: list[int] = []
        bad = {2, 3}
        arguments = command(stage, encoder, sst2_folder, whole, tmp_path / stage)
        call(*arguments)
        steps = [line for line in log_lines(tmp_path / stage) if "lr" in line]
        norms = [line.get("grad_norm", line.get("clip_norm")) for line in steps]
        assert norms[2] == "inf" and isinstance(norms[4], float)
        seen.clear()
        bad = set(range(1, 99))
        line = fails(capsys, *arguments, overwrite=True, checkpoint_every=1)
        assert "10 optimizer steps had a loss or gradient that is not finite" in line
        assert (tmp_path / stage / "state.pt").is_file()


def test_a_collapsed_search_is_reported(whole, tmp_path, capsys):
    penalty = {"lambda_amp": 5000, "lambda_startup_frac": 0, "lambda_warmup_frac": 0}
    flags = {"epochs": 2, "lr": 5, "adv_steps": 0, "bsz": 4} | penalty
    search(whole / "finetune", tmp_path / "s", **flags)
    assert "nearly all gates are closed: the search has collapsed" in capsys.readouterr().err
    assert json.loads((tmp_path / "s" / "result.json").read_text())["last_epoch"]["collapsed"]


def test_a_ticket_without_a_matrix_is_reported(whole, encoder, sst2_folder, tmp_path, capsys):
    import torch

    from masking import ticket_files

    scores, shapes, manifest = ticket_files.load_scores(
        whole / "search_ticket" / "scores.safetensors"
    )
    emptied = next(iter(scores))
    scores[emptied] = torch.full_like(scores[emptied], -100.0)
    ticket_files.save_scores(tmp_path / "x.safetensors", scores, shapes, manifest)
    task = {"task_name": "sst2", "data_dir": sst2_folder, "max_train_rows": 32}
    retrain(encoder, tmp_path / "x.safetensors", tmp_path / "t", **task, epochs=1)
    assert "removes all weights of 1 matrices" in capsys.readouterr().err
    record = files.read_jsonl(tmp_path / "t" / "records.jsonl")[0]
    assert record["ticket"]["emptied_matrices"] == [emptied]


def test_accuracy_at_chance_is_reported(encoder, sst2_folder, tmp_path, capsys):
    finetune(encoder, sst2_folder, tmp_path / "d", epochs=1, lr=1e-30)
    assert "no better than always answering the most frequent class" in capsys.readouterr().err
    assert files.read_jsonl(tmp_path / "d" / "records.jsonl")[0]["at_chance"]


def test_tensorboard_and_the_environment_in_records(whole, encoder, sst2_folder, tmp_path):
    arguments = command("finetune", encoder, sst2_folder, whole, tmp_path / "run")
    call(*arguments, tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    found = files.read_jsonl(tmp_path / "run" / "records.jsonl")[0]["environment"]
    assert len(found["installed"]) == 16 and found["versions"]["torch"]
    name = RESULTS["finetune"]
    assert (tmp_path / "run" / name).read_bytes() == (whole / "finetune" / name).read_bytes()
