"""Exports: equal to their checkpoints, complete or absent, described by their cards."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, fails, make_encoder
from hub.clients import clients_of
from hub.server import MEMBER
from script_tools import SMALL, finetune, retrain, search
from test_commands import attack_record
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import export
from evaluation import checkpoints
from masking import encoders, structures, ticket_files, unit_tickets
from training import models, onnx_models
from utils.files import append_jsonl, read_json, write_json

TEXTS = ["a good film", "the plot was very dull and the actor was sad", "bad"]


@pytest.fixture(scope="module")
def runs(encoder, sst2_folder, tmp_path_factory) -> Path:
    """Runs of the stages; the ticket's checkpoint was attacked, and another one too."""
    root = tmp_path_factory.mktemp("runs")
    finetune(encoder, sst2_folder, root / "dense", epochs=1)
    search(root / "dense", root / "search", epochs=1)
    ticket = retrain(encoder, root / "search", root / "ticket", epochs=1)
    [target] = checkpoints.find_targets(str(ticket), "last", None)
    for digest, aua in ((checkpoints.weights_digest(target), 40.0), ("another", 77.0)):
        record = attack_record(checkpoint_sha256=digest, aua_percent=aua, protocol_id="p1")
        append_jsonl(ticket / "records.jsonl", record | {"attack_id": digest})
    return root


