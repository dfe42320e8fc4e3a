"""What the study's models cost to make, and what a point of Aua costs beyond the dense model.

Epochs are counted from the records. An epoch's seconds and memory are those of benchmarks/costs.py,
measured side by side, because the runs themselves shared their machines with other work.
"""

from pathlib import Path
from statistics import fmean

from evaluation.records import AttackRecord
from masking.kinds import GATE_KINDS
from reporting import render
from reporting.cells import UNKNOWN, Cell, Records, cells_by_class, worst_class
from reporting.comparisons import SAME_LOSS, difference
from reporting.paper_tables import SubTable
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
# Column of the tables -> number of one model, or its mean over seeds; None: unknown.
Cost = dict[str, float | None]
LABEL_PASSES, GRADIENT_PASSES, MINUTES = "label passes", "gradient passes", "minutes"
IN_SHORT = (LABEL_PASSES, GRADIENT_PASSES, MINUTES)
SPECS = {LABEL_PASSES: ".0f", GRADIENT_PASSES: ".0f", "peak GiB": ".2f"}


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
    of_search = ((record.ticket and record.ticket.search) or {}).get("adv_steps")
    each = {"plain": 1, "retrain": 1, "search_without_adversary": 1, "search": of_search}
    if steps := (record.training or {}).get("adv_steps"):
        of_method = {"freelb": steps, "pgd": steps + 1}
        each |= {way: n for way, n in of_method.items() if way == record.method}
    total = 0
    for way, epochs in stages_of(record):
        if each.get(way) is None:
            return None
        total += epochs * each[way]
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
    of_training, *before = (
        epochs * record.training_rows / 1000 * ways[way]["seconds_per_1000_rows"] / 60
        for way, epochs in stages
    )
    return {
        LABEL_PASSES: sum(epochs for _, epochs in stages),
        GRADIENT_PASSES: gradient_passes(record),
        "minutes before its training": sum(before),
        "minutes of training": of_training,
        MINUTES: sum(before) + of_training,
        "peak GiB": max(ways[way]["peak_memory_bytes"] for way, _ in stages) / 2**30,
    }


def mean_cost(records: Records, measured: dict) -> Cost | None:
    costs = [cost_of(r, measured) for r in records]
    if not costs or None in costs:
        return None
    mean = {name: mean_if_known([cost[name] for cost in costs]) for name in costs[0]}
    peak = max(cost["peak GiB"] for cost in costs)
    return mean | {LABEL_PASSES: round(mean[LABEL_PASSES]), "peak GiB": peak}


def mean_if_known(values: list[float | None]) -> float | None:
    """None if one of them is None."""
    return None if None in values else fmean(values)


def _rows(sub: SubTable, measured: dict) -> list[tuple[dict[str, str], dict[str, object]]]:
    """Of each model of a sub-table that was run, and of the dense controls of its tickets that are
    not rows: its row of the Markdown and of the CSV, cheapest first."""
    models = {line.label: line.records for line in sub.lines if line.records}
    known = {r for records in models.values() for r in records}
    for line in sub.lines:
        for control in line.controls:
            if control.records and not known.intersection(control.records):
                by_loss = control.name == SAME_LOSS
                name = f"{control.name} of {line.label}" if by_loss else control.wanted
                models.setdefault(f"Fine-tune, {name}", control.records)
    first = sub.lines[0].records
    base = mean_cost(first, measured)
    costs = {name: mean_cost(records, measured) for name, records in models.items()}
    rows = []
    for name in sorted((n for n, cost in costs.items() if cost), key=lambda n: costs[n][MINUTES]):
        cost, records = costs[name], models[name]
        queries, aua = (Cell.of(records, m) for m in ("queries_per_row", "aua_percent"))
        worst = worst_class(cells_by_class(records)).mean
        gain = difference(records, first) if first and records is not first else None
        low, high = gain.bounds if gain else UNKNOWN
        further, in_text = None, render.NONE
        if gain and base and gain.points > 0:
            further = max(0.0, cost[MINUTES] - base[MINUTES]) / gain.points
            in_text = render.number(further) + (" ?" if gain.is_noise else "")
        in_markdown = {
            "model": name,
            **{column: render.number(x, SPECS.get(column, ".1f")) for column, x in cost.items()},
            "#Query": render.cell(queries, interval=False),
            "Aua %": render.cell(aua, interval=False),
            "worst class %": render.number(worst),
            "Δ Aua vs. Fine-tune": render.short(gain) if gain else render.NONE,
            "further minutes per point": in_text,
        }
        in_csv = {
            "task": sub.task,
            "recipe": sub.recipe,
            "model": name,
            **cost,
            "queries": queries.mean,
            "aua_percent": aua.mean,
            "aua_deviation": aua.deviation,
            "aua_worst_class": worst,
            "aua_minus_fine_tune": gain.points if gain else None,
            "low_95": low,
            "high_95": high,
            "p": gain.tests[0][2] if gain and low is None else None,
            "further_minutes_per_point": further,
        }
        rows.append((in_markdown, in_csv))
    return rows


def write(subs: list[SubTable], measured: dict, folder: Path) -> list[Path]:
    """study-costs.md and .csv, of the tasks whose texts are as long as those that were measured."""
    shown = [(sub, _rows(sub, measured)) for sub in subs if sub.records and sub.task in SENTENCES]
    shown = [(sub, rows) for sub, rows in shown if rows]
    if not shown:
        return []
    parts = ["# The study: costs"]
    for sub, rows in shown:
        parts += [f"## {sub.task}, {sub.recipe}", render.table_of([row for row, _ in rows])]
    parts.append(LEGEND.format(device=measured["device"], threads=measured["threads"]))
    csv_text = render.csv_text([row for _, rows in shown for _, row in rows])
    return [
        render.write_text(folder / "study-costs.md", render.paragraphs(parts)),
        render.write_text(folder / "study-costs.csv", csv_text.replace("\r\n", "\n")),
    ]
