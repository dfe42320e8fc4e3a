"""The three stages on a tiny encoder: their files, resumption, repetition and errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import call, log_lines, make_encoder, sentences, write_tsv
from safetensors.torch import load_file, save_file
from script_tools import (
    Killed,
    at_call,
    die,
    finetune,
    killed_in_step,
    retrain,
    search,
    without_times,
)
from slurm_here import free_port
from transformers import AutoModelForSequenceClassification

from masking import families, ticket_files, tickets
from training import optim
from utils.files import read_jsonl

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(encoder, sst2_folder, tmp_path_factory):
    """A run of each stage: dense, search, ticket."""
    root = tmp_path_factory.mktemp("runs")
    finetune(encoder, sst2_folder, root / "dense", epochs=4, keep_epochs="1,3")
    search(root / "dense", root / "search", epochs=3, keep_scores="best,1")
    retrain(encoder, root / "search", root / "ticket", epochs=4)
    return root


def test_stage_1_learns_and_keeps_the_given_epochs(runs):
    result = json.loads((runs / "dense" / "result.json").read_text())
    last, best = result["checkpoints"]["last"], result["checkpoints"]["best"]
    assert last["clean_percent"] > 80 and last["epoch"] == 4
    assert best["dev_accuracy_percent"] >= last["dev_accuracy_percent"]
    assert best["epoch"] == result["best_dev_epoch"]
    for name in ("last", "best", "epoch1", "epoch3"):
        AutoModelForSequenceClassification.from_pretrained(runs / "dense" / name)
    assert not (runs / "dense" / "epoch2").exists()
    steps = [line for line in log_lines(runs / "dense") if "loss" in line]
    assert [line["optimizer_step"] for line in steps] == list(range(1, 41))
    assert steps[0]["lr"] == 0 and steps[-1]["lr"] < steps[6]["lr"]
    assert not (runs / "dense" / "state.pt").exists()


def test_records_are_complete(runs):
    records = read_jsonl(runs / "ticket" / "records.jsonl")
    assert [r["checkpoint"] for r in records] == ["last", "best"]
    for r in records:
        assert r["kind"] == "evaluation" and r["task"] == "sst2" and r["stage"] == "retrain"
        assert r["ticket"]["kind"] == "robust" and r["ticket"]["sparsity_asked"] == 0.4
        assert r["rows_evaluated"] == 40 and r["rows"]["fingerprint"] and r["seed"] == 42
        assert r["environment"]["versions"]["torch"] and r["seconds"] > 0
        low, high = r["clean_interval_95_percent"]
        assert low <= r["clean_percent"] <= high
        assert len(r["measures"]["f1_per_class_percent"]) == 2


def test_stage_2_logs_what_the_paper_plots(runs):
    lines = log_lines(runs / "search")
    steps = [line for line in lines if "loss_per_pass" in line]
    epochs = [line for line in lines if "dev" in line]
    assert len(steps) == 30 and len(epochs) == 3
    for line in steps:
        assert len(line["loss_per_pass"]) == 2 and len(line["delta_norm_per_pass"]) == 2
        assert {"penalty", "lambda_reg", "lr", "score_grad_norm", "l0_grad_norm"} <= line.keys()
    assert steps[0]["lambda_reg"] == 0 and steps[-1]["lambda_reg"] == 0.5
    assert steps[0]["penalty"] == pytest.approx(0.9611, abs=1e-4)
    dev = epochs[-1]["dev"]
    assert sum(dev["gate_shares"].values()) == pytest.approx(1)
    assert set(dev["ticket_density_by_kind"]) == {*families.KINDS_OF_A_LAYER, "pooler"}
    assert dev["ticket_sparsity"] == pytest.approx(0.3, abs=1e-3)


def test_scores_of_the_given_epochs(runs):
    last, _, manifest = ticket_files.load_scores(runs / "search" / "scores.safetensors")
    first, _, early = ticket_files.load_scores(runs / "search" / "scores_epoch1.safetensors")
    _, _, best = ticket_files.load_scores(runs / "search" / "scores_best.safetensors")
    assert manifest["epoch"] == 3 and early["epoch"] == 1 and best["epoch"] in (1, 2, 3)
    assert any(not torch.equal(last[n], first[n]) for n in last)
    assert manifest["kind"] == "robust" and manifest["task"] == "sst2"
    assert str(runs) not in json.dumps(manifest)


def test_stage_3_saves_an_ordinary_checkpoint_and_its_ticket(runs):
    masks, manifest = ticket_files.load_ticket(runs / "ticket" / "ticket.safetensors")
    total = sum(m.numel() for m in masks.values())
    assert sum(int((~m).sum()) for m in masks.values()) == round(0.4 * total)
    assert manifest["sparsity_asked"] == 0.4 and manifest["source"]["kind"] == "robust"
    assert manifest == json.loads((runs / "ticket" / "ticket.json").read_text())
    scores, shapes, _ = ticket_files.load_scores(runs / "search" / "scores.safetensors")
    again = tickets.draw(scores, shapes, 0.4)
    assert all(torch.equal(again[n], masks[n]) for n in masks)
    for name in ("last", "best"):
        weights = load_file(runs / "ticket" / name / "model.safetensors")
        for path, mask in masks.items():
            assert (weights[f"{path}.weight"][~mask] == 0).all()
            assert (weights[f"{path}.weight"][mask] != 0).float().mean() > 0.99
    model = AutoModelForSequenceClassification.from_pretrained(runs / "ticket" / "last")
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_retraining_starts_from_the_pretrained_weights(runs, encoder, tmp_path):
    """With a learning rate that moves nothing, the kept weights are those of the encoder."""
    retrain(encoder, runs / "search", tmp_path / "t", epochs=1, lr=1e-30)
    masks, _ = ticket_files.load_ticket(tmp_path / "t" / "ticket.safetensors")
    before = load_file(encoder / "model.safetensors")
    after = load_file(tmp_path / "t" / "last" / "model.safetensors")
    for path, mask in masks.items():
        assert torch.equal(after[f"{path}.weight"], before[f"{path}.weight"] * mask)


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
    from utils import devices

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


def test_a_control_ends_at_the_tickets_training_loss(runs, encoder, sst2_folder, tmp_path, capsys):
    ticket = json.loads((runs / "ticket" / "last" / "checkpoint.json").read_text())
    loss = ticket["mean_training_loss"]
    folder = finetune(encoder, sst2_folder, tmp_path / "a", epochs=30, stop_at_loss=runs / "ticket")
    losses = [x["mean_training_loss"] for x in log_lines(folder) if "mean_training_loss" in x]
    assert losses[-1] <= loss < min(losses[:-1]) and len(losses) < 30
    last, best = read_jsonl(folder / "records.jsonl")
    assert last["epoch"] == len(losses) and last["epochs"] == 30 and last["ticket"] is None
    stop = last["stop_at_loss"]
    assert stop["loss"] == loss and stop["epochs"] == 4 and stop["ticket"] == ticket["ticket"]
    assert json.loads((folder / "last" / "checkpoint.json").read_text())["epoch"] == len(losses)
    # The loss as a number, interrupted in the evaluation after its last epoch: the same weights.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("training.results.finish", lambda *_: die())
        finetune(encoder, sst2_folder, tmp_path / "b", epochs=30, stop_at_loss=loss)
    finetune(encoder, sst2_folder, tmp_path / "b", epochs=30, stop_at_loss=loss)
    weights = "last/model.safetensors"
    assert (folder / weights).read_bytes() == (tmp_path / "b" / weights).read_bytes()
    capsys.readouterr()
    finetune(encoder, sst2_folder, tmp_path / "c", epochs=1, stop_at_loss=1e-9)
    assert "the control is not matched" in capsys.readouterr().err


def test_a_control_from_a_longer_run_equals_the_one_trained_by_itself(
    runs, encoder, sst2_folder, tmp_path
):
    every = "1,2,3,4,5,6"
    longer = finetune(encoder, sst2_folder, tmp_path / "longer", epochs=6, keep_epochs=every)
    losses = [x["mean_training_loss"] for x in log_lines(longer) if "mean_training_loss" in x]
    # Stop at the first epoch, at an epoch that reaches the loss, and at the last epoch.
    wanted = losses[0] + 1, sorted(losses)[2], min(losses) / 2
    for i, loss in enumerate(wanted):
        stop = {"epochs": 6, "stop_at_loss": loss}
        own = finetune(encoder, sst2_folder, tmp_path / f"own{i}", **stop)
        taken = finetune(encoder, sst2_folder, tmp_path / f"taken{i}", **stop, from_run=longer)
        for name in ("last", "best"):
            for file in ("model.safetensors", "checkpoint.json"):
                assert (own / name / file).read_bytes() == (taken / name / file).read_bytes()
        assert log_lines(own) == log_lines(taken)
        records = [read_jsonl(folder / "records.jsonl") for folder in (own, taken)]
        timeless = [
            [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in found]
            for found in records
        ]
        assert timeless[0] == timeless[1]
        assert all(r["seconds_of_training"] > 0 for r in records[1])
        found = json.loads((taken / "result.json").read_text())["checkpoints"]["last"]["epoch"]
        reached = [epoch for epoch, x in enumerate(losses, start=1) if x <= loss]
        assert found == (reached[0] if reached else 6)


def test_a_control_comes_only_from_a_run_with_the_same_settings(
    runs, encoder, sst2_folder, tmp_path, capsys
):
    stop = {"epochs": 4, "stop_at_loss": 0.01, "from_run": runs / "dense"}
    for changes, message in (
        ({"lr": 1e-5}, "with other settings: lr"),
        ({}, "has not kept epoch"),
        ({"from_run": runs / "search"}, "is not a finished run of finetune.py"),
        ({"stop_at_loss": None}, "--from_run needs --stop_at_loss"),
        ({"keep_epochs": 1}, "takes one epoch"),
        ({"max_train_rows": 20}, "max_train_rows"),
    ):
        with pytest.raises(SystemExit) as left:
            finetune(encoder, sst2_folder, tmp_path / "c", **stop | changes)
        assert left.value.code == 2 and message in capsys.readouterr().err
        shutil.rmtree(tmp_path / "c", ignore_errors=True)


def test_a_control_is_not_taken_from_other_data(encoder, sst2_folder, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(sst2_folder, data)
    longer = finetune(encoder, data, tmp_path / "longer", epochs=2, keep_epochs="1,2")
    stop = {"epochs": 2, "stop_at_loss": 9, "from_run": longer}
    for damage, message in (("log.jsonl", "is damaged"), ("data", "its data is another")):
        if damage == "data":
            text = (data / "train.tsv").read_text().splitlines()
            (data / "train.tsv").write_text("\n".join(text[:-1]) + "\n")
        else:
            kept = (longer / damage).read_text()
            (longer / damage).write_text("")
        with pytest.raises(SystemExit) as left:
            finetune(encoder, data, tmp_path / "c", **stop)
        assert left.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "c").exists()
        (longer / "log.jsonl").write_text(kept)


def test_labels_that_a_mask_has_seen_are_counted(runs, tmp_path):
    _, _, manifest = ticket_files.load_scores(runs / "search" / "scores.safetensors")
    assert manifest["label_passes"] == 4 + 3  # stage 1's epochs, and the search's
    _, _, first = ticket_files.load_scores(runs / "search" / "scores_epoch1.safetensors")
    assert first["label_passes"] == 4 + 1
    assert read_jsonl(runs / "ticket" / "records.jsonl")[0]["label_passes"] == 4 + 3 + 4
    assert read_jsonl(runs / "dense" / "records.jsonl")[0]["label_passes"] == 4


def test_a_finished_run_does_not_change_and_another_is_refused(runs, capsys):
    before = (runs / "search" / "scores.safetensors").stat().st_mtime_ns
    search(runs / "dense", runs / "search", epochs=3, keep_scores="best,1")
    assert "finished" in capsys.readouterr().out
    assert (runs / "search" / "scores.safetensors").stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        search(runs / "dense", runs / "search", epochs=3, lambda_amp=0.1)
    assert "lambda_amp 0.5 then, 0.1 now" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["random", "magnitude", "random_matched"])
def test_other_kinds_of_scores(runs, encoder, tmp_path, kind):
    matched = kind == "random_matched"
    source = {"scores": runs / "search"} if matched else {"model_name": encoder}
    call("make_scores", kind=kind, **source, output_dir=tmp_path / "s")
    scores, shapes, manifest = ticket_files.load_scores(tmp_path / "s" / "scores.safetensors")
    assert manifest["kind"] == kind
    if kind == "magnitude":
        weights = load_file(encoder / "model.safetensors")
        assert all(torch.equal(s, weights[f"{n}.weight"].abs()) for n, s in scores.items())
    if kind == "random_matched":
        robust, _, _ = ticket_files.load_scores(runs / "search" / "scores.safetensors")
        for sparsity in (0.1, 0.5, 0.9):
            a, b = (tickets.draw(s, shapes, sparsity) for s in (scores, robust))
            assert all(int(a[n].sum()) == int(b[n].sum()) for n in a)
        assert any(not torch.equal(scores[n], robust[n]) for n in scores)


def test_magnitude_of_finetuned_weights(runs, encoder, tmp_path):
    call(
        "make_scores",
        kind="magnitude",
        model_name=encoder,
        finetuned=runs / "dense" / "last",
        output_dir=tmp_path / "s",
    )
    scores, _, manifest = ticket_files.load_scores(tmp_path / "s" / "scores.safetensors")
    weights = load_file(runs / "dense" / "last" / "model.safetensors")
    assert all(torch.equal(s, weights[f"{n}.weight"].abs()) for n, s in scores.items())
    assert manifest["of"] == "finetuned"
    assert manifest["label_passes"] == 4  # the fine-tuning's epochs


@pytest.mark.parametrize("kind", ["wanda", "taylor"])
def test_scores_from_training_rows(runs, encoder, tmp_path, kind):
    """They start from stage 1's best checkpoint and its data, and stage 3 takes them."""
    flags = {"kind": kind, "model_name": encoder, "finetuned": runs / "dense"}
    flags |= {"calibration_rows": 20}
    call("make_scores", **flags, output_dir=tmp_path / "s")
    path = tmp_path / "s" / "scores.safetensors"
    scores, shapes, manifest = ticket_files.load_scores(path)
    best = json.loads((runs / "dense" / "result.json").read_text())["best_dev_epoch"]
    assert manifest["kind"] == kind and manifest["task"] == "sst2" and manifest["of"] == "finetuned"
    assert manifest["label_passes"] == best + (kind == "taylor")
    assert manifest["recipe"] == {"calibration_rows": 20}
    robust = ticket_files.load_scores(runs / "search" / "scores.safetensors")
    assert manifest["encoder"] == robust[2]["encoder"] and shapes == robust[1]
    ticket = retrain(encoder, tmp_path / "s", tmp_path / "t", epochs=1)
    [record, *_] = read_jsonl(ticket / "records.jsonl")
    assert record["ticket"]["kind"] == kind
    assert record["label_passes"] == manifest["label_passes"] + 1
    # Other rows give other scores; the same rows, from the checkpoint itself, the same bytes.
    call("make_scores", **flags, output_dir=tmp_path / "other", seed=1)
    other = ticket_files.load_scores(tmp_path / "other" / "scores.safetensors")
    assert other[2]["calibration"]["fingerprint"] != manifest["calibration"]["fingerprint"]
    assert any(not torch.equal(other[0][name], s) for name, s in scores.items())
    call("make_scores", **flags | {"finetuned": runs / "dense" / "best"}, output_dir=tmp_path / "b")
    assert (tmp_path / "b" / "scores.safetensors").read_bytes() == path.read_bytes()


