"""Agreement of tickets as tables: every pair and matrix as CSV, pairs and their means to read."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from masking import overlap
from reporting import render
from reporting.render import NONE, decimals
from reporting.ticket_files import Ticket
from reporting.ticket_names import Origin, differ_in, relation, ticket_names
from utils.cli import UserError

RELATIONS = [f"{fact} only" for fact in ("seed", "epoch", "task", "kind", "settings")]
RELATIONS += ["several", "nothing"]
LEGEND = (
    "Jaccard: the Jaccard index of removed weights, i.e. the weights that both tickets remove, "
    "divided by those that at least one removes. Expected by chance: its value for two random "
    "tickets of the same sparsity. Expected by chance, by matrix: its value for two random tickets "
    "with the same density in each matrix as these two. Above chance: (Jaccard - expected) / "
    "(1 - expected), which is 0 for random tickets and 1 for equal ones. If two tickets are above "
    "chance but not above chance by matrix, they agree on how many weights each matrix keeps, but "
    "not on which. Kept: the Jaccard index of kept weights. Searches with the same seed draw the "
    "same noise for their gates, and this alone makes their tickets agree. To see what tasks or "
    "kinds share, use pairs that also differ in the seed."
)
MEASURES = {
    "Jaccard": "removed_jaccard",
    "expected by chance": "removed_chance",
    "expected by chance, by matrix": "removed_chance_by_matrix",
    "above chance": "removed_beyond_chance",
    "above chance, by matrix": "removed_beyond_chance_by_matrix",
    "kept": "kept_jaccard",
}
ALL = "all"  # in the columns matrix and kind: all weights


@dataclass(frozen=True)
class Section:
    """Tickets of one sparsity and all pairs of them.

    `pairs`: a row for each pair and matrix, and for each pair and all weights. Its columns are
    those of `_section` and the measures of masking/overlap.py.
    """

    sparsity: float
    origins: Sequence[Origin]
    names: Sequence[str]
    pairs: pd.DataFrame

    @property
    def whole(self) -> pd.DataFrame:
        """The pairs over all weights, one row each."""
        return self.pairs[self.pairs["matrix"] == ALL]


def compare(
    tickets: Sequence[Ticket], matrices: pd.DataFrame, may_be_alone: bool
) -> tuple[list[Section], list[str]]:
    """A section for each sparsity with two tickets, and a note for each other sparsity.

    `may_be_alone`: raise no UserError if there is no section at all.
    """
    sections, notes = [], []
    for sparsity in sorted({ticket.sparsity for ticket in tickets}):
        members = [ticket for ticket in tickets if ticket.sparsity == sparsity]
        if len(members) == 1:
            notes.append(f"Skipped: the only ticket at sparsity {100 * sparsity:g} %.")
        else:
            sections.append(_section(sparsity, members, matrices))
    if not sections and not may_be_alone:
        raise UserError(
            "nothing to compare: no two tickets have the same sparsity; give two or more --tickets "
            "or --scores, or --search_epochs"
        )
    return sections, notes


def _section(sparsity: float, members: list[Ticket], matrices: pd.DataFrame) -> Section:
    origins = [ticket.origin for ticket in members]
    names = ticket_names(origins)
    facts = matrices.reset_index().to_dict("records")
    total = {"matrix": ALL, "kind": ALL, "layer": None, "weights": int(matrices["weights"].sum())}
    rows = []
    for second, b in enumerate(members):
        for first, a in enumerate(members[:second]):
            over_all, by_matrix = overlap.measures(overlap.overlaps(a.bits, b.bits))
            differing = differ_in(a.origin, b.origin)
            pair = {
                "sparsity": float(sparsity),
                "first": names[first],
                "second": names[second],
                "differ_in": " + ".join(differing),
                "relation": relation(differing),
                "kinds": f"{a.origin.kind} and {b.origin.kind}",
            }
            rows.append(pair | total | over_all)
            rows += [pair | matrix | by_matrix[matrix["matrix"]] for matrix in facts]
    return Section(sparsity, origins, names, pd.DataFrame(rows))


def by_relation(pairs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The pairs of each relation that occurs, in the order of RELATIONS."""
    groups = {name: pairs[pairs["relation"] == name] for name in RELATIONS}
    return {name: group for name, group in groups.items() if len(group)}


def csv_text(sections: Sequence[Section]) -> str:
    """A line for every pair over all weights, then one for each matrix."""
    pairs = pd.concat([section.pairs for section in sections]).drop(columns="kinds")
    return render.csv_text(pairs.to_dict("records"))


def markdown(sections: Sequence[Section], notes: Sequence[str]) -> str:
    parts = ["# Agreement of tickets", LEGEND, *notes]
    header = ["ticket", "kind", "task", "seed", "epoch", "encoder", "SHA-256 of the file"]
    for section in sections:
        described = []
        for name, o in zip(section.names, section.origins, strict=True):
            facts = [NONE if x is None else str(x) for x in (o.kind, o.task, o.seed, o.epoch)]
            described.append([name, *facts, o.encoder, o.sha256[:12]])
        pairs = [
            {"first ticket": pair["first"], "second ticket": pair["second"]}
            | {"differ in": pair["differ_in"] or "nothing"}
            | {column: decimals(pair[measure]) for column, measure in MEASURES.items()}
            for pair in section.whole.to_dict("records")
        ]
        parts += [
            f"## Sparsity {100 * section.sparsity:g} %",
            render.markdown_table(header, described, left=7),
            "### Means over pairs, by what differs",
            _means(section),
            "### Pairs",
            render.table_of(pairs, left=3),
        ]
    return render.paragraphs(parts)


def _means(section: Section) -> str:
    """A row per relation with the range of the Jaccard index; one more for every two kinds."""
    groups = {}
    for name, group in by_relation(section.whole).items():
        groups[name] = group
        if name == "kind only":
            groups |= {f"{name}: {kinds}": g for kinds, g in group.groupby("kinds", sort=False)}
    rows = []
    for name, group in groups.items():
        values = group["removed_jaccard"]
        cells = {column: decimals(group[measure].mean()) for column, measure in MEASURES.items()}
        spread = f"{decimals(values.min())} to {decimals(values.max())}"
        start = {"Jaccard": cells.pop("Jaccard"), "range": spread}
        rows.append({"differ in": name, "pairs": str(len(group)), **start, **cells})
    return render.table_of(rows)


def grid(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean of a measure over rows with the same matrix: kinds as rows, layers as columns.

    The pooler, which is in no layer, comes after the last layer and is shown there.
    """
    last = rows["layer"].max()
    layers = rows["layer"].fillna(1 if pd.isna(last) else last).astype(int)
    means = rows.groupby([rows["kind"], layers])[measure].mean().unstack()
    return means.reindex(rows["kind"].unique())
