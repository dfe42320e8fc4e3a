"""What a sub-table shows, still as numbers: its Markdown and LaTeX render the same grids."""

from dataclasses import dataclass, field

from evaluation.by_class import Rate
from evaluation.records import AttackRecord
from experiments.paper import PAPER_DATASET
from reporting.cells import Cell, doubts_of, worst_class
from reporting.comparisons import TESTS, Control, Difference, difference
from reporting.paper_tables import Line, SubTable
from reporting.paper_values import orientation, why_not_run

HEADINGS = {
    "clean": "Clean %",
    "aua": "Aua %",
    "suc": "Suc %",
    "queries": "#Query",
    "dev": "Dev %",
    "open": "R(m) %",
}


@dataclass(frozen=True)
class Number:
    """`spec`: its format; a value of None is shown as a dash."""

    value: float | None
    spec: str = ".1f"


Value = str | Cell | Number | Difference | Rate


@dataclass(frozen=True)
class Comparison:
    """A note: differences of rows from the one that they are compared with."""

    start: str
    differences: list[tuple[str, Difference]]


@dataclass
class Grid:
    """`columns`: a heading and its sub-headings. `controls`: the rows of the second table."""

    heading: str
    remarks: list[str]
    columns: list[tuple[str, list[str]]]
    rows: list[list[Value]]
    comparisons: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    controls: list[list[Value]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def grids(subs: list[SubTable]) -> list[Grid]:
    """A grid per sub-table; the columns of a task that were not run share one."""
    shown = []
    for task in dict.fromkeys(sub.task for sub in subs):
        of_task = [sub for sub in subs if sub.task == task]
        shown += [_grid(sub) for sub in of_task if sub.recipe is not None]
        not_run = [sub for sub in of_task if sub.recipe is None]
        if not_run:
            shown.append(_grid_of_the_paper(not_run, others_run=len(not_run) < len(of_task)))
    return shown


def _grid(sub: SubTable) -> Grid:
    remarks = [_setting(sub.shared) if sub.shared else "No record of this attack."]
    if sub.of_the_paper:
        remarks.append(orientation(sub.task, sub.encoder))
    if sub.of_the_paper and sub.attack is None:
        remarks.append(
            f"{sub.recipe} is not one of the paper's attacks, so only Clean has a value of the "
            "paper."
        )
    parts = ["paper", "ours", "diff."] if sub.of_the_paper else [""]
    columns = [("Method", [""]), ("Sparsity", [""])]
    for metric in sub.metrics:
        columns.append((HEADINGS[metric], parts))
        columns += _class_columns(sub) if metric == "aua" else []
    return Grid(
        f"{_task(sub.task)}, {f'{sub.attack} ({sub.recipe})' if sub.attack else sub.recipe}",
        [remark for remark in remarks if remark],
        columns,
        [_row(sub, line) for line in sub.lines],
        _comparisons(sub),
        [*sub.notes, *_suspicious(sub), *carried_by_one_class(sub)],
        [_control(sub, line, control) for line in sub.lines for control in line.controls],
        sub.classes,
        sub.commands(),
    )


def _class_columns(sub: SubTable) -> list[tuple[str, list[str]]]:
    names = [*sub.classes, "worst class"] if sub.classes else []
    return [(f"Aua {name} %", [""]) for name in names]


def _row(sub: SubTable, line: Line) -> list[Value]:
    cells: list[Value] = [line.label + line.marks, f"{100 * line.sparsity:g} %"]
    for metric in sub.metrics:
        ours = line.ours(metric)
        if sub.of_the_paper:
            cells += [Number(line.paper.get(metric)), ours, Number(line.difference(metric), "+.1f")]
        else:
            cells.append(ours)
        if metric == "aua" and sub.classes:
            of_classes = line.by_class
            cells += [of_classes.get(name, Cell({})) for name in sub.classes]
            cells.append(worst_class(of_classes))
    return cells


def _comparisons(sub: SubTable) -> list[Comparison]:
    """Aua of each row against the first one's."""
    first, *others = sub.lines
    against = [(line.label, d) for line in others if (d := difference(line.records, first.records))]
    start = f"Aua compared with {first.label}, on the same rows ({TESTS})"
    return [Comparison(start, against)] if against else []


def _control(sub: SubTable, line: Line, control: Control) -> list[Value]:
    """A row of the second table of a grid."""
    start: list[Value] = [line.label, f"{control.name} ({control.wanted})"]
    if not control.records:
        return [*start, *[Number(None)] * 4, "**control missing**", *[""] * len(sub.classes)]
    gains = line.gain_over(control).points
    against = difference(line.records, control.records)
    return [
        *start,
        _epochs(control.records),
        Number(Cell.of(control.records, "mean_training_loss").mean, ".3f"),
        Cell.of(control.records, "clean_percent"),
        Cell.of(control.records, "aua_percent"),
        against or "other rows or seeds",
        *(gains.get(name, Number(None)) for name in sub.classes),
    ]


def _epochs(records: list[AttackRecord]) -> str:
    return ", ".join(map(str, sorted({r.epoch or r.epochs or 0 for r in records})))


def _suspicious(sub: SubTable) -> list[str]:
    """A note per row and control with flags."""
    models = [(line.label, line.records) for line in sub.lines]
    models += [
        (f"{line.label}'s control, {control.name}", control.records)
        for line in sub.lines
        for control in line.controls
    ]
    doubts = [(label, doubts_of(records)) for label, records in models]
    notes = [f"Suspicious: {label}: {'; '.join(texts)}." for label, texts in doubts if texts]
    return list(dict.fromkeys(notes))


def carried_by_one_class(sub: SubTable) -> list[str]:
    """A note per ticket whose gain over a control is that of one class."""
    notes = []
    for line in sub.lines:
        gains = [(control.name, line.gain_over(control).carried) for control in line.controls]
        whys = "; ".join(f"{name}: {why}" for name, why in gains if why)
        notes += [f"One class carries the gain of {line.label} over dense, {whys}."] if whys else []
    return notes


def _grid_of_the_paper(subs: list[SubTable], others_run: bool) -> Grid:
    """The paper's values of attacks that were not run, ours empty, with the reasons."""
    first = subs[0]
    columns = [("Method", [""]), ("Sparsity", [""]), (HEADINGS["clean"], ["paper"])]
    columns += [(f"{s.attack}, paper", [HEADINGS[m] for m in s.table.metrics]) for s in subs]
    rows: list[list[Value]] = []
    for i, line in enumerate(first.lines):
        values = [line.paper.get("clean")]
        values += [sub.lines[i].paper.get(m) for sub in subs for m in sub.table.metrics]
        rows.append([line.label, f"{100 * line.sparsity:g} %", *map(Number, values)])
    remarks = [orientation(first.task, first.encoder), *(why_not_run(s.attack or "") for s in subs)]
    return Grid(
        f"{_task(first.task)}, the paper's attacks",
        [remark for remark in remarks if remark],
        columns,
        rows,
        commands=[] if others_run else first.commands(),
    )


def _task(task: str) -> str:
    dataset = PAPER_DATASET.get(task)
    return f"{dataset} ({task})" if dataset and not task.startswith("builtin/") else task


def _setting(record: AttackRecord) -> str:
    """What all records of a sub-table have in common."""
    trained_on = f"{record.training_rows} training rows, " if record.training_rows else ""
    threshold = record.similarity_threshold
    similarity = f", similarity at least {threshold:g}" if threshold is not None else ""
    protocol = f"; evaluation protocol {record.protocol_id}" if record.protocol_id else ""
    return (
        f"{record.encoder}, {trained_on}{record.checkpoint_rule} checkpoint, deviations: "
        f"{record.deviations}, {record.max_seq_length} tokens; {record.rows_attacked} attacked "
        f"rows, candidates ranked by {record.score_with}{similarity}{protocol}."
    )
