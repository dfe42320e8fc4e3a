"""Agreement of tickets as tables: every pair and matrix as CSV, pairs and their means to read."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from reporting.csv_cells import number, text_cell
from reporting.ticket_names import Item, relation

RELATIONS = (
    "seed only",
    "epoch only",
    "task only",
    "kind only",
    "settings only",
    "several",
    "nothing",
)
LEGEND = (
    "Jaccard: weights that both tickets remove, of those that either removes. Chance: two random "
    "tickets of the same sparsity. Chance by matrix: two random tickets that keep as many weights "
    "of each matrix as these do. Beyond: (Jaccard - chance) / (1 - chance), 0 as by chance, 1 for "
    "the same ticket; beyond chance but not beyond chance by matrix, tickets agree on how many "
    "weights each matrix keeps and not on which. Kept: the Jaccard index of the kept weights. "
    "Searches of one seed draw the same noise for their gates, which alone makes tickets agree: "
    "what tasks or kinds share shows in pairs that differ in the seed as well."
)
COLUMNS = (
    ("Jaccard", "removed_jaccard"),
    ("chance", "removed_chance"),
    ("chance by matrix", "removed_chance_by_matrix"),
    ("beyond chance", "removed_beyond_chance"),
    ("beyond chance by matrix", "removed_beyond_chance_by_matrix"),
    ("kept", "kept_jaccard"),
)


@dataclass(frozen=True)
class Matrix:
    """A prunable matrix; `layer` from 1, None for the pooler; `weights`: how many it has."""

    name: str
    kind: str
    layer: int | None
    weights: int


@dataclass(frozen=True)
class Pair:
    """Two items of a section, by position; measures (masking/overlap.py) of all and by matrix."""

    first: int
    second: int
    differ_in: tuple[str, ...]
    over_all: dict[str, float]
    by_matrix: dict[str, dict[str, float]]

    @property
    def relation(self) -> str:
        return relation(self.differ_in)


@dataclass(frozen=True)
class Section:
    """Tickets of one sparsity, and all pairs of them."""

    sparsity: float
    items: Sequence[Item]
    labels: Sequence[str]
    pairs: Sequence[Pair]

    def by_relation(self) -> dict[str, list[Pair]]:
        found = {name: [p for p in self.pairs if p.relation == name] for name in RELATIONS}
        return {name: pairs for name, pairs in found.items() if pairs}

    def by_kinds(self) -> dict[str, list[Pair]]:
        """As by_relation, and pairs that differ in kind only once more for every two kinds."""
        found: dict[str, list[Pair]] = {}
        for name, pairs in self.by_relation().items():
            found[name] = pairs
            for pair in pairs if name == "kind only" else ():
                kinds = " and ".join(self.items[i].kind for i in (pair.first, pair.second))
                found.setdefault(f"{name}: {kinds}", []).append(pair)
        return found


def mean(values: Sequence[float]) -> float:
    """Of those that are numbers; NaN where none is."""
    known = [v for v in values if not math.isnan(v)]
    return fmean(known) if known else math.nan


def csv_text(sections: Sequence[Section], matrices: Sequence[Matrix]) -> str:
    """Long form: for every pair a line over all weights, then a line for each matrix."""
    text = io.StringIO()
    writer = csv.writer(text)
    measures = list(sections[0].pairs[0].over_all)
    writer.writerow(
        [
            "sparsity",
            "first",
            "second",
            "differ_in",
            "relation",
            "matrix",
            "kind",
            "layer",
            "weights",
            *measures,
        ]
    )
    everything = Matrix("all", "all", None, sum(m.weights for m in matrices))
    for section in sections:
        for pair in section.pairs:
            start = [
                number(section.sparsity),
                text_cell(section.labels[pair.first]),
                text_cell(section.labels[pair.second]),
                " + ".join(pair.differ_in),
                pair.relation,
            ]
            for matrix in (everything, *matrices):
                found = pair.over_all if matrix is everything else pair.by_matrix[matrix.name]
                writer.writerow(
                    [
                        *start,
                        text_cell(matrix.name),
                        matrix.kind,
                        matrix.layer,
                        matrix.weights,
                        *(_cell(found[m]) for m in measures),
                    ]
                )
    return text.getvalue()


def _cell(value: float) -> str:
    return number(None if math.isnan(value) else value)


def markdown(sections: Sequence[Section], notes: Sequence[str]) -> str:
    lines = ["# Agreement of tickets", "", LEGEND, ""]
    lines += [line for note in notes for line in (note, "")]
    for section in sections:
        lines += [f"## Sparsity {100 * section.sparsity:g} %", ""]
        lines += [
            *table(
                ["ticket", "kind", "task", "seed", "epoch", "encoder", "file's SHA-256"],
                map(_described, section.labels, section.items),
                7,
            ),
            "",
        ]
        lines += ["### Means over pairs, by what differs", ""]
        lines += [*_means(section), ""]
        lines += ["### Pairs", ""]
        heads = ["ticket", "and", "differ in", *(head for head, _ in COLUMNS)]
        rows = [
            [
                section.labels[p.first],
                section.labels[p.second],
                " + ".join(p.differ_in) or "nothing",
                *(decimals(p.over_all[m]) for _, m in COLUMNS),
            ]
            for p in section.pairs
        ]
        lines += [*table(heads, rows, 3), ""]
    return "\n".join(lines)


def _described(label: str, item: Item) -> list[str]:
    facts = (item.kind, item.task, item.seed, item.epoch, item.encoder, item.sha256[:12])
    return [label, *("—" if fact is None else str(fact) for fact in facts)]


def _means(section: Section) -> list[str]:
    """A row per relation; the spread of the Jaccard index beside its mean."""
    rows = []
    for name, pairs in section.by_kinds().items():
        values = {m: [p.over_all[m] for p in pairs] for _, m in COLUMNS}
        jaccards = values["removed_jaccard"]
        spread = f"{decimals(min(jaccards))} to {decimals(max(jaccards))}"
        means = [decimals(mean(v)) for v in values.values()]
        rows.append([name, str(len(pairs)), means[0], spread, *means[1:]])
    heads = ["differ in", "pairs", "Jaccard", "from, to", *(head for head, _ in COLUMNS[1:])]
    return table(heads, rows, 1)


def decimals(value: float) -> str:
    """Three of them; a value that rounds to zero has no sign."""
    text = f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")
    return "—" if math.isnan(value) else text


def table(heads: Sequence[str], rows, texts: int) -> list[str]:
    """Markdown lines; the first `texts` columns to the left, numbers to the right."""
    rule = ["---"] * texts + ["---:"] * (len(heads) - texts)
    cells = [heads, rule, *rows]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in cells]


def grid(
    matrices: Sequence[Matrix], value: Callable[[str], float]
) -> tuple[list[str], list[list[float]]]:
    """Kinds, and value(matrix name) as rows of kinds and columns of layers.

    The pooler, which is in no layer, stands in the last column, behind which it comes.
    """
    kinds = list(dict.fromkeys(m.kind for m in matrices))
    layers = max((m.layer for m in matrices if m.layer), default=1)
    rows = [[math.nan] * layers for _ in kinds]
    for m in matrices:
        rows[kinds.index(m.kind)][(m.layer or layers) - 1] = value(m.name)
    return kinds, rows
