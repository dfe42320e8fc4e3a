"""What a sub-table shows: Markdown and LaTeX only write its cells over seeds differently."""

from dataclasses import dataclass, field

from evaluation.records import AttackRecord
from experiments.paper import PAPER_DATASET
from reporting import render
from reporting.cells import Cell, worst_class
from reporting.comparisons import Control, difference
from reporting.paper_tables import METRICS, Line, SubTable
from reporting.paper_values import orientation, why_not_run
from reporting.render import NONE, number


@dataclass
class Grid:
    """`columns`: a heading and its sub-headings. `controls`: the rows of the second table."""

    heading: str
    remarks: list[str]
    columns: list[tuple[str, list[str]]]
    rows: list[list[Cell | str]]
    notes: list[str] = field(default_factory=list)
    controls: list[dict[str, str]] = field(default_factory=list)
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
        columns.append((METRICS[metric][0], parts))
        if metric == "aua" and sub.classes:
            columns += [(f"Aua {name} %", [""]) for name in (*sub.classes, "worst class")]
    models = [(line.label, line.records) for line in sub.lines]
    controls = [(line, control) for line in sub.lines for control in line.controls]
    named = [(f"{line.label}'s control, {c.name}", c.records) for line, c in controls]
    doubts = dict.fromkeys(render.suspicious([*models, *named]))
    return Grid(
        f"{_task(sub.task)}, {f'{sub.attack} ({sub.recipe})' if sub.attack else sub.recipe}",
        [remark for remark in remarks if remark],
        columns,
        [_row(sub, line) for line in sub.lines],
        [*render.compared(sub.lines), *sub.notes, *doubts, *carried_by_one_class(sub)],
        [_control(sub, *control) for control in controls],
        sub.commands(),
    )


def _row(sub: SubTable, line: Line) -> list[Cell | str]:
    cells: list[Cell | str] = [line.label + line.marks, f"{100 * line.sparsity:g} %"]
    for metric in sub.metrics:
        ours, paper = line.ours(metric), line.paper.get(metric)
        if sub.of_the_paper:
            cells += [number(paper), ours, number(line.difference(metric), "+.1f")]
        else:
            cells.append(ours)
        if metric == "aua" and sub.classes:
            cells += [line.by_class.get(name, Cell({})) for name in sub.classes]
            cells.append(worst_class(line.by_class))
    return cells


def _control(sub: SubTable, line: Line, control: Control) -> dict[str, str]:
    """A row of the second table of a grid."""
    records, gains = control.records, line.gains[control.name]
    against = difference(line.records, records) if records else None
    otherwise = "other rows or seeds" if records else "**control missing**"
    return {
        "Ticket": line.label,
        "Dense control with the": f"{control.name} ({control.wanted})",
        "Epochs": ", ".join(map(str, sorted({r.epoch or r.epochs or 0 for r in records}))) or NONE,
        "Training loss": number(Cell.of(records, "mean_training_loss").mean, ".3f"),
        "Clean %": render.cell(Cell.of(records, "clean_percent")),
        "Aua %": render.cell(Cell.of(records, "aua_percent")),
        "Δ Aua, ticket vs. control": render.long(against) if against else otherwise,
    } | {f"Δ Aua {n}": render.rate(gains.get(n)) if records else "" for n in sub.classes}


def carried_by_one_class(sub: SubTable) -> list[str]:
    """A note per ticket whose gain over a control is that of one class."""
    notes = []
    for line in sub.lines:
        whys = "; ".join(f"{name}: {why}" for name, why in line.carried.items())
        notes += [f"One class carries the gain of {line.label} over dense, {whys}."] if whys else []
    return notes


def _grid_of_the_paper(subs: list[SubTable], others_run: bool) -> Grid:
    """The paper's values of attacks that were not run, ours empty, with the reasons."""
    first = subs[0]
    columns = [("Method", [""]), ("Sparsity", [""]), (METRICS["clean"][0], ["paper"])]
    columns += [(f"{s.attack}, paper", [METRICS[m][0] for m in s.table.metrics]) for s in subs]
    rows: list[list[Cell | str]] = []
    for i, line in enumerate(first.lines):
        values = [line.paper.get("clean")]
        values += [sub.lines[i].paper.get(m) for sub in subs for m in sub.table.metrics]
        rows.append([line.label, f"{100 * line.sparsity:g} %", *map(number, values)])
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
