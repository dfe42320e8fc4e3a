"""Accuracy by class, and the rule that flags a mean which only one class carries.

A mean over classes can rise because the model is more robust, or because it answers one class by
default once the attack has removed its evidence. `one_class_survives` flags the second pattern in
one record, `one_class_carries` in the difference of two models. docs/evaluation.md discusses both;
results/false_alarms.md has their rates of false alarms.

The functions take records as dictionaries with `row_outcomes` and `row_labels`, of one model, one
record per seed, on the same rows. Without those keys (records of earlier versions) they return {}
or None.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import fisher_exact, ttest_ind
from scipy.stats import t as student_t

from evaluation.intervals import crossed_difference, crossed_interval
from evaluation.outcomes import COUNTED, decode_labels
from training.metrics import wilson_interval

LEVEL = 0.05  # largest p, after the correction for the number of classes
SMALLEST_GAP = 10.0  # points between the leading class and the other classes


class Rate(NamedTuple):
    """A percentage, or a difference in points, with its 95 % interval."""

    percent: float
    low: float
    high: float


def labels_of(records: list[dict]) -> np.ndarray | None:
    """(rows,) label indices that all records share; None where one lacks them or they differ."""
    labels = [r.get("row_labels") for r in records]
    if not labels or None in labels or any(other != labels[0] for other in labels):
        return None
    return np.array(decode_labels(labels[0]))


def correct_rows(records: list[dict], measure: str) -> np.ndarray | None:
    """bool (records, rows): whether a row counts as correct for clean_percent or aua_percent."""
    letters = [r.get("row_outcomes") for r in records]
    if not letters or None in letters or len({*map(len, letters)}) > 1:
        return None
    return np.array([[letter in COUNTED[measure] for letter in line] for line in letters])


def rates_by_class(records: list[dict], measure: str = "aua_percent") -> dict[str, Rate]:
    """Class name -> rate over its rows, in the order of the labels, for each class that has rows.

    The interval of one record is Wilson's, over rows; that of several is over rows and seeds
    (`intervals.crossed_interval`).
    """
    labels, correct = labels_of(records), correct_rows(records, measure)
    if labels is None or correct is None:
        return {}
    rates = {}
    for label in np.unique(labels):
        of_class = correct[:, labels == label]
        if len(records) == 1 or of_class.shape[1] < 2:
            interval = wilson_interval(int(of_class[0].sum()), of_class.shape[1])
        else:
            interval = crossed_interval(of_class)
        rates[_name(records[0], label)] = Rate(100 * float(of_class.mean()), *map(float, interval))
    return rates


def worst_class(records: list[dict], measure: str = "aua_percent") -> tuple[str, Rate] | None:
    """The class with the lowest rate, the first of several; None where rates are unknown."""
    rates = rates_by_class(records, measure)
    return min(rates.items(), key=lambda item: item[1].percent) if rates else None


def gain_by_class(
    records: list[dict], baseline: list[dict], measure: str = "aua_percent"
) -> dict[str, Rate]:
    """Class name -> (mean of records minus baseline, low, high) in points over common seeds.

    The interval is over rows and seeds; with one common seed it is over rows alone.
    """
    pair = _paired(records, baseline, measure)
    if pair is None:
        return {}
    labels, a, b = pair
    return {
        _name(records[0], label): _gain(a[:, labels == label], b[:, labels == label])
        for label in np.unique(labels)
    }


def one_class_survives(record: dict) -> str | None:
    """Why the Aua of one record is carried by one class, with the numbers; None where it is not.

    The rule compares the class of the highest Aua with all other rows. It fires where the Aua of
    that class is at least SMALLEST_GAP points higher and Fisher's exact one-sided test of survival
    by class, its p multiplied by the number of classes, gives at most LEVEL. With two classes this
    is a two-sided test.
    """
    labels, correct = labels_of([record]), correct_rows([record], "aua_percent")
    if labels is None or correct is None or len(np.unique(labels)) < 2:
        return None
    survived = correct[0]
    classes = np.unique(labels)
    leader = max(classes, key=lambda label: survived[labels == label].mean())
    inside, outside = survived[labels == leader], survived[labels != leader]
    gap = 100 * (inside.mean() - outside.mean())
    table = [[part.sum(), len(part) - part.sum()] for part in (inside, outside)]
    p = min(1.0, len(classes) * float(fisher_exact(table, alternative="greater").pvalue))
    if gap < SMALLEST_GAP or p > LEVEL:
        return None
    return (
        f"Aua is {100 * inside.mean():.1f} % on {_name(record, leader)} rows and "
        f"{100 * outside.mean():.1f} % on the others (p = {p:.2g}): the mean hides which class "
        "survives"
    )


def one_class_carries(
    records: list[dict], baseline: list[dict], measure: str = "aua_percent"
) -> str | None:
    """Why the gain of `records` over `baseline` is carried by one class; None where it is not.

    The rule averages each row's gain over the common seeds and compares the class of the largest
    gain with all other rows. It fires where all hold:
    - the gain of that class is above 0 (95 % interval over rows);
    - the gain on the other rows is not;
    - the two gains differ by at least SMALLEST_GAP points, and Welch's one-sided test of this
      difference (class x model), its p multiplied by the number of classes, gives at most LEVEL.
    The rule takes the trained models as given: it is about new rows, not about new seeds.
    """
    pair = _paired(records, baseline, measure)
    if pair is None:
        return None
    labels, a, b = pair
    gains = (a.astype(float) - b).mean(axis=0)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or min(counts) < 2:
        return None
    leader = max(classes, key=lambda label: gains[labels == label].mean())
    inside, outside = gains[labels == leader], gains[labels != leader]
    p = min(1.0, len(classes) * _p_greater(inside, outside))
    gap = 100 * (inside.mean() - outside.mean())
    if _over_rows(inside).low <= 0 or _over_rows(outside).low > 0:
        return None
    if gap < SMALLEST_GAP or p > LEVEL:
        return None
    return (
        f"the gain is {100 * inside.mean():+.1f} points on {_name(records[0], leader)} rows and "
        f"{100 * outside.mean():+.1f} on the others (class x model: p = {p:.2g})"
    )


def _p_greater(inside: np.ndarray, outside: np.ndarray) -> float:
    """One-sided p of Welch's test that the mean of `inside` is the greater one."""
    if inside.std() == outside.std() == 0:
        return 0.0 if inside.mean() > outside.mean() else 1.0
    return float(ttest_ind(inside, outside, equal_var=False, alternative="greater").pvalue)


