"""ONNX exports under attack: the original's facts, a row of their own, and what is refused."""

import importlib.util

import attack_tools as tools
import numpy as np
import pytest
import torch
from conftest import call, fails, sentences, write_tsv

from evaluation import checkpoints
from evaluation.records import AttackRecord
from experiments.models import Model
from training import onnx_models
from utils.cli import UserError
from utils.files import read_jsonl, sha256_of, write_json

TEXTS = [text for text, _ in tools.SENTENCES]
FACTS = {"stage": "finetune", "ticket": None, "method": "plain", "training": {"lr": 2e-5}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = tools.write_rows(folder / "test.tsv", tools.SENTENCES)
    run = tools.fake_run(folder / "run", data, **FACTS)
    clean = {"clean_percent": 62.5, "clean_interval_95_percent": [31, 86], "rows_evaluated": 8}
    write_json(run / "result.json", {"checkpoints": {"last": clean}})
    return run


def data_of(run):
    return {"test_file": run.parent / "test.tsv", "train_file": run.parent / "train.tsv"}


@pytest.fixture(scope="module")
def shipped(run):
    """Folder with the exports of the run's last checkpoint."""
    for package in onnx_models.PACKAGES:
        pytest.importorskip(package)
    write_tsv(run.parent / "train.tsv", sentences(60, 1))
    for to in ("onnx", "onnx-int8"):
        data = data_of(run) | {"task_name": "sst2"}
        call("export", run, to=to, output_dir=run.parent / to, **data)
    return run.parent


def fake_export(folder, **changed):
    """A folder with what export.py writes, around an ONNX file that nothing can load."""
    tools.tiny_bert(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.onnx").write_bytes(b"no model")
    known = {"name": "mine", "format": "onnx-int8", "architecture": "B", "parameters": 1}
    known |= {"zero_percent": 0.0, "label_names": ["negative", "positive"], "checkpoint": "last"}
    known |= {"checkpoint_sha256": "a", "facts": FACTS | {"task": "sst2"}, "environment": {}}
    known["compared"] = {"rows": 1, "largest_difference": 0.0, "largest_logit": 1.0}
    known["compared"]["equal_predictions_percent"] = 100.0
    known["sha256"] = {path.name: sha256_of(path) for path in folder.iterdir()}
    write_json(folder / "export.json", known | changed)
    return folder


def recorded(run, folder, **flags):
    """The record of a new attack on a folder, and its lines without times."""
    flags = {"recipe": "deepwordbug", "quiet": True} | flags
    call("attack", model_name=folder, **flags)
    [attacks] = (folder / "attacks").iterdir()
    lines = read_jsonl(attacks / "rows.jsonl")
    record = read_jsonl(folder / "records.jsonl")[-1]
    return record, [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.mark.usefixtures("textattack")
def test_a_record_has_the_facts_of_the_original_and_is_another_model(run, shipped, capsys):
    original, lines = recorded(run, run)
    given = {"test_file": data_of(run)["test_file"]}
    exported, lines_fp32 = recorded(run, shipped / "onnx", **given)
    quantized, lines_int8 = recorded(run, shipped / "onnx-int8", **given)
    same = ("task", "seed", "ticket", "stage", "epochs", "epoch", "training", "checkpoint")
    same += ("encoder", "label_names", "rows", "protocol_id", "trained_max_seq_length")
    for record in (exported, quantized):
        assert {k: record[k] for k in same} == {k: original[k] for k in same}
    assert "runtime" not in original and original["clean_full_test_percent"] == 62.5
    assert (exported["runtime"], quantized["runtime"]) == ("onnx", "onnx-int8")
    assert "clean_full_test_percent" not in quantized  # that is the checkpoint's
    assert quantized["made_in"] == ["onnx-int8", "deepwordbug_last_balanced872_seed42"]
    assert exported["environment"]["versions"]["onnxruntime"]
    records = [AttackRecord.read(record) for record in (original, exported, quantized)]
    assert [record.name for record in records] == [
        "dense fine-tuned",
        "dense fine-tuned, fp32 (ONNX)",
        "dense fine-tuned, int8 (ONNX)",
    ]
    assert len({record.checkpoint_sha256 for record in records}) == 3
    for record, runtime in zip(records, (None, "onnx", "onnx-int8"), strict=True):
        owners = [r for r in (None, "onnx", "onnx-int8") if Model(runtime=r).owns(record, 3)]
        assert owners == [runtime]
    # The fp32 file is the same function; int8 is another one.
    for before, after in zip(lines, lines_fp32, strict=True):
        assert after["score_before"] == pytest.approx(before["score_before"], abs=2e-5)
    assert [x["outcome"] for x in lines] == [x["outcome"] for x in lines_fp32]
    gaps = [a["score_before"] - b["score_before"] for a, b in zip(lines, lines_int8, strict=True)]
    assert 1e-4 < np.abs(gaps).max() < 1.0
    capsys.readouterr()
    call("attack", model_name=shipped / "onnx-int8", recipe="deepwordbug", quiet=True, **given)
    assert "is finished; nothing to do" in capsys.readouterr().out


@pytest.mark.usefixtures("textattack")
def test_the_suite_and_rows_at_once(run, shipped, tmp_path):
    folder, given = shipped / "onnx-int8", {"test_file": data_of(run)["test_file"]}
    flags = {"recipe": "textbugger-minilm", "model_name": folder, "quiet": True}
    lines = []
    for rows_at_once in (1, 4):
        place = {"output_dir": tmp_path / str(rows_at_once), "result_file": tmp_path / "r.jsonl"}
        call("attack", **flags, rows_at_once=rows_at_once, **place, **given)
        rows = {row.pop("row_id"): row for row in read_jsonl(place["output_dir"] / "rows.jsonl")}
        drop = ("seconds", "digest")
        lines.append({i: {k: v for k, v in rows[i].items() if k not in drop} for i in rows})
    assert lines[0] == lines[1] and len(lines[0]) == len(tools.SENTENCES)  # also the scores
    flags |= {"recipe": "textfooler-minilm", "suite": "margin,probe"}
    call("attack", **flags, output_dir=tmp_path / "suite", **given)
    [record] = read_jsonl(folder / "suites.jsonl")
    assert record["runtime"] == "onnx-int8" and record["percent"]["margin"]
    assert record["made_in"][0] == "onnx-int8" and record["seed"] == 7


@pytest.mark.usefixtures("textattack")
def test_an_int8_answer_depends_on_the_text_alone(shipped):
    from evaluation.victim import Victim

    [target] = checkpoints.find_targets(str(shipped / "onnx-int8"), "last", None)
    model, tokenizer = checkpoints.load_victim(target)
    victim = Victim(model, tokenizer, [0, 1], max_seq_length=32)
    among = victim(TEXTS)
    victim.forget()
    alone = torch.stack([victim([text])[0] for text in TEXTS])
    assert torch.equal(among, alone)
    # What the file itself does: the longest text changes the scale, and so the other answers.
    model.quantizes_activations = False
    victim.forget()
    assert not torch.equal(victim(TEXTS), alone)
    pair = [TEXTS[0], TEXTS[0].upper()]
    assert torch.equal(*victim(pair))


@pytest.mark.usefixtures("textattack")
def test_what_an_export_cannot_do_is_one_line(run, tmp_path, capsys, monkeypatch):
    flags = {"recipe": "deepwordbug", "test_file": run.parent / "test.tsv"}

    def refused(folder, **more):
        return fails(capsys, "attack", model_name=folder, **flags | more)

    folder = fake_export(tmp_path / "mine")
    before = sorted(path.name for path in folder.iterdir())
    assert "which computes in the precision" in refused(folder, precision="bf16")
    assert "runs on the CPU; omit --device" in refused(folder, device="cuda")
    assert "needs a run folder" in refused(folder, attack_epochs=1)
    if importlib.util.find_spec("onnxruntime"):
        line = refused(folder)
        assert "ONNX Runtime" in line and "cannot load" in line and "export the run again" in line
    real = importlib.util.find_spec
    missing = lambda name, *more: None if name == "onnxruntime" else real(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    line = refused(folder)
    assert line.endswith("onnxruntime not installed; run: pip install -r requirements-export.txt")
    monkeypatch.undo()
    assert sorted(path.name for path in folder.iterdir()) == before
    assert "is an ONNX export; give the run" in fails(
        capsys, "export", folder, to="safetensors", output_dir=tmp_path / "out"
    )
    with pytest.raises(UserError, match="give a checkpoint of transformers"):
        checkpoints.load_classifier(checkpoints.find_targets(str(folder), "last", None)[0])


def test_folders_that_are_no_whole_exports(tmp_path):
    def refusal(folder):
        with pytest.raises(UserError) as refused:
            checkpoints.find_targets(str(folder), "last", None)
        return str(refused.value)

    assert "has version 2, and this program reads version 1" in refusal(
        fake_export(tmp_path / "newer", version=2)
    )
    assert "format must be one of" in refusal(fake_export(tmp_path / "other", format="gguf"))
    assert "compared.rows must be" in refusal(fake_export(tmp_path / "a", compared={"rows": "x"}))
    folder = fake_export(tmp_path / "mine")
    (folder / "model.onnx").write_bytes(b"no mode")
    assert "model.onnx is missing or damaged: it is not the file that export.py" in refusal(folder)
    (folder / "model.onnx").unlink()
    assert "model.onnx is missing or damaged" in refusal(folder)
    (folder / "export.json").write_text("{")
    assert "is not JSON" in refusal(folder)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.onnx").write_bytes(b"no model")
    assert "holds a model.onnx without export.json" in refusal(tmp_path / "bare")
    # An ONNX file next to a checkpoint changes nothing.
    both = tools.tiny_bert(tmp_path / "both")
    (both / "model.onnx").write_bytes(b"no model")
    assert checkpoints.find_targets(str(both), "last", None)[0].runtime is None
