"""The paper's figures, drawn for a column of print: 3.25 inches, told apart without colour too."""

from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.paper import CURVES, PAIR_TASKS, PAPER_DATASET, SINGLE_TASKS
from experiments.study import STUDY
from reporting.figure_data import Panel, Point, Shown
from reporting.searches import DECIDED, PENALTY
from utils.files import write_atomically

WIDTH = 3.25
STYLE = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # fonts that publishers accept
}
# Okabe and Ito's colours, each with a marker and a line of its own.
LOOKS = (
    ("#D55E00", "o", "-"),
    ("#0072B2", "s", "--"),
    ("#009E73", "^", "-."),
    ("#000000", "D", ":"),
    ("#CC79A7", "v", "-"),
    ("#E69F00", "P", "--"),
    ("#56B4E9", "X", "-."),
    ("#6F6F6F", "*", ":"),
    ("#882255", "h", "-"),
)


def draw(figure: str, shown: Shown, folder: Path) -> list[Path]:
    """PNG and PDF of a figure of the paper, at the same size; their paths."""
    return save(lambda: _DRAW[figure](shown), figure, folder)


def save(make: Callable[[], Figure], name: str, folder: Path) -> list[Path]:
    """PNG and PDF of the figure that `make` draws, which it does in our style; their paths."""
    with matplotlib.rc_context(STYLE):
        drawn = make()
        paths = []
        for kind, stamp in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            path = folder / f"{name}.{kind}"
            write_atomically(
                path, lambda p, k=kind, s=stamp: drawn.savefig(p, format=k, dpi=300, metadata=s)
            )
            paths.append(path)
    return paths


def _new(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _title(task: str, recipe: str | None = None) -> str:
    name = PAPER_DATASET[task] if task in SINGLE_TASKS + PAIR_TASKS else task
    return f"{name}, {recipe}" if recipe else name


def _looks(names) -> dict[str, dict]:
    return {
        name: {"color": colour, "marker": marker, "linestyle": line}
        for name, (colour, marker, line) in zip(names, cycle(LOOKS))  # noqa: B905  endless
    }


def _legend(figure: Figure, looks: dict[str, dict], columns: int = 4) -> None:
    """One legend above all panels; in it what any of them shows, in the order of `looks`."""
    handles = {}
    for axes in figure.axes:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    names = [name for name in looks if name in handles]
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.0,
    )


def _over_steps_of_one(shown: Shown) -> Figure:
    """Figure 1: a panel per task, both shares on the one axis from 0 to 1."""
    tasks = list(dict.fromkeys(panel.task for panel in shown.panels))
    figure = _new(0.55 + 1.35 * len(tasks))
    grid = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
    looks = _looks((PENALTY, DECIDED))
    for task, axes in zip(tasks, grid, strict=True):
        for panel in (p for p in shown.panels if p.task == task):
            for points in panel.curves.values():
                _step_curve(axes, points, panel.quantity, looks[panel.quantity])
        axes.set_title(_title(task), loc="left")
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("share of gates")
    grid[-1].set_xlabel("optimizer step")
    _legend(figure, looks)
    return figure


def _over_steps_by_lambda(shown: Shown) -> Figure:
    """Figure 5: a row per task, R(m) on the left, decided gates on the right."""
    names = sorted({n for p in shown.panels for n in p.curves}, key=_lambda_of)
    return _over_a_search(shown, names, "optimizer step")


def _over_a_search(shown: Shown, names: Iterable[str], x_label: str, columns: int = 4) -> Figure:
    """A row per task, a column for each quantity; `columns`: of the legend."""
    figure, grid, rows = _rows_of_panels(shown)
    looks = _looks(names)
    for panels, axes_of_row in zip(rows, grid, strict=True):
        for panel, axes in zip(panels, axes_of_row, strict=True):
            for name, points in panel.curves.items():
                _step_curve(axes, points, name, looks[name])
            axes.set_ylabel(panel.quantity)
            axes.set_ylim(_limits(panel))
    for axes in grid[-1]:
        axes.set_xlabel(x_label)
    _legend(figure, looks, columns)
    return figure


def _by_search_epoch(shown: Shown) -> Figure:
    """Of the study."""
    names = dict.fromkeys(name for panel in shown.panels for name in panel.curves)
    return _over_a_search(shown, names, "search epoch", columns=2)


