"""The page of the study's second half: its numbers are those of the records."""

import itertools
from collections.abc import Iterable

import pytest
from doc_tools import ROOT

from evaluation.by_class import Rate
from evaluation.margins import bias_of_highest_accuracy
from reporting import verdicts
from reporting.compared_suites import compare
from reporting.render import rate
from reporting.suite_records import SuiteRecord
from utils.files import read_jsonl

TABLE_TASKS = ("builtin/rotten_tomatoes", "sst2")

SECOND_HALF = ROOT / "results" / "study" / "second-half"


def record(name: str, task: str, seed: int) -> dict:
    """Of the suite on a model."""
    lines = read_jsonl(SECOND_HALF / f"{name}.jsonl")
    (found,) = (r for r in lines if r["task"] == task and r["seed"] == seed)
    return found


def second_half(task: str, *seeds: int) -> dict:
    """What compare_suites.py makes of the records of these seeds."""
    ticket, dense = (
        [SuiteRecord.of(record(name, task, seed), name) for seed in seeds]
        for name in ("ticket-robust-0.3", "dense-epochs19")
    )
    return compare(ticket, dense)[task]["measures"]


SEEDS_OF_SECOND_HALF = (11, 12, 13)
FURTHER_SEEDS = {"sst2": (14,)}  # not in the verdict


def page(name: str) -> str:
    return " ".join((ROOT / name).read_text().split())


@pytest.mark.parametrize("task", TABLE_TASKS)
@pytest.mark.parametrize(
    "row, measure",
    [
        ("Clean", "Clean"),
        ("Aua, margin attack alone", "Aua, margin attack alone"),
        ("Aua under the union: mean", "Aua, mean"),
        ("negative", "Aua, negative"),
        ("positive", "Aua, positive"),
        ("**class-equalized** (the endpoint)", "Aua, class-equalized"),
        ("*without carried texts*: mean", "Aua, mean, without carried texts"),
        ("*without carried texts*: class-equalized", "Aua, class-equalized, without carried texts"),
    ],
)
def test_the_page_of_the_study_has_the_numbers_of_the_second_half(row, measure, task):
    of_all = second_half(task, *SEEDS_OF_SECOND_HALF)[measure]
    cells = [row, f"{of_all['model']:.1f}", f"{of_all['reference']:.1f}"]
    for seed in SEEDS_OF_SECOND_HALF:
        cells.append(rate(Rate(*second_half(task, seed)[measure]["difference"])))
    cells.append(rate(Rate(*of_all["difference"])))
    for seed in FURTHER_SEEDS.get(task, ()):
        cells.append(rate(Rate(*second_half(task, seed)[measure]["difference"])))
    assert f"| {' | '.join(cells)} |" in (ROOT / "docs" / "second_half.md").read_text()


def rows_right(name: str, task: str, seed: int) -> list[int]:
    """Rows that survive the union: without texts of other models, and with them."""
    states = SuiteRecord.of(record(name, task, seed), name).states
    return [int(states[state].right().sum()) for state in ("alone", "union")]


def listed(values: Iterable[object]) -> str:
    """'a, b and c'."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}"


def test_the_page_counts_the_rows_that_carried_texts_fool():
    text = page("docs/second_half.md")
    for task, name in itertools.product(TABLE_TASKS, ("ticket-robust-0.3", "dense-epochs19")):
        counts = [rows_right(name, task, seed) for seed in SEEDS_OF_SECOND_HALF]
        fooled = listed(f"{alone - carried} of {alone}" for alone, carried in counts)
        assert f"on {fooled} rows" in text, (task, name, fooled)


def gains(measure: str, task: str) -> list[str]:
    """Ticket minus dense, seed by seed."""
    return [
        f"{second_half(task, seed)[measure]['difference'][0]:.1f}".replace("-", "−")
        for seed in SEEDS_OF_SECOND_HALF
    ]


def test_the_readme_quotes_the_gains_of_the_second_half():
    readme, equalized = page("README.md"), "Aua, class-equalized"
    alone, carried = (
        gains(measure, "sst2") for measure in (f"{equalized}, without carried texts", equalized)
    )
    assert f"from {listed(alone)} points to {listed(carried)}" in readme
    assert f"it is {listed(gains(equalized, TABLE_TASKS[0]))}" in readme


def test_the_verdict_is_that_of_the_plan():
    """docs/analysis_plan.md, section 4."""
    gate = verdicts.gate(verdicts.read(SECOND_HALF))
    text, verdict = page("docs/second_half.md"), gate["verdict"]
    assert f"**The gate: {verdict}.**" in text and f"**{verdict}**" in page("README.md")
    quoted = rate(Rate(*gate["class_equalized_gain"]))
    assert f"is {quoted} points in the mean of both data sets" in text
    assert f"mean of both data sets it is {quoted}" in page("README.md")
    of_equal_clean = rate(Rate(*gate["minus_dense_of_equal_clean"]))
    assert f"the difference is {of_equal_clean}" in text


def test_the_page_has_the_answers_of_the_probe():
    text = page("docs/second_half.md")
    for task, name in itertools.product(TABLE_TASKS, ("ticket-robust-0.3", "dense-epochs19")):
        last = [record(name, task, seed)["default_answer"] for seed in SEEDS_OF_SECOND_HALF]
        positive = listed(round(answers["unknown"][-1][1]) for answers in last)
        assert f"{positive} %" in text, (task, name, positive)


def test_the_page_has_the_cost_of_equal_clean():
    text = page("docs/second_half.md")
    for task in TABLE_TASKS:
        lost_by = {"dense": [], "ticket": []}
        for seed in SEEDS_OF_SECOND_HALF:
            ticket, dense = (
                SuiteRecord.of(record(name, task, seed), name)
                for name in ("ticket-robust-0.3", "dense-epochs19")
            )
            lowest = ticket.dev["clean"].accuracy()
            bias = bias_of_highest_accuracy(dense.dev["clean"], dense.dev["margin"], lowest)
            clean = dense.states["clean"]
            lost_by["dense"].append(clean.accuracy() - clean.accuracy(bias))
            lost_by["ticket"].append(clean.accuracy() - ticket.states["clean"].accuracy())
        assert listed(f"{lost:.1f}" for lost in lost_by["ticket"]) in text
        if max(lost_by["dense"]) > 0.5:
            assert listed(f"{lost:.1f}" for lost in lost_by["dense"]) in text
        else:
            assert "On SST-2, the dense models lose nothing" in text and task == "sst2"


def test_the_page_has_the_numbers_of_the_seed_that_is_not_in_the_verdict():
    text, measures = page("docs/second_half.md"), second_half("sst2", 14)
    equalized, margin = (
        f"{measures[name]['difference'][0]:.1f}".replace("-", "−")
        for name in ("Aua, class-equalized", "Aua, margin attack alone")
    )
    assert f"a gain of {margin} points" in text and f"gain is {equalized}. The ticket" in text
    ticket, dense = (rows_right(m, "sst2", 14) for m in ("ticket-robust-0.3", "dense-epochs19"))
    fooled, of_dense = ticket[0] - ticket[1], dense[0] - dense[1]
    assert f"on {fooled} of the {ticket[0]} rows that stand" in text
    assert f"(the dense model on {of_dense} of {dense[0]})" in text
    answers = [
        round(record(m, "sst2", 14)["default_answer"]["unknown"][-1][1])
        for m in ("ticket-robust-0.3", "dense-epochs19")
    ]
    assert f'"positive" to {answers[0]} % of the texts' in text
    assert f"the dense model to {answers[1]} %" in text
