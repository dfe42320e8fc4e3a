"""Accuracy by class, and the rule that flags a mean which only one class carries.

A mean over classes can rise because the model is more robust, or because it answers one class by
default once the attack has removed its evidence. `one_class_survives` flags the second pattern in
one record, `one_class_carries` in the difference of two models. docs/evaluation.md discusses both;
results/false_alarms.md has their rates of false alarms.

The functions take records as dictionaries with `row_outcomes` and `row_labels`, of one model, one
record per seed, on the same rows. Without those keys (records of earlier versions) they return {}
or None.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import fisher_exact, ttest_ind

from evaluation.intervals import crossed_difference, crossed_interval, mean_over_rows
from evaluation.outcomes import decode_labels, outcome_table
from training.metrics import wilson_interval

LEVEL = 0.05  # largest p, after the correction for the number of classes
SMALLEST_GAP = 10.0  # points between the leading class and the other classes


class Rate(NamedTuple):
    """A percentage, or a difference in points, with its 95 % interval."""

    percent: float
    low: float
    high: float


def _rows(records: list[dict], measure: str = "aua_percent") -> tuple[np.ndarray, ...] | None:
    """(rows,) label indices and bool (records, rows): whether a row counts as correct.

    `measure`: clean_percent or aua_percent. None where the records lack them or differ in the rows.
    """
    labels, correct = [r.get("row_labels") for r in records], None
    if None not in labels and all(other == labels[0] for other in labels):
        correct = outcome_table([r.get("row_outcomes") for r in records], measure)
    return None if correct is None else (np.array(decode_labels(labels[0])), correct)


def _paired(records: list[dict], baseline: list[dict]) -> tuple[np.ndarray, ...] | None:
    """(labels, a, b): who survives, over the seeds that both have; None where rows differ."""
    of_a, of_b = ({r["seed"]: r for r in rs} for rs in (records, baseline))
    seeds = sorted(of_a.keys() & of_b.keys())
    both = [of_model[seed] for of_model in (of_a, of_b) for seed in seeds]
    if len({str(r["rows"]) for r in both}) != 1 or not (rows := _rows(both)):
        return None
    labels, correct = rows
    return labels, correct[: len(seeds)], correct[len(seeds) :]


def rates_by_class(records: list[dict], measure: str = "aua_percent") -> dict[str, Rate]:
    """Class name -> rate over its rows, in the order of the labels, for each class that has rows.

    The interval of one record is Wilson's, over rows; that of several is over rows and seeds
    (`intervals.crossed_interval`).
    """
    labels, correct = _rows(records, measure) or ((), None)
    rates = {}
    for label in np.unique(labels):
        of_class = correct[:, labels == label]
        if len(records) == 1 or of_class.shape[1] < 2:
            interval = wilson_interval(int(of_class[0].sum()), of_class.shape[1])
        else:
            interval = crossed_interval(of_class)
        rates[_name(records[0], label)] = Rate(100 * float(of_class.mean()), *map(float, interval))
    return rates


def gain_by_class(records: list[dict], baseline: list[dict]) -> dict[str, Rate]:
    """Class name -> (mean Aua of records minus baseline, low, high) in points over common seeds.

    The interval is over rows and seeds; with one common seed or one row it is over rows alone.
    """
    labels, a, b = _paired(records, baseline) or ((), None, None)
    gains = {}
    for label in np.unique(labels):
        pair = a[:, labels == label], b[:, labels == label]
        is_crossed = len(a) > 1 and pair[0].shape[1] > 1
        gain = Rate(*(crossed_difference(pair) if is_crossed else mean_over_rows(_gains(*pair))))
        gains[_name(records[0], label)] = gain
    return gains


def one_class_survives(record: dict) -> str | None:
    """Why the Aua of one record is carried by one class, with the numbers; None where it is not.

    The rule compares the class of the highest Aua with all other rows. It fires where the Aua of
    that class is at least SMALLEST_GAP points higher and Fisher's exact one-sided test of survival
    by class, its p multiplied by the number of classes, gives at most LEVEL. With two classes this
    is a two-sided test.
    """
    rows = _rows([record])
    if rows is None or len(np.unique(rows[0])) < 2:
        return None
    labels, [survived] = rows
    leader, inside, outside, p = _leading_class(labels, survived, _fisher)
    if leader is None:
        return None
    return (
        f"Aua is {100 * inside.mean():.1f} % on {_name(record, leader)} rows and "
        f"{100 * outside.mean():.1f} % on the others (p = {p:.2g}): the mean hides which class "
        "survives"
    )


def one_class_carries(records: list[dict], baseline: list[dict]) -> str | None:
    """Why the gain in Aua of `records` over `baseline` is carried by one class, or None.

    The rule averages each row's gain over the common seeds and compares the class of the largest
    gain with all other rows. It fires where all hold:
    - the gain of that class is above 0 (95 % interval over rows);
    - the gain on the other rows is not;
    - the two gains differ by at least SMALLEST_GAP points, and Welch's one-sided test of this
      difference (class x model), its p multiplied by the number of classes, gives at most LEVEL.
    The rule takes the trained models as given: it is about new rows, not about new seeds.
    """
    pair = _paired(records, baseline)
    if pair is None:
        return None
    labels, a, b = pair
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or min(counts) < 2:
        return None
    leader, inside, outside, p = _leading_class(labels, _gains(a, b), _welch)
    if leader is None or mean_over_rows(inside)[1] <= 0 or mean_over_rows(outside)[1] > 0:
        return None
    return (
        f"the gain is {100 * inside.mean():+.1f} points on {_name(records[0], leader)} rows and "
        f"{100 * outside.mean():+.1f} on the others (class x model: p = {p:.2g})"
    )


def _leading_class(
    labels: np.ndarray, values: np.ndarray, test: Callable[[np.ndarray, np.ndarray], float]
) -> tuple[int | None, np.ndarray, np.ndarray, float]:
    """The class whose rows have the highest mean, its values, those of the others, and p.

    The class is None if its lead is too small. p: of `test`, times the number of classes.
    """
    classes = np.unique(labels)
    leader = max(classes, key=lambda label: values[labels == label].mean())
    inside, outside = values[labels == leader], values[labels != leader]
    p = min(1.0, len(classes) * test(inside, outside))
    is_clear = 100 * (inside.mean() - outside.mean()) >= SMALLEST_GAP and p <= LEVEL
    return leader if is_clear else None, inside, outside, p


def _fisher(inside: np.ndarray, outside: np.ndarray) -> float:
    """One-sided p of Fisher's exact test that the share of true values `inside` is greater."""
    table = [[part.sum(), len(part) - part.sum()] for part in (inside, outside)]
    return float(fisher_exact(table, alternative="greater").pvalue)


def _welch(inside: np.ndarray, outside: np.ndarray) -> float:
    """One-sided p of Welch's test that the mean of `inside` is the greater one."""
    if inside.std() == outside.std() == 0:
        return 0.0 if inside.mean() > outside.mean() else 1.0
    return float(ttest_ind(inside, outside, equal_var=False, alternative="greater").pvalue)


def _gains(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(rows,) means of a - b over seeds; `a`, `b`: bool (seeds, rows)."""
    return (a.astype(float) - b).mean(axis=0)


def _name(record: dict, label: int) -> str:
    names = record.get("label_names") or ()
    return names[label] if label < len(names) else str(label)
