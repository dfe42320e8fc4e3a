"""Replaying adversarial texts, on models whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_tools import fake_run, write_rows
from conftest import call, fails
from safetensors.torch import load_file, save_file

from utils.attack import checkpoints, transfer
from utils.attack.folder import AttackFolder
from utils.files import read_jsonl
from utils.report.records import read_records

ROWS = [("a good film", 1), ("a bad film", 0), ("a fine plot", 1), ("a dull plot", 0)]


def constant(run: Path, label: int) -> None:
    """Make a run's last checkpoint answer `label` to everything."""
    path = run / "last" / "model.safetensors"
    weights = load_file(path)
    weights["classifier.weight"] = torch.zeros_like(weights["classifier.weight"])
    weights["classifier.bias"] = torch.tensor([1.0 - label, float(label)])
    save_file(weights, path, {"format": "pt"})


def attack(run: Path, outcomes: list[str], texts: list[str], ids=None) -> Path:
    """A finished attack on a run's last checkpoint, as attack.py leaves it."""
    folder = run / "attacks" / "made"
    ids = ids or [f"test:{i}" for i in range(4)]
    target = checkpoints.find_targets(str(run), "last", None)[0]
    settings = {"task": "sst2", "checkpoint": "last", "max_seq_length": 32,
                "checkpoint_sha256": checkpoints.weights_digest(target)}  # fmt: skip
    made = AttackFolder(folder, settings, ids, run / "made.jsonl")
    made.begin()
    for i, (text, label) in enumerate(ROWS):
        made.append(
            {
                "row_id": ids[i],
                "label": label,
                "outcome": outcomes[i],
                "queries": 1,
                "words_changed": 1,
                "words_total": 3,
                "seconds": 0.0,
                "original": {"sentence": text},
                "perturbed": {"sentence": texts[i]},
            }
        )
    (folder / "summary.json").write_text(json.dumps({"attack_id": made.attack_id}))
    return folder


def attack_record(attack_id: str) -> dict:
    rows = {"ids_fingerprint": "a", "fingerprint": "b"}
    return {"kind": "attack", "attack_id": attack_id, "task": "sst2", "encoder": {"name": "tiny"},
            "ticket": None, "seed": 1, "epochs": 3, "checkpoint": "last", "rows": rows,
            "rows_attacked": 4, "clean_percent": 50.0, "aua_percent": 50.0,
            "intervals_95": {}}  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    """One run that always says 1, one that always says 0."""
    data = write_rows(tmp_path / "test.tsv", ROWS)
    found = []
    for label, name in ((1, "yes"), (0, "no")):
        found.append(fake_run(tmp_path / name, data))
        constant(found[-1], label)
    return found


def test_constants_keep_what_they_say(runs, tmp_path):
    """Their answers do not depend on the text: what is right before is right under all texts."""
    yes = attack(runs[0], ["failed", "skipped", "failed", "skipped"], ["x"] * 4)
    no = attack(runs[1], ["skipped", "failed", "skipped", "failed"], ["y"] * 4)
    call("transfer", "--attacks", yes, no, "--output_dir", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert [r["model"] for r in found["results"]] == ["yes/last", "no/last"]
    for result in found["results"]:
        assert result["clean_percent"] == 50 == result["worst_of_all_percent"]
        assert {c["percent"] for c in result["by_source"].values()} == {50}
        assert result["fooled_by_carried_over_texts_alone"] == 0
    text = (tmp_path / "out" / "transfer.md").read_text()
    assert "| yes/last | 50.0 |" in text and "texts of no/last" in text


def test_further_targets_and_the_worst_of_all_by_hand():
    before = np.array([1, 1, 1, 1, 0], bool)
    after = {"a": np.array([1, 0, 1, 1, 1], bool), "b": np.array([1, 1, 0, 1, 1], bool)}
    found = transfer.replayed(before, after)
    assert found["clean_percent"] == 80 and found["worst_of_all_percent"] == 40
    assert [c["percent"] for c in found["by_source"].values()] == [60, 60]


def test_texts_that_fool_where_the_own_attack_failed_are_told(runs, tmp_path, capsys, monkeypatch):
    own = attack(runs[0], ["failed", "skipped", "failed", "skipped"], ["x"] * 4)
    other = attack(runs[1], ["success"] * 4, ["z"] * 4)
    finished = transfer.read_attack(own)
    after = {str(own): np.array([1, 0, 1, 0], bool), str(other): np.array([0, 0, 1, 1], bool)}
    assert transfer.carried_over(finished, after) == 1  # row 0; row 1 was wrong before
    monkeypatch.setattr(transfer, "carried_over", lambda *_: 1)
    call("transfer", "--attacks", own, other, "--output_dir", tmp_path / "out")
    said = "fool it on 1 of 4 rows where its own attack failed"
    assert said in capsys.readouterr().err
    call("transfer", "--attacks", own, other, "--output_dir", tmp_path / "out")  # again: once
    doubts = read_jsonl(runs[0] / "records.jsonl")
    assert [(d["kind"], d["attack_id"]) for d in doubts] == [("doubt", finished.attack_id)]
    # Beside the attack's record, report.py reads it as one of its flags.
    record = attack_record(finished.attack_id)
    (tmp_path / "records.jsonl").write_text(json.dumps(record) + "\n")
    [read] = read_records([tmp_path / "records.jsonl", runs[0] / "records.jsonl"])
    assert read["flags"] == read["record"]["flags"] and said in read["flags"][0]["why"]


def test_transfer_refuses(runs, tmp_path, capsys):
    yes = attack(runs[0], ["failed"] * 4, ["x"] * 4)
    no = attack(runs[1], ["failed"] * 4, ["y"] * 4, ids=[f"test:{i}" for i in range(5, 9)])
    out = ("--output_dir", tmp_path / "out")
    assert "attacked other rows" in fails(capsys, "transfer", "--attacks", yes, no, *out)
    assert "no finished attack" in fails(capsys, "transfer", "--attacks", tmp_path, *out)
    assert "required: --attacks" in fails(capsys, "transfer", *out)
    (no / "rows.jsonl").write_text("")
    assert "is damaged" in fails(capsys, "transfer", "--attacks", no, *out)
    constant(runs[0], 0)
    assert "no longer the checkpoint" in fails(capsys, "transfer", "--attacks", yes, *out)
    assert not (tmp_path / "out").exists()
