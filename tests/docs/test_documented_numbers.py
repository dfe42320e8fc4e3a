"""The pages: numbers of the study are those of its records."""

import itertools
import re

import numpy as np
import pytest
from doc_tools import ROOT
from scipy.optimize import brentq
from scipy.stats import norm

from evaluation.intervals import mcnemar
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


def aua_by_class(recipe: str, sparsity: float | None, epochs: int) -> list[float]:
    """Aua of the study's models in percent, mean of three seeds: both classes of both tasks."""
    of_class = [
        outcomes_of(studied(recipe, task, sparsity, epochs), label)
        for task, label in itertools.product(TABLE_TASKS, "01")
    ]
    return [100 * rows.count("r") / len(rows) for rows in of_class]


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
            numbers = aua_by_class(recipe, sparsity, int(epochs))
            assert cells == [f"{number:.1f}" for number in numbers], line
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


def with_threshold(aua: np.ndarray, difference: float) -> np.ndarray:
    """Aua by class (two, in %) after the shift of the threshold that makes them differ so much.

    The margins are normal, with the same spread in both classes.
    """
    margins, signs = norm.ppf(aua / 100), np.array([-1, 1])

    def excess(shift: float) -> float:
        return np.diff(100 * norm.cdf(margins + shift * signs))[0] - difference

    return 100 * norm.cdf(margins + brentq(excess, 0, 3) * signs)


def test_the_gain_of_a_shifted_threshold_is_that_of_the_records():
    dense, ticket = (
        np.array(aua_by_class("textfooler-neighbours", sparsity, 10)).reshape(2, 2)
        for sparsity in (None, 0.3)
    )
    numbers = []
    for before, after in zip(dense, ticket, strict=True):
        shifted = with_threshold(before, np.diff(after)[0])
        numbers += [f"{gain.mean():.1f}" for gain in (shifted - before, after - before)]
    text = " ".join((ROOT / "docs" / "study.md").read_text().split())
    quote = "by {} of the ticket's {} points on Rotten Tomatoes, and by {} of {} on SST-2"
    assert quote.format(*numbers) in text


def test_the_effect_of_bf16_on_attacks_is_that_of_the_records():
    records = read_jsonl(ROOT / "results" / "benchmarks" / "attack_precision.jsonl")
    fp32, bf16, together = (np.array(list(r["row_outcomes"])) for r in records)
    assert [r.get("rows_at_once") for r in records] == [None, None, 16] and len(fp32) == 100
    text = " ".join((ROOT / "docs" / "stages.md").read_text().split())
    differ = (bf16 != together).sum(), (bf16 != fp32).sum()
    quote = "{} have another outcome with 16 rows at once than with one, and {} has another in bf16"
    assert quote.format(*differ) in text


def test_no_attack_of_the_study_has_an_artifact():
    records = read_jsonl(ROOT / "results" / "study" / "study-records.jsonl")
    text = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert f"In all {len(records)} attack records" in text
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
    facts = [(r["ticket"]["kind"], r["ticket"]["sparsity_asked"], r) for r in of_units]
    by_name |= {f"{kind}, {100 * sparsity:g} %": r for kind, sparsity, r in facts}
    assert len(of_units) == len(by_name) - 3 == 5
    right = {n: np.array([x == "r" for x in r["row_outcomes"]]) for n, r in by_name.items()}
    suites = {}
    for suite in read_jsonl(folder / "units-suites.jsonl"):
        ticket, union = suite["ticket"], suite["percent"]["union"]
        name = f"{ticket['kind']}, {100 * ticket['sparsity_asked']:g} %" if ticket else None
        means = union["no_bias"]["mean"], union["equalized"]["mean"]
        suites[name or "dense, second training"] = tuple(f"{mean:.1f}" for mean in means)
        assert suite["rows"]["fingerprint"] == again["rows"]["fingerprint"]
    for name, record in by_name.items():
        of_class = [outcomes_of([record], label) for label in "01"]
        numbers = [record["clean_percent"], record["aua_percent"]]
        numbers += [100 * letters.count("r") / len(letters) for letters in of_class]
        cells = [name, *(f"{n:.1f}" for n in numbers), *suites.get(name, ("", ""))]
        for dense in ("dense", "dense, second training"):
            assert record["rows"] == by_name[dense]["rows"]
            points = f"{numbers[1] - by_name[dense]['aua_percent']:+.1f}".replace("-", "−")
            p = mcnemar(right[name], right[dense])[2]
            is_compared = name not in ("dense", "dense, second training")
            cells += [f"{points} (p = {p:.2g})" if is_compared else ""]
        assert f"| {' | '.join(cells)} |" in text


def test_the_table_of_the_quickstart_of_an_hour_is_that_of_its_records():
    dense, *tickets = read_jsonl(ROOT / "results" / "study" / "quickstart-hour.jsonl")
    text = (ROOT / "docs" / "study_details.md").read_text()
    right = np.array(list(dense["row_outcomes"])) == "r"
    for record in (dense, *tickets):
        of_class = [outcomes_of([record], label) for label in "01"]
        by_class = [100 * letters.count("r") / len(letters) for letters in of_class]
        numbers = [record["clean_percent"], record["aua_percent"], *by_class, min(by_class)]
        name = f"{record['ticket']['kind']} ticket" if record["ticket"] else "dense"
        cells = [name, *(f"{n:.1f}" for n in numbers), ""]
        if record["ticket"]:
            p = mcnemar(np.array(list(record["row_outcomes"])) == "r", right)[2]
            gain = numbers[1] - dense["aua_percent"]
            cells[-1] = f"{gain:+.1f} (p = {p:.2g})".replace("-", "−")
        assert f"| {' | '.join(cells)} |" in text


def test_the_table_of_smaller_models_is_that_of_the_measured_times():
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    runtimes = ("torch-fp32", "torch-bf16", "torch-compile", "onnx", "onnx-int8")
    for record in read_jsonl(ROOT / "results" / "benchmarks" / "latency.jsonl"):
        timed = {(t["model"], t["runtime"]): t for t in record["timed"]}
        dense, *smaller = record["models"]
        fp32, int8 = (timed[dense, name]["seconds"]["median"] for name in ("onnx", "onnx-int8"))
        for model in smaller if record["batch"] == 32 else ():
            cells = [f"{model.split()[0]}, {record['length']}, {record['threads']}"]
            for runtime in runtimes:
                of = timed[model, runtime]["speedup"]
                cells.append(f"{of['median']:.2f} [{of['quartile_1']:.2f}, {of['quartile_3']:.2f}]")
            assert f"| {' | '.join(cells)} | {fp32 / int8:.1f} |" in text, cells
