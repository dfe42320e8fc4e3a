"""What the study's models cost to make, and what a point of Aua costs beyond the dense model.

Epochs are counted from the records. An epoch's seconds and memory are those of benchmarks/costs.py,
measured side by side, because the runs themselves shared their machines with other work.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from evaluation.records import AttackRecord
from masking.kinds import GATE_KINDS
from reporting import render
from reporting.cells import Cell, cells_by_class, worst_class
from reporting.comparisons import SAME_LOSS, Difference, difference
from reporting.paper_tables import Records, SubTable
from utils.cli import UserError
from utils.files import read_jsonl

FILE = "costs.jsonl"
SENTENCES = ("builtin/rotten_tomatoes", "sst2")  # as long as those that were measured
LEGEND = (
    "Label passes: epochs of the model and of what it was made from. Gradient passes: forward and "
    "backward passes over the training rows; an adversarial epoch has several. Minutes: epochs and "
    "rows of the records times the seconds of 1,000 rows of Rotten Tomatoes ({device}, threads: "
    "{threads}; `costs.jsonl`). Before its training: the fine-tuning that the search starts from "
    "and the search, or the rounds of iterative pruning; nothing for a random ticket, although the "
    "matched one takes its densities from a search. Peak: the maximum over its stages. Further "
    "minutes per point: beyond Fine-tune's, for each point of Aua above it; —: it is not above, or "
    "Fine-tune was not attacked; ?: the difference is not distinguishable from noise."
)


@dataclass(frozen=True)
class Cost:
    """Of one model: epochs over its training rows, passes with gradients, minutes, bytes."""

    label_passes: float
    gradient_passes: float | None
    minutes_before: float
    minutes_of_training: float
    peak_bytes: float

    @property
    def minutes(self) -> float:
        return self.minutes_before + self.minutes_of_training


@dataclass(frozen=True)
class CostRow:
    """A model's cost and gain; `further`: minutes per point of Aua, None if there is no gain."""

    name: str
    records: Records
    cost: Cost
    gain: Difference | None
    further: float | None


def read(folder: Path, encoder: str) -> dict | None:
    """The newest record of benchmarks/costs.py for an encoder in a folder of results."""
    path = folder / FILE
    lines = read_jsonl(path) if path.is_file() else []
    try:
        of_encoder = [line for line in lines if line["row"]["encoder"] == encoder]
        for line in of_encoder:
            line["row"]["adv_steps"], line["device"], line["threads"]
            for way in line["ways"].values():
                way["seconds_per_1000_rows"] / way["peak_memory_bytes"]
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as e:
        raise UserError(f"{path} is damaged: benchmarks/costs.py did not write it ({e!r})") from e
    return of_encoder[-1] if of_encoder else None


def stages_of(record: AttackRecord) -> list[tuple[str, int]]:
    """(way of training, epochs) of the model's own training, then of what came before it.

    The ways are those of benchmarks/costs.py.
    """
    ticket, method = record.ticket, record.method
    epochs = (record.epoch if record.stop_at_loss else record.epochs) or 0
    if ticket is None:
        return [(method, epochs)]
    if ticket.reinitialised != "rest" and method == "plain":
        method = "retrain"
    earlier = (record.label_passes or epochs) - (record.epochs or 0)
    if ticket.kind in GATE_KINDS:
        search = ticket.search or {}
        way, searched = "search", search["epochs"]
        if search.get("adv_steps") == 0:
            way = "search_without_adversary"
        return [(method, epochs), (way, searched), ("plain", max(0, earlier - searched))]
    if not earlier:
        return [(method, epochs)]
    # Rounds of iterative pruning, plain or with an adversarial method.
    way = "retrain" if ticket.kind == "imp" else ticket.kind.removeprefix("imp_")
    return [(method, epochs), (way, earlier)]


def gradient_passes(record: AttackRecord) -> float | None:
    """Forward and backward passes over the training rows; None for a method without a number.

    Each epoch of a search with K adversarial steps makes max(K, 1) of them.
    """
    total = 0
    for way, epochs in stages_of(record):
        if way == "search":
            steps = ((record.ticket and record.ticket.search) or {}).get("adv_steps")
            if steps is None:
                return None
            total += epochs * steps
        elif way in ("plain", "retrain", "search_without_adversary"):
            total += epochs
        else:
            steps = (record.training or {}).get("adv_steps")
            if way not in ("freelb", "pgd") or not steps or record.method != way:
                return None
            total += epochs * (steps if way == "freelb" else steps + 1)
    return total


def cost_of(record: AttackRecord, measured: dict) -> Cost | None:
    """Of an attack record's model; None if a way of its training was not measured."""
    ways, stages = measured["ways"], stages_of(record)
    steps = ((record.ticket.search if record.ticket else None) or {}).get("adv_steps")
    of_search = any(way == "search" for way, _ in stages)
    if of_search and steps != measured["row"]["adv_steps"]:
        return None
    if any(way not in ways for way, _ in stages) or not record.training_rows:
        return None
    minutes = [
        epochs * record.training_rows / 1000 * ways[way]["seconds_per_1000_rows"] / 60
        for way, epochs in stages
    ]
    return Cost(
        sum(epochs for _, epochs in stages),
        gradient_passes(record),
        sum(minutes[1:]),
        minutes[0],
        max(ways[way]["peak_memory_bytes"] for way, _ in stages),
    )


