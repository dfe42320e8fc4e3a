"""The pages: numbers of the study are those of its records."""

import itertools
import re

import pytest
from doc_tools import ROOT

from evaluation.by_class import Rate
from reporting.compared_suites import SuiteRecord, compare
from reporting.render import rate
from utils.files import read_jsonl

TABLE_TASKS = ("builtin/rotten_tomatoes", "sst2")


def studied(recipe: str, task: str, sparsity: float | None, epochs: int) -> list[dict]:
    """Records of one of the study's models, of seeds 1, 2 and 3."""
    records = read_jsonl(ROOT / "results" / "study" / "study-records.jsonl")
    chosen = [
        r
        for r in records
        if (r["kind"], r["recipe"], r["task"]) == ("attack", recipe, task)
        and (r["ticket"] or {"sparsity_asked": None})["sparsity_asked"] == sparsity
        and (r["ticket"] or {"kind": "robust"})["kind"] == "robust"
        and (r["ticket"] or {}).get("structure") is None
        and not r.get("stop_at_loss")
        and (r["epochs"], r["epoch"], r["score_with"]) == (epochs, epochs, "log_odds")
    ]
    assert sorted(r["seed"] for r in chosen) == [1, 2, 3]
    return sorted(chosen, key=lambda r: r["seed"])


def outcomes_of(records: list[dict], label: str) -> list[str]:
    """Letters of the rows of one class: r robust, f fooled, w wrong before the attack."""
    return [
        outcome
        for r in records
        for outcome, other in zip(r["row_outcomes"], r["row_labels"], strict=True)
        if other == label
    ]


def aua_by_class(recipe: str, sparsity: float | None, epochs: int) -> list[str]:
    """Aua of the study's models, mean of three seeds: both classes of both tasks, one decimal."""
    cells = []
    for task in TABLE_TASKS:
        records = studied(recipe, task, sparsity, epochs)
        for label in "01":
            rows = outcomes_of(records, label)
            cells.append(f"{100 * rows.count('r') / len(rows):.1f}")
    return cells


@pytest.mark.parametrize("name", ["README.md", "docs/study.md"])
def test_accuracies_by_class_are_those_of_the_records(name):
    """Rows such as '| robust ticket 30 %, 10 epochs | 29.3 | **45.7** | 33.7 | **55.3** |'."""
    recipe, count = "textfooler-neighbours", 0
    number = r"\*{0,2}(\d+\.\d)\*{0,2}"
    row = re.compile(
        r"^\| (?:dense|robust ticket (\d+) %), (\d+) epochs"
        + rf" \| {number} \| {number} \| {number} \| {number} \|$"
    )
    for line in (ROOT / name).read_text().splitlines():
        if attack := re.search(r"(?i)under `([\w-]+)`:$", line):
            recipe = attack[1]
        if match := row.match(line):
            percent, epochs, *cells = match.groups()
            count += 1
            sparsity = int(percent) / 100 if percent else None
            assert cells == aua_by_class(recipe, sparsity, int(epochs)), line
    assert count >= 4


@pytest.mark.parametrize(
    ("recipe", "losses"), [("textfooler-neighbours", 23), ("textbugger-minilm", 20)]
)
def test_comparisons_by_class_are_those_of_the_records(recipe, losses):
    """Tickets against dense models, seed by seed, as README.md and docs/study.md count them."""
    gains = {"0": [], "1": []}
    for task, sparsity, epochs in itertools.product(TABLE_TASKS, (0.3, 0.5), (10, 19)):
        tickets = studied(recipe, task, sparsity, 10)
        dense = studied(recipe, task, None, epochs)
        for (one, other), label in itertools.product(zip(tickets, dense, strict=True), "01"):
            robust = [outcomes_of([r], label).count("r") for r in (one, other)]
            gains[label].append(robust[0] - robust[1])
    assert len(gains["1"]) == 24 and all(gain > 0 for gain in gains["1"])
    assert sum(gain < 0 for gain in gains["0"]) == losses
    page = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert re.search(rf"\b{losses}\b under `{recipe}`", page)
    if recipe == "textfooler-neighbours":
        page = " ".join((ROOT / "README.md").read_text().split())
        assert f"gains in all 24, and the negative class loses in {losses}." in page