def logits_of(folder: Path, texts: list[str]) -> np.ndarray:
    """By transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits.numpy()


def test_a_checkpoint_with_its_card(runs, tmp_path, capsys):
    folder = tmp_path / "mine"
    call("export", runs / "ticket", to="safetensors", output_dir=folder)
    assert "on 64 rows: logits differ by at most 0.0e+00 (allowed" in capsys.readouterr().out
    assert (logits_of(folder, TEXTS) == logits_of(runs / "ticket" / "last", TEXTS)).all()
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "base encoder, tiny-bert: read its model card" in card
    assert "| ticket | robust, 40.0 % removed, in `ticket.safetensors` |" in card
    assert "| 90.0 [82.6, 94.5] | 40.0 [30.9, 49.8] | — | p1 |" in card and "77.0" not in card
    clean = read_json(runs / "ticket" / "result.json")["checkpoints"]["last"]["clean_percent"]
    assert f"Clean accuracy on the test split: {clean:.1f} % [" in card
    ticket = "ticket.safetensors"
    assert (folder / ticket).read_bytes() == (runs / "ticket" / ticket).read_bytes()
    for path in folder.iterdir():  # a folder to ship: no place on this machine
        assert str(tmp_path.parent).encode() not in path.read_bytes(), path
    # The export is a checkpoint with a known past: it can be attacked, or exported once more.
    [target] = checkpoints.find_targets(str(folder), "last", None)
    assert target.facts["ticket"]["kind"] == "robust"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_onnx_files_without_transformers(runs, tmp_path, sst2_folder, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    call(
        "export", runs / "dense", to="safetensors", output_dir=tmp_path / "again", checkpoint="best"
    )
    data = {"task_name": "sst2", "data_dir": sst2_folder, "max_eval_rows": 40}
    call("export", tmp_path / "again", to="onnx-int8", output_dir=tmp_path / "int8", **data)
    out = capsys.readouterr().out.splitlines()[-1]
    assert "on 64 rows" in out and "allowed" not in out and "% of the predictions are equal" in out
    card = (tmp_path / "int8" / "README.md").read_text()
    assert "before quantization" in card and "was not attacked: Aua is unknown" in card
    assert "ticket" not in card.split("# int8")[1].split("## How well")[0].replace("tickets", "")
    facts = json.loads((tmp_path / "int8" / "export.json").read_text())
    assert facts["compared"]["tolerance"] is None
    assert not list((tmp_path / "int8").rglob("*fp32*"))
    session = onnxruntime.InferenceSession(tmp_path / "int8" / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "int8")
    batch = {
        n: v.astype(np.int64)
        for n, v in tokenizer(TEXTS, padding=True, return_tensors="np").items()
    }
    got = session.run(["logits"], batch)[0]
    expected = logits_of(runs / "dense" / "best", TEXTS)
    assert np.abs(got - expected).max() < 0.2 * np.abs(expected).max()


def ticket_of_units(
    encoder: Path, path: Path, structure=("ffn_neurons", "layers"), first: int = 0
) -> Path:
    """A ticket without the second of three layers and without half of the neurons of the others."""
    model = models.load_pretrained(str(encoder), ("a", "b"), 1, None, "sdpa")
    units = structures.find_units(model, list(structure))
    kept = {unit.name: torch.ones(unit.count, 1, dtype=torch.bool) for unit in units}
    for i, name in enumerate(n for n in kept if "ffn_neurons" in n):
        kept[name][(i + first) % 2 :: 2] = False
    kept[[n for n in kept if "layers" in n][1]][:] = False
    masks = unit_tickets.masks_of(units, kept, encoders.weight_shapes(model))
    fingerprint = encoders.encoder_fingerprint(model)
    source = {"kind": "robust", "seed": 1, "structure": list(structure), "recipe": {}}
    source |= {"encoder": models.encoder_facts(str(encoder), model, fingerprint), "sha256": "x"}
    ticket_files.save_ticket(path, masks, {"source": source})
    return path


@pytest.mark.slow
def test_units_that_a_ticket_removes_are_not_exported(sst2_folder, tmp_path, capsys):
    encoder = make_encoder(tmp_path / "encoder", layers=3)
    data = {"model_name": encoder, "task_name": "sst2", "data_dir": sst2_folder, "epochs": 1}
    data |= SMALL | {"ticket": ticket_of_units(encoder, tmp_path / "t.safetensors")}
    for flag in ("--no-shrink", "--shrink"):
        run = tmp_path / flag
        call("retrain_ticket", flag, **data, output_dir=run)
        capsys.readouterr()
        call("export", run, to="safetensors", output_dir=tmp_path / f"out{flag}")
        out, folder = capsys.readouterr().out, tmp_path / f"out{flag}"
        config = read_json(folder / "config.json")
        assert (config["num_hidden_layers"], config["intermediate_size"]) == (2, 16)
        assert "the export has 2 layers, 16 neurons in each layer\n" in out
        assert "| 2 layers, 16 neurons in each layer |" in (folder / "README.md").read_text()
        off = np.abs(logits_of(folder, TEXTS) - logits_of(run / "last", TEXTS)).max()
        assert off < 1e-5
    before = read_json(tmp_path / "--no-shrink" / "last" / "config.json")
    assert (before["num_hidden_layers"], before["intermediate_size"]) == (2, 32)
    # Without its own ticket, the zeros of a run would stay.
    own, run, out = tmp_path / "own", tmp_path / "--no-shrink", tmp_path / "none"
    (run / "ticket.safetensors").rename(own)
    said = fails(capsys, "export", run, to="safetensors", output_dir=out)
    assert "ticket.safetensors is missing" in said and not out.exists()
    ticket_of_units(encoder, run / "ticket.safetensors", first=1)
    said = fails(capsys, "export", run, to="safetensors", output_dir=out)
    assert "is not the ticket of this run" in said and not out.exists()


@pytest.mark.slow
def test_a_ticket_of_layers_alone_is_exported(sst2_folder, tmp_path):
    encoder = make_encoder(tmp_path / "encoder", layers=3)
    ticket = ticket_of_units(encoder, tmp_path / "t.safetensors", ["layers"])
    data = {"model_name": encoder, "task_name": "sst2", "data_dir": sst2_folder, "epochs": 1}
    call("retrain_ticket", **data | SMALL, ticket=ticket, output_dir=tmp_path / "run")
    call("export", tmp_path / "run", to="safetensors", output_dir=tmp_path / "out")
    assert read_json(tmp_path / "out" / "config.json")["num_hidden_layers"] == 2


def test_a_signal_leaves_the_earlier_export(runs, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mine"
    call("export", runs / "dense", to="safetensors", output_dir=folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(export, "compare", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        call("export", runs / "dense", "--overwrite", to="safetensors", output_dir=folder)
    assert stop.value.code == 143
    line = "stopped by SIGTERM; the same command resumes from its beginning\n"
    assert capsys.readouterr().err.endswith(line)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not [path for path in tmp_path.iterdir() if path.name != "mine"]


def test_an_export_that_differs_leaves_nothing(runs, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mine"
    call("export", runs / "dense", to="safetensors", output_dir=folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    real = export.load_checkpoint

    def damaged(*arguments):
        model = real(*arguments)
        model.classifier.bias.data += 0.01
        return model

    monkeypatch.setattr(export, "load_checkpoint", damaged)
    flags = {"to": "safetensors", "overwrite": True}
    assert "logits by up to 1.0e-02" in fails(
        capsys, "export", runs / "dense", output_dir=folder, **flags
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "logits by" in fails(
        capsys, "export", runs / "dense", output_dir=tmp_path / "b", **flags
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    monkeypatch.setattr(export, "load_checkpoint", real)
    call("export", runs / "ticket", output_dir=folder, **flags)
    assert "ticket.safetensors" in {path.name for path in folder.iterdir()}


def test_refusals(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def refused(run, to="safetensors", output_dir=out, **flags):
        return fails(capsys, "export", run, to=to, output_dir=output_dir, **flags)

    assert "no folder" in refused(tmp_path / "none")
    assert "holds a search" in refused(runs / "search")
    assert "give --task_name" in refused(
        shutil.copytree(runs / "dense" / "last", tmp_path / "alone")
    )
    unfinished = shutil.copytree(runs / "dense", tmp_path / "unfinished")
    write_json(unfinished / "run.json", read_json(unfinished / "run.json") | {"status": "running"})
    assert "is not finished: run the same command again" in refused(unfinished)
    assert "is not empty and holds no export" in refused(
        runs / "dense", output_dir=runs, overwrite=True
    )
    call("export", runs / "dense", to="safetensors", output_dir=tmp_path / "earlier")
    assert "or pass --overwrite" in refused(runs / "dense", output_dir=tmp_path / "earlier")
    again = {"output_dir": tmp_path / "earlier", "overwrite": True}
    assert "lies in the --output_dir" in refused(tmp_path / "earlier", **again)
    monkeypatch.setattr(onnx_models, "PACKAGES", ("onnx_of_nobody",))
    line = refused(runs / "dense", "onnx")
    assert line.endswith("not installed; run: pip install -r requirements-export.txt")
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_an_upload_with_the_login_of_the_client(runs, hub, tmp_path, capsys):
    flags = {"to": "safetensors", "push_to_hub": "o/mine"}
    with clients_of(hub, tmp_path / "cache"):
        line = fails(capsys, "export", runs / "ticket", output_dir=tmp_path / "a", **flags)
        assert line.endswith("no login; run: hf auth login") and not (tmp_path / "a").exists()
    with clients_of(hub, tmp_path / "cache", token=MEMBER):
        call("export", runs / "ticket", output_dir=tmp_path / "a", **flags)
    uploaded = hub.repositories["models", "o/mine"].files
    assert uploaded == {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert 'from_pretrained("o/mine")' in uploaded["README.md"].decode()
    with clients_of(hub, tmp_path / "cache", token="hf_guest"):
        line = fails(capsys, "export", runs / "ticket", output_dir=tmp_path / "b", **flags)
    assert "is complete, but the upload failed" in line and (tmp_path / "b" / "README.md").is_file()
    assert not any(b"hf_" in path.read_bytes() for path in (tmp_path / "a").glob("*.json"))
