"""Agreement of tickets as a figure: pair by pair, and by kind of matrix and layer."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from reporting.figures import WIDTH, save
from reporting.overlap_tables import Matrix, Section, decimals, grid, mean

PLACED = "removed_beyond_chance_by_matrix"
LABEL_WIDTH = 26  # letters; longer labels go on two lines
MOST_PRINTED = 12  # items up to which there is room for numbers


def draw(sections: Sequence[Section], matrices: Sequence[Matrix], folder: Path) -> list[Path]:
    """agreement.png and agreement.pdf: two panels for each sparsity; their paths."""
    return save(lambda: _figure(sections, matrices), "agreement", folder)


def _figure(sections: Sequence[Section], matrices: Sequence[Matrix]) -> Figure:
    heights = []
    for section in sections:
        rows = -(-len(section.by_relation()) // 2)
        heights += [0.6 + max(1.0, 0.2 * len(section.items)), 0.3 + 1.5 * rows]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights))
    for section, pairs, places in zip(sections, parts[::2], parts[1::2], strict=True):
        _pairs(pairs, section)
        _places(places, section, matrices)
    return figure


def _pairs(part, section: Section) -> None:
    """Below the diagonal the Jaccard index of each pair, above it what chance by matrix gives."""
    count = len(section.items)
    values = np.full((count, count), np.nan)
    for pair in section.pairs:
        values[pair.second, pair.first] = pair.over_all["removed_jaccard"]
        values[pair.first, pair.second] = pair.over_all["removed_chance_by_matrix"]
    axes = part.subplots()
    image = axes.imshow(
        values, cmap="viridis", interpolation="nearest", aspect="auto", **_limits(values, 0.1)
    )
    if count <= MOST_PRINTED:
        for (row, column), value in np.ndenumerate(values):
            if row != column:
                _print(axes, image, row, column, value)
    every = 1 if count <= 30 else count // 15
    shown = list(range(0, count, every))
    names = [f"{textwrap.fill(section.labels[i], LABEL_WIDTH)}  {i + 1}" for i in shown]
    axes.set_yticks(shown, names, fontsize=5.5)
    axes.set_xticks(range(0, count, max(1, count // 10)))
    axes.set_xticklabels([str(i + 1) for i in range(0, count, max(1, count // 10))])
    axes.tick_params(length=0)
    _plain(axes)
    title = (
        f"sparsity {100 * section.sparsity:g} %: Jaccard index of the removed weights\n"
        "(above the diagonal: by chance, at the same densities by matrix)"
    )
    part.suptitle(title, fontsize=7)
    _bar(part, image, axes)


def _print(axes: Axes, image: ScalarMappable, row: int, column: int, value: float) -> None:
    """Two decimals, black on light and white on dark."""
    red, green, blue, _ = image.to_rgba(value)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    text = f"{value:.2f}".removeprefix("0")
    axes.text(
        column,
        row,
        text,
        ha="center",
        va="center",
        fontsize=5.5,
        color="white" if dark else "black",
    )


def _places(part, section: Section, matrices: Sequence[Matrix]) -> None:
    """For each relation kind by layer: agreement beyond chance, mean over its pairs."""
    relations = section.by_relation()
    columns = min(2, len(relations))
    panels = part.subplots(-(-len(relations) // columns), columns, squeeze=False, sharey=True)
    found = {}
    for name, pairs in relations.items():
        kinds, found[name] = grid(
            matrices,
            lambda name, ps=pairs: mean([p.by_matrix[name][PLACED] for p in ps]),
        )
    for axes, (name, rows) in zip(panels.flat, found.items(), strict=False):
        layers = len(rows[0])
        extent = (0.5, layers + 0.5, len(kinds), 0)
        image = axes.imshow(
            rows,
            cmap="viridis",
            interpolation="nearest",
            aspect="auto",
            extent=extent,
            **_limits(rows, 0.02),
        )
        many = len(relations[name])
        title = f"{name.removesuffix(' only')}, {many} pair{'s' * (many > 1)}"
        axes.set_title(title, loc="left")
        axes.set_xticks(range(1, layers + 1, 1 if layers <= 6 else 3))
        axes.set_yticks(np.arange(len(kinds)) + 0.5, [k.replace("_", " ") for k in kinds])
        axes.tick_params(length=0)
        _plain(axes)
        _bar(part, image, axes)  # its own: relations differ by more than matrices do
    for axes in panels.flat[len(found) :]:
        axes.set_visible(False)
    part.suptitle("beyond chance by matrix, mean over pairs that differ in", fontsize=7)


def _limits(values, least: float) -> dict[str, float]:
    """Of the colours: the values' own, but at least so far apart that noise does not show."""
    if np.isnan(values).all():
        return {"vmin": 0.0, "vmax": 1.0}
    low, high = np.nanmin(values), np.nanmax(values)
    more = max(0.0, least - (high - low)) / 2
    return {"vmin": low - more, "vmax": high + more}


def _plain(axes: Axes) -> None:
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _bar(part, image: ScalarMappable, axes: Axes) -> None:
    bar = part.colorbar(image, ax=axes, location="bottom", aspect=30, pad=0.02)
    low, high = image.get_clim()
    ticks = (low, (low + high) / 2, high)
    bar.set_ticks(ticks, labels=[decimals(tick) for tick in ticks])
    bar.outline.set_linewidth(0.4)
