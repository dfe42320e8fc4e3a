"""Expected against drawn density: what the gates promise of each matrix, and what tickets keep."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reporting.csv_cells import number, text_cell
from reporting.figures import LOOKS, WIDTH, save
from reporting.overlap_tables import Matrix, decimals, table
from reporting.ticket_names import Item, labels

LEGEND = (
    "Expected: mean probability that a gate is not zero (Eq. 4). Soft gate: mean of the gate at "
    "test time (Eq. 5). Drawn: share of weights that the ticket keeps, which is 1 - sparsity over "
    "all weights, whatever the gates expect; how it is spread over the matrices is what drawing "
    "by one global ranking makes of the scores. In the figure the solid line is drawn = expected, "
    "where that lies within a panel; on a dashed line every matrix would have lost as much of its "
    "expected density as all weights did."
)
MARKERS = "os^Dv*P"  # a matrix kind each


@dataclass(frozen=True)
class Gates:
    """Densities by matrix of one file of hard-concrete scores; `drawn`: by sparsity."""

    item: Item
    expected: dict[str, float]
    soft: dict[str, float]
    drawn: dict[float, dict[str, float]]


def csv_text(files: Sequence[Gates], matrices: Sequence[Matrix]) -> str:
    """A line per score file and matrix."""
    text = io.StringIO()
    writer = csv.writer(text)
    sparsities = list(files[0].drawn)
    writer.writerow(
        [
            "scores",
            "kind_of_scores",
            "task",
            "seed",
            "epoch",
            "matrix",
            "kind",
            "layer",
            "weights",
            "expected",
            "soft_gate",
            *(f"drawn_at_{s:g}" for s in sparsities),
        ]
    )
    for label, found in zip(labels([f.item for f in files]), files, strict=True):
        item = found.item
        facts = [text_cell(v) for v in (label, item.kind, item.task, item.seed, item.epoch)]
        for m in matrices:
            values = [d[m.name] for d in (found.expected, found.soft, *found.drawn.values())]
            writer.writerow(
                [*facts, text_cell(m.name), m.kind, m.layer, m.weights, *map(number, values)]
            )
    return text.getvalue()


def markdown(files: Sequence[Gates], matrices: Sequence[Matrix], notes: Sequence[str]) -> str:
    lines = ["# Expected and drawn density", "", LEGEND, ""]
    lines += [line for note in notes for line in (note, "")]
    if not files:
        return "\n".join(lines)
    sparsities = list(files[0].drawn)
    heads = ["scores", "expected", "soft gate"]
    for s in sparsities:
        heads += [f"drawn at {100 * s:g} %", "rank correlation with expected, over matrices"]
    names = labels([found.item for found in files])
    rows = [_summary(n, found, matrices) for n, found in zip(names, files, strict=True)]
    lines += ["## All weights", "", *table(heads, rows, 1), ""]
    for title, group in grouped(files):
        lines += [f"## {title}", ""]
        heads = ["weights", "expected", "soft gate"]
        heads += [f"drawn at {100 * s:g} %" for s in sparsities]
        rows = [
            [name, *map(decimals, _over(group, members))]
            for name, members in _groups_of(matrices).items()
        ]
        lines += [*table(heads, rows, 1), ""]
    return "\n".join(lines)


def _summary(label: str, found: Gates, matrices: Sequence[Matrix]) -> list[str]:
    expected, soft, *drawn = _over([found], matrices)
    cells = [label, decimals(expected), decimals(soft)]
    for density, by_matrix in zip(drawn, found.drawn.values(), strict=True):
        names = [m.name for m in matrices]
        ranks = [_ranks([d[n] for n in names]) for d in (found.expected, by_matrix)]
        cells += [decimals(density), decimals(_correlation(*ranks))]
    return cells


def _ranks(values: list[float]) -> np.ndarray:
    """From 0, equal values sharing their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[group]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else float("nan")


def _groups_of(matrices: Sequence[Matrix]) -> dict[str, list[Matrix]]:
    """Kinds of matrices, then layers."""
    found: dict[str, list[Matrix]] = {"all": list(matrices)}
    for m in matrices:
        found.setdefault(m.kind.replace("_", " "), []).append(m)
    for m in matrices:
        if m.layer is not None:
            found.setdefault(f"layer {m.layer}", []).append(m)
    return found


