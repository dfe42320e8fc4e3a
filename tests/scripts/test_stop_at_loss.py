"""Dense controls that end at a ticket's training loss, trained or taken from a longer run."""

import json
import shutil

import pytest
from conftest import log_lines
from script_tools import Killed, die, finetune

from utils.files import read_jsonl


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


@pytest.mark.slow
def test_a_control_from_a_longer_run_equals_the_one_trained_by_itself(
    encoder, sst2_folder, tmp_path
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


@pytest.mark.slow
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
