"""Intervals for new rows and new seeds, and paired comparisons, from outcomes row by row."""

import math

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student_t


def crossed_variance(*tables: np.ndarray) -> tuple[float, float]:
    """Variance of the mean over data sets of (seeds, rows) outcomes, and its degrees of freedom.

    All seeds are measured on the same rows, so a row's difficulty is common to them and a seed's
    luck to the rows, and to the data sets, which count alike and are taken as given: the two-way
    random-effects analysis of variance, one observation a cell, with Satterthwaite's (1946) degrees
    of freedom. Of one data set Var = (MS_seeds + MS_rows - MS_rest) / (seeds * rows). At least two
    seeds, the same of all data sets, and two rows.
    """
    seeds = len(tables[0])
    by_seed = np.mean([table.mean(axis=1) for table in tables], axis=0)
    of_seeds = by_seed.var(ddof=1) / seeds
    of_rows = rest = 0.0
    spread = of_seeds**2 / (seeds - 1)
    for table in tables:
        rows, share = table.shape[1], 1 / len(tables) ** 2
        by_row = table.mean(axis=0)
        own = share * by_row.var(ddof=1) / rows
        left = table - table.mean(axis=1, keepdims=True) - by_row + table.mean()
        left = share * (left**2).sum() / ((seeds - 1) * (rows - 1)) / (seeds * rows)
        spread += own**2 / (rows - 1) + left**2 / ((seeds - 1) * (rows - 1))
        of_rows, rest = of_rows + own, rest + left
    # Never below what either effect alone would give.
    total = max(of_seeds + of_rows - rest, of_seeds, of_rows)
    return total, max(1.0, total**2 / spread) if spread else math.inf


def crossed_interval(outcomes: np.ndarray) -> tuple[float, float]:
    """95 % interval of a percentage for new rows and new seeds; `outcomes`: bool, (seeds, rows).

    Wilson's interval, with t in place of z, at the number of independent rows that have the
    variance of `crossed_variance`: it stays within 0 and 100 and is not empty at either end.
    """
    outcomes = np.asarray(outcomes, float)
    seeds, rows = outcomes.shape
    p = outcomes.mean()
    variance, freedom = crossed_variance(outcomes)
    n = min(p * (1 - p) / variance, seeds * rows) if variance > 0 else rows
    q = student_t.ppf(0.975, freedom)
    centre = (p + q * q / (2 * n)) / (1 + q * q / n)
    half = q / (1 + q * q / n) * math.sqrt(p * (1 - p) / n + q * q / (4 * n * n))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def crossed_difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """(a - b, low, high) in points, 95 %, of two models on the same rows with the same seeds."""
    return mean_crossed_difference([(a, b)])


def mean_crossed_difference(
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[float, float, float]:
    """The mean of a - b over data sets, (mean, low, high) in points, 95 %.

    `pairs`: of each data set two (seeds, rows) outcomes, with the same seeds throughout.
    """
    differences = [np.asarray(a, float) - np.asarray(b, float) for a, b in pairs]
    variance, freedom = crossed_variance(*differences)
    mean = 100 * float(np.mean([table.mean() for table in differences]))
    half = 100 * student_t.ppf(0.975, freedom) * math.sqrt(variance)
    return mean, mean - half, mean + half


def mcnemar(a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
    """Rows where only a is right, where only b is, and the exact two-sided p (McNemar 1947).

    `a`, `b`: bool, (rows,), of the same rows. Under the null either is as likely on a row where
    they differ, so the smaller count is binomial with 1/2.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue)


def mean_difference(
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[float, float, float]:
    """Mean of a - b over data sets, (mean, low, high) in points, 95 %: the wider of two intervals.

    Crossed (`mean_crossed_difference`): a seed has the same luck on all data sets. Nested: its luck
    on each is its own, so Var = sum of the data sets' variances / (number of data sets)^2. A few
    seeds cannot show which one holds: their differences may cancel between data sets by chance,
    and the crossed interval is then too narrow.
    """
    crossed = mean_crossed_difference(pairs)
    parts = [crossed_variance(np.asarray(a, float) - np.asarray(b, float)) for a, b in pairs]
    variance = sum(v for v, _ in parts) / len(parts) ** 2
    spread = sum(v**2 / freedom for v, freedom in parts) / len(parts) ** 4
    freedom = max(1.0, variance**2 / spread) if spread else math.inf
    half = 100 * float(student_t.ppf(0.975, freedom)) * math.sqrt(variance)
    mean, low, high = crossed
    return (mean, mean - half, mean + half) if 2 * half > high - low else crossed