def test_the_change_of_clean_accuracy_is_that_of_the_records():
    """The largest change in a class, mean of three seeds, with as many epochs; no artifact."""
    changes = []
    for task, sparsity, label in itertools.product(TABLE_TASKS, (0.3, 0.5), "01"):
        models = [studied("textfooler-neighbours", task, s, 10) for s in (sparsity, None)]
        right = [outcomes_of(m, label) for m in models]
        one, other = (100 * (1 - rows.count("w") / len(rows)) for rows in right)
        changes.append(abs(one - other))
        for record in models[0] + models[1]:
            assert record["attacked_rows_in_train"] == record["attacked_rows_in_dev"] == 0
            assert record["saturated_percent"] == record["rows_of_equal_importance"] == 0
    page = " ".join((ROOT / "README.md").read_text().split())
    assert f"changes by at most {max(changes):.1f} points in either class" in page


def test_overlaps_are_those_of_the_record():
    text = (ROOT / "results" / "study" / "shared-texts.md").read_text()
    _, *numbers = re.findall(r"\| 200 \| (\d+) \||in common: (\d+)\.", "| 200 | 0 |" + text)
    counts = [int(a or b) for a, b in numbers]
    for name in ("README.md", "docs/study.md"):
        page = " ".join((ROOT / name).read_text().split())
        assert all(f"{count:,}" in page for count in counts) and len(counts) == 3


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
    numbers = second_half(position, task)[measure]
    cells = [row, f"{numbers['model']:.1f}", f"{numbers['reference']:.1f}"]
    line = f"| {' | '.join(cells)} | {rate(Rate(*numbers['difference']))} |"
    assert line in (ROOT / "docs" / "study.md").read_text()


@pytest.mark.parametrize(("task", "rows"), [("sst2", (63, 32)), (TABLE_TASKS[0], (69, 20))])
def test_the_pages_count_the_rows_that_carried_texts_fool(task, rows):
    survived = [
        SuiteRecord.of(r, "ticket").states["union"].right().sum()
        for r in suites("ticket-robust-0.3", task)
    ]
    assert survived == [rows[0], rows[0] - rows[1]]
    dense = [r["percent"] for r in suites("dense-epochs19", task)]
    assert dense[0]["union"] == dense[1]["union"]  # no row falls the other way round


def test_the_pages_say_on_how_many_rows_carried_texts_fool():
    text = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert (
        "on 63 rows" in text and "fool it on 32 of them (on Rotten Tomatoes, on 20 of 69)" in text
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    measure = second_half(-1, TABLE_TASKS[0])
    equalized, mean = (measure[f"Aua, {name}"] for name in ("class-equalized", "mean"))
    endpoint = "{:.1f} [{:.1f}, +{:.1f}]".format(*equalized["difference"]).replace("-", "−")
    assert "32 of the 63 rows" in text and f"On Rotten Tomatoes it is {endpoint}" in text
    assert f"the mean still gains {mean['difference'][0]:.1f}" in text


def test_the_page_of_the_study_has_the_answers_of_the_probe():
    of_ticket, of_dense = (
        suites(name, "sst2")[-1]["default_answer"]
        for name in ("ticket-robust-0.3", "dense-epochs19")
    )
    positive = [round(a[k][-1][1]) for k in ("unknown", "random") for a in (of_ticket, of_dense)]
    text = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert (
        "to {} % of the texts whose content words are [UNK], dense to {} %".format(*positive[:2])
        in text
    )
    assert "with random words {} and {} %".format(*positive[2:]) in text
    unknown = [
        round(suites(name, TABLE_TASKS[0])[-1]["default_answer"]["unknown"][-1][1])
        for name in ("ticket-robust-0.3", "dense-epochs19")
    ]
    other = "to {} % of the texts whose content words are [UNK], dense to {} %".format(*unknown)
    assert text.count(other) == 1
    shifted = second_half(-1)["Aua, margin attack, reference with equal Clean"]
    assert f"reaches {shifted['reference']:.1f}, not {shifted['model']:.1f}" in text
