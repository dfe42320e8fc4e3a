"""Flags, choices of rows, and query budgets, on models with known answers."""

import json
import multiprocessing
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import attack_tools as tools
import numpy as np
import pytest
import torch
from conftest import fails
from safetensors.torch import load_file, save_file

import attack
from evaluation import checks, presets, protocol
from training.rows import Rows
from utils import cli
from utils.files import read_json, read_jsonl

pytestmark = pytest.mark.usefixtures("textattack")


GOOD_ROWS = [(" ".join(tools.GOOD[i : i + 3]) + " film", 1) for i in range(5)]
BAD_ROWS = [(" ".join(tools.BAD[i : i + 3]) + " film", 0) for i in range(5)]
TRAIN = [
    (f"{a} and {b}", int(a in tools.GOOD))
    for words in (tools.GOOD, tools.BAD)
    for a, b in zip(words, words[::-1], strict=True)
] * 2


@pytest.fixture
def run(tmp_path):
    """A word counter that was trained on TRAIN; its test rows are sorted by label."""
    tools.write_rows(tmp_path / "data" / "train.tsv", TRAIN)
    tools.write_rows(tmp_path / "data" / "test.tsv", BAD_ROWS + GOOD_ROWS)
    return run_of(tmp_path, "run")


def run_of(tmp_path, name: str, scale: float = 3.0):
    run = tools.fake_run(tmp_path / name, tmp_path / "data" / "test.tsv")
    for checkpoint in ("last", "best"):
        tools.word_counter(run / checkpoint, scale)
    about = read_json(run / "run.json")
    about["args"] |= {"data_dir": str(tmp_path / "data"), "test_file": None}
    (run / "run.json").write_text(json.dumps(about))
    return run


def say_good(run, changes: dict | None = None) -> None:
    """Make a run's last checkpoint answer 1 to every text."""
    path = run / "last" / "model.safetensors"
    weights = load_file(path) | (changes or {})
    save_file(weights | {"classifier.bias": torch.tensor([0.0, 50.0])}, path, {"format": "pt"})


@pytest.fixture
def attacked(monkeypatch, tmp_path):
    """Run attack.py and return its record."""
    results = tmp_path / "results.jsonl"

    def call(run, *flags) -> dict:
        arguments = ["--quiet", "--recipe", "deepwordbug", "--result_file", results, *flags]
        monkeypatch.setattr(
            sys, "argv", ["attack.py", "--model_name", *map(str, [run, *arguments])]
        )
        cli.run(attack.main)
        return read_jsonl(results)[-1]

    return call


def flags(record: dict) -> set[str]:
    return {flag["flag"] for flag in record["flags"]}


def test_a_model_with_a_default_answer_has_no_other_flag(run, attacked, capsys):
    record = attacked(run)
    assert record["attacked_rows_in_train"] == record["attacked_rows_in_dev"] == 0
    assert record["rows_answered_differently_twice"] == 0 and record["classes_answered"] == 2
    # All words have the same weight. A tie means label 0, so no attack on a BAD row succeeds.
    assert flags(record) - {"equal_importance"} == {"one_class_survives"}
    assert record["row_labels"] == "0" * 5 + "1" * 5 and record["row_outcomes"] == "rrrrrfffff"


def test_the_first_rows_of_a_sorted_file_have_one_class(run, attacked, capsys):
    record = attacked(run, "--row_choice", "first", "--num_examples", 4)
    assert "one_class_sample" in flags(record)
    assert "suspicious (one_class_sample)" in capsys.readouterr().err
    assert "one_class_sample" not in flags(attacked(run, "--num_examples", 4))


def test_a_constant_model(run, attacked):
    say_good(run, {"classifier.weight": torch.zeros(2, 32)})
    record = attacked(run)
    assert record["clean_percent"] == record["aua_percent"] == 50
    assert flags(record) >= {"one_answer", "equal_importance", "many_rows_skipped"}
    assert "many_rows_skipped" not in flags(
        attacked(run, "--flag_skipped_percent", 50, "--seed", 2)
    )