def test_wanda_of_the_pretrained_encoder(encoder, sst2_folder, tmp_path):
    flags = {"kind": "wanda", "model_name": encoder, "task_name": "sst2", "data_dir": sst2_folder}
    call("make_scores", **flags, exclude="pooler", output_dir=tmp_path / "s")
    scores, shapes, manifest = ticket_files.load_scores(tmp_path / "s" / "scores.safetensors")
    assert manifest["kind"] == "wanda_pretrained" and manifest["label_passes"] == 0
    assert manifest["recipe"] == {"calibration_rows": 128} and "pooler" not in manifest["matrices"]
    for name, mask in tickets.draw(scores, shapes, 0.5).items():
        assert (mask.sum(1) == shapes[name][1] // 2).all()


SWITCHED = {"epochs": 1, "max_grad_norm": 0.01, "precision": "fp32"}


@pytest.fixture(scope="module")
def usual_search(runs, tmp_path_factory):
    """The search whose switches are changed one by one."""
    return search(runs / "dense", tmp_path_factory.mktemp("usual") / "search", **SWITCHED)


@pytest.mark.parametrize(
    "flags",
    [
        ("--deviations", "released"),
        ("--adv_gradient", "last"),
        ("--adv_steps", 0),
        ("--redraw", "each_step"),
        ("--out_w_per_mask", 1, "--in_w_per_mask", 0),
        ("--out_w_per_mask", 4, "--in_w_per_mask", 4),
        ("--adv_norm_type", "linf"),
        ("--adv_max_norm", 0.01),
        ("--no-group_by_length",),
        ("--precision", "bf16"),
        ("--start_from", "last"),
        ("--attn_implementation", "eager"),
    ],
)
def test_every_switch_of_the_search_runs_and_changes_the_scores(
    runs, usual_search, tmp_path, flags
):
    plain, _, _ = ticket_files.load_scores(usual_search / "scores.safetensors")
    search(runs / "dense", tmp_path / "t", *flags, **SWITCHED)
    scores, shapes, _ = ticket_files.load_scores(tmp_path / "t" / "scores.safetensors")
    best_is_last = json.loads((runs / "dense/result.json").read_text())["best_dev_epoch"] == 4
    same = all(s.shape == plain[n].shape and torch.equal(s, plain[n]) for n, s in scores.items())
    if flags[0] == "--start_from" and best_is_last:
        assert same
    elif flags[0] != "--attn_implementation":  # equal to rounding
        assert not same
    masks = tickets.draw(scores, shapes, 0.5)
    assert abs(tickets.sparsity_of(masks) - 0.5) < 0.02


def test_released_deviations_in_stages_1_and_3(runs, encoder, sst2_folder, tmp_path):
    finetune(encoder, sst2_folder, tmp_path / "d", epochs=1, deviations="released")
    args = json.loads((tmp_path / "d" / "run.json").read_text())["args"]
    assert args["max_grad_norm"] == 0 and args["adamw"] == "released"
    flags = {"epochs": 1, "deviations": "released", "max_grad_norm": 1.0}
    retrain(encoder, runs / "search", tmp_path / "t", **flags)
    args = json.loads((tmp_path / "t" / "run.json").read_text())["args"]
    assert args["max_grad_norm"] == 1.0 and args["adamw"] == "released"
    masks, _ = ticket_files.load_ticket(tmp_path / "t" / "ticket.safetensors")
    weights = load_file(tmp_path / "t" / "last" / "model.safetensors")
    assert all((weights[f"{n}.weight"][~m] == 0).all() for n, m in masks.items())


def test_scores_of_another_encoder_are_refused(runs, tmp_path, capsys):
    for hidden, seed, message in ((32, 0, "made for another encoder"), (16, 5, "another one")):
        other = make_encoder(tmp_path / f"other{hidden}", hidden=hidden, seed=seed)
        with pytest.raises(SystemExit) as stop:
            retrain(other, runs / "search", tmp_path / "t")
        assert stop.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "t").exists()
    retrain(other, runs / "search", tmp_path / "t", epochs=1, allow_other_encoder=True)


