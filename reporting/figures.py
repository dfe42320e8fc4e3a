"""The paper's figures and the study's searches, drawn."""

from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.paper import CURVES, LAMBDAS, PAIR_TASKS, PAPER_DATASET, SINGLE_TASKS
from experiments.study import STUDY
from reporting.figure_data import HeatMap, Panel, Point, Shown
from reporting.searches import DECIDED, PENALTY, curve_of_lambda
from reporting.style import legend, looks, new_figure, save, without_frame


def draw(figure: str, shown: Shown, folder: Path) -> list[Path]:
    """Write the PNG and PDF of a figure, at the same size; their paths."""
    return save(lambda: _DRAW[figure](shown), figure, folder)


def _title(task: str, recipe: str | None = None) -> str:
    name = PAPER_DATASET[task] if task in SINGLE_TASKS + PAIR_TASKS else task
    return f"{name}, {recipe}" if recipe else name


def _over_steps_of_one(shown: Shown) -> Figure:
    """Figure 1: a panel per task, both shares on one axis from 0 to 1."""
    tasks = list(dict.fromkeys(panel.task for panel in shown.panels))
    figure = new_figure(0.55 + 1.35 * len(tasks))
    grid = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
    styles = looks((PENALTY, DECIDED))
    for task, axes in zip(tasks, grid, strict=True):
        for panel in (p for p in shown.panels if p.task == task):
            for points in panel.curves.values():
                _step_curve(axes, points, panel.quantity, styles[panel.quantity])
        axes.set_title(_title(task), loc="left")
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("share of gates")
    grid[-1].set_xlabel("optimizer step")
    legend(figure, styles)
    return figure


def _over_steps_by_lambda(shown: Shown) -> Figure:
    """Figure 5: a row per task, R(m) on the left, decided gates on the right."""
    shown_curves = _curve_names(shown)
    first = [name for name in map(curve_of_lambda, sorted(LAMBDAS)) if name in shown_curves]
    return _over_a_search(shown, dict.fromkeys([*first, *shown_curves]), "optimizer step", 4)


def _by_search_epoch(shown: Shown) -> Figure:
    """The study's searches: a row per task, R(m) on the left, dev accuracy on the right."""
    return _over_a_search(shown, _curve_names(shown), "search epoch", 2)


def _curve_names(shown: Shown) -> list[str]:
    return list(dict.fromkeys(name for panel in shown.panels for name in panel.curves))


def _over_a_search(shown: Shown, names: Iterable[str], x_label: str, legend_columns: int) -> Figure:
    """A row per task, a column per quantity."""
    styles = looks(names)

    def draw_panel(axes: Axes, panel: Panel) -> None:
        for name, points in panel.curves.items():
            _step_curve(axes, points, name, styles[name])
        axes.set_ylabel(panel.quantity)
        axes.set_ylim(_limits(panel))

    figure = _rows_of_panels(shown, draw_panel, x_label)
    legend(figure, styles, legend_columns)
    return figure


def _limits(panel: Panel) -> tuple[float, float]:
    """Limits of a share's axis: 0 to 1, or closer if the curves would overlap."""
    values = [value for point in panel.points for value in point.cell.values.values()]
    low, high = min(values), max(values)
    margin = max(0.005, 0.08 * (high - low))
    return (-0.02, 1.02) if high - low > 0.4 else (low - margin, high + margin)


