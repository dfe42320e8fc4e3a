"""The paper's figures and the study's searches, drawn."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.paper import CURVES, LAMBDAS, PAIR_TASKS, PAPER_DATASET, SINGLE_TASKS
from experiments.study import STUDY
from reporting.figure_data import Shown
from reporting.searches import DECIDED, MLP, PENALTY, curve_of_lambda
from reporting.style import legend, looks, new_figure, save, without_frame


def draw(figure: str, shown: Shown, folder: Path) -> list[Path]:
    """Write the PNG and PDF of a figure, at the same size; their paths."""
    return save(lambda: _DRAW[figure](pd.DataFrame(shown.rows)), figure, folder)


def _title(task: str, recipe: str | None = None) -> str:
    name = PAPER_DATASET[task] if task in SINGLE_TASKS + PAIR_TASKS else task
    return f"{name}, {recipe}" if isinstance(recipe, str) else name


def _over_steps_of_one(data: pd.DataFrame) -> Figure:
    """Figure 1: a panel per task, both shares on one axis from 0 to 1."""
    data = data.assign(curve=data["quantity"], quantity="share of gates")
    names = (PENALTY, DECIDED)
    return _rows_of_panels(data, names, "optimizer step", _step_curve, _unit_axis)


def _over_steps_by_lambda(data: pd.DataFrame) -> Figure:
    """Figure 5: a row per task, R(m) on the left, decided gates on the right."""
    curves = data["curve"].unique()
    first = [name for name in map(curve_of_lambda, sorted(LAMBDAS)) if name in curves]
    names = dict.fromkeys([*first, *curves])
    return _rows_of_panels(data, names, "optimizer step", _step_curve, _share_axis)


def _by_search_epoch(data: pd.DataFrame) -> Figure:
    """The study's searches: a row per task, R(m) on the left, dev accuracy on the right."""
    names = data["curve"].unique()
    return _rows_of_panels(data, names, "search epoch", _step_curve, _share_axis, 2)


def _accuracies(data: pd.DataFrame, x_label: str, x_scale: float) -> Figure:
    """Figures 2 and 4."""
    draw_curve = partial(_accuracy_curve, x_scale=x_scale)
    return _rows_of_panels(data, CURVES, x_label, draw_curve, _percent_axis)


def _rows_of_panels(
    data: pd.DataFrame,
    names: Iterable[str],
    x_label: str,
    draw_curve: Callable[[Axes, pd.DataFrame, str, dict], None],
    finish: Callable[[Axes, str, pd.DataFrame], None],
    legend_columns: int = 4,
) -> Figure:
    """A row per task and recipe, a column per quantity; a panel shows the curves of `names`."""
    styles, columns = looks(names), data["quantity"].nunique()
    rows = data.groupby(["task", "recipe"], sort=False, dropna=False)
    figure = new_figure(0.55 + 1.35 * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex="row")
    for axes_of_row, (key, row) in zip(grid, rows, strict=True):
        axes_of_row[0].set_title(_title(*key), loc="left")
        panels = row.groupby("quantity", sort=False)
        for axes, (quantity, panel) in zip(axes_of_row, panels, strict=True):
            for name, curve in panel.groupby("curve", sort=False):
                draw_curve(axes, curve, name, styles[name])
            finish(axes, quantity, panel)
    for axes in grid[-1]:
        axes.set_xlabel(x_label)
    legend(figure, styles, legend_columns)
    return figure


def _unit_axis(axes: Axes, quantity: str, _panel: pd.DataFrame) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(quantity)


def _share_axis(axes: Axes, quantity: str, panel: pd.DataFrame) -> None:
    """From 0 to 1, or closer if the curves would overlap."""
    low, high = panel["value"].min(), panel["value"].max()
    margin = max(0.005, 0.08 * (high - low))
    axes.set_ylim((-0.02, 1.02) if high - low > 0.4 else (low - margin, high + margin))
    axes.set_ylabel(quantity)