def test_pair_task_with_token_types(encoder, tmp_path):
    rows = [(a, b, y) for (a, y), (b, _) in zip(sentences(80, 3), sentences(80, 4), strict=True)]
    for name, part in (("train", rows[:60]), ("dev", rows[60:])):
        write_tsv(tmp_path / "data" / f"{name}.tsv", part, "question\tsentence\tlabel")
    task = {"dataset_name": "glue", "task_name": "qnli", "max_seq_length": 64}
    finetune(encoder, tmp_path / "data", tmp_path / "d", **task, epochs=1)
    plain = search(tmp_path / "d", tmp_path / "s", epochs=1)
    without = search(tmp_path / "d", tmp_path / "s0", "--no-token_type_ids", epochs=1)
    a, b = ((f / "scores.safetensors").read_bytes() for f in (plain, without))
    assert a != b


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


@pytest.mark.parametrize("law", [{}, {"reinit_law": "shuffled", "reinit_scope": "encoder"}])
def test_table_4_structure_without_pretrained_weights(runs, encoder, tmp_path, law):
    """The zeros of the ticket stay, its other weights are new. The learning rate moves nothing."""
    flags = {"epochs": 1, "lr": 1e-30, "reinitialise": "ticket"} | law
    retrain(encoder, runs / "search", tmp_path / "t", **flags)
    masks, _ = ticket_files.load_ticket(tmp_path / "t" / "ticket.safetensors")
    before = load_file(encoder / "model.safetensors")
    after = load_file(tmp_path / "t" / "last" / "model.safetensors")
    for path, mask in masks.items():
        weight, old = after[f"{path}.weight"], before[f"{path}.weight"]
        assert (weight[~mask] == 0).all() and (weight[mask] != old[mask]).float().mean() > 0.9
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(after[name], before[name]) == (not law)
    ticket = read_jsonl(tmp_path / "t" / "records.jsonl")[0]["ticket"]
    assert ticket["reinitialised"] == "ticket" and ticket["sparsity_asked"] == 0.4
    assert ticket["reinit_law"] == law.get("reinit_law", "normal")


