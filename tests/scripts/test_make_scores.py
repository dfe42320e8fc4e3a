"""make_scores.py: its kinds of scores, and scores of another encoder."""

import json

import pytest
import torch
from conftest import call, make_encoder
from safetensors.torch import load_file
from script_tools import retrain

from masking import ticket_files, tickets
from utils.files import read_jsonl


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


def test_scores_of_another_encoder_are_refused(runs, tmp_path, capsys):
    for hidden, seed, message in ((32, 0, "made for another encoder"), (16, 5, "another one")):
        other = make_encoder(tmp_path / f"other{hidden}", hidden=hidden, seed=seed)
        with pytest.raises(SystemExit) as stop:
            retrain(other, runs / "search", tmp_path / "t")
        assert stop.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "t").exists()
    retrain(other, runs / "search", tmp_path / "t", epochs=1, allow_other_encoder=True)
