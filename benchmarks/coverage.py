"""How often the interval over several seeds holds the truth (evaluation/intervals.py).

    python benchmarks/coverage.py [REPEATS]

A row has a difficulty, a seed a luck, both normal on the logit scale; a model of a seed is right on
a row with the probability that their sum gives. The truth is the mean over all rows and seeds. For
comparison the usual interval, Student's t over the seeds' percentages, which takes the rows for the
only ones there are.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import t as student_t

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from evaluation.intervals import crossed_interval  # noqa: E402

# Centre (logit), deviation of rows and of seeds: about 20, 50 and 5 % with seeds that differ by
# about 3 points, one case with seeds that hardly differ and one in which they differ by 9.
WORLDS = (
    (-2.0, 2.5, 0.25),
    (0.0, 2.5, 0.25),
    (-5.0, 2.5, 0.4),
    (-2.0, 2.5, 0.02),
    (-2.0, 2.5, 0.8),
)


def truth(centre: float, of_rows: float, of_seeds: float) -> float:
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    deviation = np.hypot(of_rows, of_seeds)
    return float((weights * expit(centre + deviation * nodes)).sum() / weights.sum())


def covered(world: tuple, seeds: int, rows: int, repeats: int, draw) -> tuple[float, float, float]:
    """Shares of repeats in which ours and Student's t hold the truth; mean width of ours."""
    centre, of_rows, of_seeds = world
    true = 100 * truth(*world)
    ours = students = width = 0.0
    for _ in range(repeats):
        logits = centre + of_rows * draw.standard_normal(rows)[None]
        logits = logits + of_seeds * draw.standard_normal(seeds)[:, None]
        outcomes = draw.random((seeds, rows)) < expit(logits)
        low, high = crossed_interval(outcomes)
        ours, width = ours + (low <= true <= high), width + high - low
        values = 100 * outcomes.mean(axis=1)
        half = student_t.ppf(0.975, seeds - 1) * values.std(ddof=1) / seeds**0.5
        students += abs(values.mean() - true) <= half
    return ours / repeats, students / repeats, width / repeats


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    draw = np.random.default_rng(0)
    print(
        "| seeds | rows | truth % | sd of seeds (logit) | ours covers % | Student's t covers % | "
        "width of ours |\n|---|---|---|---|---|---|---|"
    )
    for world in WORLDS:
        for seeds in (3, 5):
            for rows in (100, 500):
                ours, students, width = covered(world, seeds, rows, repeats, draw)
                print(
                    f"| {seeds} | {rows} | {100 * truth(*world):.1f} | {world[2]} | "
                    f"{100 * ours:.1f} | {100 * students:.1f} | {width:.1f} |"
                )


if __name__ == "__main__":
    main()
