"""Intervals over seeds and rows, and McNemar's test, by hand and by simulation."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import t as student_t

from evaluation.intervals import (
    crossed_difference,
    crossed_interval,
    crossed_variance,
    mcnemar,
)


def test_crossed_variance_by_hand():
    """Two seeds, four rows: 1100 and 1110; means .5 and .75, by row 1, 1, .5, 0; grand .625."""
    table = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], float)
    of_seeds = 4 * (0.125**2 * 2) / 1
    of_rows = 2 * (0.375**2 * 2 + 0.125**2 + 0.625**2) / 3
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + 0.625
    of_rest = (rest**2).sum() / 3
    variance, freedom = crossed_variance(table)
    total = of_seeds + of_rows - of_rest
    assert variance == pytest.approx(total / 8)
    spread = of_seeds**2 / 1 + of_rows**2 / 3 + of_rest**2 / 3
    assert freedom == pytest.approx(max(1, total**2 / spread))


def test_the_interval_stays_within_bounds_and_is_never_empty():
    for value in (0, 1):
        low, high = crossed_interval(np.full((3, 50), value))
        assert 0 <= low < high <= 100
        assert (low == 0) == (value == 0) and (high == 100) == (value == 1)
    low, high = crossed_interval(np.eye(3, 60) > 0)
    assert 0 <= low < 100 * 3 / 180 < high


def test_different_seeds_widen_the_interval_and_equal_seeds_add_no_rows():
    draw = np.random.default_rng(0)
    one = draw.random(200) < 0.4
    same = np.stack([one, one, one])
    low, high = crossed_interval(same)
    assert high - low == pytest.approx(2 * 196 * (0.4 * 0.6 / 200) ** 0.5, rel=0.1)
    apart = np.stack([draw.random(200) < p for p in (0.2, 0.4, 0.6)])
    assert np.subtract(*crossed_interval(apart)[::-1]) > 2 * (high - low)


@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_by_simulation(seeds):
    """New rows and new seeds in each repetition; benchmarks/coverage.py simulates more cases."""
    draw, hits, repeats = np.random.default_rng(1), 0, 400
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    true = 100 * (weights * expit(-2 + np.hypot(2.5, 0.3) * nodes)).sum() / weights.sum()
    for _ in range(repeats):
        logits = -2 + 2.5 * draw.standard_normal(150) + 0.3 * draw.standard_normal((seeds, 1))
        low, high = crossed_interval(draw.random((seeds, 150)) < expit(logits))
        hits += low <= true <= high
    assert 0.92 <= hits / repeats <= 0.995


def test_the_difference_of_paired_models():
    draw = np.random.default_rng(2)
    hard = 2.5 * draw.standard_normal(300)
    base, better = (
        draw.random((3, 300)) < expit(hard + shift + 0.1 * draw.standard_normal((3, 1)))
        for shift in (-2.0, -0.8)
    )
    mean, low, high = crossed_difference((better, base))
    assert mean == pytest.approx(100 * (better.mean() - base.mean())) and 0 < low < mean < high
    assert crossed_difference((base, base)) == (0, 0, 0)


def test_the_mean_difference_over_data_sets():
    """Sets of 100 and 40 rows with three seeds: the variance of the seeds' means over both, and a
    quarter of each set's variance of rows minus its rest."""
    draw = np.random.default_rng(5)
    pairs = []
    luck = np.array([[0.0], [0.1], [0.3]])
    for n in (100, 40):  # seeds differ, and rows alike in all seeds
        easy = draw.random((2, n))
        pairs.append((draw.random((3, n)) < easy[0] + luck, draw.random((3, n)) < easy[1]))
    terms = [(0.0, 1)]  # (variance, degrees of freedom)
    by_seed = []
    for a, b in pairs:
        table = a.astype(float) - b
        rows, column = table.shape[1], table.mean(0)
        of_rows = ((column - table.mean()) ** 2).sum() / (rows - 1) / rows
        rest = table - table.mean(1)[:, None] - column + table.mean()
        of_rest = (rest**2).sum() / (2 * (rows - 1)) / (3 * rows)
        terms += [(of_rows / 4, rows - 1), (-of_rest / 4, 2 * (rows - 1))]
        by_seed.append(table.mean(1))
    by_seed = (by_seed[0] + by_seed[1]) / 2
    terms[0] = (((by_seed - by_seed.mean()) ** 2).sum() / 2 / 3, 2)
    variance = sum(value for value, _ in terms)
    freedom = variance**2 / sum(value**2 / f for value, f in terms)
    half = 100 * student_t.ppf(0.975, freedom) * variance**0.5
    mean = 100 * by_seed.mean()
    assert crossed_difference(*pairs) == pytest.approx((mean, mean - half, mean + half))


def test_the_interval_covers_the_truth_if_data_sets_share_the_luck_of_a_seed():
    draw, covered = np.random.default_rng(6), 0
    for _ in range(1000):
        luck = draw.normal(0, 0.6, (2, 3, 1))  # of both models, the same on both data sets
        tables = []
        for rows in (100, 60):
            hard = draw.normal(0, 1.5, rows)
            tables.append(tuple(draw.random((3, rows)) < expit(hard + of) for of in luck))
        _, low, high = crossed_difference(*tables)
        covered += low <= 0 <= high
    assert 930 <= covered <= 990


def test_mcnemar_against_a_worked_example():
    """Ten discordant rows, one against nine: p = 2 (1 + 10) / 2^10."""
    a = np.array([1] * 9 + [0] + [1] * 30 + [0] * 10, bool)
    b = np.array([0] * 9 + [1] + [1] * 30 + [0] * 10, bool)
    assert mcnemar(a, b) == (9, 1, pytest.approx(22 / 1024))
    assert mcnemar(a, a) == (0, 0, 1.0)