def rows(sub: SubTable, measured: dict) -> list[CostRow]:
    """A row for each model of a sub-table that was run, and for the dense controls of its tickets
    that are not rows; cheapest first."""
    models = {line.label: line.records for line in sub.lines if line.records}
    known = {r for records in models.values() for r in records}
    for line in sub.lines:
        for control in line.controls:
            if control.records and not known.intersection(control.records):
                by_loss = control.name == SAME_LOSS
                name = f"{control.name} of {line.label}" if by_loss else control.wanted
                models.setdefault(f"Fine-tune, {name}", control.records)
    first = sub.lines[0].records
    base = mean_cost(first, measured) if first else None
    costs = [(name, records, mean_cost(records, measured)) for name, records in models.items()]
    of_models = [_row(n, records, cost, first, base) for n, records, cost in costs if cost]
    return sorted(of_models, key=lambda row: row.cost.minutes)


def mean_cost(records: Records, measured: dict) -> Cost | None:
    costs = [cost for r in records if (cost := cost_of(r, measured))]
    if len(costs) < len(records) or not costs:
        return None
    return Cost(
        round(fmean(c.label_passes for c in costs)),
        mean_if_known(c.gradient_passes for c in costs),
        fmean(c.minutes_before for c in costs),
        fmean(c.minutes_of_training for c in costs),
        max(c.peak_bytes for c in costs),
    )


def mean_if_known(values: Iterable[float | None]) -> float | None:
    """None if one of them is None."""
    values = list(values)
    return None if None in values else fmean(values)


def _row(name: str, records: Records, cost: Cost, first: Records, base: Cost | None) -> CostRow:
    gain = difference(records, first) if first and records is not first else None
    further = None
    if gain and base and gain.points > 0:
        further = max(0.0, cost.minutes - base.minutes) / gain.points
    return CostRow(name, records, cost, gain, further)


def _costs(cost: Cost) -> dict[str, float | None]:
    """The columns that Markdown and CSV share."""
    return {
        "label passes": cost.label_passes,
        "gradient passes": cost.gradient_passes,
        "minutes before its training": cost.minutes_before,
        "minutes of training": cost.minutes_of_training,
        "minutes": cost.minutes,
        "peak GiB": cost.peak_bytes / 2**30,
    }


def _markdown_row(row: CostRow) -> dict[str, str]:
    specs = {"label passes": ".0f", "gradient passes": ".0f", "peak GiB": ".2f"}
    costs = _costs(row.cost)
    unsure = " ?" if row.further is not None and row.gain.is_noise else ""
    return {
        "model": row.name,
        **{name: render.number(value, specs.get(name, ".1f")) for name, value in costs.items()},
        "#Query": render.cell(Cell.of(row.records, "queries_per_row"), interval=False),
        "Aua %": render.cell(Cell.of(row.records, "aua_percent"), interval=False),
        "worst class %": render.number(worst_class(cells_by_class(row.records)).mean),
        "Δ Aua vs. Fine-tune": render.short(row.gain) if row.gain else render.NONE,
        "further minutes per point": render.number(row.further) + unsure,
    }


def _csv_row(sub: SubTable, row: CostRow) -> dict[str, object]:
    aua, gain = Cell.of(row.records, "aua_percent"), row.gain
    low, high = (gain.bounds if gain else None) or (None, None)
    return {
        "task": sub.task,
        "recipe": sub.recipe,
        "model": row.name,
        **_costs(row.cost),
        "queries": Cell.of(row.records, "queries_per_row").mean,
        "aua_percent": aua.mean,
        "aua_deviation": aua.deviation,
        "aua_worst_class": worst_class(cells_by_class(row.records)).mean,
        "aua_minus_fine_tune": gain.points if gain else None,
        "low_95": low,
        "high_95": high,
        "p": gain.p_values[0] if gain and gain.bounds is None else None,
        "further_minutes_per_point": row.further,
    }


def write(subs: list[SubTable], measured: dict, folder: Path) -> list[Path]:
    """study-costs.md and .csv, of the tasks whose texts are as long as those that were measured."""
    shown = [(sub, rows(sub, measured)) for sub in subs if sub.records and sub.task in SENTENCES]
    shown = [(sub, of_sub) for sub, of_sub in shown if of_sub]
    if not shown:
        return []
    parts = ["# The study: costs"]
    for sub, of_sub in shown:
        parts += [f"## {sub.task}, {sub.recipe}", render.table_of(list(map(_markdown_row, of_sub)))]
    legend = LEGEND.format(device=measured["device"], threads=measured["threads"])
    lines = [_csv_row(sub, row) for sub, of_sub in shown for row in of_sub]
    return [
        render.write_text(folder / "study-costs.md", render.paragraphs([*parts, legend])),
        render.write_text(folder / "study-costs.csv", render.csv_text(lines, newline="\n")),
    ]
