"""A table of the paper as grids of text, as Markdown and as CSV."""

import csv
import io
from dataclasses import dataclass, field

from evaluation.records import Cell, doubts_of, number, text_cell
from experiments.paper import DENSE, PAPER_DATASET, Table
from reporting.comparisons import difference, missing_controls
from reporting.paper_tables import Line, SubTable, orientation, why_not_run

HEADINGS = {
    "clean": "Clean %",
    "aua": "Aua %",
    "suc": "Suc %",
    "queries": "#Query",
    "dev": "Dev %",
    "open": "R(m) %",
}
NONE = "—"
OURS = (
    "Ours: mean ± standard deviation (n - 1) over n seeds; in brackets 95 % intervals, Wilson's "
    "over rows for one seed, for several those of new rows and new seeds (two-way random effects)."
)
LEGEND = (
    "Diff.: ours less the paper's. Clean: right before the attack; Aua: right after it; both of "
    "all attacked rows. Suc = 100 (1 - Aua / Clean). #Query: victim queries per row that was right "
    "before the attack. A row that has not been run is empty. †: a matched dense control of this "
    "ticket is missing for some seed, so what its numbers owe to longer or closer fitting is open. "
    "‡: suspicious, see the notes."
)
OF_SEARCHES = (  # where a table has these columns
    " Dev: accuracy of the trained model on the dev rows. R(m): expected share of open gates in "
    "the scores that the ticket is drawn from."
)
CSV_HEADER = (
    "table",
    "task",
    "dataset_in_paper",
    "method",
    "sparsity",
    "attack_in_paper",
    "recipe",
    "metric",
    "paper",
    "ours_mean",
    "ours_deviation",
    "ours_low_95",
    "ours_high_95",
    "n",
    "values_by_seed",
    "difference",
    "attack_ids",
    "rows_attacked",
    "encoder",
    "command_if_missing",
    "controls_missing",
    "suspicious",
)


