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
from reporting.cells import EQUALIZED
from reporting.style import looks, new_figure, save
from utils.cli import UserError
from utils.files import read_jsonl

INT8_OVER_FP32 = "onnx-int8 over onnx"
OF_SUITES = {"suite_aua_percent": "aua_percent", "class_equalized_aua_percent": EQUALIZED}

LEGEND_OF_SUITES = (
    "Suite: the union of the standard suite's attacks on the same rows, and its Aua at the bias at "
    "which all classes of the attacked dev rows survive alike."
)


@dataclass(frozen=True)
class Point:
    """One row of the table. `speedup`: runtime -> median over the dense model in the same runtime;
    int8 also over dense fp32 (INT8_OVER_FP32). `is_int8`: the attacked model is an int8 export."""

    label: str
    task: str
    neurons: int
    records: Sequence[AttackRecord]
    speedup: Mapping[str, float]
    is_int8: bool = False
    suites: Sequence[AttackRecord] = ()  # as attacks, see suite_records.as_attack

    @property
    def aua(self) -> dict[str, Rate]:
        """Of all rows ("all") and of each class."""
        raw = [record.raw for record in self.records]
        by_class = rates_by_class(raw) if raw else {}
        return {"all": _mean(raw, "aua_percent"), **by_class} if raw else {}

    @property
    def drawn_speedup(self) -> float | None:
        return self.speedup.get(INT8_OVER_FP32 if self.is_int8 else "torch-fp32")

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
    by_runtime = {t.runtime: t.speedup["median"] for t in latency.timed if t.model == name}
    seconds = {(t.model, t.runtime): t.seconds["median"] for t in latency.timed}
    dense = seconds.get((latency.models[0], "onnx"))
    if dense and (name, "onnx-int8") in seconds:
        by_runtime[INT8_OVER_FP32] = dense / seconds[name, "onnx-int8"]
    return by_runtime


