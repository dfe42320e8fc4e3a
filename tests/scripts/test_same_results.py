"""Equal results: same bytes again and after an interruption; with less memory or two processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import call, log_lines
from safetensors.torch import load_file
from script_tools import at_call, finetune, killed_in_step, retrain, search, without_times
from slurm_here import free_port

from masking import ticket_files
from training import optim
from utils import devices

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_seed_gives_the_same_bytes_in_any_folder(runs, encoder, sst2_folder, tmp_path):
    dense = finetune(encoder, sst2_folder, tmp_path / "d", epochs=4, keep_epochs="1,3")
    scores = search(dense, tmp_path / "s", epochs=3, keep_scores="best,1")
    ticket = retrain(encoder, scores, tmp_path / "t", epochs=4)
    for mine, other, file in (
        (scores, "search", "scores.safetensors"),
        (ticket, "ticket", "ticket.safetensors"),
        (ticket, "ticket", "last/model.safetensors"),
    ):
        assert (mine / file).read_bytes() == (runs / other / file).read_bytes()
    records = [without_times(folder / "records.jsonl") for folder in (ticket, runs / "ticket")]
    assert records[0] == records[1]
    other = search(dense, tmp_path / "s7", epochs=1, seed=7)
    name = "scores.safetensors"
    assert (other / name).read_bytes() != (scores / name).read_bytes()


@pytest.mark.parametrize("every", [0, 4])
def test_an_interrupted_run_ends_with_the_same_bytes(runs, encoder, tmp_path, every):
    searching = {"epochs": 3, "keep_scores": "best,1", "checkpoint_every": every}
    retraining = {"epochs": 4, "checkpoint_every": every}
    for stage, name, count, once in (
        (
            *("search", "scores.safetensors", 30),
            lambda: search(runs / "dense", tmp_path / "search", **searching),
        ),
        (
            *("ticket", "last/model.safetensors", 40),
            lambda: retrain(encoder, runs / "search", tmp_path / "ticket", **retraining),
        ),
    ):
        with killed_in_step(15):
            once()
        assert (tmp_path / stage / "state.pt").exists()
        folder = once()
        assert (folder / name).read_bytes() == (runs / stage / name).read_bytes()
        steps = [x["optimizer_step"] for x in log_lines(folder) if "lr" in x]
        assert steps == list(range(1, count + 1))


def test_less_memory_gives_the_same_steps(runs, encoder, sst2_folder, tmp_path):
    """Equal to rounding, in fp32 without dropout. Adam amplifies rounding of tiny gradients."""
    ways = {"whole": {}, "micro": {"micro_bsz": 5}, "again": {"checkpoint_activations": True}}
    found = {}
    for name, way in ways.items():
        more = {"epochs": 1, "dropout": 0, "precision": "fp32"} | way
        dense = finetune(encoder, sst2_folder, tmp_path / f"dense-{name}", method="freelb", **more)
        scores = search(runs / "dense", tmp_path / f"search-{name}", **more)
        found[name] = [
            [x["loss"] for x in log_lines(dense) if "loss" in x],
            [x["loss_per_pass"] for x in log_lines(scores) if "loss_per_pass" in x],
            [x["clip_norm"] for x in log_lines(scores) if "clip_norm" in x],
        ]
    for less in (found["micro"], found["again"]):
        for ours, whole in zip(less, found["whole"], strict=True):
            ours, whole = torch.tensor(ours), torch.tensor(whole)
            torch.testing.assert_close(whole, ours, rtol=2e-3, atol=1e-5)


def test_gradients_are_summed_once_per_step_for_any_number_of_passes(runs, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(devices, "sum_over_processes", lambda *_: calls.append(1))
    folder = search(runs / "dense", tmp_path / "s", epochs=1, adv_steps=3)
    steps = [x for x in log_lines(folder) if "loss_per_pass" in x]
    assert len(calls) == len(steps) == 10 and len(steps[0]["loss_per_pass"]) == 3


def test_a_spent_time_budget_is_a_resume_point(runs, encoder, tmp_path, capsys, monkeypatch):
    """Send the alarm in step 15, because its real time depends on the machine."""

    def ring() -> None:
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 3000
        os.kill(os.getpid(), signal.SIGALRM)

    monkeypatch.setattr(optim, "set_lr", at_call(15, ring, optim.set_lr))
    try:
        retrain(encoder, runs / "search", tmp_path / "t", epochs=4, time_budget="1h")
    except SystemExit as stop:
        status = stop.code
    assert status == 124 and not (tmp_path / "t" / "last").exists()
    message = capsys.readouterr().err
    assert "the time budget is spent; the same command resumes after optimizer step 15" in message
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    retrain(encoder, runs / "search", tmp_path / "t", epochs=4, time_budget="2h")
    weights = "last/model.safetensors"
    assert (tmp_path / "t" / weights).read_bytes() == (runs / "ticket" / weights).read_bytes()


# What torchrun does, with one import of torch for both processes, which takes seconds.
TWO_PROCESSES = """
import json, os, sys
sys.path[:0] = {paths}
from conftest import call
os.environ |= {{"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "{port}"}}
child = os.fork()
rank = "1" if child == 0 else "0"
os.environ |= {{"RANK": rank, "LOCAL_RANK": rank}}
for script, flags in json.loads({runs!r}):
    call(script, **flags)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_two_processes_search_like_one(encoder, sst2_folder, tmp_path):
    """Without dropout, two CPU processes give the same scores and checkpoint to rounding."""
    usual = {"epochs": 1, "bsz": 15, "quiet": True, "dropout": 0, "precision": "fp32"}
    data = {"task_name": "sst2", "data_dir": str(sst2_folder), "max_train_rows": 61}
    stage_1 = {"model_name": str(encoder), "lr": 1e-3} | data | usual
    stage_2 = {"model_name": str(tmp_path / "dense1"), "adv_steps": 2} | usual

    def runs(n: int) -> list[tuple[str, dict]]:
        return [
            ("finetune", stage_1 | {"output_dir": str(tmp_path / f"dense{n}")}),
            ("search_ticket", stage_2 | {"output_dir": str(tmp_path / f"search{n}")}),
        ]

    for script, flags in runs(1):
        call(script, **flags)
    paths, port = [str(ROOT), str(ROOT / "tests")], free_port()
    program = TWO_PROCESSES.format(paths=paths, port=port, runs=json.dumps(runs(2)))
    command, environment = [sys.executable, "-c", program], os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_file(tmp_path / f"dense{n}/last/model.safetensors") for n in (1, 2))
    for name in one:
        # The bias of a key cancels in the softmax. Its gradient is rounding, which Adam scales up.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=2e-4)
    one, two = (
        ticket_files.load_scores(tmp_path / f"search{n}/scores.safetensors")[0] for n in (1, 2)
    )
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["freelb", "infobert"])
def test_adversarial_training_resumes_to_the_same_bytes(encoder, sst2_folder, tmp_path, method):
    """This includes the critic of InfoBERT, which is not part of a checkpoint."""
    flags = {"epochs": 2, "method": method, "checkpoint_every": 3}
    whole = finetune(encoder, sst2_folder, tmp_path / "whole", **flags)
    with killed_in_step(9):
        finetune(encoder, sst2_folder, tmp_path / "cut", **flags)
    cut = finetune(encoder, sst2_folder, tmp_path / "cut", **flags)
    name = "last/model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
    lines = [line for line in log_lines(cut) if "loss_per_pass" in line]
    assert len(lines) == 20 and ("infobert_terms" in lines[0]) == (method == "infobert")
