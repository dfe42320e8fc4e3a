"""A table of the paper or of the study as CSV: a line per row, attack and metric."""

from experiments.paper import PAPER_DATASET
from reporting import csv_cells
from reporting.cells import Cell, doubts_of, worst_class
from reporting.comparisons import missing_controls
from reporting.paper_tables import Line, SubTable

HEADER = (
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
    "one_class_carries_gain_over",
    "suspicious",
)


def csv_text(subs: list[SubTable]) -> str:
    """Aua of a class is the metric aua:NAME, that of the worst class aua:worst class."""
    lines = []
    for sub in subs:
        for line in sub.lines:
            for metric in sub.metrics:
                lines.append(_line(sub, line, metric, line.ours(metric)))
                of_classes = line.by_class if metric == "aua" else {}
                worst = {"worst class": worst_class(of_classes)} if of_classes else {}
                for name, cell in (of_classes | worst).items():
                    lines.append(_line(sub, line, f"aua:{name}", cell))
    return csv_cells.table(HEADER, lines)


def _line(sub: SubTable, line: Line, metric: str, ours: Cell) -> list[str]:
    first = line.records[0] if line.records else None
    difference = line.difference(metric) if metric in sub.metrics else None
    ids = ";".join(r.attack_id for r in line.records if r.seed in ours.values)
    to_run = sub.command(sub.seeds, [line.label]) if not first and sub.recipe else ""
    carried = [c.name for c in line.controls if line.gain_over(c).carried]
    labels = (
        sub.table.name,
        sub.task,
        PAPER_DATASET.get(sub.task),
        line.label,
        csv_cells.number(line.sparsity),
        sub.attack,
        sub.recipe,
        metric,
    )
    low, high = ours.interval or (None, None)
    numbers = (line.paper.get(metric), ours.mean, ours.deviation, low, high, ours.n)
    return [
        *map(csv_cells.text_cell, labels),
        *map(csv_cells.number, numbers),
        csv_cells.by_seed(ours),
        csv_cells.number(difference),
        csv_cells.text_cell(ids),
        csv_cells.number(first.rows_attacked if first else None),
        csv_cells.text_cell(sub.encoder if first else None),
        csv_cells.text_cell(to_run),
        csv_cells.text_cell("; ".join(missing_controls(line.controls, line.records))),
        csv_cells.text_cell("; ".join(carried)),
        csv_cells.text_cell("; ".join(doubts_of(line.records))),
    ]