def _percent_axis(axes: Axes, quantity: str, _panel: pd.DataFrame) -> None:
    axes.set_ylabel(f"{quantity} (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _step_curve(axes: Axes, curve: pd.DataFrame, label: str, look: dict) -> None:
    """The mean over seeds, and a thin line for each seed if there are several."""
    by_seed = curve.pivot(index="x", columns="seed", values="value")
    every = max(1, len(by_seed) // 6)
    axes.plot(by_seed.index, by_seed.mean(axis=1), label=label, markevery=every, **look)
    for seed in by_seed if by_seed.shape[1] > 1 else ():
        axes.plot(by_seed.index, by_seed[seed], color=look["color"], linewidth=0.4, alpha=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _thousands(step: float, _position: int) -> str:
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"


def _accuracy_curve(
    axes: Axes, curve: pd.DataFrame, label: str, look: dict, x_scale: float
) -> None:
    """Points with their deviation over seeds; a dense model is a line over all sparsities."""
    dense, along = curve[curve["x"].isna()]["value"], curve.dropna(subset="x")
    if len(dense):
        mean, spread = dense.mean(), dense.std()
        axes.axhline(mean, label=label, color=look["color"], linestyle=look["linestyle"])
        if spread > 0:  # not NaN, that of one seed
            band = {"color": look["color"], "alpha": 0.12, "linewidth": 0}
            axes.axhspan(mean - spread, mean + spread, **band)
    if len(along):
        points = along.groupby("x")["value"].agg(["mean", "std"]).fillna(0)
        bars = {"yerr": points["std"], "capsize": 1.5, "elinewidth": 0.6}
        axes.errorbar(x_scale * points.index, points["mean"], label=label, **bars, **look)


def _heat_maps(data: pd.DataFrame) -> Figure:
    """Figure 3: two tasks per row."""
    maps = data.groupby("task", sort=False)
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure(0.55 + 1.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    means = data.groupby(["task", "layer", "column"], sort=False)["value"].mean()
    colors = {"vmin": means.min(), "vmax": means.max(), "cmap": "viridis"}
    for axes, task in zip(grid.flat, maps.groups, strict=False):
        image = _heat_map(axes, means[task].unstack(sort=False), colors)
        axes.set_title(_title(task), loc="left")
    for axes in grid[:, 0]:
        axes.set_ylabel("layer")
    for axes in grid.flat[len(maps) :]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=grid, location="bottom", aspect=40, shrink=0.9, pad=0.02)
    bar.set_label("share of weights kept")
    bar.outline.set_linewidth(0.4)
    return figure


def _heat_map(axes: Axes, means: pd.DataFrame, colors: dict):
    """A row per layer, a column per head, and one for the MLP after a gap."""
    layers, heads = len(means), means.shape[1] - 1
    parts = ((0.5, heads, means.drop(columns=MLP)), (heads + 1, 1, means[[MLP]]))
    for left, width, part in parts:
        extent = (left, left + width, layers + 0.5, 0.5)
        image = axes.imshow(part, aspect="auto", extent=extent, interpolation="nearest", **colors)
    axes.set_xlim(0.5, heads + 2)
    ticks = list(range(1, max(2, heads - 1), max(1, heads // 3)))  # clear of "MLP"
    axes.set_xticks([*ticks, heads + 1.5], [*ticks, "MLP"])
    axes.set_yticks(range(1, layers + 1, 2 if layers <= 6 else 3))
    without_frame(axes)
    axes.set_xlabel("head", labelpad=1)
    return image


_DRAW: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "figure1": _over_steps_of_one,
    "figure2": lambda data: _accuracies(data, "weights removed (%)", 100),
    "figure3": _heat_maps,
    "figure4": lambda data: _accuracies(data, "epoch of retraining", 1),
    "figure5": _over_steps_by_lambda,
    f"{STUDY.name}-searches": _by_search_epoch,
}
