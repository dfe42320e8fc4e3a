"""How often the interval over several seeds holds the truth (evaluation/intervals.py).

    python benchmarks/coverage.py [--repeats 2000]

Each row has a difficulty and each seed an offset, both normal on the logit scale. A model of a seed
is right on a row with the probability that their sum gives. The truth is the mean over all rows and
seeds. For comparison: the usual interval, Student's t over the percentages of the seeds, which
treats the rows as the only rows that exist.
"""

import argparse
import itertools

import common
import numpy as np
from scipy.special import expit
from scipy.stats import t as student_t

from evaluation.intervals import crossed_interval
from utils import cli

# Center, deviation over rows and deviation over seeds, in logits: about 20, 50 and 5 % with seeds
# that differ by about 3 points, then seeds that hardly differ and seeds that differ by 9 points.
WORLDS = (
    (-2.0, 2.5, 0.25),
    (0.0, 2.5, 0.25),
    (-5.0, 2.5, 0.4),
    (-2.0, 2.5, 0.02),
    (-2.0, 2.5, 0.8),
)
SEEDS, ROWS = (3, 5), (100, 500)


def truth(center: float, row_deviation: float, seed_deviation: float) -> float:
    """Expected share of correct answers, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    deviation = np.hypot(row_deviation, seed_deviation)
    return float((weights * expit(center + deviation * nodes)).sum() / weights.sum())


def covered(
    world: tuple, seeds: int, rows: int, repeats: int, draw, progress
) -> tuple[float, float, float]:
    """Shares of repeats in which our interval and Student's hold the truth; our mean width."""
    center, row_deviation, seed_deviation = world
    true = 100 * truth(*world)
    ours = students = width = 0.0
    for _ in range(repeats):
        logits = center + row_deviation * draw.standard_normal(rows)[None]
        logits = logits + seed_deviation * draw.standard_normal(seeds)[:, None]
        outcomes = draw.random((seeds, rows)) < expit(logits)
        low, high = crossed_interval(outcomes)
        ours, width = ours + (low <= true <= high), width + high - low
        values = 100 * outcomes.mean(axis=1)
        half = student_t.ppf(0.975, seeds - 1) * values.std(ddof=1) / seeds**0.5
        students += abs(values.mean() - true) <= half
        progress.update()
    return ours / repeats, students / repeats, width / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=cli.positive_int, default=2000, help="samples per case")
    repeats = parser.parse_args().repeats
    draw = np.random.default_rng(0)
    print(
        "| seeds | rows | true Aua % | sd of seeds (logit) | coverage of our interval % | "
        "coverage of Student's t % | width of our interval, points |\n|---|---|---|---|---|---|---|"
    )
    cases = list(itertools.product(WORLDS, SEEDS, ROWS))
    with common.make_progress(len(cases) * repeats, 0, "repeat", "coverage") as progress:
        for world, seeds, rows in cases:
            ours, students, width = covered(world, seeds, rows, repeats, draw, progress)
            shares = f"{100 * ours:.1f} | {100 * students:.1f} | {width:.1f}"
            case = f"{seeds} | {rows} | {100 * truth(*world):.1f} | {world[2]}"
            print(f"| {case} | {shares} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
