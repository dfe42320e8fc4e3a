"""attack.py as a command: records, resuming, and one-line errors."""

import json
import re
import sys

import attack_tools as tools
import pytest

import attack
from evaluation import presets
from utils import cli
from utils.files import read_jsonl

pytestmark = pytest.mark.usefixtures("textattack")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tools.write_rows(tmp_path_factory.mktemp("data") / "test.tsv", tools.SENTENCES)


@pytest.fixture
def run(tmp_path, data):
    return tools.fake_run(tmp_path / "run", data, epochs=(1, 3))


@pytest.fixture
def attack_py(monkeypatch):
    """Run attack.py in this process with the given arguments; its exit status."""

    def call(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["attack.py", "--quiet", *map(str, arguments)])
        try:
            cli.run(attack.main)
        except SystemExit as e:
            return e.code
        return 0

    return call


def test_a_run_is_attacked_recorded_and_not_attacked_twice(run, attack_py, capsys):
    command = ("--model_name", run, "--recipe", "deepwordbug", "--num_examples", 6, "--seed", 1)
    assert attack_py(*command) == 0
    folder = run / "attacks" / "deepwordbug_last_balanced6_seed1"
    rows = read_jsonl(folder / "rows.jsonl")
    record = read_jsonl(run / "records.jsonl")[-1]
    assert "0x" not in "".join(record["attack_parts"]) and len(record["attack_parts"]) >= 3
    assert len(record["row_outcomes"]) == 6 and record["protocol_id"]
    assert len(rows) == 6 and [r["label"] for r in rows].count(1) == 3
    for row in rows:
        assert row["outcome"] in ("success", "failed", "skipped") and row["words_total"] > 4
        assert (row["original"] != row["perturbed"]) == bool(row["words_changed"])
        assert (row["predicted_before"] != row["label"]) == (row["outcome"] == "skipped")
        assert (row["predicted_after"] == row["label"]) == (row["outcome"] == "failed")
        assert row["score_after"] >= row["score_before"] == round(row["score_before"], 5)
    [record] = read_jsonl(run / "records.jsonl")
    still_right = sum(r["predicted_after"] == r["label"] for r in rows)
    assert record["aua_percent"] == pytest.approx(100 * still_right / 6)
    expected = {
        "kind": "attack",
        "task": "sst2",
        "stage": "retrain",
        "seed": 7,
        "protocol": "paper",
        "ticket": {"kind": "robust", "sparsity": 0.3},
        "checkpoint": "last",
        "attack_seed": 1,
        "recipe": "deepwordbug",
        "score_with": "log_odds",
        "max_seq_length": 32,
        "epochs": 3,
        "clean_full_test_percent": 62.5,
        "rows_attacked": 6,
        "precision": "fp32",
        "device": "cpu",
    }
    assert {k: record[k] for k in expected} == expected
    assert record["rows"]["rows_per_label"] == {"0": 3, "1": 3}
    assert record["row_labels"] == "".join(str(row["label"]) for row in rows)
    assert record["preset"] == "balanced"
    assert record["resources"]["stop_words"]["name"] in ("nltk", "scikit-learn")
    assert record["environment"]["versions"]["textattack"]
    before = (folder / "rows.jsonl").read_bytes()
    assert attack_py(*command) == 0 and "nothing to do" in capsys.readouterr().out
    assert len(read_jsonl(run / "records.jsonl")) == 1
    assert (folder / "rows.jsonl").read_bytes() == before