def points(
    rows: Sequence[Row],
    records: Iterable[AttackRecord],
    latency: LatencyRecord,
    usual_epochs: int,
    suites: Iterable[AttackRecord] = (),
) -> list[Point]:
    """A point for each row and task, also where a row has no records yet."""
    dense = int(latency.models[0].split()[0])
    by_task: dict[str, list[AttackRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record)
    listed = []
    models, suites = {row.label: row.model for row in rows}, list(suites)
    for task, of_task in sorted(by_task.items()):
        owned = assign(of_task, models, usual_epochs)
        rows_attacked = {record.rows_fingerprint for record in of_task}
        same_rows = [s for s in suites if s.task == task and s.rows_fingerprint in rows_attacked]
        by_suites = assign(same_rows, models, usual_epochs)
        for row in rows:
            removed = row.model.sparsity if row.model.structure else 0.0
            neurons = round(dense * (1 - (removed or 0.0)))
            timed = speedups(latency, neurons)
            is_int8 = row.model.runtime == "onnx-int8"
            if is_int8:  # no other time is that of the attacked model
                timed = {name: timed[name] for name in timed if name == INT8_OVER_FP32}
            measured = owned[row.label], timed, is_int8, by_suites[row.label]
            listed.append(Point(row.label, task, neurons, *measured))
    return listed


def frame(all_points: Sequence[Point]) -> pd.DataFrame:
    """The points as a table of numbers; the limits of one row are the lowest and highest seed."""
    lines = []
    for point in all_points:
        line: dict = {"task": point.task, "row": point.label, "seeds": len(point.records)}
        line |= {"neurons_per_layer": point.neurons, "clean_percent": point.clean}
        line |= {f"aua_percent {name}": rate.percent for name, rate in point.aua.items()}
        by_class = [rate.percent for name, rate in point.aua.items() if name != "all"]
        line["aua_percent worst class"] = min(by_class) if by_class else None
        line["seeds with suite"] = len(point.suites) or None
        for name, measure in OF_SUITES.items():
            values = [getattr(suite, measure) for suite in point.suites]
            line[name] = sum(values) / len(values) if values else None
        line |= {f"speedup {runtime}": value for runtime, value in point.speedup.items()}
        lines.append(line)
    return pd.DataFrame(lines)


def markdown(all_points: Sequence[Point], latency: LatencyRecord) -> str:
    """The table by task, with what was timed."""
    numbers = frame(all_points)
    parts = [
        "# Aua against speed-up",
        f"Speed-up over the dense model in the same runtime: {latency.device}, {latency.threads} "
        f"thread{'s' * (latency.threads > 1)}, {latency.batch} rows of {latency.length} tokens, "
        f"medians of {latency.repeats} repeats side by side. The last column is the int8 model "
        "over the dense model in fp32: in the dense rows, what quantization alone gains. A row "
        "without seeds was not attacked. Tickets of single weights have the dense model's shape, "
        "and so its times.",
        LEGEND_OF_SUITES if any(point.suites for point in all_points) else "",
    ]
    for task, of_task in numbers.groupby("task", sort=False):
        shown = of_task.drop(columns="task").dropna(axis=1, how="all")
        columns = [_column(name) for name in shown.columns]
        cells = [
            [
                value if isinstance(value, str) else render.number(value, spec)
                for value, (_, spec) in zip(row, columns, strict=True)
            ]
            for row in shown.itertuples(index=False)
        ]
        parts += [f"## {task}", render.markdown_table([head for head, _ in columns], cells)]
    return render.paragraphs(parts)


PERCENTAGES = {
    "clean_percent": "Clean %",
    "suite_aua_percent": "Aua %, suite",
    "class_equalized_aua_percent": "Aua %, suite, class-equalized",
}


def _column(name: str) -> tuple[str, str]:
    """Heading of a column of `frame` in the Markdown table, and the format of its cells."""
    measure, _, of = name.partition(" ")
    if measure == "speedup":
        return f"speed-up, {of.replace('torch-', 'torch ').replace('onnx', 'ONNX')}", ".2f"
    if measure == "aua_percent":
        return "Aua %" if of == "all" else f"Aua %, {of}", ".1f"
    if measure in PERCENTAGES:
        return PERCENTAGES[measure], ".1f"
    return name.replace("_", " "), ".0f" if name.startswith("seeds") else ""


def draw(all_points: Sequence[Point], folder: Path) -> list[Path]:
    """Write aua_by_speed.png and .pdf: Aua of all rows and of each class, by speed-up."""
    return save(lambda: _figure(all_points), "aua_by_speed", folder)


def _side_by_side(point: Point, of_task: Sequence[Point]) -> float:
    """The speed-up, a little off where several are the same, so that no point hides another."""
    same = [p.label for p in of_task if p.drawn_speedup == point.drawn_speedup]
    return point.drawn_speedup + 0.012 * (same.index(point.label) - (len(same) - 1) / 2)


def _figure(all_points: Sequence[Point]) -> Figure:
    shown = [point for point in all_points if point.records and point.drawn_speedup is not None]
    tasks = list(dict.fromkeys(point.task for point in shown))
    look = looks(dict.fromkeys(point.label for point in shown))
    figure = new_figure(2.4 * max(1, len(tasks)) + 0.15 * len(look))
    panels = figure.subplots(max(1, len(tasks)), 1, squeeze=False, sharex=True)[:, 0]
    for axes, task in zip(panels, tasks, strict=False):
        of_task = [point for point in shown if point.task == task]
        for point in of_task:
            x, style = _side_by_side(point, of_task), look[point.label] | {"linestyle": "none"}
            by_class = [rate.percent for name, rate in point.aua.items() if name != "all"]
            axes.plot([x, x], [min(by_class), max(by_class)], color=style["color"], linewidth=0.8)
            axes.plot(x, point.aua["all"].percent, label=point.label, **style)
        axes.set_title(task)
        axes.set_ylabel("Aua (%); lines: its classes")
        axes.margins(x=0.2, y=0.2)
    of_int8 = "; int8: ONNX Runtime" if any(point.is_int8 for point in shown) else ""
    panels[-1].set_xlabel(f"speed-up over the dense model\n(torch, fp32{of_int8})")
    named = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", frameon=False)
    return figure
