"""What the study's models cost to make, and what a point of Aua costs beyond the dense model.

Epochs are counted from the records; an epoch's seconds and memory are those of benchmarks/costs.py,
measured side by side, since the runs themselves shared their machines with other work.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from evaluation.records import Cell
from masking.tickets import GATE_KINDS
from reporting.comparisons import difference
from reporting.paper_tables import SubTable
from utils.cli import UserError
from utils.files import read_jsonl

FILE = "costs.jsonl"
SENTENCES = ("builtin/rotten_tomatoes", "sst2")  # as long as those that were measured
HEADER = (
    "model",
    "passes over the labels",
    "minutes before its training",
    "minutes of training",
    "minutes",
    "peak GiB",
    "#Query",
    "Aua %",
    "Aua less Fine-tune",
    "further minutes per point",
)
LEGEND = (
    "Minutes: epochs and rows of the records times the seconds of 1,000 rows of Rotten Tomatoes "
    "({device}, threads: {threads}; `costs.jsonl`). Before its training: the fine-tuning that the "
    "search starts from and the search, or the rounds of iterative pruning; of a random ticket "
    "nothing, though the matched one takes its densities from a search. Peak: the most that any of "
    "its stages holds. Further minutes per point: beyond Fine-tune's, for each point of Aua above "
    "it; —: it is not above, or Fine-tune was not attacked; ?: it is, but the difference is not "
    "distinguishable from noise."
)


@dataclass(frozen=True)
class Cost:
    """Of one model: epochs over its training rows, minutes, bytes."""

    passes: int
    minutes_before: float
    minutes_of_training: float
    peak_bytes: float

    @property
    def minutes(self) -> float:
        return self.minutes_before + self.minutes_of_training


def read(folder: Path, encoder: str) -> dict | None:
    """The newest record of benchmarks/costs.py for an encoder in a folder of results."""
    path = folder / FILE
    lines = read_jsonl(path) if path.is_file() else []
    try:
        own = [line for line in lines if line["row"]["encoder"] == encoder]
        for line in own:
            line["row"]["adv_steps"], line["device"], line["threads"]
            for way in line["ways"].values():
                way["seconds_per_1000_rows"] / way["peak_memory_bytes"]
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as e:
        raise UserError(f"{path} is damaged: not what benchmarks/costs.py writes ({e!r})") from e
    return own[-1] if own else None


def cost_of(record: dict, measured: dict) -> Cost | None:
    """Of an attack record's model; None where a way of its training was not measured."""
    ticket, search = record["ticket"], (record["ticket"] or {}).get("search") or {}
    kind = (ticket or {}).get("kind")
    method = record.get("method", "plain")
    if kind and ticket.get("reinitialised") != "rest" and method == "plain":
        method = "retrain"
    own = record["epoch"] if record.get("stop_at_loss") else record["epochs"]
    stages = [(method, own)]
    earlier = (record.get("label_passes") or own) - record["epochs"] if kind else 0
    if kind in GATE_KINDS:
        steps = search["adv_steps"]
        if steps not in (0, measured["row"]["adv_steps"]):
            return None
        stages += [
            ("search" if steps else "search_without_adversary", search["epochs"]),
            ("plain", earlier - search["epochs"]),
        ]
    elif earlier:  # rounds of iterative pruning, plain or under a method
        stages.append(("retrain" if kind == "imp" else kind.removeprefix("imp_"), earlier))
    ways = measured["ways"]
    if any(way not in ways for way, _ in stages) or not record.get("training_rows"):
        return None
    minutes = [
        epochs * record["training_rows"] / 1000 * ways[way]["seconds_per_1000_rows"] / 60
        for way, epochs in stages
    ]
    peak = max(ways[way]["peak_memory_bytes"] for way, _ in stages)
    return Cost(own + earlier, sum(minutes[1:]), minutes[0], peak)


def rows(sub: SubTable, measured: dict) -> list[list[str]]:
    """A row for each model of a sub-table that was run, and for the dense controls of its tickets
    that no row is; cheapest first."""
    models = {line.label: line.records for line in sub.lines if line.records}
    known = {id(r) for records in models.values() for r in records}
    for line in sub.lines:
        for control in line.controls:
            if control.records and not known & {id(r) for r in control.records}:
                of = f" of {line.label}" if control.name == "same training loss" else ""
                name = f"Fine-tune, {control.name}{of}" if of else f"Fine-tune, {control.wanted}"
                models.setdefault(name, control.records)
    first = sub.lines[0].records
    base = _mean(first, measured) if first else None
    found = []
    for name, records in models.items():
        cost = _mean(records, measured)
        if cost is not None:
            found.append((cost.minutes, _row(name, records, cost, first, base)))
    return [row for _, row in sorted(found, key=lambda x: x[0])]


def _mean(records: list[dict], measured: dict) -> Cost | None:
    costs = [cost_of(r, measured) for r in records]
    if None in costs:
        return None
    n = len(costs)
    return Cost(
        round(sum(c.passes for c in costs) / n),
        sum(c.minutes_before for c in costs) / n,
        sum(c.minutes_of_training for c in costs) / n,
        max(c.peak_bytes for c in costs),
    )


def _row(name: str, records: list[dict], cost: Cost, first: list[dict], base: Cost | None):
    told = difference(records, first) if first and records is not first else None
    per_point = "—"
    if told and base and told.points > 0:
        further = max(0.0, cost.minutes - base.minutes)
        per_point = f"{further / told.points:.1f}" + " ?" * told.is_noise
    return [
        name,
        str(cost.passes),
        f"{cost.minutes_before:.1f}",
        f"{cost.minutes_of_training:.1f}",
        f"{cost.minutes:.1f}",
        f"{cost.peak_bytes / 2**30:.2f}",
        str(Cell.of(records, "queries_per_row")),
        str(Cell.of(records, "aua_percent")),
        told.in_short if told else "—",
        per_point,
    ]


def markdown(subs: list[SubTable], measured: dict) -> str:
    text = ["# The study: costs", ""]
    for sub in subs:
        if sub.records and sub.task in SENTENCES:
            body = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 3) + ["---", "---:"]]
            text += [f"## {sub.task}, {sub.recipe}", ""]
            text += ["| " + " | ".join(row) + " |" for row in [*body, *rows(sub, measured)]] + [""]
    legend = LEGEND.format(device=measured["device"], threads=measured["threads"])
    return "\n".join([*text, legend, ""])


def csv_text(subs: list[SubTable], measured: dict) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["task", "recipe", *HEADER])
    for sub in subs:
        for row in rows(sub, measured) if sub.records and sub.task in SENTENCES else ():
            writer.writerow([sub.task, sub.recipe, *row])
    return buffer.getvalue()