def _gain(a: np.ndarray, b: np.ndarray) -> Rate:
    """Mean of a - b in points with its 95 % interval; `a`, `b`: bool (seeds, rows)."""
    if len(a) > 1 and a.shape[1] > 1:
        return Rate(*map(float, crossed_difference(a, b)))
    return _over_rows((a.astype(float) - b).mean(axis=0))


def _over_rows(gains: np.ndarray) -> Rate:
    """Mean of (rows,) gains in points with Student's 95 % interval over rows."""
    mean = 100 * float(gains.mean())
    if len(gains) < 2:
        return Rate(mean, -100.0, 100.0)
    error = 100 * float(gains.std(ddof=1)) / math.sqrt(len(gains))
    half = float(student_t.ppf(0.975, len(gains) - 1)) * error
    return Rate(mean, mean - half, mean + half)


def _paired(
    records: list[dict], baseline: list[dict], measure: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(labels, a, b) over the seeds that both have, in one order; None where rows differ."""
    of_a, of_b = ({r["seed"]: r for r in rs} for rs in (records, baseline))
    seeds = sorted(of_a.keys() & of_b.keys())
    a, b = [of_a[seed] for seed in seeds], [of_b[seed] for seed in seeds]
    if len({str(r["rows"]) for r in (*a, *b)}) != 1:
        return None
    labels = labels_of(a + b)
    correct_a, correct_b = correct_rows(a, measure), correct_rows(b, measure)
    if labels is None or correct_a is None or correct_b is None:
        return None
    return labels, correct_a, correct_b


def _name(record: dict, label: int) -> str:
    names = record.get("label_names") or ()
    return names[label] if label < len(names) else str(label)
