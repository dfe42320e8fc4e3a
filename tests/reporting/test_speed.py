"""Aua against speed-up: which records and which times a row has."""

import csv

import pytest
from conftest import call, fails
from record_tools import attack, suite_record, write

from experiments.models import Model
from utils.files import append_jsonl

NEURONS = Model(kind="magnitude", sparsity=0.5, epochs=10, search=(), structure=("ffn_neurons",))
OUTCOMES = {"label_names": ["negative", "positive"], "row_labels": "00001111"}


def times(model, runtime, seconds, speedup):
    return {
        "model": model,
        "runtime": runtime,
        "seconds": {"median": seconds},
        "speedup": {"median": speedup},
    }


@pytest.fixture
def latency(tmp_path):
    timed = [times("1536 neurons", runtime, 1.0, 1.0) for runtime in ("torch-fp32", "onnx")]
    timed += [times("768 neurons", runtime, 0.7, 1.43) for runtime in ("torch-fp32", "onnx")]
    timed += [times("1536 neurons", "onnx-int8", 0.5, 1.0)]
    names = ["1536 neurons", "768 neurons"]
    record = {"row": {}, "models": names, "device": "a CPU", "timed": timed, "repeats": 3}
    path = tmp_path / "latency.jsonl"
    append_jsonl(path, record | {"threads": 2, "batch": 32, "length": 64})
    return path


def records_of(tmp_path):
    usual = {"recipe": "textfooler-neighbours", "task": "builtin/rotten_tomatoes", **OUTCOMES}
    of_weights = Model(kind="magnitude", sparsity=0.5, epochs=10, search=())
    lines = [
        attack(Model(epochs=10), 1, row_outcomes="rrffrrff", **usual),
        attack(Model(epochs=10), 1, row_outcomes="rrrrrfff", runtime="onnx-int8", **usual),
        attack(NEURONS, 1, row_outcomes="rrrfffff", **usual),
        attack(of_weights, 1, row_outcomes="rrrrrrrr", **usual),
    ]
    return write(tmp_path / "records", lines)


@pytest.mark.slow
def test_a_row_has_its_own_records_and_the_times_of_its_size(tmp_path, latency):
    flags = ("--records", records_of(tmp_path), "--latency", latency)
    call("analysis.aua_by_speed", *flags, "--output_dir", tmp_path / "out")
    with (tmp_path / "out" / "aua_by_speed.csv").open() as f:
        rows = {row["row"]: row for row in csv.DictReader(f)}
    ticket, dense = rows["Magnitude, 50 % of neurons"], rows["Fine-tune, 10 epochs"]
    assert (ticket["seeds"], ticket["neurons_per_layer"]) == ("1", "768")
    assert float(ticket["aua_percent all"]) == 37.5
    assert float(ticket["aua_percent negative"]) == 75.0
    assert float(ticket["aua_percent worst class"]) == 0.0
    assert float(ticket["speedup torch-fp32"]) == 1.43
    assert float(dense["speedup onnx-int8 over onnx"]) == 2.0
    int8 = rows["Fine-tune, 10 epochs, int8 (ONNX)"]
    assert (dense["seeds"], int8["seeds"]) == ("1", "1")
    assert (float(dense["aua_percent all"]), float(int8["aua_percent all"])) == (50.0, 62.5)
    assert float(int8["speedup onnx-int8 over onnx"]) == 2.0 and int8["speedup torch-fp32"] == ""
    never = rows["Random, 50 % of neurons"]
    assert never["seeds"] == "0" and never["aua_percent all"] == ""
    assert (tmp_path / "out" / "aua_by_speed.png").stat().st_size > 5000


def test_suites_on_the_same_rows_have_their_columns(tmp_path, latency):
    """All rows of one class survive the suite; at a bias from 0.6 to 0.65, one row of each does."""
    margins = [0.2, 0.4, 0.6, 0.8], [-0.8, -0.7, -0.65, -0.3]
    facts = attack(NEURONS, 1, recipe="textfooler-neighbours", rows_attacked=8)
    suite = suite_record(1, *margins, "builtin/rotten_tomatoes", rows=facts["rows"])
    suite = facts | suite
    other = suite | {"rows": {"ids_fingerprint": "other", "fingerprint": "rows"}, "seed": 2}
    suites = write(tmp_path / "run", [suite, other], "suites.jsonl") / "suites.jsonl"
    flags = ("--records", records_of(tmp_path), "--latency", latency, "--suites", suites)
    call("analysis.aua_by_speed", *flags, "--output_dir", tmp_path / "out")
    with (tmp_path / "out" / "aua_by_speed.csv").open() as f:
        rows = {row["row"]: row for row in csv.DictReader(f)}
    ticket = rows.pop("Magnitude, 50 % of neurons")
    assert float(ticket["suite_aua_percent"]) == 50
    assert float(ticket["class_equalized_aua_percent"]) == 25
    assert {row["suite_aua_percent"] for row in rows.values()} == {""}
    text = (tmp_path / "out" / "aua_by_speed.md").read_text()
    assert "| Aua %, suite | Aua %, suite, class-equalized |" in text and "on the same rows" in text


def test_times_that_were_not_measured(tmp_path, latency, capsys):
    flags = ("--records", records_of(tmp_path), "--output_dir", tmp_path / "out")
    said = fails(capsys, "analysis.aua_by_speed", *flags, "--latency", tmp_path / "no.jsonl")
    assert "holds no times: run python benchmarks/latency.py first" in said
    said = fails(capsys, "analysis.aua_by_speed", *flags, "--latency", latency, "--length", 16)
    assert "no times of 32 rows of 16 tokens" in said
    assert not (tmp_path / "out").exists()