def test_a_model_that_was_trained_on_attacked_rows(run, attacked, tmp_path):
    seen = tools.write_rows(tmp_path / "seen.tsv", [("GOOD  and lovely", 1), *BAD_ROWS])
    tools.write_rows(tmp_path / "data" / "train.tsv", [*TRAIN, ("good and lovely", 1)])
    record = attacked(run, "--test_file", seen)
    train_or_dev = record["attacked_rows_in_train"] + record["attacked_rows_in_dev"]
    assert train_or_dev >= 1
    assert flags(record) & {"trained_on_attacked_rows", "selected_on_attacked_rows"}


def test_attacked_rows_that_epochs_were_selected_on(run, attacked, tmp_path):
    """The dev file and the test file share rows."""
    tools.write_rows(tmp_path / "data" / "dev.tsv", GOOD_ROWS[:2] + BAD_ROWS[:1])
    record = attacked(run)
    assert record["attacked_rows_in_dev"] == 3 and "selected_on_attacked_rows" in flags(record)


def test_without_its_data_the_overlap_is_unknown(run, attacked, tmp_path):
    (tmp_path / "data" / "train.tsv").unlink()
    record = attacked(run, "--test_file", tmp_path / "data" / "test.tsv")
    assert record["attacked_rows_in_train"] is None and not flags(record) & {
        "trained_on_attacked_rows"
    }


def test_a_model_that_answers_differently_twice(run):
    victim = tools.make_victim(tools.load(run / "last"))
    rows = tools.sst2_rows(GOOD_ROWS)
    assert checks.examine(victim, rows)["rows_answered_differently_twice"] == 0
    victim.model.classifier.register_forward_hook(
        lambda _module, _inputs, out: out + 0.01 * torch.randn_like(out)
    )
    assert checks.examine(victim, rows)["rows_answered_differently_twice"] == 5


def test_texts_cut_at_another_length_than_in_training(run, attacked):
    record = attacked(run, "--max_seq_length", 20)
    assert record["trained_max_seq_length"] == 32 and "other_truncation" in flags(record)
    assert "other_truncation" not in flags(attacked(run, "--seed", 1))


def test_a_query_budget(run, attacked):
    """Three words decide, and all must change: 1 query for the text, 4 to rank its words, then
    those of the first word. Without a budget, attacks on GOOD_ROWS succeed; BAD_ROWS end in a tie,
    which means label 0."""
    free, tight = attacked(run), attacked(run, "--query_budget", 6, "--output_dir", run / "tight")
    assert free["aua_percent"] == 50 and free["rows_out_of_budget"] == 0
    assert tight["aua_percent"] == 100 and tight["queries_per_row"] == 6
    assert tight["rows_out_of_budget"] == tight["rows_failed"]
    assert "budget_exhausted" in flags(tight) - flags(free)
    assert tight["protocol_id"] != free["protocol_id"]


def test_several_processes_give_the_same_result_as_one(run, attacked, tmp_path):
    attacked(run, "--output_dir", tmp_path / "one")
    attacked(run, "--output_dir", tmp_path / "two", "--processes", 2)
    # Equal attacks have one record, so each summary is read from its own folder.
    one, two = (read_json(tmp_path / name / "summary.json") for name in ("one", "two"))
    same = [k for k in one if k not in ("seconds", "environment", "made_in")]
    assert {k: two[k] for k in same} == {k: one[k] for k in same}
    lines = [read_jsonl(tmp_path / name / "rows.jsonl") for name in ("one", "two")]
    assert [line | {"seconds": 0} for line in lines[0]] == [x | {"seconds": 0} for x in lines[1]]


def test_a_process_that_dies_ends_the_attack_with_one_line(run, attacked, tmp_path, capsys):
    def kill_a_worker():
        end = time.monotonic() + 60
        while len(multiprocessing.active_children()) < 2:  # before, the pool itself is being built
            assert time.monotonic() < end
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    with pytest.raises(SystemExit, match="2"):
        attacked(run, "--processes", 2, "--output_dir", tmp_path / "a")
    killer.join()
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1 and "a process of the attack ended" in errors[0]
    assert not (tmp_path / "a" / "summary.json").exists()


