"""The page of the study's second half: its numbers are those of the records."""

import itertools

import pytest
from doc_tools import ROOT

from evaluation.by_class import Rate
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


def second_half(position: int, task: str = "sst2", seed: int = 11) -> dict:
    """What compare_suites.py makes of the records at `position` (0: before texts were carried)."""
    ticket, dense = (
        [SuiteRecord.of(suites(name, task, seed)[position], name)]
        for name in ("ticket-robust-0.3", "dense-epochs19")
    )
    return compare(ticket, dense)[task]["measures"]


SEEDS_OF_SECOND_HALF = (11, 12)


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
    cells = [row]
    for seed in SEEDS_OF_SECOND_HALF:
        numbers = second_half(position, task, seed)[measure]
        cells += [f"{numbers['model']:.1f}", f"{numbers['reference']:.1f}"]
        cells += [rate(Rate(*numbers["difference"]))]
    assert f"| {' | '.join(cells)} |" in (ROOT / "docs" / "second_half.md").read_text()


def rows_right(name: str, task: str, seed: int) -> list[int]:
    """Rows that survive the union: without texts of other models, and with them."""
    of_seed = suites(name, task, seed)
    return [int(SuiteRecord.of(r, name).states["union"].right().sum()) for r in of_seed]


def test_the_pages_count_the_rows_that_carried_texts_fool():
    counts = []
    for task, seed in itertools.product(TABLE_TASKS, SEEDS_OF_SECOND_HALF):
        alone, carried = rows_right("ticket-robust-0.3", task, seed)
        counts.append((task, seed, alone, alone - carried))
        of_dense = rows_right("dense-epochs19", task, seed)
        assert task != "sst2" or of_dense[0] == of_dense[1]  # no row falls the other way round
    rt11, rt12, sst11, sst12 = (numbers[2:] for numbers in counts)
    assert counts[0][0] == TABLE_TASKS[0] != "sst2"
    study = page("docs/second_half.md")
    assert f"own on {sst11[0]} and {sst12[0]} rows" in study
    assert f"fool them on {sst11[1]} and {sst12[1]} of these" in study
    assert f"on {rt11[1]} of {rt11[0]} and on {rt12[1]} of {rt12[0]} rows" in study
    assert f"on {sst11[1]} of {sst11[0]} and on {sst12[1]} of {sst12[0]} rows" in page("README.md")


@pytest.mark.slow
def test_the_pages_quote_the_gains_of_the_second_half():
    def gain(measure: str, task: str, seed: int, position: int = -1) -> str:
        return f"{second_half(position, task, seed)[measure]['difference'][0]:.1f}"

    readme, study = page("README.md"), page("docs/second_half.md")
    of_sst2 = [
        gain("Aua, class-equalized", "sst2", seed, position)
        for position in (0, -1)
        for seed in SEEDS_OF_SECOND_HALF
    ]
    assert "from {} and {} points to {} and {}.".format(*of_sst2) in readme
    other = TABLE_TASKS[0]
    assert {gain("Aua, class-equalized", other, seed) for seed in SEEDS_OF_SECOND_HALF} == {"1.0"}
    assert "On Rotten Tomatoes it is 1.0 with both seeds" in readme
    means = [gain("Aua, mean", other, seed) for seed in SEEDS_OF_SECOND_HALF]
    assert f"gains {means[0]} points with one seed" in readme
    assert f"and {means[1]} with the other" in readme
    by_class = [gain(f"Aua, {name}", other, 11, 0) for name in ("positive", "negative")]
    assert (
        "gain {} points by the models' own attacks, its negative ones {}.".format(*by_class)
        in study
    )
    suite_records = [
        [
            SuiteRecord.of(suites(name, task, seed)[-1], name)
            for task in TABLE_TASKS
            for seed in SEEDS_OF_SECOND_HALF
        ]
        for name in ("ticket-robust-0.3", "dense-epochs19")
    ]
    mean = compare(*suite_records)["mean"]["measures"]["Aua, class-equalized"]["difference"]
    quoted = rate(Rate(*mean))
    assert f"The mean of the four is {quoted}" in study
    assert f"In the mean of all four it is {quoted} points" in readme


def test_the_page_of_the_study_has_the_answers_of_the_probe():
    study = page("docs/second_half.md")

    def positive(task: str) -> list[int]:
        return [
            round(suites(name, task, seed)[-1]["default_answer"]["unknown"][-1][1])
            for name in ("ticket-robust-0.3", "dense-epochs19")
            for seed in SEEDS_OF_SECOND_HALF
        ]

    whole = (
        "to {} and {} % of the texts whose content words are [UNK], the dense models to {} and {} %"
    )
    assert whole.format(*positive(TABLE_TASKS[0])) in study
    assert (
        "to {} and {} % of these texts, the dense models to {} and {} %".format(*positive("sst2"))
        in study
    )
    measure = "Aua, margin attack, reference with equal Clean"
    of_sst2 = [second_half(-1, "sst2", seed)[measure] for seed in SEEDS_OF_SECOND_HALF]
    dense, ticket = ([m[name] for m in of_sst2] for name in ("reference", "model"))
    assert "reaches {:.1f} and {:.1f}, not {:.1f} and {:.1f}".format(*dense, *ticket) in study
    other = [second_half(-1, TABLE_TASKS[0], seed)[measure] for seed in SEEDS_OF_SECOND_HALF]
    assert f"of seed 11 at {other[0]['reference']:.1f} under the margin attack" in study
    lifted = (other[1]["reference"], other[1]["model"])
    assert "lifts that of seed 12 to {:.1f}, above its ticket's {:.1f}".format(*lifted) in study
