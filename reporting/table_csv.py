"""A table of the paper or of the study as CSV: a line per row, attack and metric."""

from experiments.paper import PAPER_DATASET
from reporting import render
from reporting.cells import Cell, doubts_of, worst_class
from reporting.paper_tables import Line, SubTable


def csv_text(subs: list[SubTable]) -> str:
    """Aua of a class is the metric aua:NAME, that of the worst class aua:worst class."""
    rows = []
    for sub in subs:
        for line in sub.lines:
            for metric in sub.metrics:
                rows.append(_row(sub, line, metric, line.ours(metric)))
                of_classes = line.by_class if metric == "aua" else {}
                worst = {"worst class": worst_class(of_classes)} if of_classes else {}
                for name, cell in (of_classes | worst).items():
                    rows.append(_row(sub, line, f"aua:{name}", cell))
    return render.csv_text(rows)


def _row(sub: SubTable, line: Line, metric: str, ours: Cell) -> dict[str, object]:
    first = line.records[0] if line.records else None
    low, high = ours.interval or (None, None)
    to_run = sub.command(sub.seeds, [line.label]) if not first and sub.recipe else None
    carried = [c.name for c in line.controls if line.gain_over(c).carried]
    return {
        "table": sub.table.name,
        "task": sub.task,
        "dataset_in_paper": PAPER_DATASET.get(sub.task),
        "method": line.label,
        "sparsity": line.sparsity,
        "attack_in_paper": sub.attack,
        "recipe": sub.recipe,
        "metric": metric,
        "paper": line.paper.get(metric),
        "ours_mean": ours.mean,
        "ours_deviation": ours.deviation,
        "ours_low_95": low,
        "ours_high_95": high,
        "n": ours.n,
        "values_by_seed": render.by_seed(ours),
        "difference": line.difference(metric) if metric in sub.metrics else None,
        "attack_ids": ";".join(r.attack_id for r in line.records if r.seed in ours.values),
        "rows_attacked": first and first.rows_attacked,
        "encoder": first and sub.encoder,
        "command_if_missing": to_run,
        "controls_missing": "; ".join(line.missing_controls),
        "one_class_carries_gain_over": "; ".join(carried),
        "suspicious": "; ".join(doubts_of(line.records)),
    }
