"""Measure how often the rules of evaluation/by_class.py fire, by simulation.

    python benchmarks/false_alarms.py --output results/false_alarms.md

Each simulated row has a difficulty, and each model survives an attack on it with a probability that
depends on this difficulty, on the model and, where the classes differ, on its class.
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


WORLDS = (  # difference between the classes, and the gain of each, in points
    ("alike", 0.0, (GAIN, GAIN)),
    ("alike, no gain", 0.0, (0.0, 0.0)),
    ("20 points apart, the whole gain in one", 20.0, (20.0, 0.0)),
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
The rules are stated in `evaluation/by_class.py`: `one_class_survives` flags one record, \
`one_class_carries` the gain of one model over another, over all seeds.

| rows | seeds | classes | flag | fires |
| ---: | ---: | --- | --- | ---: |
"""
    cases = (len(WORLDS) * len(SEEDS) + len(WORLDS) - 1) * len(ROWS)
    with common.make_progress(cases, 0, "case", "false_alarms") as progress:
        for (classes, gap, gains), rows in itertools.product(WORLDS, ROWS):
            if classes != "alike, no gain":
                share = percent(count, survives_fires, generator, rows, gap)
                text += f"| {rows} | 1 | {classes} | one_class_survives | {share} |\n"
                progress.update()
            for seeds in SEEDS:
                share = percent(count, carries_fires, generator, rows, seeds, gains)
                text += f"| {rows} | {seeds} | {classes} | one_class_carries | {share} |\n"
                progress.update()
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def percent(repetitions: int, fires: Callable[..., bool], *case) -> str:
    """Share of the repetitions in which a flag fires."""
    return f"{100 * sum(fires(*case) for _ in range(repetitions)) / repetitions:.1f}"


def survives_fires(generator, rows: int, gap: float) -> bool:
    """Whether `one_class_survives` fires on a record whose classes differ by `gap` points."""
    difficulty = generator.normal(0, SPREAD, rows)
    return one_class_survives(record(generator, difficulty, 1, (gap / 2, -gap / 2))) is not None


def carries_fires(generator, rows: int, seeds: int, gains: tuple[float, float]) -> bool:
    """Whether `one_class_carries` fires on a gain over all seeds. `gains`: points by class."""
    difficulty = generator.normal(0, SPREAD, rows)
    after, before = (
        [record(generator, difficulty, seed, shift) for seed in range(seeds)]
        for shift in (gains, (0.0, 0.0))
    )
    return one_class_carries(after, before) is not None


def record(generator, difficulty, seed: int, shift) -> dict:
    """An attack record: each class survives with a mean probability of AUA + `shift` percent."""
    labels = np.arange(len(difficulty)) % 2
    log_odds = np.array([strength(AUA + points) for points in shift])[labels] - difficulty
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
