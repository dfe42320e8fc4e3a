"""Agreement of tickets as a figure: pair by pair, and by kind of matrix and layer."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure

from reporting.overlap_tables import ALL, Section, by_relation, grid
from reporting.render import decimals
from reporting.style import new_figure, save, without_frame

BY_MATRIX = "removed_beyond_chance_by_matrix"
NAME_WIDTH = 26  # letters; longer names take two lines
MOST_PRINTED = 12  # tickets, up to which numbers have room
HEAT_MAP = {"cmap": "viridis", "interpolation": "nearest", "aspect": "auto"}


def draw(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write agreement.png and agreement.pdf, two panels for each sparsity; their paths."""
    return save(lambda: _figure(sections), "agreement", folder)


def _figure(sections: Sequence[Section]) -> Figure:
    heights = []
    for section in sections:
        rows = -(-len(by_relation(section.whole)) // 2)
        heights += [0.6 + max(1.0, 0.2 * len(section.names)), 0.3 + 1.5 * rows]
    figure = new_figure(sum(heights))
    parts = np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights))
    for section, pairs, matrices in zip(sections, parts[::2], parts[1::2], strict=True):
        _by_pair(pairs, section)
        _by_matrix(matrices, section)
    return figure


def _by_pair(part: SubFigure, section: Section) -> None:
    """Below the diagonal each pair's Jaccard index, above it what is expected by chance."""
    count = len(section.names)
    position = {name: i for i, name in enumerate(section.names)}
    values = np.full((count, count), np.nan)
    for pair in section.whole.to_dict("records"):
        first, second = position[pair["first"]], position[pair["second"]]
        values[second, first] = pair["removed_jaccard"]
        values[first, second] = pair["removed_chance_by_matrix"]
    axes = part.subplots()
    image = axes.imshow(values, **HEAT_MAP, **_limits(values, 0.1))
    if count <= MOST_PRINTED:
        for (row, column), value in np.ndenumerate(values):
            if row != column:
                _print(axes, image, row, column, value)
    every = 1 if count <= 30 else count // 15
    named = list(range(0, count, every))
    texts = [f"{textwrap.fill(section.names[i], NAME_WIDTH)}  {i + 1}" for i in named]
    axes.set_yticks(named, texts, fontsize=5.5)
    numbered = list(range(0, count, max(1, count // 10)))
    axes.set_xticks(numbered, [str(i + 1) for i in numbered])
    axes.tick_params(length=0)
    without_frame(axes)
    title = (
        f"sparsity {100 * section.sparsity:g} %: Jaccard index of removed weights\n"
        "(above the diagonal: expected by chance, by matrix)"
    )
    part.suptitle(title, fontsize=7)
    _bar(part, image, axes)


def _print(axes: Axes, image: ScalarMappable, row: int, column: int, value: float) -> None:
    """Two decimals, black on light and white on dark."""
    red, green, blue, _ = image.to_rgba(value)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    text = f"{value:.2f}".removeprefix("0")
    style = {"ha": "center", "va": "center", "fontsize": 5.5}
    axes.text(column, row, text, color="white" if dark else "black", **style)


def _by_matrix(part: SubFigure, section: Section) -> None:
    """For each relation agreement above chance by kind and layer, mean over its pairs."""
    groups = by_relation(section.pairs[section.pairs["matrix"] != ALL])
    columns = min(2, len(groups))
    panels = part.subplots(-(-len(groups) // columns), columns, squeeze=False, sharey=True)
    for axes, (name, group) in zip(panels.flat, groups.items(), strict=False):
        means = grid(group, BY_MATRIX)
        kinds, layers = means.shape
        extent = (0.5, layers + 0.5, kinds, 0)
        limits = _limits(means.to_numpy(), 0.02)
        image = axes.imshow(means, extent=extent, **HEAT_MAP, **limits)
        pairs = int((section.whole["relation"] == name).sum())
        title = f"{name.removesuffix(' only')}, {pairs} pair{'s' * (pairs > 1)}"
        axes.set_title(title, loc="left")
        axes.set_xticks(range(1, layers + 1, 1 if layers <= 6 else 3))
        axes.set_yticks(np.arange(kinds) + 0.5, [kind.replace("_", " ") for kind in means.index])
        axes.tick_params(length=0)
        without_frame(axes)
        _bar(part, image, axes)  # one each: relations differ by more than matrices do
    for axes in panels.flat[: len(groups)][-columns:]:  # the last one of each column
        axes.set_xlabel("layer")
    for axes in panels.flat[len(groups) :]:
        axes.set_visible(False)
    part.suptitle("above chance, by matrix: mean over pairs that differ in", fontsize=7)


def _limits(values: np.ndarray, least: float) -> dict[str, float]:
    """Limits of the colors: those of the values, but at least `least` apart, to hide noise."""
    if np.isnan(values).all():
        return {"vmin": 0.0, "vmax": 1.0}
    low, high = np.nanmin(values), np.nanmax(values)
    more = max(0.0, least - (high - low)) / 2
    return {"vmin": low - more, "vmax": high + more}


def _bar(part: SubFigure, image: ScalarMappable, axes: Axes) -> None:
    bar = part.colorbar(image, ax=axes, location="bottom", aspect=30, pad=0.02)
    low, high = image.get_clim()
    ticks = (low, (low + high) / 2, high)
    bar.set_ticks(ticks, labels=[decimals(tick) for tick in ticks])
    bar.outline.set_linewidth(0.4)