def test_check_lists_what_each_recipe_lacks(attack_py, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert attack_py("--check", "deepwordbug", "textfooler-minilm") == 0
    assert capsys.readouterr().out == "deepwordbug: ready\ntextfooler-minilm: ready\n"
    assert attack_py("--check", "pwws", "deepwordbug", "textbugger") == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "pwws: missing: WordNet" and len(out.splitlines()) == 3
    assert err.startswith("error: missing for pwws, textbugger: WordNet, the counter-fitted")
    assert err.count("\n") == err.count("fetch_attack_resources.sh pwws textbugger;") == 1
    assert attack_py("--check") == 2  # all recipes
    assert len(capsys.readouterr().out.splitlines()) == len(presets.RECIPES)
    assert attack_py("--check", "--recipe", "bertattack", "--preset", "released") == 2
    assert capsys.readouterr().out.startswith("bertattack-released: missing: ")
    assert attack_py("--recipe", "pwws") == 2
    assert "--model_name is missing" in capsys.readouterr().err


def test_the_suite_lacks_what_its_second_recipe_lacks(attack_py, capsys, monkeypatch, tmp_path):
    """Before the model is read, and not after the hours of its first part."""
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(presets, "SUITE_RECIPES", {"deepwordbug": "textbugger"})
    command = ("--model_name", tmp_path / "none", "--suite", "standard", "--recipe", "deepwordbug")
    assert attack_py(*command) == 2
    assert "error: missing for textbugger: the counter-fitted" in capsys.readouterr().err


def test_an_interrupted_attack_resumes_with_the_same_result(run, attack_py, tmp_path, monkeypatch):
    from evaluation import attack_rows

    command = ["--model_name", run, "--recipe", "deepwordbug", "--output_dir"]
    assert attack_py(*command, tmp_path / "whole") == 0
    whole = read_jsonl(tmp_path / "whole" / "rows.jsonl")
    assert len(whole) == len(tools.SENTENCES)  # the default is 1000 rows; the file has fewer

    attacked = []
    attack_row = attack_rows.attack_row

    def interrupted(*arguments):
        if len(attacked) == 3:
            raise KeyboardInterrupt
        attacked.append(arguments)
        return attack_row(*arguments)

    monkeypatch.setattr(attack_rows, "attack_row", interrupted)
    assert attack_py(*command, tmp_path / "parts") == 130
    assert not (tmp_path / "parts" / "summary.json").exists()
    attacked.clear()
    monkeypatch.setattr(attack_rows, "attack_row", lambda *a: attacked.append(a) or attack_row(*a))
    assert attack_py(*command, tmp_path / "parts") == 0
    assert len(attacked) == len(whole) - 3
    parts = read_jsonl(tmp_path / "parts" / "rows.jsonl")
    for a, b in zip(whole, parts, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_epochs_of_a_run(run, attack_py, tmp_path, capsys):
    result = tmp_path / "results" / "records.jsonl"
    command = ("--model_name", run, "--recipe", "deepwordbug", "--row_choice", "first")
    command += ("--num_examples",)
    assert attack_py(*command, 4, "--attack_epochs", "1,3", "--result_file", result) == 0
    assert [r["checkpoint"] for r in read_jsonl(result)] == ["epoch1", "epoch3"]
    assert (run / "attacks" / "deepwordbug_epoch3_first4_seed42" / "summary.json").is_file()
    assert attack_py(*command, 1, "--result_file", result, "--neighbours", "unread") == 0
    warnings = capsys.readouterr().err
    assert "warning: all 1 attacked rows belong to the class" in warnings
    assert "warning: --neighbours has no effect with the recipe deepwordbug" in warnings


def test_a_foreign_checkpoint_with_its_labels_in_another_order(tmp_path, data, attack_py):
    records = []
    for name, labels in (("as_is", None), ("reversed", {0: "positive", 1: "negative"})):
        folder = tools.tiny_bert(tmp_path / name, labels=labels)
        command = ["--model_name", folder, "--recipe", "deepwordbug", "--task_name", "sst2"]
        assert attack_py(*command, "--test_file", data, "--max_seq_length", 40) == 0
        records += read_jsonl(folder / "records.jsonl")
    assert records[0]["stage"] is None and records[0]["max_seq_length"] == 40
    assert records[0]["clean_percent"] == 100 - records[1]["clean_percent"]
    assert records[1]["label_order"] == [1, 0]


def test_neighbours_from_a_file(run, tmp_path, attack_py):
    import nltk

    folder = tools.nltk_tagger(tmp_path / "nltk")
    (tmp_path / "table.json").write_text(json.dumps(tools.TABLE))
    nltk.data.path.insert(0, str(folder))
    nltk.tag._get_tagger.cache_clear()
    try:
        command = ("--model_name", run, "--recipe", "textfooler-neighbours")
        table = ("--neighbours", tmp_path / "table.json", "--similarity_threshold", 0.5)
        assert attack_py(*command, *table) == 0
    finally:
        nltk.data.path.remove(str(folder))
        nltk.tag._get_tagger.cache_clear()
    [record] = read_jsonl(run / "records.jsonl")
    assert record["similarity_threshold"] == 0.5
    assert record["resources"]["neighbours"]["name"] == "table.json"
    assert {"tagger", "minilm"} < record["resources"].keys()


BAD = {
    "unknown recipe": (["--recipe", "textfooled"], "invalid choice"),
    "no rows": (["--num_examples", "0"], "whole number >= 1"),
    "no folder": (["--model_name", "missing"], "no folder missing"),
    "not a checkpoint": (["--model_name", "{folder}"], "no config.json"),
    "epochs not kept": (["--attack_epochs", "2"], r"no checkpoint of epoch 2 \(it has: 1, 3\)"),
    "epoch zero": (["--attack_epochs", "0"], "whole number >= 1"),
    "label count": (["--task_name", "mnli", "--test_file", "{data}"], "2 labels, mnli has 3"),
    "unknown task": (["--task_name", "sst9"], "unknown task"),
    "no test file": (["--test_file", "missing.tsv"], "no file missing.tsv"),
    "one class": (["--test_file", "{one_class}"], r"1 class\(es\)"),
    "empty file": (["--test_file", "{empty}"], "empty"),
    "no neighbours flag": (["--recipe", "textfooler-neighbours"], "give --neighbours|tagger"),
    "unread threshold": (["--similarity_threshold", "0.5"], "no effect with the recipe"),
    "threshold": (["--recipe", "textfooler-minilm", "--similarity_threshold", "2"], "in .0, 1"),
    "too long": (["--max_seq_length", "500"], "64 positions"),
    "folder taken": (["--output_dir", "{folder}"], "holds no attack"),
    "cuda": (["--device", "cuda"], "no CUDA device"),
    "record file": (["--result_file", "{broken}"], "line 1, is not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_line_and_status_2_and_writes_nothing(
    name, run, data, tmp_path, attack_py, capsys
):
    import torch

    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    paths = {
        "data": data,
        "folder": data.parent,
        "one_class": tools.write_rows(tmp_path / "one.tsv", tools.SENTENCES[:1] * 3),
        "empty": tmp_path / "empty.tsv",
        "broken": tmp_path / "broken.jsonl",
    }
    paths["empty"].write_text("")
    paths["broken"].write_text("{no\n{}\n")
    arguments, message = BAD[name]
    before = sorted(tmp_path.rglob("*"))
    usual = ["--model_name", str(run), "--recipe", "deepwordbug"]
    assert attack_py(*usual, *(a.format(**paths) for a in arguments)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_other_settings_is_refused(run, attack_py, capsys):
    command = ["--model_name", run, "--recipe", "deepwordbug", "--output_dir", run / "attack"]
    assert attack_py(*command, "--num_examples", 2) == 0
    capsys.readouterr()
    assert attack_py(*command, "--num_examples", 2, "--score_with", "softmax") == 2
    assert 'score_with was "log_odds", is now "softmax"' in capsys.readouterr().err