def test_table_4_pretrained_weights_without_structure(runs, encoder, tmp_path):
    """Dense: weights of the ticket start pre-trained, others from N(0, 0.02^2). All train."""
    flags = {"epochs": 1, "reinitialise": "rest"}
    retrain(encoder, runs / "search", tmp_path / "t", **flags, lr=1e-30)
    masks, _ = ticket_files.load_ticket(tmp_path / "t" / "ticket.safetensors")
    before = load_file(encoder / "model.safetensors")
    after = load_file(tmp_path / "t" / "last" / "model.safetensors")
    drawn = []
    for path, mask in masks.items():
        weight, old = after[f"{path}.weight"], before[f"{path}.weight"]
        assert torch.equal(weight[mask], old[mask])
        drawn.append(weight[~mask])
    assert float(torch.cat(drawn).std()) == pytest.approx(0.02, rel=0.05)
    retrain(encoder, runs / "search", tmp_path / "u", **flags)
    moved = load_file(tmp_path / "u" / "last" / "model.safetensors")
    for path, mask in masks.items():
        weight, old = moved[f"{path}.weight"], after[f"{path}.weight"]
        assert (weight[~mask] != old[~mask]).float().mean() > 0.9


def test_the_result_holds_the_densities_of_the_ticket_by_head(runs):
    manifest = json.loads((runs / "ticket" / "ticket.json").read_text())
    masks, _ = ticket_files.load_ticket(runs / "ticket" / "ticket.safetensors")
    by_head = manifest["density_by_head"]
    assert len(by_head["heads"]) == 2 and len(by_head["heads"][0]) == 2 == len(by_head["mlp"])
    prefix = "bert.encoder.layer.1.attention.self"
    rows = torch.stack([masks[f"{prefix}.{k}"][8:] for k in ("query", "key", "value")])
    assert by_head["heads"][1][1] == pytest.approx(float(rows.float().mean()))


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


