"""A table of the paper or of the study as CSV: a line per row, attack and metric."""

from experiments.paper import PAPER_DATASET
from reporting import csv_cells
from reporting.cells import doubts_of
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
    "suspicious",
)


def csv_text(subs: list[SubTable]) -> str:
    lines = [(sub, line, metric) for sub in subs for line in sub.lines for metric in sub.metrics]
    return csv_cells.table(HEADER, (_line(*line) for line in lines))


def _line(sub: SubTable, line: Line, metric: str) -> list[str]:
    ours, first = line.ours(metric), line.records[0] if line.records else None
    ids = ";".join(r.attack_id for r in line.records if r.seed in ours.values)
    to_run = sub.command(sub.seeds, [line.label]) if not first and sub.recipe else ""
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
        csv_cells.number(line.difference(metric)),
        csv_cells.text_cell(ids),
        csv_cells.number(first.rows_attacked if first else None),
        csv_cells.text_cell(sub.encoder if first else None),
        csv_cells.text_cell(to_run),
        csv_cells.text_cell("; ".join(missing_controls(line.controls, line.records))),
        csv_cells.text_cell("; ".join(doubts_of(line.records))),
    ]
