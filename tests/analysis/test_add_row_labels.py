"""add_row_labels.py: rows drawn again, checked against the record's fingerprints."""

import json

import attack_tools as tools
import pytest
from conftest import call

from evaluation import protocol
from training.rows import Rows
from utils.files import read_jsonl


@pytest.fixture
def data(tmp_path):
    tools.write_rows(tmp_path / "sst2" / "train.tsv", tools.SENTENCES * 3)
    tools.write_rows(tmp_path / "sst2" / "dev.tsv", tools.SENTENCES)
    return tmp_path / "sst2"


def old_record(count: int = 6, how: str = "balanced") -> dict:
    texts = [(text,) for text, _ in tools.SENTENCES]
    labels = [label for _, label in tools.SENTENCES]
    split = Rows(texts, labels, [f"test:{i}" for i in range(len(labels))], "dev.tsv")
    rows = protocol.choose_rows(split, count, how, 3)
    return {
        "kind": "attack",
        "task": "sst2",
        "data": protocol.describe_data(split),
        "rows": protocol.describe_rows(rows, how, 3),
        "rows_attacked": count,
        "row_outcomes": "r" * count,
        "flags": [],
    }


def test_labels_are_added_once_and_nothing_else_changes(tmp_path, data, capsys):
    path = tmp_path / "records.jsonl"
    records = [{"kind": "doubt"}, old_record(), old_record(4, "first")]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    call("analysis.add_row_labels", "--records", path, "--task_data", f"sst2={data}")
    first = [label for _, label in tools.SENTENCES[:4]]
    done = read_jsonl(path)
    assert sorted(done[1]["row_labels"]) == list("000111")
    assert done[2]["row_labels"] == "".join(map(str, first))
    assert [{k: v for k, v in r.items() if k != "row_labels"} for r in done] == records
    assert list(done[1])[-2:] == ["row_labels", "flags"]
    assert "added to 2 records, 0 records without" in capsys.readouterr().out
    before = path.read_bytes()
    call("analysis.add_row_labels", "--records", path, "--task_data", f"sst2={data}")
    assert path.read_bytes() == before


def test_other_data_add_nothing(tmp_path, data, capsys):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(old_record()) + "\n")
    before = path.read_bytes()
    tools.write_rows(data / "dev.tsv", tools.SENTENCES[1:])
    call("analysis.add_row_labels", "--records", path, "--task_data", f"sst2={data}")
    assert path.read_bytes() == before
    assert "added to 0 records, 1 records without" in capsys.readouterr().out
