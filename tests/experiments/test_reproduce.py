"""reproduce.py: what it prints, warns of and refuses before anything runs."""

import re
from types import SimpleNamespace

import pytest
from conftest import call, fails

import reproduce
from experiments.paper import FIGURES, TABLES

pytestmark = pytest.mark.usefixtures("plain_environment")


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    for target in [*TABLES, *FIGURES]:
        call("reproduce", target, "--scale", "mini", "--runs", tmp_path / "r", "--dry_run")
        out = capsys.readouterr().out
        assert re.search(r"\d+ runs, 0 finished; the others take about", out)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["table5", "--scale", "mini"], "invalid choice: 'table5'"),
        (["table1"], "--scale"),
        (["table1", "--scale", "huge"], "invalid choice: 'huge'"),
        (["table1", "--scale", "mini", "--tasks", "sst3"], "unknown task 'sst3'"),
        (["table1", "--scale", "mini", "--rows", "LHT"], "has no row 'LHT'"),
        (["figure1", "--scale", "mini", "--rows", "LTH"], "--rows chooses rows of a table"),
        (["table1", "--scale", "mini", "--seeds", "x"], "not a whole number"),
        (["table1", "--scale", "mini", "--recipes", "x"], "unknown recipe 'x'"),
        (["table1", "--scale", "mini", "--data", "nowhere"], "no folder"),
    ],
)
def test_reproduce_refuses(tmp_path, capsys, flags, message):
    line = fails(capsys, "reproduce", *flags, "--runs", tmp_path / "r", "--dry_run")
    assert message in line and not (tmp_path / "r").exists()


def test_a_task_without_a_training_file_is_an_error(tmp_path, capsys):
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    (tmp_path / "data" / "sst2" / "dev.tsv").write_text("sentence\tlabel\ngood\t1\n")
    flags = ("--scale", "mini", "--tasks", "sst2", "--data", tmp_path / "data", "--dry_run")
    line = fails(capsys, "reproduce", "table1", *flags)
    assert "sst2 has no training file: add train.tsv" in line


def test_what_the_attacks_lack_is_listed_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    flags = ("table1", "--tasks", "sst2", "--rows", "Fine-tune", "--no-controls", "--dry_run")
    call("reproduce", *flags, "--scale", "paper", "--runs", tmp_path / "r")
    [warning] = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning")]
    command = "sh scripts/fetch_attack_resources.sh bertattack bertattack-released textfooler"
    assert command in warning and "word vectors" in warning and "these attacks fail" in warning
    call("reproduce", *flags, "--scale", "mini", "--runs", tmp_path / "r")
    assert "missing" not in capsys.readouterr().err


def test_every_target_also_has_a_page(monkeypatch):
    words = []

    def run(line):
        words.extend(line)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    assert reproduce.write_report(reproduce.parse_args(["table1", "--scale", "mini"])) == 0
    assert "--html" in words
