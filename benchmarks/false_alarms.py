"""Measure how often the rules of evaluation/by_class.py fire, by simulation.

    python benchmarks/false_alarms.py --output results/false_alarms.md

Each simulated row has a difficulty, and each model survives an attack on it with a probability that
depends on this difficulty, on the model and, where the classes differ, on its class. Where they
drift, each training moves the odds of each class by an amount of its own.
"""

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path

import common
import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from evaluation.by_class import one_class_carries, one_class_survives
from utils import cli

ROWS, SEEDS, AUA = (100, 200, 300), (1, 3), 35.0
GAIN = 8.0  # points of Aua between the two models
SPREAD = 1.5  # standard deviation of a row's difficulty, in log-odds
DRIFT = 0.25  # standard deviation of a class's drift, in log-odds: about 5 points of its Aua

WORLDS = (  # difference between the classes in points, the gain of each, and the drift
    ("alike", 0.0, (GAIN, GAIN), 0.0),
    ("alike, no gain", 0.0, (0.0, 0.0), 0.0),
    ("alike on average, drifting", 0.0, (GAIN, GAIN), DRIFT),
    ("20 points apart, the whole gain in one", 20.0, (20.0, 0.0), 0.0),
)


def main() -> None:
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--output", help="Markdown file to write (default: print the table)")
    add("--repetitions", type=cli.positive_int, default=2000, help="simulations per number")
    add("--seed", type=cli.non_negative_int, default=0, help="random seed")
    args = parser.parse_args()
    count = args.repetitions
    generator = np.random.default_rng(args.seed)
    text = f"""# How often a class-wise flag fires

`python benchmarks/false_alarms.py --repetitions {count} --seed {args.seed}`. \
Two classes of equal size, Aua {AUA:g} %, in % of {count} simulations. \
The rules are stated in `evaluation/by_class.py`: `one_class_survives` flags one record (and a row \
of a table, if it flags any seed of it), `one_class_carries` the gain of one model over another, \
over all seeds. Drifting: each training moves each class by {DRIFT:g} log-odds (standard \
deviation), which is about 5 points of its Aua.

| rows | seeds | classes | flag | fires |
| ---: | ---: | --- | --- | ---: |
"""
    cases = list(itertools.product(WORLDS, ROWS, SEEDS))
    with common.make_progress(2 * len(cases), 0, "case", "false_alarms") as progress:
        for (classes, gap, gains, drift), rows, seeds in cases:
            case = generator, rows, seeds, drift
            for flag, fires, by_class in (
                ("one_class_survives", survives_fires, (gap / 2, -gap / 2)),
                ("one_class_carries", carries_fires, gains),
            ):
                share = percent(count, fires, *case, by_class)
                text += f"| {rows} | {seeds} | {classes} | {flag} | {share} |\n"
                progress.update()
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def percent(repetitions: int, fires: Callable[..., bool], *case) -> str:
    """Share of the repetitions in which a flag fires."""
    return f"{100 * sum(fires(*case) for _ in range(repetitions)) / repetitions:.1f}"


def survives_fires(generator, rows: int, seeds: int, drift: float, apart) -> bool:
    """Whether `one_class_survives` fires on any seed's record. `apart`: points by class."""
    difficulty = generator.normal(0, SPREAD, rows)
    records = [record(generator, difficulty, seed, drift, apart) for seed in range(seeds)]
    return any(one_class_survives(r) is not None for r in records)


def carries_fires(generator, rows: int, seeds: int, drift: float, gains) -> bool:
    """Whether `one_class_carries` fires on a gain over all seeds. `gains`: points by class."""
    difficulty = generator.normal(0, SPREAD, rows)
    after, before = (
        [record(generator, difficulty, seed, drift, shift) for seed in range(seeds)]
        for shift in (gains, (0.0, 0.0))
    )
    return one_class_carries(after, before) is not None


def record(generator, difficulty, seed: int, drift: float, shift) -> dict:
    """An attack record: each class survives with a mean probability of AUA + `shift` percent."""
    labels = np.arange(len(difficulty)) % 2
    of_class = np.array([strength(AUA + points) for points in shift])
    of_class += generator.normal(0, drift, len(of_class))
    log_odds = of_class[labels] - difficulty
    survives = generator.random(len(labels)) < 1 / (1 + np.exp(-log_odds))
    return {
        "seed": seed,
        "rows": {},
        "rows_attacked": len(labels),
        "row_outcomes": "".join("fr"[int(s)] for s in survives),
        "row_labels": "".join(map(str, labels)),
    }


@cache
def strength(percent: float) -> float:
    """The log-odds at which rows of normal difficulty survive with this mean probability."""
    points = norm.ppf((np.arange(1000) + 0.5) / 1000) * SPREAD

    def excess(log_odds: float) -> float:
        return (1 / (1 + np.exp(points - log_odds))).mean() - percent / 100

    return float(brentq(excess, -20, 20))


if __name__ == "__main__":
    cli.run(main)