def test_adversarial_retraining_and_shared_dropout(runs, encoder, tmp_path):
    """Stage 3 with FreeLB, and one dropout mask for all passes of a step or one per pass."""
    for name, flags in (("step", {}), ("pass", {"redraw": "each_pass"})):
        more = {"epochs": 1, "method": "freelb"} | flags
        retrain(encoder, runs / "search", tmp_path / name, **more)
    step, each = (load_file(tmp_path / n / "last/model.safetensors") for n in ("step", "pass"))
    assert any(not torch.equal(step[n], each[n]) for n in step)
    assert read_jsonl(tmp_path / "step" / "records.jsonl")[0]["method"] == "freelb"


def mnli_rows(count: int, seed: int) -> list[tuple]:
    """Premise, hypothesis and label (GLUE: 0 entailment, 1 neutral, 2 contradiction)."""
    from conftest import BAD, GOOD, PLAIN

    both = sentences(2 * count, seed)
    words = (GOOD, PLAIN, BAD)
    return [(both[i][0], " ".join(words[i % 3][:4]), i % 3) for i in range(count)]


@pytest.mark.slow
def test_mnli_in_all_stages_and_a_checkpoint_of_another_label_order(encoder, tmp_path):
    """The search puts the logits of a checkpoint into the task's order, by label names."""
    header = "premise\thypothesis\tlabel"
    write_tsv(tmp_path / "data" / "train.tsv", mnli_rows(120, 5), header)
    write_tsv(tmp_path / "data" / "dev_matched.tsv", mnli_rows(30, 6), header)
    write_tsv(tmp_path / "data" / "dev_mismatched.tsv", mnli_rows(9, 7), header)
    task = {"dataset_name": "glue", "task_name": "mnli", "max_seq_length": 64}
    finetune(encoder, tmp_path / "data", tmp_path / "d", **task, epochs=6)
    result = json.loads((tmp_path / "d" / "result.json").read_text())
    assert result["splits"]["test"]["source"] == "dev_matched.tsv"
    assert result["checkpoints"]["last"]["clean_percent"] > 80
    plain = search(tmp_path / "d", tmp_path / "s", epochs=1)

    best = tmp_path / "d" / "best"  # the same model with its logits in another order
    order = [2, 0, 1]
    weights = load_file(best / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order].clone()
    save_file(weights, best / "model.safetensors", {"format": "pt"})
    config = json.loads((best / "config.json").read_text())
    names = [config["id2label"][str(i)] for i in order]
    config["id2label"] = {str(i): name for i, name in enumerate(names)}
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (best / "config.json").write_text(json.dumps(config))
    facts = json.loads((best / "checkpoint.json").read_text())
    del facts["sha256"]  # of the original weights
    (best / "checkpoint.json").write_text(json.dumps(facts))
    turned = search(tmp_path / "d", tmp_path / "s2", epochs=1)
    a, b = (ticket_files.load_scores(f / "scores.safetensors")[0] for f in (plain, turned))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-4)
    retrain(encoder, plain, tmp_path / "t", sparsity=0.3, epochs=1)
    assert read_jsonl(tmp_path / "t" / "records.jsonl")[0]["task"] == "mnli"
