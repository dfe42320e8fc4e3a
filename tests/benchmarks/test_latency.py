"""The latency table and the comparison of runtimes, on tiny models; nothing is timed against."""

import latency
import latency_runtimes
import latency_table
import numpy as np
import pytest
import shapes
import torch
from conftest import call, fails
from families import FAMILIES, build

from evaluation import schema
from evaluation.latency import TableRecord
from training import onnx_models
from training.latency import LatencyTable
from utils.files import read_json, read_jsonl


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "ALBERT", "mT5"])  # Conv1D; shared; gated
def test_the_parts_of_a_model_add_up(name, tmp_path, monkeypatch):
    """On a clock that moves by one at each look, so that the answers are known."""
    config = shapes.config_of(str(build(FAMILIES[name], tmp_path / "encoder")))
    assert shapes.neurons_of(config) == 32
    model = latency_table.models_of(str(tmp_path / "encoder"), [12], "cpu")[12]
    parts = latency_table.Parts(model, "cpu")
    ticks = iter(range(10**6))
    monkeypatch.setattr(latency_table.time, "perf_counter", lambda: float(next(ticks)))
    ids = torch.ones(2, 8, dtype=torch.long)
    ids[:, -1] = model.config.eos_token_id  # encoder-decoders read the class there
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    found = parts.take(whole=100.0)
    layers = 4 if name == "mT5" else 2  # of the decoder too
    assert found["layers"] == layers
    assert found["ffn"] >= 1 and found["attention"] >= 2
    assert found["rest"] + layers * (found["ffn"] + found["attention"]) == pytest.approx(100.0)
    widths = {m.weight.shape for n, m in model.named_modules() if type(m).__name__ == "Linear"}
    assert name == "GPT-2" or {(12, 16), (16, 12)} <= {tuple(shape) for shape in widths}


def test_a_table_of_a_tiny_encoder(encoder, tmp_path, capsys):
    flags = {"encoder": encoder, "batch": 2, "length": 8, "threads": 1, "repeats": 3, "points": 4}
    call("latency_table", **flags, output_dir=tmp_path)
    raw = read_json(tmp_path / "latency_table.json")
    record = schema.read(TableRecord, raw)
    assert record.ffn.neurons == [0, 8, 16, 24, 32] and record.ffn.seconds[0] == 0.0
    assert (record.model, record.layers, record.threads) == ("tiny-bert", 2, 1)
    table = LatencyTable(tmp_path / "latency_table.json")  # as the search reads it
    for number, percent in record.difference_percent.items():
        of_ffn = float(table.ffn(torch.tensor(float(number))))
        total = table.rest + 2 * (table.attention + of_ffn)
        measured = record.measured_seconds[number]
        assert percent == pytest.approx(100 * (total / measured - 1), abs=1e-3)
    assert "the sum of the parts differs from the measured" in capsys.readouterr().out
    with pytest.raises(ValueError, match="ffn.neurons must be a list of rising"):
        schema.read(TableRecord, raw | {"ffn": raw["ffn"] | {"neurons": [8, 0]}})


@pytest.fixture
def no_children(monkeypatch):
    monkeypatch.setattr(latency_runtimes, "peak_bytes", lambda *_: 5_000_000)


def written_instead(monkeypatch):
    """ONNX files without the exporter: their passes are torch's."""
    monkeypatch.setattr(onnx_models, "check_installed", lambda: None)
    monkeypatch.setattr(onnx_models, "write_onnx", lambda model, batch, path: path.touch())
    monkeypatch.setattr(onnx_models, "quantize", lambda source, target: target.touch())

    def passes(path, threads):
        return latency_runtimes.start("torch-fp32", path.parent, threads)

    monkeypatch.setattr(onnx_models, "load_onnx", passes)


def test_models_side_by_side(encoder, tmp_path, monkeypatch, no_children, capsys):
    written_instead(monkeypatch)
    flags = {"encoder": encoder, "intermediate_size": [8], "batches": [1, 2], "lengths": [4]}
    flags |= {"threads": [1], "runtimes": ["torch-fp32"], "repeats": 3, "device": "cpu"}
    call("latency", **flags, output_dir=tmp_path)
    records = read_jsonl(tmp_path / "latency.jsonl")
    assert [(r["batch"], r["length"], r["repeats"]) for r in records] == [(1, 4, 3), (2, 4, 3)]
    for record in records:  # the dense int8 model is timed although nobody asked for it
        timed = {(t["model"], t["runtime"]): t for t in record["timed"]}
        both = {(name, "torch-fp32") for name in ("32 neurons", "8 neurons")}
        assert timed.keys() == both | {("32 neurons", "onnx-int8")}
        assert timed["32 neurons", "torch-fp32"]["speedup"]["median"] == 1.0
        assert timed["8 neurons", "torch-fp32"]["seconds"]["median"] > 0
    out = capsys.readouterr().out
    assert "| 1 | 2 | 4 | 8 neurons |" in out and "| 32 neurons | torch fp32 |" in out
    [of_sizes] = read_jsonl(tmp_path / "latency_sizes.jsonl")
    disk = {(s["model"], s["runtime"]): s["disk_bytes"] for s in of_sizes["sizes"]}
    saved = disk["32 neurons", "torch-fp32"] - disk["8 neurons", "torch-fp32"]
    assert saved == pytest.approx(2 * 4 * 24 * (2 * 16 + 1), abs=200)  # fp32, two layers


def test_speedups_are_of_the_same_repeat(encoder, tmp_path, monkeypatch):
    spent = {("a", "onnx"): [4.0, 6.0, 8.0], ("b", "onnx"): [2.0, 2.0, 2.0]}
    models = [latency.Model(name, tmp_path, 10, 10) for name in "ab"]
    bench = latency.Bench(latency.parse_args(["--device", "cpu"]), models, [], 1)
    dense, other = bench.record(1, 4, spent).timed
    assert other.speedup == {"median": 3.0, "quartile_1": 2.5, "quartile_3": 3.5}
    assert dense.seconds["median"] == 6.0 and dense.speedup["median"] == 1.0


def test_refusals(encoder, tmp_path, monkeypatch, capsys):
    written_instead(monkeypatch)
    where = {"output_dir": tmp_path, "device": "cpu"}
    assert "give at least two models" in fails(
        capsys, "latency", encoder=encoder, intermediate_size=[32], **where
    )
    assert "has fewer positions" in fails(
        capsys, "latency", encoder=encoder, lengths=[200], **where
    )
    monkeypatch.undo()
    monkeypatch.setattr(onnx_models, "PACKAGES", ("onnx_of_nobody",))
    assert "requirements-export.txt" in fails(capsys, "latency", encoder=encoder, **where)
    assert not (tmp_path / "latency.jsonl").exists()


def test_two_of_four_keeps_the_largest(monkeypatch):
    seen = []

    def keep(weight):
        seen.append(weight)
        return weight

    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", keep)
    model = torch.nn.Module()
    model.base_model = torch.nn.Linear(8, 1, bias=False)
    model.base_model.weight.data[:] = torch.tensor([[1.0, -4, 3, 2, 0, 0, 5, 1]])
    latency_runtimes._keep_two_of_four(model)
    np.testing.assert_array_equal(seen[0].numpy(), [[0, -4, 3, 0, 0, 0, 5, 1]])
