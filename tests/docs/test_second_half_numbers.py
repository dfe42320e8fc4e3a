"""The page of the study's second half: its numbers are those of the records."""

import itertools
from collections.abc import Iterable

import pytest
from doc_tools import ROOT

from evaluation.by_class import Rate
from reporting import verdicts
from reporting.compared_suites import compare
from reporting.render import rate
from reporting.suite_records import SuiteRecord
from utils.files import read_jsonl

TABLE_TASKS = ("builtin/rotten_tomatoes", "sst2")

SECOND_HALF = ROOT / "results" / "study" / "second-half"


def suites(name: str, task: str, seed: int = 11) -> list[dict]:
    """Records of a model's suites on a task: before texts were carried over, and after."""
    lines = read_jsonl(SECOND_HALF / f"{name}.jsonl")
    return [r for r in lines if r["task"] == task and r["seed"] == seed]


def second_half(position: int, task: str, *seeds: int) -> dict:
    """What compare_suites.py makes of the records at `position` (0: before texts were carried)."""
    ticket, dense = (
        [SuiteRecord.of(suites(name, task, seed)[position], name) for seed in seeds]
        for name in ("ticket-robust-0.3", "dense-epochs19")
    )
    return compare(ticket, dense)[task]["measures"]


SEEDS_OF_SECOND_HALF = (11, 12, 13)


def page(name: str) -> str:
    return " ".join((ROOT / name).read_text().split())


@pytest.mark.parametrize("task", TABLE_TASKS)
@pytest.mark.parametrize(
    "row, position, measure",
    [
        ("Clean", -1, "Clean"),
        ("Aua, margin attack alone", -1, "Aua, margin attack alone"),
        ("Aua under the union: mean", -1, "Aua, mean"),
        ("negative", -1, "Aua, negative"),
        ("positive", -1, "Aua, positive"),
        ("**class-equalized** (the endpoint)", -1, "Aua, class-equalized"),
        ("*without carried texts*: mean", 0, "Aua, mean"),
        ("*without carried texts*: class-equalized", 0, "Aua, class-equalized"),
    ],
)
def test_the_page_of_the_study_has_the_numbers_of_the_second_half(row, position, measure, task):
    of_all = second_half(position, task, *SEEDS_OF_SECOND_HALF)[measure]
    cells = [row, f"{of_all['model']:.1f}", f"{of_all['reference']:.1f}"]
    for seed in SEEDS_OF_SECOND_HALF:
        cells.append(rate(Rate(*second_half(position, task, seed)[measure]["difference"])))
    cells.append(rate(Rate(*of_all["difference"])))
    assert f"| {' | '.join(cells)} |" in (ROOT / "docs" / "second_half.md").read_text()


def rows_right(name: str, task: str, seed: int) -> list[int]:
    """Rows that survive the union: without texts of other models, and with them."""
    of_seed = suites(name, task, seed)
    return [int(SuiteRecord.of(r, name).states["union"].right().sum()) for r in of_seed]


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


def gains(measure: str, task: str, position: int = -1) -> list[str]:
    """Ticket minus dense, seed by seed."""
    return [
        f"{second_half(position, task, seed)[measure]['difference'][0]:.1f}".replace("-", "−")
        for seed in SEEDS_OF_SECOND_HALF
    ]


def test_the_readme_quotes_the_gains_of_the_second_half():
    readme, equalized = page("README.md"), "Aua, class-equalized"
    alone, carried = (gains(equalized, "sst2", position) for position in (0, -1))
    assert f"from {listed(alone)} points to {listed(carried)}" in readme
    assert f"it is {listed(gains(equalized, TABLE_TASKS[0]))}" in readme


def test_the_verdict_is_that_of_the_plan():
    """docs/analysis_plan.md, section 4."""
    gate = verdicts.gate(verdicts.read(SECOND_HALF)[0])
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
        last = [suites(name, task, seed)[-1]["default_answer"] for seed in SEEDS_OF_SECOND_HALF]
        positive = listed(round(answers["unknown"][-1][1]) for answers in last)
        assert f"{positive} %" in text, (task, name, positive)
