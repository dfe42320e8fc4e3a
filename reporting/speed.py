"""Aua against speed-up: the study's tickets of neurons, and how fast their models are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from evaluation import schema
from evaluation.by_class import Rate, rates_by_class
from evaluation.latency import LatencyRecord
from evaluation.records import AttackRecord
from experiments.models import assign
from experiments.paper import Row
from reporting import render
from reporting.style import new_figure, save
from utils.cli import UserError
from utils.files import read_jsonl

RUNTIMES = ("torch-fp32", "onnx", "onnx-int8")


@dataclass(frozen=True)
class Point:
    """One row of the table. `speedup`: runtime -> median over the dense model in the same runtime;
    int8 also over dense fp32 ("onnx-int8 over onnx")."""

    label: str
    task: str
    neurons: int
    records: Sequence[AttackRecord]
    speedup: Mapping[str, float]

    @property
    def aua(self) -> dict[str, Rate]:
        """Of all rows ("all") and of each class."""
        raw = [record.raw for record in self.records]
        by_class = rates_by_class(raw) if raw else {}
        return {"all": _mean(raw, "aua_percent"), **by_class} if raw else {}

    @property
    def clean(self) -> float | None:
        raw = [record.raw for record in self.records]
        return _mean(raw, "clean_percent").percent if raw else None


def _mean(raw: list[dict], measure: str) -> Rate:
    values = [record[measure] for record in raw]
    return Rate(sum(values) / len(values), min(values), max(values))


def read_latencies(path: Path) -> list[LatencyRecord]:
    """The records of benchmarks/latency.py. UserError if the file holds none."""
    lines = [line for line in read_jsonl(path) if "timed" in line] if path.is_file() else []
    if not lines:
        raise UserError(f"{path} holds no times: run python benchmarks/latency.py first")
    return [schema.read(LatencyRecord, line) for line in lines]


def speedups(latency: LatencyRecord, neurons: int) -> dict[str, float]:
    """Runtime -> speed-up of the model with so many neurons; {} if it was not timed."""
    name = f"{neurons} neurons"
    found = {t.runtime: t.speedup["median"] for t in latency.timed if t.model == name}
    seconds = {(t.model, t.runtime): t.seconds["median"] for t in latency.timed}
    dense = seconds.get((latency.models[0], "onnx"))
    if dense and (name, "onnx-int8") in seconds:
        found["onnx-int8 over onnx"] = dense / seconds[name, "onnx-int8"]
    return found


def points(
    rows: Sequence[Row],
    records: Iterable[AttackRecord],
    latency: LatencyRecord,
    usual_epochs: int,
) -> list[Point]:
    """A point for each row and task, also where a row has no records yet."""
    dense = int(latency.models[0].split()[0])
    by_task: dict[str, list[AttackRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record)
    found = []
    for task, of_task in sorted(by_task.items()):
        owned = assign(of_task, {row.label: row.model for row in rows}, usual_epochs)
        for row in rows:
            removed = row.model.sparsity if row.model.structure else 0.0
            neurons = round(dense * (1 - (removed or 0.0)))
            of_row = owned[row.label]
            found.append(Point(row.label, task, neurons, of_row, speedups(latency, neurons)))
    return found


def frame(found: Sequence[Point]) -> pd.DataFrame:
    """The points as a table of numbers; the limits of one row are the lowest and highest seed."""
    lines = []
    for point in found:
        line: dict = {"task": point.task, "row": point.label, "seeds": len(point.records)}
        line |= {"neurons_per_layer": point.neurons, "clean_percent": point.clean}
        line |= {f"aua_percent {name}": rate.percent for name, rate in point.aua.items()}
        by_class = [rate.percent for name, rate in point.aua.items() if name != "all"]
        line["aua_percent worst class"] = min(by_class) if by_class else None
        line |= {f"speedup {runtime}": value for runtime, value in point.speedup.items()}
        lines.append(line)
    return pd.DataFrame(lines)


def markdown(found: Sequence[Point], latency: LatencyRecord) -> str:
    """The table by task, with what was timed."""
    numbers = frame(found)
    parts = [
        "# Aua against speed-up",
        f"Speed-up over the dense model in the same runtime: {latency.device}, {latency.threads} "
        f"threads, {latency.batch} rows of {latency.length} tokens, medians of {latency.repeats} "
        "repeats side by side. The last column is the int8 model over the dense model in fp32: in "
        "the dense row, it is what quantization alone gains. A row without seeds was not attacked.",
    ]
    for task, of_task in numbers.groupby("task", sort=False):
        shown = of_task.drop(columns="task").dropna(axis=1, how="all")
        header = [name.replace("_percent", " %") for name in shown.columns]
        cells = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
        parts += [f"## {task}", render.markdown_table(header, cells)]
    return render.paragraphs(parts)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def draw(found: Sequence[Point], folder: Path) -> list[Path]:
    """Write aua_by_speed.png and .pdf: mean Aua, and that of each class, by speed-up."""
    return save(lambda: _figure(found), "aua_by_speed", folder)


def _figure(found: Sequence[Point]) -> Figure:
    tasks = list(dict.fromkeys(point.task for point in found if point.records))
    names = list(dict.fromkeys(name for point in found for name in point.aua))
    figure = new_figure(2.6 * max(1, len(tasks)))
    grid = figure.subplots(max(1, len(tasks)), max(1, len(names)), squeeze=False, sharey=True)
    for line, task in zip(grid, tasks, strict=False):
        for axes, name in zip(line, names, strict=True):
            for point in found:
                if point.task != task or name not in point.aua or not point.speedup:
                    continue
                rate, x = point.aua[name], point.speedup["torch-fp32"]
                axes.plot([x, x], [rate.low, rate.high], color="0.7", linewidth=1)
                axes.plot(x, rate.percent, "o", markersize=4)
                axes.annotate(
                    point.label,
                    (x, rate.percent),
                    fontsize=5,
                    xytext=(3, 2),
                    textcoords="offset points",
                )
            axes.set_title(f"{task}, {name if name != 'all' else 'all rows'}", fontsize=7)
            axes.set_xlabel("speed-up over dense, torch fp32", fontsize=6)
            axes.margins(0.2)
        line[0].set_ylabel("Aua (%)", fontsize=7)
    return figure