@pytest.mark.parametrize(
    "error", [OSError("handle is closed"), ValueError("bad value(s) in fds_to_keep")], ids=str
)
def test_a_process_that_dies_while_the_next_one_starts(run, attacked, monkeypatch, capsys, error):
    """The pool closes its pipes during the start, which raises either error."""

    def submit(*_):
        raise error

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    with pytest.raises(SystemExit, match="2"):
        attacked(run, "--processes", 2)
    assert "error: a process of the attack ended" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(presets.PRESETS))
def test_presets(name, run, attacked, tmp_path):
    others = ["--compared_with", run] if name == "intersection" else []
    length = ["--max_seq_length", 60] if name == "released" else []  # this encoder has 64
    record = attacked(run, "--preset", name, "--num_examples", 4, *others, *length)
    expected = presets.PRESETS[name]
    assert record["preset"] == name and record["rows"]["chosen"] == expected["row_choice"]
    assert record["score_with"] == expected["score_with"]
    first = name == "released"
    assert record["rows"]["rows_per_label"] == ({"0": 4} if first else {"0": 2, "1": 2}) or (
        name == "paper"
    )
    folder = next((run / "attacks").iterdir())
    written = read_json(folder / "protocol.json")
    assert written["id"] == record["protocol_id"] and len(written["row_ids"]) == 4
    assert written["rows"]["rows_per_label"] == record["rows"]["rows_per_label"]


def test_preset_released_selects_the_attack_that_its_code_calls_bert_attack(monkeypatch):
    flags = ["--model_name", "x", "--recipe", "bertattack", "--task_name", "sst2"]
    args = attack.parse_args([*flags, "--preset", "released"])
    assert args.recipe == "bertattack-released" and args.max_seq_length == 512
    args = attack.parse_args([*flags, "--preset", "released", "--row_choice", "random"])
    assert args.row_choice == "random" and args.score_with == "softmax"
    assert attack.parse_args(flags).recipe == "bertattack"


def test_random_rows_are_of_any_class():
    labels = [0] * 90 + [1] * 10
    rows = Rows([(f"{i}",) for i in range(100)], labels, [f"test:{i}" for i in range(100)], "file")
    chosen = [protocol.choose_rows(rows, 20, "random", seed) for seed in range(20)]
    assert all(len(c) == 20 and len(set(c.ids)) == 20 for c in chosen)
    ones = [sum(c.labels) for c in chosen]
    assert len(set(ones)) > 1 and np.mean(ones) == pytest.approx(2, abs=0.9)
    assert protocol.choose_rows(rows, 20, "balanced", 0).labels.count(1) == 10


def test_the_intersection_holds_rows_that_all_models_classify_correctly(run, attacked, tmp_path):
    """`half` answers good to every text, so only the good rows remain."""
    half = run_of(tmp_path, "half")
    say_good(half)
    record = attacked(run, "--preset", "intersection", "--compared_with", run, half)
    assert record["clean_percent"] == 100 and record["rows"]["rows_per_label"] == {"1": 5}
    other = attacked(half, "--preset", "intersection", "--compared_with", half, run)
    assert other["protocol_id"] == record["protocol_id"]
    assert len(record["rows"]["right_for"]) == 2


def test_no_row_in_the_intersection(run, tmp_path, capsys):
    reversed_run = run_of(tmp_path, "reversed", scale=-3.0)
    before = sorted(tmp_path.rglob("*"))
    attack_it = ("attack", "--model_name", run, "--recipe", "deepwordbug")
    both = ("--row_choice", "intersection", "--compared_with", reversed_run)
    assert "no row is right for all 2" in fails(capsys, *attack_it, *both)
    for half in (both[:2], both[2:]):
        assert "need each other" in fails(capsys, *attack_it, *half)
    assert sorted(tmp_path.rglob("*")) == before
