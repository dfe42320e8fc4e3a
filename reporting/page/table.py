"""The table of a page: every model of every attack, with what to run where one is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from reporting import cells, render
from reporting.cells import Cell
from reporting.comparisons import Control, Difference, Result, difference
from reporting.page.blocks import Block, Missing, kind_of
from reporting.page.charts import Axis, Strip
from reporting.page.columns import COLUMNS, OF_PAPER, OF_SUITES, Column

PERCENT = Axis(0, 100, 20)
MOST_BARS = 400  # rows; the bars of more would make the page too large to send
MEASURES = {
    "clean": "clean_percent",
    "aua": "aua_percent",
    "equalized": cells.EQUALIZED,
    "suc": "suc_percent",
    "queries": "queries_per_row",
}
FILTERS = ("task", "attack", "sparsity", "kind", "checkpoint")


@dataclass(frozen=True)
class Delta:
    """A difference from a dense control; its `points` are None if the control was not run."""

    name: str
    points: float | None
    is_beyond_noise: bool
    strip: Strip


@dataclass(frozen=True)
class Row:
    """A row of the table.

    `facts`: filter -> value. `values`: column -> what it sorts by. `texts`: of plain columns.
    `command`: what runs the row, or what it lacks; empty if it is complete.
    """

    label: str
    below: str
    facts: dict[str, str]
    values: dict[str, float | str | None]
    texts: dict[str, str]
    command: str
    is_missing: bool = False
    strips: dict[str, Strip] = field(default_factory=dict)
    classes: dict[str, Strip] = field(default_factory=dict)
    deltas: list[Delta] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """`filters`: name -> its values, if there are several."""

    columns: list[Column]
    rows: list[Row]
    filters: dict[str, list[str]]
    notes: list[str]

    @property
    def with_bars(self) -> bool:
        """Whether the page has room for the bars."""
        return len(self.rows) - self.missing <= MOST_BARS

    @property
    def missing(self) -> int:
        return sum(row.is_missing for row in self.rows)


def make(blocks: Sequence[Block]) -> Table:
    gains = [_gains(result) for block in blocks for result in block.results]
    reach = max([10.0, *(1.5 * abs(d.points) for of_row in gains for _, d in of_row if d)])
    axis = Axis(-reach, reach, reach)  # zero in its middle
    rows = []
    for block in blocks:
        rows += [_row(block, result, axis) for result in block.results]
        rows += [_missing_row(block, missing) for missing in block.missing]
    with_paper = any(row.texts.get("paper") for row in rows)
    filters = {}
    for name in FILTERS:
        values = list(dict.fromkeys(row.facts[name] for row in rows if row.facts[name]))
        filters |= {name: values} if len(values) > 1 else {}
    notes = dict.fromkeys(f"{b.task}, {b.recipe}: {note}" for b in blocks for note in b.notes)
    with_suites = any(row.values.get("equalized") is not None for row in rows)
    columns = [*COLUMNS[:-1], *[OF_PAPER] * with_paper, COLUMNS[-1]]
    if with_suites:
        columns.insert(1 + [column.name for column in columns].index("classes"), OF_SUITES)
    return Table(columns, rows, filters, list(notes))


def _gains(result: Result) -> list[tuple[Control, Difference | None]]:
    return [
        (c, difference(result.records, c.records) if c.records else None) for c in result.controls
    ]


def _row(block: Block, result: Result, axis: Axis) -> Row:
    first, kind = result.first, kind_of(result)
    rule = str(first.checkpoint_rule)
    measured = {name: result.cell(measure) for name, measure in MEASURES.items()}
    deltas = [_delta(control, found, axis) for control, found in _gains(result)]
    values, texts = _common(block, result.label, first.sparsity)
    values |= {name: cell.mean for name, cell in measured.items()}
    values["classes"] = cells.worst_class(result.by_class).mean
    values["delta"] = next((d.points for d in deltas if d.points is not None), None)
    texts |= {name: render.number(measured[name].mean) for name in ("suc", "queries")}
    seeds = len(result.records)
    texts["size"] = f"{seeds} seed{'s' * (seeds > 1)}, {first.rows_attacked:,} rows"
    return Row(
        result.label,
        f"{kind}, {first.epochs or '?'} epochs, {rule} checkpoint",
        _facts(block, first.sparsity, kind, rule),
        values,
        texts,
        block.to_complete.get(result.label, ""),
        strips={name: _percent(measured[name]) for name in ("clean", "aua", "equalized")},
        classes={name: _percent(cell) for name, cell in result.by_class.items()},
        deltas=deltas,
        doubts=_doubts(result),
    )


def _missing_row(block: Block, missing: Missing) -> Row:
    facts = _facts(block, missing.sparsity, missing.kind, "")
    values, texts = _common(block, missing.label, missing.sparsity)
    return Row(missing.label, missing.kind, facts, values, texts, missing.command, is_missing=True)


def _facts(block: Block, sparsity: float, kind: str, rule: str) -> dict[str, str]:
    values = (block.task, block.recipe, f"{100 * sparsity:g} %", kind, rule)
    return dict(zip(FILTERS, values, strict=True))


def _common(
    block: Block, label: str, sparsity: float
) -> tuple[dict[str, float | str | None], dict[str, str]]:
    """Values and texts that rows with and without records have."""
    paper, ours_minus = block.paper.get(label, (None, None))
    text = "" if paper is None else render.number(paper)
    text += "" if ours_minus is None else f" ({render.number(ours_minus, '+.1f')})"
    values = {"model": label, "task": f"{block.task} {block.recipe}", "sparsity": sparsity}
    return values | {"paper": paper}, {"sparsity": f"{100 * sparsity:g} %", "paper": text}


def _percent(cell: Cell) -> Strip:
    return Strip.of(cell, PERCENT, render.cell(cell, count=False))


def _delta(control: Control, found: Difference | None, axis: Axis) -> Delta:
    if found is None:
        not_run = "not run" if control.is_reached else "loss not reached"
        text = "other rows or seeds" if control.records else not_run
        return Delta(control.name, None, False, Strip(text, None, None, None))
    text = render.short(found, bold=False)
    strip = Strip.of(Cell({0: found.points}, found.bounds), axis, text)
    return Delta(control.name, found.points, not found.is_noise, strip)


def _doubts(result: Result) -> list[str]:
    """Sentences: warnings of the records, missing controls, one class that has the gain."""
    doubts = [f"{text[0].upper()}{text[1:]}." for text in cells.doubts_of(result.records)]
    if result.missing_controls:
        doubts.append(
            f"Lacks a dense control of some seed ({', '.join(result.missing_controls)}), so longer "
            "or closer fitting may explain its numbers."
        )
    for control, why in list(result.carried.items())[:1]:
        over = ", ".join(result.carried)
        doubts.append(f"One class carries the gain over dense ({over}): with the {control}, {why}.")
    return doubts