def _step_curve(axes: Axes, points: list[Point], label: str, look: dict) -> None:
    """The mean over seeds, and a thin line for each seed if there are several."""
    steps = [point.x for point in points]
    every = max(1, len(steps) // 6)
    axes.plot(steps, [p.cell.mean for p in points], label=label, markevery=every, **look)
    seeds = points[0].cell.values if points else {}
    for seed in seeds if len(seeds) > 1 else ():
        values = [point.cell.values[seed] for point in points]
        axes.plot(steps, values, color=look["color"], linewidth=0.4, alpha=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _thousands(step: float, _position: int) -> str:
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"


def _rows_of_panels(
    shown: Shown, draw_panel: Callable[[Axes, Panel], None], x_label: str
) -> Figure:
    """A row per task and recipe, a column per quantity, without a legend."""
    keys = list(dict.fromkeys((panel.task, panel.recipe) for panel in shown.panels))
    rows = [[p for p in shown.panels if (p.task, p.recipe) == key] for key in keys]
    figure = new_figure(0.55 + 1.35 * len(rows))
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex="row")
    for key, panels, axes_of_row in zip(keys, rows, grid, strict=True):
        axes_of_row[0].set_title(_title(*key), loc="left")
        for axes, panel in zip(axes_of_row, panels, strict=True):
            draw_panel(axes, panel)
    for axes in grid[-1]:
        axes.set_xlabel(x_label)
    return figure


def _accuracies(shown: Shown, x_label: str, x_scale: float) -> Figure:
    """Figures 2 and 4."""
    styles = looks(CURVES)

    def draw_panel(axes: Axes, panel: Panel) -> None:
        for name, points in panel.curves.items():
            _accuracy_curve(axes, points, name, styles[name], x_scale)
        axes.set_ylabel(f"{panel.quantity} (%)")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))

    figure = _rows_of_panels(shown, draw_panel, x_label)
    legend(figure, styles)
    return figure


def _accuracy_curve(
    axes: Axes, points: list[Point], label: str, look: dict, x_scale: float
) -> None:
    """Points with their deviation over seeds; a dense model is a line over all sparsities."""
    for point in (p for p in points if p.x is None):
        mean, spread = point.cell.mean, point.cell.deviation or 0
        axes.axhline(mean, label=label, color=look["color"], linestyle=look["linestyle"])
        if spread:
            band = {"color": look["color"], "alpha": 0.12, "linewidth": 0}
            axes.axhspan(mean - spread, mean + spread, **band)
    along = [point for point in points if point.x is not None]
    if along:
        axes.errorbar(
            [x_scale * p.x for p in along],
            [p.cell.mean for p in along],
            yerr=[p.cell.deviation or 0 for p in along],
            label=label,
            capsize=1.5,
            elinewidth=0.6,
            **look,
        )


def _heat_maps(shown: Shown) -> Figure:
    """Figure 3: two tasks per row."""
    columns = min(2, len(shown.maps))
    rows = -(-len(shown.maps) // columns)
    figure = new_figure(0.55 + 1.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    cells = [cell.mean for m in shown.maps for row in [*m.heads, m.mlp] for cell in row]
    colors = {"vmin": min(cells), "vmax": max(cells), "cmap": "viridis"}
    for axes, heat_map in zip(grid.flat, shown.maps, strict=False):
        image = _heat_map(axes, heat_map, colors)
    for axes in grid[:, 0]:
        axes.set_ylabel("layer")
    for axes in grid.flat[len(shown.maps) :]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=grid, location="bottom", aspect=40, shrink=0.9, pad=0.02)
    bar.set_label("share of weights kept")
    bar.outline.set_linewidth(0.4)
    return figure


def _heat_map(axes: Axes, heat_map: HeatMap, colors: dict):
    """A row per layer, a column per head, and one for the MLP after a gap."""
    heads, layers = len(heat_map.heads[0]), len(heat_map.heads)
    for left, width, rows in (
        (0.5, heads, heat_map.heads),
        (heads + 1, 1, [[cell] for cell in heat_map.mlp]),
    ):
        means = [[cell.mean for cell in row] for row in rows]
        extent = (left, left + width, layers + 0.5, 0.5)
        image = axes.imshow(means, aspect="auto", extent=extent, interpolation="nearest", **colors)
    axes.set_xlim(0.5, heads + 2)
    ticks = list(range(1, max(2, heads - 1), max(1, heads // 3)))  # clear of "MLP"
    axes.set_xticks([*ticks, heads + 1.5], [*ticks, "MLP"])
    axes.set_yticks(range(1, layers + 1, 2 if layers <= 6 else 3))
    axes.set_title(_title(heat_map.task), loc="left")
    without_frame(axes)
    axes.set_xlabel("head", labelpad=1)
    return image


_DRAW: dict[str, Callable[[Shown], Figure]] = {
    "figure1": _over_steps_of_one,
    "figure2": lambda shown: _accuracies(shown, "weights removed (%)", 100),
    "figure3": _heat_maps,
    "figure4": lambda shown: _accuracies(shown, "epoch of retraining", 1),
    "figure5": _over_steps_by_lambda,
    f"{STUDY.name}-searches": _by_search_epoch,
}