def _over(group: Sequence[Gates], members: Sequence[Matrix]) -> list[float]:
    """Expected, soft and drawn density of all weights of `members`, mean over the files."""
    weights = [m.weights for m in members]

    def density(found: dict[str, float]) -> float:
        return float(np.average([found[m.name] for m in members], weights=weights))

    columns = zip(*([g.expected, g.soft, *g.drawn.values()] for g in group), strict=True)
    return [fmean(map(density, column)) for column in columns]


def grouped(files: Sequence[Gates]) -> list[tuple[str, list[Gates]]]:
    """Files that differ in their seed only, of each search the last epoch that was given."""
    groups: dict[Item, list[Gates]] = {}
    for found in files:
        key = replace(found.item, seed=None, sha256="")
        groups.setdefault(key, []).append(found)
    last: dict[Item, Item] = {}
    for key in groups:
        search = replace(key, epoch=None)
        if search not in last or (key.epoch or 0) > (last[search].epoch or 0):
            last[search] = key
    titles = []
    for name, key in zip(labels(list(last)), last.values(), strict=True):
        seeds = ", ".join(str(g.item.seed) for g in groups[key])
        many = len(groups[key]) > 1
        epoch = "" if key.epoch is None else f", epoch {key.epoch}"
        titles.append(f"{name}{epoch}, {'mean of seeds' if many else 'seed'} {seeds}")
    return [(title, groups[key]) for title, key in zip(titles, last.values(), strict=True)]


def draw(files: Sequence[Gates], matrices: Sequence[Matrix], folder: Path) -> list[Path]:
    """density.png and density.pdf: a row for each search, its last epoch; their paths."""
    return save(lambda: _figure(grouped(files), matrices), "density", folder)


def _figure(groups: list[tuple[str, list[Gates]]], matrices: Sequence[Matrix]) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.85 + 1.6 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 2, squeeze=False)
    for (title, group), (scatter, lines) in zip(groups, panels, strict=True):
        _scatter(scatter, group, matrices)
        _by_layer(lines, group, matrices)
        scatter.set_title(title, loc="left")
    for axes, label in zip(panels[-1], ("expected density", "layer"), strict=True):
        axes.set_xlabel(label)
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
        if place == "upper" and len(groups[0][1][0].drawn) > 1:  # there colours are sparsities
            for handle in legend.legend_handles:
                handle.set_color("0.4")
    return figure


def _scatter(axes: Axes, group: list[Gates], matrices: Sequence[Matrix]) -> None:
    """A point per matrix and sparsity: marker by kind; colour by kind, or by sparsity if many."""
    kinds = list(dict.fromkeys(m.kind for m in matrices))
    sparsities = list(group[0].drawn)
    for at, _ in enumerate(sparsities):
        for number_of_kind, kind in enumerate(kinds):
            found = [_over(group, [m]) for m in matrices if m.kind == kind]
            colour = at if len(sparsities) > 1 else number_of_kind
            axes.scatter(
                [f[0] for f in found],
                [f[2 + at] for f in found],
                s=9,
                linewidths=0,
                marker=MARKERS[number_of_kind],
                color=_colour(colour),
                alpha=0.85,
                label=None if at else kind.replace("_", " "),
            )
        expected, _, *drawn = _over(group, matrices)
        axes.axline(
            (expected, drawn[at]),
            slope=1,
            color="0.5",
            linestyle="--",
            linewidth=0.6,
            zorder=0,
            label=None if at else "equal loss",
        )
    axes.margins(0.1)
    axes.autoscale_view()
    axes.autoscale(False)  # the diagonal where it passes, not at the points' expense
    axes.axline((0, 0), slope=1, color="0.5", linewidth=0.6, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.set_ylabel("drawn density")


def _by_layer(axes: Axes, group: list[Gates], matrices: Sequence[Matrix]) -> None:
    layers = sorted({m.layer for m in matrices if m.layer is not None})
    found = [_over(group, [m for m in matrices if m.layer == layer]) for layer in layers]
    axes.plot(layers, [f[0] for f in found], color="0.3", linestyle="--", label="expected")
    axes.plot(layers, [f[1] for f in found], color="0.3", linestyle=":", label="soft gate")
    for at, sparsity in enumerate(group[0].drawn):
        axes.plot(
            layers,
            [f[2 + at] for f in found],
            color=_colour(at),
            marker=MARKERS[at % 7],
            label=f"drawn at {100 * sparsity:g} %",
        )
    axes.set_xticks(layers if len(layers) <= 6 else layers[::3])
    axes.set_ylabel("density")


def _colour(position: int) -> str:
    return (*(colour for colour, _, _ in LOOKS), "#56B4E9")[position % 7]
