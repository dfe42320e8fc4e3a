"""Replays of adversarial texts on models whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_tools import fake_run, write_rows
from conftest import call, fails
from safetensors.torch import load_file, save_file

from evaluation import checkpoints, finished_attacks, transfer
from evaluation.attack_folder import AttackFolder
from evaluation.records import read_records
from utils.files import read_jsonl

ROWS = [("a good film", 1), ("a bad film", 0), ("a fine plot", 1), ("a dull plot", 0)]


def constant(run: Path, label: int) -> None:
    """Make a run's last checkpoint answer `label` to every text."""
    path = run / "last" / "model.safetensors"
    weights = load_file(path)
    weights["classifier.weight"] = torch.zeros_like(weights["classifier.weight"])
    weights["classifier.bias"] = torch.tensor([1.0 - label, float(label)])
    save_file(weights, path, {"format": "pt"})


def attack(
    run: Path,
    outcomes: list[str],
    texts: list[str],
    ids=None,
    name: str = "made",
    folder: Path | None = None,
    **changes,
) -> Path:
    """A finished attack on a run's last checkpoint, as attack.py leaves it."""
    folder = folder or run / "attacks" / name
    ids = ids or [f"test:{i}" for i in range(4)]
    target = checkpoints.find_targets(str(run), "last", None)[0]
    settings = {
        "task": "sst2",
        "checkpoint": "last",
        "max_seq_length": 32,
        "checkpoint_sha256": checkpoints.weights_digest(target),
        "recipe": name,
    } | changes
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
    summary = {
        "attack_id": made.attack_id,
        "protocol_id": f"protocol-{name}",
        "label_names": ["negative", "positive"],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def attack_record(attack_id: str) -> dict:
    rows = {"ids_fingerprint": "a", "fingerprint": "b"}
    return {
        "kind": "attack",
        "attack_id": attack_id,
        "task": "sst2",
        "encoder": {"name": "tiny"},
        "ticket": None,
        "seed": 1,
        "epochs": 3,
        "checkpoint": "last",
        "rows": rows,
        "recipe": "pwws",
        "score_with": "log_odds",
        "rows_attacked": 4,
        "clean_percent": 50.0,
        "aua_percent": 50.0,
        "intervals_95": {},
    }


@pytest.fixture
def runs(tmp_path):
    """One run that always says 1, one that always says 0."""
    data = write_rows(tmp_path / "test.tsv", ROWS)
    found = []
    for label, name in ((1, "yes"), (0, "no")):
        found.append(fake_run(tmp_path / name, data))
        constant(found[-1], label)
    return found


def test_constant_models_keep_their_accuracy(runs, tmp_path):
    """Their answers do not depend on the text, so replayed texts change nothing."""
    yes = attack(runs[0], ["failed", "skipped", "failed", "skipped"], ["x"] * 4)
    no = attack(runs[1], ["skipped", "failed", "skipped", "failed"], ["y"] * 4)
    call("analysis.transfer", "--attacks", yes, no, "--output_dir", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert [r["model"] for r in found["results"]] == ["yes/last", "no/last"]
    for result in found["results"]:
        assert result["clean_percent"] == 50 == result["worst_of_all_percent"]
        assert {c["percent"] for c in result["by_source"].values()} == {50}
        assert result["fooled_by_carried_over_texts_alone"] == 0
    text = (tmp_path / "out" / "transfer.md").read_text()
    assert "| yes/last | 50.0 |" in text and "texts of no/last" in text


def test_the_worst_of_all_by_hand():
    before = np.array([1, 1, 1, 1, 0], bool)
    after = {"a": np.array([1, 0, 1, 1, 1], bool), "b": np.array([1, 1, 0, 1, 1], bool)}
    replay = transfer.replay("model", before, after)
    assert replay.clean.percent == 80 and replay.worst_of_all.percent == 40
    assert [share.percent for share in replay.by_source.values()] == [60, 60]
    assert replay.as_json()["worst_of_all_percent"] == 40
    assert "fooled_by_carried_over_texts_alone" not in replay.as_json()


def test_texts_that_fool_a_model_where_its_own_attack_failed_are_reported(
    runs, tmp_path, capsys, monkeypatch
):
    own = attack(runs[0], ["failed", "skipped", "failed", "skipped"], ["x"] * 4)
    other = attack(runs[1], ["success"] * 4, ["z"] * 4)
    finished = finished_attacks.read_attack(own)
    before, after = np.array([1, 0, 0, 0], bool), {"other": np.array([0, 0, 0, 1], bool)}
    assert transfer.carried_over(finished, before, after) == 1  # row 0; row 2 was wrong before
    assert transfer.carried_over(finished, before, {}) == 0
    monkeypatch.setattr(transfer, "carried_over", lambda *_: 1)
    call("analysis.transfer", "--attacks", own, other, "--output_dir", tmp_path / "out")
    said = "fool it on 1 of 4 rows where its own attack failed"
    assert said in capsys.readouterr().err
    call(
        "analysis.transfer", "--attacks", own, other, "--output_dir", tmp_path / "out"
    )  # again: once
    doubts = read_jsonl(runs[0] / "records.jsonl")
    assert [(d["kind"], d["attack_id"]) for d in doubts] == [("doubt", finished.attack_id)]
    # report.py reads the doubt as a flag of the attack's record.
    record = attack_record(finished.attack_id)
    (tmp_path / "records.jsonl").write_text(json.dumps(record) + "\n")
    [read] = read_records([tmp_path / "records.jsonl", runs[0] / "records.jsonl"])
    assert [vars(f) for f in read.flags] == read.raw["flags"] and said in read.flags[0].why


def test_transfer_refuses(runs, tmp_path, capsys):
    yes = attack(runs[0], ["failed"] * 4, ["x"] * 4)
    no = attack(runs[1], ["failed"] * 4, ["y"] * 4, ids=[f"test:{i}" for i in range(5, 9)])
    out = ("--output_dir", tmp_path / "out")
    assert "attacked other rows" in fails(capsys, "analysis.transfer", "--attacks", yes, no, *out)
    assert "no finished attack" in fails(capsys, "analysis.transfer", "--attacks", tmp_path, *out)
    assert "required: --attacks" in fails(capsys, "analysis.transfer", *out)
    (no / "rows.jsonl").write_text("")
    assert "is damaged" in fails(capsys, "analysis.transfer", "--attacks", no, *out)
    (tmp_path / "file").write_text("mine")
    refused = fails(
        capsys, "analysis.transfer", "--attacks", yes, "--output_dir", tmp_path / "file"
    )
    assert "is a file" in refused and (tmp_path / "file").read_text() == "mine"
    constant(runs[0], 0)
    assert "no longer the checkpoint" in fails(capsys, "analysis.transfer", "--attacks", yes, *out)
    assert not (tmp_path / "out").exists()


def results(folder: Path) -> dict:
    return json.loads((folder / "transfer.json").read_text())


def test_two_attacks_on_one_model_are_two_sources(runs, tmp_path, capsys):
    """Though both are on the same model, the texts of both are replayed."""
    first = attack(runs[0], ["failed", "skipped"] * 2, ["x"] * 4)
    second = attack(runs[0], ["failed", "skipped"] * 2, ["x"] * 4, name="other")
    call("analysis.transfer", "--attacks", first, second, "--output_dir", tmp_path / "out")
    [result] = results(tmp_path / "out")["results"]
    assert list(result["by_source"]) == ["yes/last, made", "yes/last, other"]
    text = (tmp_path / "out" / "transfer.md").read_text()
    assert "yes/last, other: other, evaluation protocol protocol-other" in text
    assert "Their evaluation protocols differ" in text
    again = fails(
        capsys, "analysis.transfer", "--attacks", first, first, "--output_dir", tmp_path / "2"
    )
    assert "are one attack" in again


def test_runs_with_the_same_name_get_longer_names(tmp_path):
    """As in reproduce.sh's layout: seed42/dense and seed43/dense."""
    data = write_rows(tmp_path / "test.tsv", ROWS)
    attacks = []
    for seed, label in ((42, 1), (43, 0)):
        run = fake_run(tmp_path / f"seed{seed}" / "dense", data)
        constant(run, label)
        outcomes = ["failed", "skipped"] if label else ["skipped", "failed"]
        attacks.append(attack(run, outcomes * 2, ["x"] * 4))
    call("analysis.transfer", "--attacks", *attacks, "--output_dir", tmp_path / "out")
    found = results(tmp_path / "out")["results"]
    assert [r["model"] for r in found] == ["seed42/dense/last", "seed43/dense/last"]
    assert all(list(r["by_source"]) == [r["model"] for r in found] for r in found)
    assert "protocols differ" not in (tmp_path / "out" / "transfer.md").read_text()


def test_an_attack_outside_its_run_finds_its_model_in_models(runs, tmp_path, capsys):
    made = attack(runs[0], ["failed", "skipped"] * 2, ["x"] * 4, folder=tmp_path / "elsewhere")
    out = ("--output_dir", tmp_path / "out")
    assert "by --models" in fails(capsys, "analysis.transfer", "--attacks", made, *out)
    call("analysis.transfer", "--attacks", made, "--models", runs[1], runs[0], *out)
    found = results(tmp_path / "out")["results"]
    assert [r["model"] for r in found] == ["yes/last", "no/last"]
    assert "fooled_by_carried_over_texts_alone" in found[0]
    assert "fooled_by_carried_over_texts_alone" not in found[1]


def test_a_custom_tasks_labels_are_those_of_the_attack(runs, tmp_path):
    made = attack(runs[0], ["failed", "skipped"] * 2, ["x"] * 4, task="custom")
    call("analysis.transfer", "--attacks", made, "--output_dir", tmp_path / "out")
    assert results(tmp_path / "out")["results"][0]["clean_percent"] == 50


def test_only_texts_of_other_models_on_rows_right_before_the_replay_count(runs, tmp_path):
    """Texts of a second attack on the same model do not count, and neither does a row that was
    right when attacked (at another precision, for example) but is wrong before the replay."""
    tried = attack(runs[0], ["failed"] * 4, ["x"] * 4)
    won = attack(runs[0], ["success"] * 4, ["x"] * 4, name="won")
    other = attack(runs[1], ["success"] * 4, ["z"] * 4)
    call("analysis.transfer", "--attacks", tried, won, other, "--output_dir", tmp_path / "out")
    found = results(tmp_path / "out")["results"]
    assert found[0]["fooled_by_carried_over_texts_alone"] == 0
    assert not (runs[0] / "records.jsonl").exists()
