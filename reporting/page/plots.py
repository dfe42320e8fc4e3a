"""Line charts of a page: curves over an axis, in percent of the panel."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from reporting import render
from reporting.cells import Cell
from reporting.page.charts import LOOKS, Axis

MOST_MARKS = 12  # on a curve; more would hide it
MOST_NUMBERS = 25  # of a curve, in the table below the chart
MOST_CHARTS = 5  # of one measure; nobody reads more


class Mark(NamedTuple):
    at: float
    height: float
    low: float | None
    high: float | None
    title: str


class Curve(NamedTuple):
    """`lines`: polylines, the mean first, then single seeds. `level`: a model without an x."""

    name: str
    look: int
    lines: list[str]
    marks: list[Mark]
    level: float | None


@dataclass(frozen=True)
class Plot:
    """`numbers`: (curve, x, y) as texts. `diagonal`: whether y = x is drawn."""

    title: str
    y_label: str
    x_label: str
    x_axis: Axis
    y_axis: Axis
    curves: list[Curve]
    numbers: list[tuple[str, str, str]]
    diagonal: bool = False

    @property
    def has_intervals(self) -> bool:
        return any(mark.low is not None for curve in self.curves for mark in curve.marks)

    @property
    def description(self) -> str:
        """For readers who do not see the chart."""
        ends = []
        for curve in self.curves:
            of_curve = [number for number in self.numbers if number[0] == curve.name]
            (_, x, y), (_, last_x, last_y) = of_curve[0], of_curve[-1]
            last = f" to {last_y} at {last_x}" if len(of_curve) > 1 else ""
            ends.append(f"{curve.name} {y} at {x}{last}")
        return f"{self.y_label} against {self.x_label}, {self.title}: {'; '.join(ends)}."


Points = dict[float | None, Cell]  # x (None: a level for every x) -> y


def parted(curves: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The curves in parts for charts in which each has a look of its own."""
    names = list(curves)[: MOST_CHARTS * LOOKS]
    for start in range(0, len(names), LOOKS):
        yield {name: curves[name] for name in names[start : start + LOOKS]}


def plot(
    title: str,
    y_label: str,
    x_label: str,
    curves: dict[str, Points],
    spec: str = ".1f",
    diagonal: bool = False,
) -> Plot:
    """`curves`: name -> points, at most LOOKS. `spec`: of y. `diagonal`: both axes are in %."""
    ys = [
        v for of in curves.values() for c in of.values() for v in (*c.values.values(), *c.interval)
    ]
    xs = [x for points in curves.values() for x in points if x is not None]
    if diagonal:
        x_axis = y_axis = Axis.over([*xs, *ys, 100.0], least_span=20)
    else:
        x_axis, y_axis = Axis.over(xs), Axis.over(ys)
    drawn, numbers = [], []
    for look, (name, points) in enumerate(curves.items()):
        drawn.append(_curve(name, look, points, x_axis, y_axis, spec))
        numbers += [
            (name, "any" if x is None else f"{x:g}", _text(points[x], spec))
            for x in _spread(sorted(points, key=lambda x: (x is not None, x)), MOST_NUMBERS)
        ]
    return Plot(title, y_label, x_label, x_axis, y_axis, drawn, numbers, diagonal)


def _curve(name: str, look: int, points: Points, x_axis: Axis, y_axis: Axis, spec: str) -> Curve:
    xs = sorted(x for x in points if x is not None)
    means = {x: cell.mean for x, cell in points.items()}
    seeds = dict.fromkeys(seed for x in xs for seed in points[x].values)
    lines = [_line(((x, means[x]) for x in xs), x_axis, y_axis)]
    for seed in seeds if len(seeds) > 1 else ():
        of_seed = ((x, points[x].values[seed]) for x in xs if seed in points[x].values)
        lines.append(_line(of_seed, x_axis, y_axis))
    marks = []
    for x in _spread(xs, MOST_MARKS):
        low, high = (None if y is None else _height(y_axis, y) for y in points[x].interval)
        title = f"{name}, {x:g}: {_text(points[x], spec)}"
        marks.append(Mark(x_axis.at(x), _height(y_axis, means[x]), low, high, title))
    level = _height(y_axis, means[None]) if None in points else None
    return Curve(name, look, lines, marks, level)


def _line(points: Iterable[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> str:
    return " ".join(f"{x_axis.at(x):g},{_height(y_axis, y):g}" for x, y in points)


def _height(axis: Axis, value: float) -> float:
    """From the top, as SVG counts."""
    return round(100 - axis.at(value), 2)


def _spread(values: list, most: int) -> list:
    """At most that many of the values, evenly, with the first and the last."""
    if len(values) <= most:
        return values
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _text(cell: Cell, spec: str) -> str:
    """Mean, deviation and interval, as render.cell writes them with one decimal."""
    if spec == ".1f":
        return render.cell(cell, count=False)
    deviation = "" if cell.deviation is None else f" ± {cell.deviation:{spec}}"
    return render.number(cell.mean, spec) + deviation
