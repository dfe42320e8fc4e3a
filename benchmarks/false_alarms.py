"""Measure how often the rules of evaluation/by_class.py fire, by simulation.

    python benchmarks/false_alarms.py --output results/false_alarms.md

Each simulated row has a difficulty, and each model survives an attack on it with a probability that
depends on this difficulty, on the model and, where the classes differ, on its class.
"""

import argparse
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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(__doc__.split("\n")[0])
    parser.add_argument("--output", help="Markdown file to write (default: print the table)")
    parser.add_argument(
        "--repetitions", type=cli.positive_int, default=2000, help="simulations per number"
    )
    parser.add_argument("--seed", type=cli.non_negative_int, default=0, help="random seed")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    generator = np.random.default_rng(args.seed)
    lines = [
        "# How often a class-wise flag fires",
        "",
        f"`python benchmarks/false_alarms.py --repetitions {args.repetitions} --seed {args.seed}`. "
        f"Two classes of equal size, Aua {AUA:g} %, in % of {args.repetitions} simulations. "
        "The rules are stated in `evaluation/by_class.py`: `one_class_survives` flags one record, "
        "`one_class_carries` the gain of one model over another, over all seeds.",
        "",
        "| rows | seeds | classes | flag | fires |",
        "| ---: | ---: | --- | --- | ---: |",
    ]
    worlds = (
        ("alike", 0.0, (GAIN, GAIN)),
        ("alike, no gain", 0.0, (0.0, 0.0)),
        ("20 points apart, the whole gain in one", 20.0, (20.0, 0.0)),
    )
    cases = (len(worlds) * len(SEEDS) + len(worlds) - 1) * len(ROWS)
    with common.make_progress(cases, 0, "case", "false_alarms") as progress:
        for classes, gap, gains in worlds:
            for rows in ROWS:
                if classes != "alike, no gain":
                    share = fires_on_records(generator, args.repetitions, rows, gap)
                    lines.append(f"| {rows} | 1 | {classes} | one_class_survives | {share:.1f} |")
                    progress.update()
                for seeds in SEEDS:
                    share = fires_on_gains(generator, args.repetitions, rows, seeds, gains)
                    lines.append(
                        f"| {rows} | {seeds} | {classes} | one_class_carries | {share:.1f} |"
                    )
                    progress.update()
    text = "\n".join(lines) + "\n"
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def fires_on_records(generator, repetitions: int, rows: int, gap: float) -> float:
    """Share of records, in %, on which `one_class_survives` fires; the classes differ by `gap`."""
    fired = 0
    for _ in range(repetitions):
        difficulty = generator.normal(0, SPREAD, rows)
        shift = [gap / 2, -gap / 2]
        fired += one_class_survives(record(generator, difficulty, 1, shift)) is not None
    return 100 * fired / repetitions


def fires_on_gains(generator, repetitions: int, rows: int, seeds: int, gains: tuple) -> float:
    """Share of comparisons, in %, on which `one_class_carries` fires; `gains`: points by class."""
    fired = 0
    for _ in range(repetitions):
        difficulty = generator.normal(0, SPREAD, rows)
        after, before = (
            [record(generator, difficulty, seed, shift) for seed in range(seeds)]
            for shift in (gains, (0.0, 0.0))
        )
        fired += one_class_carries(after, before) is not None
    return 100 * fired / repetitions


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
