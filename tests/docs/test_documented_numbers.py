"""The pages: numbers of the study are those of its records."""

import itertools
import re

import numpy as np
import pytest
from doc_tools import ROOT

from evaluation.by_class import Rate
from evaluation.intervals import mcnemar
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
        and r.get("runtime") is None
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
    assert f"| {' | '.join(cells)} |" in (ROOT / "docs" / "study.md").read_text()


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
    study = page("docs/study.md")
    assert f"own on {sst11[0]} and {sst12[0]} rows" in study
    assert f"fool them on {sst11[1]} and {sst12[1]} of these" in study
    assert f"on {rt11[1]} of {rt11[0]} and on {rt12[1]} of {rt12[0]} rows" in study
    assert f"on {sst11[1]} of {sst11[0]} and on {sst12[1]} of {sst12[0]} rows" in page("README.md")


@pytest.mark.slow
def test_the_pages_quote_the_gains_of_the_second_half():
    def gain(measure: str, task: str, seed: int, position: int = -1) -> str:
        return f"{second_half(position, task, seed)[measure]['difference'][0]:.1f}"

    readme, study = page("README.md"), page("docs/study.md")
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
    study = page("docs/study.md")

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


def test_no_attack_of_the_study_has_an_artifact():
    records = read_jsonl(ROOT / "results" / "study" / "study-records.jsonl")
    assert f"In all {len(records)} attack records" in page("docs/study.md")
    for name in ("attacked_rows_in_train", "attacked_rows_in_dev", "saturated_percent"):
        assert not any(r[name] for r in records)
    for name in ("rows_of_equal_importance", "rows_out_of_budget"):
        assert not any(r[name] for r in records)
    assert not any(r["rows_answered_differently_twice"] for r in records)


def test_the_page_of_structures_has_the_numbers_of_the_tickets_of_neurons():
    folder, text = ROOT / "results" / "study", (ROOT / "docs" / "structures.md").read_text()
    records = read_jsonl(folder / "study-records.jsonl")
    [again] = read_jsonl(folder / "dense-of-int8.jsonl")
    by_name = {"dense": studied("textfooler-neighbours", again["task"], None, 10)[0]}
    by_name["dense, second training"] = again
    [by_name["dense, int8"]] = [r for r in records if r.get("runtime") == "onnx-int8"]
    of_units = [r for r in records if (r["ticket"] or {}).get("structure")]
    by_name |= {r["ticket"]["kind"]: r for r in of_units}
    assert len(of_units) == len(by_name) - 3 == 3
    right = {n: np.array([x == "r" for x in r["row_outcomes"]]) for n, r in by_name.items()}
    for name, record in by_name.items():
        of_class = [outcomes_of([record], label) for label in "01"]
        numbers = [record["clean_percent"], record["aua_percent"]]
        numbers += [100 * letters.count("r") / len(letters) for letters in of_class]
        cells = [name, *(f"{n:.1f}" for n in numbers)]
        for dense in ("dense", "dense, second training"):
            assert record["rows"] == by_name[dense]["rows"]
            points = f"{numbers[1] - by_name[dense]['aua_percent']:+.1f}".replace("-", "−")
            p = mcnemar(right[name], right[dense])[2]
            is_compared = name not in ("dense", "dense, second training")
            cells += [f"{points} (p = {p:.2g})" if is_compared else ""]
        assert f"| {' | '.join(cells)} |" in text
