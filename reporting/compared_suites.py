"""Two models by their suites: differences over rows and seeds, computed from the margins."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from evaluation.by_class import Rate
from evaluation.intervals import (
    crossed_difference,
    mcnemar,
    mean_difference,
    mean_over_rows,
)
from evaluation.margins import Margins, aua_by_threshold, bias_of_highest_accuracy
from reporting.render import markdown_table, paragraphs, rate
from reporting.suite_records import SuiteRecord
from utils.cli import UserError

EQUALIZED = "Aua, class-equalized"
WITHOUT_CARRIED = "without carried texts"


def pairs_by_task(
    suites: Sequence[SuiteRecord], reference: Sequence[SuiteRecord]
) -> dict[str, list[tuple[SuiteRecord, SuiteRecord]]]:
    """Task -> pairs (model, reference) of equal seeds.

    Raises UserError where rows, seeds or parts of the suites differ: a suite with fewer parts is a
    weaker attack.
    """
    mine, theirs = _by_seed(suites, "--suites"), _by_seed(reference, "the reference")
    pairs: dict[str, list] = {}
    for (task, seed), suite in sorted(mine.items(), key=lambda item: (item[0][0], str(item[0][1]))):
        other = theirs.get((task, seed))
        if other is None or other.rows != suite.rows:
            raise UserError(
                f"the reference has no suite of {task}, seed {seed}, "
                "on the rows of the compared model; attack it with the same flags"
            )
        if other.parts != suite.parts:
            differ = ", ".join(sorted(other.parts ^ suite.parts))
            raise UserError(
                f"only one of the suites of {task}, seed {seed}, has the part {differ}; run the "
                "other one with the same --suite and with --carry_over"
            )
        pairs.setdefault(task, []).append((suite, other))
    for task, of_task in pairs.items():
        if len({suite.rows for suite, _ in of_task}) > 1:
            raise UserError(f"the seeds of {task} were attacked on different rows; compare one set")
    return pairs


def _by_seed(
    suites: Sequence[SuiteRecord], whose: str
) -> dict[tuple[str, int | None], SuiteRecord]:
    """(task, seed) -> the suite. Two of one training are not two seeds."""
    by_seed: dict[tuple[str, int | None], SuiteRecord] = {}
    for suite in suites:
        if (suite.task, suite.seed) in by_seed:
            raise UserError(
                f"{whose} has several suites of {suite.task}, seed {suite.seed} (of two "
                "checkpoints, sets of rows or recipes); give files with one of them"
            )
        by_seed[suite.task, suite.seed] = suite
    return by_seed


def measures(names: tuple[str, ...]) -> dict[str, Callable[[SuiteRecord], np.ndarray]]:
    """What is compared by row: name -> whether each row counts as right, bool, (rows,)."""

    def of_class(c: int, equalized: bool) -> Callable[[SuiteRecord], np.ndarray]:
        def right(suite: SuiteRecord) -> np.ndarray:
            union = suite.states["union"]
            return union.right(suite.bias if equalized else None)[union.labels == c]

        return right

    def alone(suite: SuiteRecord) -> Margins:
        return suite.states.get("alone", suite.states["union"])

    by_class = {f"Aua, {name}": of_class(c, False) for c, name in enumerate(names)}
    equalized = {f"{EQUALIZED}, {name}": of_class(c, True) for c, name in enumerate(names)}
    return {
        "Clean": lambda s: s.states["clean"].right(),
        "Aua, mean": lambda s: s.states["union"].right(),
        **by_class,
        EQUALIZED: lambda s: s.states["union"].right(s.bias),
        **equalized,
        f"Aua, mean, {WITHOUT_CARRIED}": lambda s: alone(s).right(),
        f"{EQUALIZED}, {WITHOUT_CARRIED}": lambda s: alone(s).right(s.bias),
        "Aua, lower bound": lambda s: s.states.get("lower_bound", s.states["union"]).right(),
        "Aua, margin attack alone": lambda s: s.states["margin"].right(),
    }


def of_whole_models(
    names: tuple[str, ...],
) -> dict[str, Callable[[Sequence[SuiteRecord]], list[float]]]:
    """What is compared by model, because rows do not pair: name -> percent by seed; NaN: unknown.

    The worst class is the one with the lowest mean over the seeds, as in all tables.
    """

    def worst(suites: Sequence[SuiteRecord]) -> list[float]:
        by_class = np.array([suite.states["union"].by_class() for suite in suites])
        return by_class[:, int(np.nanargmin(by_class.mean(axis=0)))].tolist()

    def answers(c: int) -> Callable[[Sequence[SuiteRecord]], list[float]]:
        return lambda suites: [
            np.nan if s.default_answer is None else float(s.default_answer[c]) for s in suites
        ]

    return {
        "Aua, worst class": worst,
        **{f"Answers {name}, content words unknown": answers(c) for c, name in enumerate(names)},
    }


def _as_table(percents: Sequence[float]) -> np.ndarray:
    """A percentage of each model in the form of outcomes, (seeds, rows).

    Two equal rows add no variance, so that intervals cover new seeds alone. One seed gets one row,
    which tells nothing.
    """
    return np.repeat(np.array(percents)[:, None] / 100, min(2, len(percents)), axis=1)


def shifted_reference(model: SuiteRecord, reference: SuiteRecord) -> np.ndarray:
    """Rows on which the reference is right under the margin attack, with a bias of equal Clean.

    The bias is chosen on dev rows: highest mean Aua at the compared model's Clean or more.
    """
    lowest = model.dev["clean"].accuracy()
    bias = bias_of_highest_accuracy(reference.dev["clean"], reference.dev["margin"], lowest)
    return reference.states["margin"].right(bias)


def difference(a: np.ndarray, b: np.ndarray) -> Rate:
    """Mean of a - b in points with its 95 % interval; a, b: bool (seeds, rows).

    One seed: Student's interval over rows, which covers new rows only.
    """
    one_seed = len(a) == 1
    return Rate(
        *(mean_over_rows(a[0].astype(float) - b[0]) if one_seed else crossed_difference((a, b)))
    )


def compare(suites: Sequence[SuiteRecord], reference: Sequence[SuiteRecord]) -> dict:
    """Task -> measure -> percentages of both models and their difference; "mean" of the tasks.

    There is a mean where all tasks have the same seeds, at least two.
    """
    result: dict[str, dict] = {}
    tables: dict[str, list] = {}
    for task, pairs in pairs_by_task(suites, reference).items():
        names = pairs[0][0].states["clean"].label_names
        carried = any("alone" in suite.states for pair in pairs for suite in pair)
        right = {
            name: [np.array([count(s) for s in side]) for side in zip(*pairs, strict=True)]
            for name, count in measures(names).items()
            if carried or WITHOUT_CARRIED not in name
        }
        shifted = np.array([shifted_reference(*pair) for pair in pairs])
        right["Aua, margin attack, reference with equal Clean"] = [
            right["Aua, margin attack alone"][0],
            shifted,
        ]
        for name, of_models in of_whole_models(names).items():
            both = [_as_table(of_models(side)) for side in zip(*pairs, strict=True)]
            if not np.isnan(both).any():
                right[name] = both
        seeds = [pair[0].seed for pair in pairs]
        result[task] = {"seeds": seeds, "rows": len(pairs[0][0].states["clean"].labels)}
        result[task]["measures"] = {name: _row(*both) for name, both in right.items()}
        for name, both in right.items():
            tables.setdefault(name, []).append(both)
    seeds_of_tasks = [r["seeds"] for r in result.values()]
    if len(result) > 1 and len(seeds_of_tasks[0]) > 1 and _are_equal(seeds_of_tasks):
        result["mean"] = {"measures": {}}
        for name, both in tables.items():
            if len(both) == len(result) - 1:  # a class that all tasks have
                gain = Rate(*mean_difference([tuple(pair) for pair in both]))
                result["mean"]["measures"][name] = {"difference": list(gain)}
    return result


def _are_equal(values: list) -> bool:
    return all(value == values[0] for value in values)


THRESHOLDS = np.arange(-6, 6.01, 0.25)  # log-odds


def curves(suites: Sequence[SuiteRecord], reference: Sequence[SuiteRecord]) -> pd.DataFrame:
    """Aua of the margin attack by class at each of THRESHOLDS, the mean over seeds. Two classes.

    A threshold is added to the logit of the second class. The attack is exact at each of them.
    """
    lines = []
    for task, pairs in pairs_by_task(suites, reference).items():
        names = pairs[0][0].states["margin"].label_names
        if len(names) > 2:
            continue
        for model, side in zip(("model", "reference"), zip(*pairs, strict=True), strict=True):
            rates = [aua_by_threshold(suite.states["margin"], THRESHOLDS) for suite in side]
            for threshold, by_class in zip(THRESHOLDS, np.mean(rates, axis=0), strict=True):
                line = {"task": task, "model": model, "threshold": threshold}
                lines.append(line | {f"aua_{n}": r for n, r in zip(names, by_class, strict=True)})
    return pd.DataFrame(lines)


def _row(a: np.ndarray, b: np.ndarray) -> dict:
    row = {"model": 100 * float(a.mean()), "reference": 100 * float(b.mean())}
    row["difference"] = [float(x) for x in difference(a, b)]
    if len(a) == 1 and a.dtype == bool:
        row["mcnemar_p"] = mcnemar(a[0], b[0])[2]
    return row


def markdown(result: dict) -> str:
    """A table per task, and one of the mean over tasks."""
    parts = []
    for task, compared in result.items():
        if task == "mean":
            header, title = ["measure", "difference"], "Mean over tasks"
        else:
            header = ["measure", "model", "reference", "difference"]
            seeds = ", ".join(map(str, compared["seeds"]))
            title = f"{task}: {compared['rows']} rows, seeds {seeds}"
        lines = []
        for name, row in compared["measures"].items():
            cells = [f"{row[key]:.1f}" for key in header[1:-1]]
            lines.append([name, *cells, rate(Rate(*row["difference"]))])
        parts += [f"**{title}**", markdown_table(header, lines)]
    if len(result) > 1 and not _are_equal(
        [r.get("seeds") for r in result.values() if "seeds" in r]
    ):
        parts.append("No mean over tasks: their seeds differ.")
    return paragraphs(parts)
