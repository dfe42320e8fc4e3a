"""The three stages on a tiny encoder: what they log, record and save."""

import json

import pytest
import torch
from conftest import log_lines
from safetensors.torch import load_file
from script_tools import retrain, search
from transformers import AutoModelForSequenceClassification

from masking import families, ticket_files, tickets
from utils.files import read_jsonl


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


def test_labels_that_a_mask_has_seen_are_counted(runs):
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


def test_the_result_holds_the_densities_of_the_ticket_by_head(runs):
    manifest = json.loads((runs / "ticket" / "ticket.json").read_text())
    masks, _ = ticket_files.load_ticket(runs / "ticket" / "ticket.safetensors")
    by_head = manifest["density_by_head"]
    assert len(by_head["heads"]) == 2 and len(by_head["heads"][0]) == 2 == len(by_head["mlp"])
    prefix = "bert.encoder.layer.1.attention.self"
    rows = torch.stack([masks[f"{prefix}.{k}"][8:] for k in ("query", "key", "value")])
    assert by_head["heads"][1][1] == pytest.approx(float(rows.float().mean()))
