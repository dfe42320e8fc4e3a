"""Expected and drawn density as a figure: matrix by matrix, and by layer."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reporting.densities import SearchDensities
from reporting.style import LOOKS, new_figure, save
from reporting.ticket_files import drawn_column

MARKERS = "os^Dv*P"  # one per kind of matrix


def draw(searches: Sequence[SearchDensities], folder: Path) -> list[Path]:
    """Write density.png and density.pdf, a row for each search; their paths."""
    return save(lambda: _figure(searches), "density", folder)


def _figure(searches: Sequence[SearchDensities]) -> Figure:
    figure = new_figure(0.85 + 1.6 * len(searches))
    panels = figure.subplots(len(searches), 2, squeeze=False)
    for search, (scatter, lines) in zip(searches, panels, strict=True):
        _by_matrix(scatter, search)
        _by_layer(lines, search)
        scatter.set_title(search.title, loc="left")
    for axes, text in zip(panels[-1], ("expected density", "layer"), strict=True):
        axes.set_xlabel(text)
    for axes, place, columns in ((panels[0, 0], "upper", 4), (panels[0, 1], "lower", 3)):
        legend = figure.legend(
            *axes.get_legend_handles_labels(),
            loc=f"outside {place} center",
            ncols=columns,
            frameon=False,
            handlelength=1.8,
            columnspacing=0.9,
            handletextpad=0.4,
        )
        if place == "upper" and len(searches[0].sparsities) > 1:  # there, colors are sparsities
            for handle in legend.legend_handles:
                handle.set_color("0.4")
    return figure


def _by_matrix(axes: Axes, search: SearchDensities) -> None:
    """A point per matrix and sparsity: its marker is the kind.

    Its color is the sparsity if there are several, else the kind.
    """
    gray = {"color": "0.5", "linewidth": 0.6, "zorder": 0}
    overall = search.mean()
    for at, column in enumerate(map(drawn_column, search.sparsities)):
        for position, (kind, rows) in enumerate(search.frame.groupby("kind", sort=False)):
            axes.scatter(
                rows["expected"],
                rows[column],
                s=9,
                linewidths=0,
                marker=MARKERS[position],
                color=_color(at if len(search.sparsities) > 1 else position),
                alpha=0.85,
                label=None if at else kind.replace("_", " "),
            )
        through = (overall["expected"], overall[column])
        name = None if at else "equal loss"
        axes.axline(through, slope=1, linestyle="--", label=name, **gray)
    axes.margins(0.1)
    axes.autoscale_view()
    axes.autoscale(False)  # the diagonal must not widen the panel
    axes.axline((0, 0), slope=1, **gray)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.set_ylabel("drawn density")


def _by_layer(axes: Axes, search: SearchDensities) -> None:
    means = search.by("layer")
    layers = sorted(means)
    for column, style, name in (("expected", "--", "expected"), ("soft_gate", ":", "soft gate")):
        values = [means[layer][column] for layer in layers]
        axes.plot(layers, values, color="0.3", linestyle=style, label=name)
    for at, sparsity in enumerate(search.sparsities):
        axes.plot(
            layers,
            [means[layer][drawn_column(sparsity)] for layer in layers],
            color=_color(at),
            marker=MARKERS[at % 7],
            label=f"drawn at {100 * sparsity:g} %",
        )
    axes.set_xticks(layers if len(layers) <= 6 else layers[::3])
    axes.set_ylabel("density")


def _color(position: int) -> str:
    return LOOKS[position % 7][0]