@dataclass
class Grid:
    """A sub-table as text. `columns`: (heading, sub-headings), their cells in each of `rows`."""

    heading: str
    remarks: list[str]
    columns: list[tuple[str, list[str]]]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    controls: list[list[str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def grids(subs: list[SubTable]) -> list[Grid]:
    """A grid for each sub-table; of a task's columns for which nothing was run one in all."""
    found = []
    for task in dict.fromkeys(sub.task for sub in subs):
        of_task = [sub for sub in subs if sub.task == task]
        found += [_grid(sub) for sub in of_task if sub.recipe is not None]
        not_run = [sub for sub in of_task if sub.recipe is None]
        if not_run:
            found.append(_grid_of_the_paper(not_run, bool(len(of_task) - len(not_run))))
    return found


def _grid(sub: SubTable) -> Grid:
    name = f"{sub.attack} ({sub.recipe})" if sub.attack else sub.recipe
    remarks = [_setting(sub)] if sub.shared else ["No record of this attack."]
    remarks += [orientation(sub.task, sub.encoder)] * sub.of_the_paper
    if sub.attack is None and sub.of_the_paper:
        remarks.append(
            f"{sub.recipe} is none of the paper's attacks, so no value of the paper's stands "
            "beside ours but Clean."
        )
    columns = [("Method", [""]), ("Sparsity", [""])]
    beside = ["paper", "ours", "diff."] if sub.of_the_paper else [""]
    columns += [(HEADINGS[metric], beside) for metric in sub.metrics]
    rows = []
    for line in sub.lines:
        cells = [line.label + marks(line), f"{100 * line.sparsity:g} %"]
        for metric in sub.metrics:
            difference = line.difference(metric)
            told = [
                _value(line.paper.get(metric)),
                _ours(line, metric),
                NONE if difference is None else _signed(difference),
            ]
            cells += told if sub.of_the_paper else told[1:2]
        rows.append(cells)
    heading = f"{_task(sub.task)}, {name}"
    notes = [*sub.comparisons(), *sub.notes, *_flags(sub)]
    return Grid(
        heading, list(filter(None, remarks)), columns, rows, notes, _controls(sub), sub.commands()
    )


def marks(line: Line) -> str:
    """Behind a row's label. †: a control is missing, ‡: suspicious."""
    missing = missing_controls(line.controls, line.records) if line.controls else []
    return " †" * bool(missing) + " ‡" * bool(doubts_of(line.records))


def _controls(sub: SubTable) -> list[list[str]]:
    """The second table of a grid: the dense models beside which each ticket is to be read."""
    rows = []
    for line in sub.lines:
        for control in line.controls:
            cells = [line.label, f"{control.name} ({control.wanted})"]
            if not control.records:
                rows.append([*cells, *[NONE] * 4, "**control missing**"])
                continue
            dense = Line(control.name, DENSE, control.records, {})
            told = difference(line.records, control.records)
            rows.append(
                [
                    *cells,
                    _epochs(control.records),
                    _loss(control.records),
                    _ours(dense, "clean"),
                    _ours(dense, "aua"),
                    str(told) if told else "other rows or seeds",
                ]
            )
    return rows


def _epochs(records: list[dict]) -> str:
    return ", ".join(sorted({str(r.get("epoch") or r["epochs"]) for r in records}, key=int))


def _loss(records: list[dict]) -> str:
    mean = Cell.of(records, "mean_training_loss").mean
    return NONE if mean is None else f"{mean:.3f}"


def _flags(sub: SubTable) -> list[str]:
    """What is suspicious about the results of a sub-table, a note per row."""
    lines = [(line.label, line.records) for line in sub.lines]
    lines += [
        (f"{line.label}'s control, {control.name}", control.records)
        for line in sub.lines
        for control in line.controls
    ]
    notes = []
    for label, records in lines:
        doubts = doubts_of(records)
        if doubts:
            notes.append(f"Suspicious: {label}: {'; '.join(doubts)}.")
    return list(dict.fromkeys(notes))


def _ours(line, metric: str) -> str:
    cell, interval = str(line.ours(metric)), line.interval(metric)
    if interval is None:
        return cell
    return cell.replace(" (n=", f" [{interval[0]:.1f}, {interval[1]:.1f}] (n=")


def _grid_of_the_paper(subs: list[SubTable], others_run: bool) -> Grid:
    """The paper's values of attacks that were not run, ours empty, with the reasons."""
    first = subs[0]
    columns = [("Method", [""]), ("Sparsity", [""]), (HEADINGS["clean"], ["paper"])]
    columns += [
        (f"{sub.attack}: paper / ours", [HEADINGS[m] for m in sub.table.metrics]) for sub in subs
    ]
    rows = []
    for i, line in enumerate(first.lines):
        cells = [line.label, f"{100 * line.sparsity:g} %", _value(line.paper.get("clean"))]
        for sub in subs:
            values = sub.lines[i].paper
            cells += [f"{_value(values.get(m))} / {NONE}" for m in sub.table.metrics]
        rows.append(cells)
    heading = f"{_task(first.task)}, the paper's attacks"
    remarks = [orientation(first.task, first.encoder), *(why_not_run(s.attack) for s in subs)]
    commands = [] if others_run else first.commands()
    return Grid(heading, list(filter(None, remarks)), columns, rows, commands=commands)


def _task(task: str) -> str:
    dataset = PAPER_DATASET.get(task)
    return f"{dataset} ({task})" if dataset and not task.startswith("builtin/") else task


def _value(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _setting(sub: SubTable) -> str:
    s = sub.shared
    trained_on = f"{s['training_rows']} training rows, " if s.get("training_rows") else ""
    threshold = s.get("similarity_threshold")
    similarity = f", similarity at least {threshold:g}" if threshold is not None else ""
    return (
        f"{s['encoder']}, {trained_on}{s['checkpoint_rule']} checkpoint, protocol "
        f"{s['protocol']}, {s['max_seq_length']} tokens; {s['rows_attacked']} rows attacked, "
        f"candidates ranked by {s['score_with']}{similarity}"
        + (f"; attack protocol {s['protocol_id']}." if s.get("protocol_id") else ".")
    )


def markdown(table: Table, subs: list[SubTable], remark: str = "") -> str:
    lines = [f"# {table.title}", "", *([remark, ""] if remark else [])]
    for grid in grids(subs):
        lines += [f"## {grid.heading}", ""]
        lines += [line for text in grid.remarks for line in (text, "")]
        lines += [*_markdown_table(grid), ""]
        lines += [line for note in grid.notes for line in (note, "")]
        lines += _markdown_controls(grid)
        if grid.commands:
            lines += [
                "To fill what is empty or has fewer seeds:",
                "",
                "```sh",
                *grid.commands,
                "```",
                "",
            ]
    further = OF_SEARCHES if "open" in table.metrics else ""
    return "\n".join([*lines, f"{OURS} {LEGEND}{further}", ""])


CONTROLS_HEADER = (
    "Ticket",
    "Dense control with the",
    "Epochs",
    "Training loss",
    "Clean %",
    "Aua %",
    "Ticket less control (Aua)",
)


def _markdown_controls(grid: Grid) -> list[str]:
    if not grid.controls:
        return []
    rows = [CONTROLS_HEADER, ["---", "---", *["---:"] * 4, "---"], *grid.controls]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [
        "Matched dense controls, same training settings, checkpoint rule, attack and rows:",
        "",
        *table,
        "",
    ]


def _markdown_table(grid: Grid) -> list[str]:
    heads = [f"{head} {part}".strip() for head, parts in grid.columns for part in parts]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)], *grid.rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def csv_text(subs: list[SubTable]) -> str:
    """Long form: a line per row, attack and metric, with the attacks that it was made from."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_HEADER)
    for sub in subs:
        for line in sub.lines:
            for metric in sub.metrics:
                writer.writerow(_csv_line(sub, line, metric))
    return text.getvalue()


def _csv_line(sub: SubTable, line, metric: str) -> list[str]:
    ours = line.ours(metric)
    ids = ";".join(str(r["attack_id"]) for r in line.records if r["seed"] in ours.values)
    can_be_filled = not line.records and sub.recipe is not None
    fill = sub.command(sub.seeds, [line.label]) if can_be_filled else ""
    texts = (
        sub.table.name,
        sub.task,
        PAPER_DATASET.get(sub.task),
        line.label,
        number(line.sparsity),
        sub.attack,
        sub.recipe,
        metric,
    )
    low, high = line.interval(metric) or (None, None)
    numbers = (line.paper.get(metric), ours.mean, ours.deviation, low, high, ours.n)
    return [
        *map(text_cell, texts),
        *map(number, numbers),
        text_cell(ours.by_seed),
        number(line.difference(metric)),
        text_cell(ids),
        number(line.records[0]["rows_attacked"] if line.records else None),
        text_cell(sub.encoder if line.records else None),
        text_cell(fill),
        text_cell("; ".join(missing_controls(line.controls, line.records))),
        text_cell("; ".join(doubts_of(line.records))),
    ]
