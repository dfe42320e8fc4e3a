"""Intervals for new rows and new seeds, and paired comparisons, from the outcome of each row."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student_t


def crossed_variance(*tables: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of (seeds, rows) outcomes over data sets, and its degrees of freedom.

    All seeds share the same rows, and all rows and data sets share the same seeds. The model is a
    two-way random-effects analysis of variance with one observation per cell and Satterthwaite's
    (1946) degrees of freedom; data sets are fixed and have equal weight. For one data set,
    Var = (MS_seeds + MS_rows - MS_rest) / (seeds * rows). It needs at least two rows and two seeds,
    the same seeds in every data set.
    """
    seeds = len(tables[0])
    by_seed = np.mean([table.mean(axis=1) for table in tables], axis=0)
    of_seeds = by_seed.var(ddof=1) / seeds
    of_rows = rest = 0.0
    spread = of_seeds**2 / (seeds - 1)
    for table in tables:
        rows, share = table.shape[1], 1 / len(tables) ** 2
        by_row = table.mean(axis=0)
        row_part = share * by_row.var(ddof=1) / rows
        residual = table - table.mean(axis=1, keepdims=True) - by_row + table.mean()
        rest_part = share * (residual**2).sum() / ((seeds - 1) * (rows - 1)) / (seeds * rows)
        spread += row_part**2 / (rows - 1) + rest_part**2 / ((seeds - 1) * (rows - 1))
        of_rows, rest = of_rows + row_part, rest + rest_part
    # At least the variance of either effect alone.
    total = max(of_seeds + of_rows - rest, of_seeds, of_rows)
    return total, max(1.0, total**2 / spread) if spread else math.inf


def crossed_interval(outcomes: np.ndarray) -> tuple[float, float]:
    """95 % interval of a percentage over new rows and new seeds; `outcomes`: bool (seeds, rows).

    Wilson's interval with t instead of z, for the number of independent rows that would have the
    variance of `crossed_variance`. It stays within 0 and 100 and is never empty.
    """
    outcomes = np.asarray(outcomes, float)
    seeds, rows = outcomes.shape
    p = outcomes.mean()
    variance, freedom = crossed_variance(outcomes)
    n = min(p * (1 - p) / variance, seeds * rows) if variance > 0 else rows
    q = student_t.ppf(0.975, freedom)
    center = (p + q * q / (2 * n)) / (1 + q * q / n)
    half = q / (1 + q * q / n) * math.sqrt(p * (1 - p) / n + q * q / (4 * n * n))
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


Pair = tuple[np.ndarray, np.ndarray]  # of two models, bool (seeds, rows), the same seeds and rows
Estimate = tuple[float, float, float]  # (mean, low, high) in points; low and high: 95 %


def crossed_difference(*pairs: Pair) -> Estimate:
    """Mean of a - b, over data sets with the same seeds if there are several pairs (a, b)."""
    differences = _differences(pairs)
    return _estimate(_mean(differences), *crossed_variance(*differences))


def mean_over_rows(gains: np.ndarray) -> Estimate:
    """Mean of (rows,) gains of one model over another, for new rows only; one row tells nothing."""
    mean = 100 * float(gains.mean())
    if len(gains) < 2:
        return mean, -100.0, 100.0
    return _estimate(mean, gains.var(ddof=1) / len(gains), len(gains) - 1)


def mean_difference(pairs: Sequence[Pair], level: float = 0.95) -> Estimate:
    """Mean of a - b over data sets, with the wider of two intervals at this confidence level.

    Crossed (`crossed_difference`): a seed has the same luck on all data sets. Nested: its luck on
    each is its own, so Var = sum of the data sets' variances / (number of data sets)^2. A few seeds
    cannot show which one holds: their differences may cancel between data sets by chance, and the
    crossed interval is then too narrow.
    """
    differences = _differences(pairs)
    mean = _mean(differences)
    both = [_estimate(mean, *analysis, level) for analysis in _crossed_and_nested(differences)]
    return max(both, key=lambda estimate: estimate[2] - estimate[1])


def p_of_mean_difference(pairs: Sequence[Pair]) -> float:
    """Two-sided p of no difference: below 1 - level where `mean_difference` excludes 0 at level."""
    differences = _differences(pairs)
    mean = abs(_mean(differences)) / 100
    if not mean:
        return 1.0
    analyses = _crossed_and_nested(differences)
    return max(2 * float(student_t.sf(mean / math.sqrt(v), df)) if v else 0.0 for v, df in analyses)


def holm_levels(p_values: Sequence[float], alpha: float = 0.05) -> list[float]:
    """The confidence level that Holm's (1979) step gives each of several hypotheses.

    The smallest of m p-values is tested at alpha / m, the next at alpha / (m - 1), and so on. After
    the first one that is not rejected nothing more is, so the others keep the level of that step.
    """
    count, levels = len(p_values), [0.0] * len(p_values)
    step, stopped = 0, False
    for i in sorted(range(count), key=lambda i: p_values[i]):
        levels[i] = 1 - alpha / (count - step)
        stopped = stopped or p_values[i] >= alpha / (count - step)
        step += not stopped
    return levels


def _crossed_and_nested(differences: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """(variance, degrees of freedom) of the mean by the two analyses of `mean_difference`."""
    parts = [crossed_variance(table) for table in differences]
    variance = sum(v for v, _ in parts) / len(parts) ** 2
    spread = sum(v**2 / freedom for v, freedom in parts) / len(parts) ** 4
    freedom = max(1.0, variance**2 / spread) if spread else math.inf
    return [crossed_variance(*differences), (variance, freedom)]


def _differences(pairs: Sequence[Pair]) -> list[np.ndarray]:
    return [np.asarray(a, float) - np.asarray(b, float) for a, b in pairs]


def _mean(differences: Sequence[np.ndarray]) -> float:
    return 100 * float(np.mean([table.mean() for table in differences]))


def _estimate(mean: float, variance: float, freedom: float, level: float = 0.95) -> Estimate:
    quantile = float(student_t.ppf((1 + level) / 2, freedom))
    half = 100 * quantile * math.sqrt(variance)
    return mean, mean - half, mean + half


def mcnemar(a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
    """(rows where only a is right, rows where only b is right, exact two-sided p) (McNemar, 1947).

    `a`, `b`: bool (rows,), on the same rows. Under the null hypothesis either case is equally
    likely on a row where they differ, so the count is binomial with probability 1/2.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue)
