"""Troubles that a run reports: damaged checkpoints, steps that are not finite, collapse, chance."""

import json
import shutil

import pytest
import torch
from conftest import call, fails, log_lines, skip_without_textattack
from script_tools import finetune, retrain, search
from stage_runs import RESULTS, command

from masking import ticket_files
from utils import devices, files


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
