"""Expected and drawn density of each matrix: what the gates promise, and what tickets keep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from masking.kinds import GATE_KINDS
from reporting import render
from reporting.render import decimals
from reporting.ticket_files import Gates, Ticket, drawn_column
from reporting.ticket_names import Origin, ticket_names

LEGEND = (
    "Expected: mean probability that a gate is not zero (Eq. 4). Soft gate: mean of the gate at "
    "test time (Eq. 5). Drawn: share of weights that the ticket keeps. Over all weights this is "
    "1 - sparsity, whatever the gates expect; one global ranking of the scores decides how it is "
    "spread over the matrices. In the figure, the solid line is drawn = expected (if it crosses a "
    "panel). On a dashed line, expected - drawn is the same for every matrix and for all weights."
)


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
    groups: dict[Origin, list[Gates]] = {}
    for gates in files:
        key = replace(gates.origin, seed=None, sha256="")
        groups.setdefault(key, []).append(gates)
    last: dict[Origin, Origin] = {}
    for key in groups:
        search = replace(key, epoch=None)
        if search not in last or (key.epoch or 0) > (last[search].epoch or 0):
            last[search] = key
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
        facts = {
            "scores": name,
            "kind_of_scores": gates.origin.kind,
            "task": gates.origin.task,
            "seed": gates.origin.seed,
            "epoch": gates.origin.epoch,
        }
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
    names = ticket_names([gates.origin for gates in files])
    weights = searches[0].frame[["weights"]]
    rows = [_summary(name, gates, weights) for name, gates in zip(names, files, strict=True)]
    header = ["scores", "expected", "soft gate"]
    for head in drawn:  # of several sparsities, the second head repeats
        header += [head, "rank correlation with expected, over matrices"]
    parts += ["## All weights", render.markdown_table(header, rows)]
    for search in searches:
        means = {"all": search.mean()}
        means |= {kind.replace("_", " "): mean for kind, mean in search.by("kind").items()}
        means |= {f"layer {layer:g}": mean for layer, mean in search.by("layer").items()}
        rows = [[name, *map(decimals, mean)] for name, mean in means.items()]
        header = ["weights", "expected", "soft gate", *drawn]
        parts += [f"## {search.title}", render.markdown_table(header, rows)]
    return render.paragraphs(parts)


def _summary(name: str, gates: Gates, weights: pd.DataFrame) -> list[str]:
    means = SearchDensities(name, gates.sparsities, weights.join(gates.densities)).mean()
    cells = [name, decimals(means["expected"]), decimals(means["soft_gate"])]
    for column in map(drawn_column, gates.sparsities):
        correlation = gates.densities[["expected", column]].corr("spearman").iloc[0, 1]
        cells += [decimals(means[column]), decimals(correlation)]
    return cells


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
