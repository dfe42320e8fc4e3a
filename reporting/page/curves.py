"""The curves of a page: accuracies against sparsity and epochs, and searches over their steps."""

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from evaluation.records import COMPARISON
from reporting import cells, search_epochs, searches
from reporting.cells import Cell, Records, grouped
from reporting.comparisons import Result
from reporting.figure_data import ACCURACIES, Shown
from reporting.page.blocks import Block
from reporting.page.plots import Plot, Points, parted, plot
from reporting.searches import AT_ONE, AT_ZERO, PENALTY, Runs

# What models on one panel have in common: all but the checkpoint, which differs along epochs.
OF_PANEL = tuple(key for key in COMPARISON if key != "checkpoint_rule")
X_LABELS = {
    "sparsity": ("weights removed (%)", 100),
    "epoch": ("epoch of retraining", 1),
    "optimizer_step": ("optimizer step of the search", 1),
    "search_epoch": ("epoch of the search", 1),
}


def of_models(blocks: Iterable[Block]) -> list[Plot]:
    """Clean and Aua against sparsity, and against retraining epochs, of all models of the page."""
    results = [result for block in blocks for result in block.results]
    plots = []
    for of_panel in grouped(
        results, lambda r: tuple(getattr(r.first, k) for k in OF_PANEL)
    ).values():
        title = f"{of_panel[0].first.task}, {of_panel[0].first.recipe}"
        whole = [r for r in of_panel if not _is_epoch(r)]
        for label, curves in (
            ("weights removed (%)", _over_sparsity(whole)),
            ("epochs of retraining, a training each", _over_epochs(whole)),
            ("epoch of one retraining", _over_epochs([r for r in of_panel if _is_epoch(r)])),
        ):
            for part, (quantity, measure) in product(parted(curves), ACCURACIES.items()):
                of_measure = {
                    name: {x: Cell.of(records, measure) for x, records in points.items()}
                    for name, points in part.items()
                }
                plots.append(plot(title, f"{quantity} %", label, of_measure))
    return plots


def _is_epoch(result: Result) -> bool:
    """Whether a single epoch of a longer training was attacked."""
    return result.first.checkpoint_rule == f"epoch{result.first.epoch}"


Curves = dict[str, dict[float | None, Records]]


def _over_sparsity(results: Sequence[Result]) -> Curves:
    """Curves of tickets with several sparsities, and the dense models with the same epochs."""

    def key(result: Result) -> tuple:  # all but the sparsity
        name, _, *facts = cells.model_of(result.first)
        return result.first.checkpoint_rule, name, *facts

    tickets = [r for r in results if r.first.sparsity]
    curves: Curves = {}
    for of_curve in grouped(tickets, key).values():
        points = {100 * r.first.sparsity: r.records for r in of_curve}
        if len(points) > 1:
            curves[_free(_name(of_curve[0]), curves)] = points
    epochs = {points[x][0].epochs for points in curves.values() for x in points}
    dense = [r for r in results if r.first.is_plain_dense and r.first.epochs in epochs]
    return curves | {_name(r): {None: r.records} for r in dense} if curves else {}


def _over_epochs(results: Sequence[Result]) -> Curves:
    """Curves of models that have several epochs."""

    def key(result: Result) -> tuple:
        name, sparsity, _, *facts = cells.model_of(result.first)
        rule = "epoch" if _is_epoch(result) else result.first.checkpoint_rule
        return rule, name, sparsity, *facts

    curves: Curves = {}
    for of_curve in grouped(results, key).values():
        points = {r.first.epoch if _is_epoch(r) else r.first.epochs: r.records for r in of_curve}
        points.pop(None, None)
        if len(points) > 1:
            first = of_curve[0].first
            name = f"{first.name}, {100 * first.sparsity:g} %" if first.sparsity else first.name
            curves[_free(name, curves)] = dict(sorted(points.items()))
    return curves


def _name(result: Result) -> str:
    return f"{result.first.name}, {result.first.epochs} epochs"


def _free(name: str, taken: Curves) -> str:
    """The name, with a number if it is taken: the curves differ in a setting."""
    number = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({number + 1})" if number else name


def of_shown(shown: Shown) -> list[Plot]:
    """The panels of a figure of the paper, or of searches; none of a heat map."""
    plots = []
    rows = [row for row in shown.rows if "x_name" in row]
    panels = grouped(rows, lambda r: (r["task"], r["recipe"], r["quantity"], r["x_name"]))
    for (task, recipe, quantity, x_name), rows in panels.items():
        label, scale = X_LABELS[x_name]
        is_accuracy = quantity in ACCURACIES
        curves: dict[str, Points] = {}
        for (curve, x), of_point in grouped(rows, lambda r: (r["curve"], r["x"])).items():
            x = None if x is None else scale * x
            cell = Cell({row["seed"]: row["value"] for row in of_point})
            curves.setdefault(curve, {})[x] = cell
        title = f"{task}, {recipe}" if recipe else task
        y_label, spec = (f"{quantity} %", ".1f") if is_accuracy else (quantity, ".3f")
        plots += [plot(title, y_label, label, part, spec) for part in parted(curves)]
    return plots


def over_search_steps(runs: Runs, encoder: str, tasks: Sequence[str]) -> list[Plot]:
    """R(m) and shares of gates over the steps of searches."""
    plots = []
    quantities = (PENALTY, AT_ZERO, AT_ONE)
    for task in tasks:
        steps = searches.over_steps(runs, task, encoder, lambdas=True, quantities=quantities)
        if len({row["curve"] for row in steps.rows}) == 1:  # one lambda: one chart
            for row in steps.rows:
                row.update(curve=row["quantity"], quantity="share of gates")
        plots += of_shown(steps)
    return plots


def over_search_epochs(runs: Runs, log: Path, encoder: str, tasks: Sequence[str]) -> list[Plot]:
    """R(m) and dev accuracy of searches by epoch.

    `log`: of earlier searches, whose runs were not kept; it may be missing.
    """
    known, _ = search_epochs.read(log, runs, encoder, tasks)
    return of_shown(search_epochs.shown_epochs(known, encoder, tasks))
