"""Expected and drawn density of each matrix: what the gates promise, and what tickets keep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from masking.kinds import GATE_KINDS
from reporting import render
from reporting.cells import grouped
from reporting.render import decimals
from reporting.style import COLORS, new_figure, save
from reporting.ticket_files import Gates, Ticket, drawn_column
from reporting.ticket_names import Origin, ticket_names

LEGEND = (
    "Expected: mean probability that a gate is not zero (Eq. 4). Soft gate: mean of the gate at "
    "test time (Eq. 5). Drawn: share of weights that the ticket keeps. Over all weights this is "
    "1 - sparsity, whatever the gates expect; one global ranking of the scores decides how it is "
    "spread over the matrices. In the figure, the solid line is drawn = expected (if it crosses a "
    "panel). On a dashed line, expected - drawn is the same for every matrix and for all weights."
)
MARKERS = "os^Dv*P"  # one per kind of matrix


@dataclass(frozen=True)
class SearchDensities:
    """Densities of a search by matrix, mean over its seeds.

    `frame`: the matrices joined with the means of Gates.densities.
    """

    title: str
    sparsities: tuple[float, ...]
    frame: pd.DataFrame

    def mean(self, rows: pd.DataFrame | None = None) -> pd.Series:
        """Densities over all weights of some rows of the frame (None: of all)."""
        rows = self.frame if rows is None else rows
        columns = ["expected", "soft_gate", *map(drawn_column, self.sparsities)]
        return rows[columns].mul(rows["weights"], axis=0).sum() / rows["weights"].sum()

    def by(self, column: str) -> dict[object, pd.Series]:
        """The mean for each value of a column of the frame, in the order of the frame."""
        groups = self.frame.groupby(column, sort=False)
        return {value: self.mean(rows) for value, rows in groups}


def by_search(files: Sequence[Gates], matrices: pd.DataFrame) -> list[SearchDensities]:
    """Files that differ in their seed only are one search; of each, its last given epoch."""
    groups = grouped(files, lambda gates: replace(gates.origin, seed=None, sha256=""))
    last: dict[Origin, Origin] = {}
    for key in groups:
        search = replace(key, epoch=None)
        last[search] = max(last.get(search, key), key, key=lambda origin: origin.epoch or 0)
    searches = []
    for name, key in zip(ticket_names(list(last)), last.values(), strict=True):
        group = groups[key]
        seeds = ", ".join(str(gates.origin.seed) for gates in group)
        epoch = "" if key.epoch is None else f", epoch {key.epoch}"
        title = f"{name}{epoch}, {'mean of seeds' if len(group) > 1 else 'seed'} {seeds}"
        mean = sum(gates.densities for gates in group) / len(group)
        searches.append(SearchDensities(title, group[0].sparsities, matrices.join(mean)))
    return searches


def csv_text(files: Sequence[Gates], matrices: pd.DataFrame) -> str:
    """A line for each score file and matrix."""
    rows = []
    for name, gates in zip(ticket_names([f.origin for f in files]), files, strict=True):
        facts = {"scores": name, "kind_of_scores": gates.origin.kind}
        facts |= {fact: getattr(gates.origin, fact) for fact in ("task", "seed", "epoch")}
        joined = matrices.join(gates.densities).reset_index()
        rows += [facts | row for row in joined.to_dict("records")]
    return render.csv_text(rows)


def markdown(
    files: Sequence[Gates], searches: Sequence[SearchDensities], notes: Sequence[str]
) -> str:
    parts = ["# Expected and drawn density", LEGEND, *notes]
    if not files:
        return render.paragraphs(parts)
    drawn = [f"drawn at {100 * s:g} %" for s in files[0].sparsities]
    header = ["scores", "expected", "soft gate"]
    for head in drawn:  # of several sparsities, the second head repeats
        header += [head, "rank correlation with expected, over matrices"]
    rows = []
    for name, gates in zip(ticket_names([f.origin for f in files]), files, strict=True):
        frame = searches[0].frame[["weights"]].join(gates.densities)
        means = SearchDensities(name, gates.sparsities, frame).mean()
        rows.append([name, decimals(means["expected"]), decimals(means["soft_gate"])])
        for column in map(drawn_column, gates.sparsities):
            correlation = gates.densities[["expected", column]].corr("spearman").iloc[0, 1]
            rows[-1] += [decimals(means[column]), decimals(correlation)]
    parts += ["## All weights", render.markdown_table(header, rows)]
    for search in searches:
        means = {"all": search.mean()}
        means |= {kind.replace("_", " "): mean for kind, mean in search.by("kind").items()}
        means |= {f"layer {layer:g}": mean for layer, mean in search.by("layer").items()}
        rows = [[name, *map(decimals, mean)] for name, mean in means.items()]
        header = ["weights", "expected", "soft gate", *drawn]
        parts += [f"## {search.title}", render.markdown_table(header, rows)]
    return render.paragraphs(parts)


def notes_on(tickets: Sequence[Ticket], given: int) -> list[str]:
    """Which tickets have no expected density, and why. The first `given` came without scores."""
    notes = []
    if given:
        notes.append(
            f"{given} of the tickets were given without scores. The score file (--scores) holds "
            "what their gates expect."
        )
    kinds = {ticket.origin.kind for ticket in tickets[given:]} - set(GATE_KINDS)
    if kinds:
        others = ", ".join(sorted(kinds))
        notes.append(f"No expected density: {others} (no hard-concrete gates).")
    return notes


def draw(searches: Sequence[SearchDensities], folder: Path) -> list[Path]:
    """Write density.png and density.pdf, a row for each search; their paths."""
    return save(lambda: _figure(searches), "density", folder)


def _figure(searches: Sequence[SearchDensities]) -> Figure:
    """Matrix by matrix on the left, by layer on the right."""
    figure = new_figure(0.85 + 1.6 * len(searches))
    panels = figure.subplots(len(searches), 2, squeeze=False)
    for search, (scatter, lines) in zip(searches, panels, strict=True):
        _by_matrix(scatter, search)
        _by_layer(lines, search)
        scatter.set_title(search.title, loc="left")
    panels[-1, 0].set_xlabel("expected density")
    panels[-1, 1].set_xlabel("layer")
    spacing = {"handlelength": 1.8, "columnspacing": 0.9, "handletextpad": 0.4, "frameon": False}
    for axes, place, columns in ((panels[0, 0], "upper", 4), (panels[0, 1], "lower", 3)):
        entries = axes.get_legend_handles_labels()
        legend = figure.legend(*entries, loc=f"outside {place} center", ncols=columns, **spacing)
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
            look = {"s": 9, "linewidths": 0, "marker": MARKERS[position], "alpha": 0.85}
            color = _color(at if len(search.sparsities) > 1 else position)
            label = None if at else kind.replace("_", " ")
            axes.scatter(rows["expected"], rows[column], color=color, label=label, **look)
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
    means = pd.DataFrame(search.by("layer")).T.sort_index()
    layers = list(means.index)
    for column, style, name in (("expected", "--", "expected"), ("soft_gate", ":", "soft gate")):
        axes.plot(layers, means[column], color="0.3", linestyle=style, label=name)
    for at, sparsity in enumerate(search.sparsities):
        look = {"color": _color(at), "marker": MARKERS[at % 7]}
        drawn = f"drawn at {100 * sparsity:g} %"
        axes.plot(layers, means[drawn_column(sparsity)], label=drawn, **look)
    axes.set_xticks(layers if len(layers) <= 6 else layers[::3])
    axes.set_ylabel("density")


def _color(position: int) -> str:
    return COLORS[position % 7]