def _limits(panel) -> tuple[float, float]:
    """Of a share's axis: 0 to 1, or closer where the curves would lie on each other."""
    points = [point for curve in panel.curves.values() for point in curve]
    values = [value for point in points for value in point.cell.values.values()]
    low, high = min(values), max(values)
    margin = max(0.005, 0.08 * (high - low))
    return (-0.02, 1.02) if high - low > 0.4 else (low - margin, high + margin)


def _lambda_of(name: str) -> float:
    return float(name.split("=")[1])


def _step_curve(axes: Axes, points: list[Point], label: str, look: dict) -> None:
    """The mean over seeds, and thinly each seed where there are several."""
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


def _rows_of_panels(shown: Shown):
    """Figure, axes and panels by row: a row per task and recipe, a column per quantity."""
    keys = dict.fromkeys((panel.task, panel.recipe) for panel in shown.panels)
    rows: list[list[Panel]] = [
        [panel for panel in shown.panels if (panel.task, panel.recipe) == key] for key in keys
    ]
    figure = _new(0.55 + 1.35 * len(rows))
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex="row")
    for panels, axes in zip(rows, grid, strict=True):
        axes[0].set_title(_title(panels[0].task, panels[0].recipe), loc="left")
    return figure, grid, rows


def _accuracies(shown: Shown, x_label: str, x_scale: float) -> Figure:
    figure, grid, rows = _rows_of_panels(shown)
    looks = _looks(CURVES)
    for panels, axes_of_row in zip(rows, grid, strict=True):
        for panel, axes in zip(panels, axes_of_row, strict=True):
            for name, points in panel.curves.items():
                _accuracy_curve(axes, points, name, looks[name], x_scale)
            axes.set_ylabel(f"{panel.quantity} (%)")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for axes in grid[-1]:
        axes.set_xlabel(x_label)
    _legend(figure, looks)
    return figure


def _accuracy_curve(
    axes: Axes, points: list[Point], label: str, look: dict, x_scale: float
) -> None:
    """Points with their deviation over seeds; a dense model is a line at every sparsity."""
    for point in (p for p in points if p.x is None):
        plain = {"color": look["color"], "linestyle": look["linestyle"]}
        axes.axhline(point.cell.mean, label=label, **plain)
        spread = point.cell.deviation or 0
        if spread:
            axes.axhspan(
                point.cell.mean - spread,
                point.cell.mean + spread,
                color=look["color"],
                alpha=0.12,
                linewidth=0,
            )
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
    """Figure 3: layers as rows, a column per head, and the MLP's behind a gap."""
    columns = min(2, len(shown.maps))
    rows = -(-len(shown.maps) // columns)
    figure = _new(0.55 + 1.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    cells = [cell.mean for m in shown.maps for row in [*m.heads, m.mlp] for cell in row]
    colours = {"vmin": min(cells), "vmax": max(cells), "cmap": "viridis"}
    for axes, heat_map in zip(grid.flat, shown.maps, strict=False):
        heads, layers = len(heat_map.heads[0]), len(heat_map.heads)
        for left, width, block in (
            (0.5, heads, [[cell.mean for cell in row] for row in heat_map.heads]),
            (heads + 1, 1, [[cell.mean] for cell in heat_map.mlp]),
        ):
            extent = (left, left + width, layers + 0.5, 0.5)
            image = axes.imshow(
                block, aspect="auto", extent=extent, interpolation="nearest", **colours
            )
        axes.set_xlim(0.5, heads + 2)
        ticks = list(range(1, max(2, heads - 1), max(1, heads // 3)))  # clear of MLP's label
        axes.set_xticks([*ticks, heads + 1.5], [*ticks, "MLP"])
        axes.set_yticks(range(1, layers + 1, 2 if layers <= 6 else 3))
        axes.set_title(_title(heat_map.task), loc="left")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("head", labelpad=1)
    for axes in grid[:, 0]:
        axes.set_ylabel("layer")
    for axes in grid.flat[len(shown.maps) :]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=grid, location="bottom", aspect=40, shrink=0.9, pad=0.02)
    bar.set_label("share of weights kept")
    bar.outline.set_linewidth(0.4)
    return figure


_DRAW: dict[str, Callable[[Shown], Figure]] = {
    "figure1": _over_steps_of_one,
    "figure2": lambda shown: _accuracies(shown, "weights removed (%)", 100),
    "figure3": _heat_maps,
    "figure4": lambda shown: _accuracies(shown, "epoch of retraining", 1),
    "figure5": _over_steps_by_lambda,
    f"{STUDY.name}-searches": _by_search_epoch,
}
