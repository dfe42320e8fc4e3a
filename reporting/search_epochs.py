"""The study's searches by epoch, as a figure, a table and numbers.

They show what a search reaches before any ticket is retrained: R(m), and the accuracy on dev of
the ticket that is drawn after the epoch.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from experiments.models import Model
from experiments.paper import OWN_LAMBDA
from experiments.scales import Scale
from experiments.study import STUDIES, STUDY
from masking.kinds import GATE_KINDS
from reporting import figures, render, search_log
from reporting.cells import Cell, largest_group
from reporting.figure_data import Panel, Point, Shown, csv_text
from reporting.render import NONE, write_text
from reporting.search_log import Search
from reporting.searches import PENALTY, Runs
from training.deviations import SEARCH

NAME = f"{STUDY.name}-searches"
QUANTITIES = {PENALTY: "open_gates_percent", "dev accuracy": "dev_accuracy_ticket_percent"}
# The settings in which the rows of the study's tables may differ.
SWITCHES = {"deviations", *SEARCH["paper"]}


def write(runs: Runs, scale: Scale, tasks: Iterable[str], folder: Path) -> list[Path]:
    """Add the runs' searches to the folder's log, and show all of these tasks; the paths written.

    The log is NAME.jsonl; NAME.png, .pdf, .csv and .md show its searches with the scale's encoder.
    """
    tasks = list(tasks)
    searches = search_log.update(folder / f"{NAME}.jsonl", runs, scale.encoder, tasks)
    shown, tables = Shown(), []
    for task in tasks:
        of_task = [s for s in searches if s.encoder == scale.encoder and s.task == task]
        curves, notes = _by_row(of_task, task)
        panels = [
            Panel(task, None, quantity, {label: _points(c, name) for label, c in curves.items()})
            for quantity, name in QUANTITIES.items()
        ]
        shown += Shown(panels if curves else [], remarks=[f"{task}: {note}" for note in notes])
        tables += _table(panels) if curves else []
    if shown.empty:
        return []
    return [
        *figures.draw(NAME, shown, folder),
        write_text(folder / f"{NAME}.csv", csv_text(NAME, "search_epoch", shown)),
        write_text(folder / f"{NAME}.md", _markdown(tables, shown.remarks, scale.encoder)),
    ]


def _by_row(searches: list[Search], task: str) -> tuple[dict[str, list[Search]], list[str]]:
    """The searches of each row of the study's tables, by the row's short name, and notes.

    All rows agree in the settings that are not switches. A note reports each search that does not.
    """
    by_row, notes = {}, []
    rows = {row.model: row.label for table in STUDIES.values() for row in table.rows}
    for kind in GATE_KINDS:
        items = [
            {name: json.dumps(v) for name, v in (s.search | s.data).items()} | {"of": s}
            for s in searches
            if s.kind == kind and s.search.get("lambda_amp", 0.5) == OWN_LAMBDA.get(task, 0.5)
        ]
        keys = sorted({key for item in items for key in item} - {"of"} - SWITCHES)
        alike, skipped = largest_group(items, keys, "", "search run")
        notes += skipped
        for model, name in rows.items():
            if model != Model(kind=kind, sparsity=0.3, search=model.search):
                continue  # one of a search's tickets represents it
            of_row = [item["of"] for item in alike if _is_of(item["of"], model)]
            if of_row and _points(of_row, "epoch"):
                by_row[name.partition(" (")[0].removesuffix(" 30 %")] = of_row
    return by_row, notes


def _is_of(search: Search, model: Model) -> bool:
    return model.is_searched_as(search.search, search.search["epochs"])


def _points(searches: list[Search], quantity: str) -> list[Point]:
    """By epoch, as shares, over the seeds; the epochs that all of them have."""
    by_seed = {
        s.seed: {e.epoch: getattr(e, quantity) / 100 for e in s.epochs}
        for s in sorted(searches, key=lambda s: s.seed)
    }
    common = sorted(set.intersection(*map(set, by_seed.values())))
    return [
        Point(epoch, Cell({seed: of[epoch] for seed, of in by_seed.items()})) for epoch in common
    ]


def _table(panels: list[Panel]) -> list[str]:
    epochs = sorted({point.x for panel in panels for point in panel.points})
    rows = []
    for name in panels[0].curves:
        for panel in panels:
            cells = {point.x: _percent(point.cell) for point in panel.curves[name]}
            rows.append([name, f"{panel.quantity} %", *(cells.get(e, NONE) for e in epochs)])
    header = ["search", "", *(f"epoch {epoch}" for epoch in epochs)]
    return [f"## {panels[0].task}", render.markdown_table(header, rows, left=2)]


def _percent(cell: Cell) -> str:
    return render.cell(Cell({seed: 100 * value for seed, value in cell.values.items()}))


def _markdown(tables: list[str], remarks: list[str], encoder: str) -> str:
    parts = [
        "# The study: its searches by epoch",
        f"![R(m) and dev accuracy]({NAME}.png)",
        *tables,
        "\n".join(f"- {remark}" for remark in remarks),
        f"Encoder: {encoder}. R(m): expected share of open gates. Dev accuracy: accuracy on the "
        "dev rows of the ticket that is drawn after the epoch, before retraining. Both in percent, "
        "mean ± standard deviation (n - 1) over seeds. Thin lines: single seeds.",
    ]
    return render.paragraphs(parts)
