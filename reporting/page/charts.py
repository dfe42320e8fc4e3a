"""Geometry of the charts: places in percent of the panel, so that they fit any width.

Charts are SVG that the templates write. Its texts keep their size on a phone, its colors follow the
reader's light or dark mode, it prints, and it needs no script.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reporting import render
from reporting.cells import Cell, Records
from reporting.comparisons import Result
from reporting.page.blocks import MOST_DRAWN, Block
from reporting.style import class_letters

LOOKS = 8  # number of colors in page.css and of marks in parts.html


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high` with ticks at multiples of `step`."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: Iterable[float | None], least_span: float = 0.0) -> "Axis":
        """An axis with about five round ticks that holds all values, and spans at least so much."""
        known = [value for value in values if value is not None] or [0.0, 1.0]
        low, high = min(known), max(known)
        if high - low < least_span:
            low, high = (low + high - least_span) / 2, (low + high + least_span) / 2
        span = high - low or abs(high) or 1.0
        power = 10 ** math.floor(math.log10(span / 5))
        step = next(power * n for n in (1, 2, 5, 10) if span / (power * n) <= 5.5)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low, max(high, low + step), step)

    def at(self, value: float) -> float:
        """The place of a value, in percent; at the end if it is beyond it."""
        place = 100 * (value - self.low) / (self.high - self.low)
        return round(min(100.0, max(0.0, place)), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Place and text of each tick."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + i * self.step for i in range(count + 1)]
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return [(self.at(v), render.number(v or 0.0, f".{decimals}f")) for v in values]


@dataclass(frozen=True)
class Strip:
    """A value with its interval, and single values, on a line: places in percent."""

    text: str
    at: float | None
    low: float | None
    high: float | None
    seeds: list[tuple[float, str]] = field(default_factory=list)
    classes: list[tuple[float, str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, cell: Cell, axis: Axis, text: str) -> "Strip":
        if cell.mean is None:
            return cls(text, None, None, None)
        low, high = cell.interval
        seeds = [
            (axis.at(value), f"seed {seed}: {render.number(value)}")
            for seed, value in cell.values.items()
        ]
        low, high = (None if x is None else axis.at(x) for x in (low, high))
        return cls(text, axis.at(cell.mean), low, high, seeds if cell.n > 1 else [])


@dataclass(frozen=True)
class ForestRow:
    """A model, or one of its controls, of a forest plot. `look`: number of its color and mark."""

    label: str
    strip: Strip
    look: int
    is_control: bool


@dataclass(frozen=True)
class Forest:
    title: str
    axis: Axis
    rows: list[ForestRow]
    letters: dict[str, str]  # of the classes
    left_to_the_table: int  # models

    @property
    def description(self) -> str:
        """For readers who do not see the figure."""
        texts = [f"{'its control, ' * r.is_control}{r.label}: {r.strip.text}" for r in self.rows]
        return f"Accuracy under attack in percent, {self.title}. {'; '.join(texts)}."


def forest(blocks: Sequence[Block]) -> list[Forest]:
    """Aua of every model with its interval and seeds, controls next to their ticket; a panel per
    block, all on one scale."""
    shown = [(block, _models(block)) for block in blocks]
    cells = [Cell.of(records, "aua_percent") for _, ms in shown for _, records, *_ in ms]
    ends = [x for c in cells for x in (*c.values.values(), *c.interval)]
    ends += [c.mean for b in blocks for r in b.results for c in r.by_class.values()]
    axis = Axis.over(ends, least_span=20)
    axis = Axis(max(0.0, axis.low), min(100.0, axis.high), axis.step)
    return [_panel(block, models, axis) for block, models in shown]


def _models(block: Block) -> list[tuple[str, Records, Result | None, int]]:
    """(label, records, the result that is no control, look) of each row."""
    rows: list[tuple[str, Records, Result | None, int]] = []
    names: list[str] = []
    for result in block.results[:MOST_DRAWN]:
        rows.append((result.label, result.records, result, 0))
        for control in (c for c in result.controls if c.records):
            names += [control.name] if control.name not in names else []
            label = f"dense, {control.name}"
            rows.append((label, control.records, None, 1 + names.index(control.name)))
    return rows


def _panel(block: Block, models: list, axis: Axis) -> Forest:
    letters = class_letters(list(dict.fromkeys(c for r in block.results for c in r.by_class)))
    rows = []
    for label, records, result, look in models:
        cell = Cell.of(records, "aua_percent")
        strip = Strip.of(cell, axis, render.cell(cell, count=False))
        if result is not None:
            for name, of_class in result.by_class.items():
                title = f"{name}: {render.cell(of_class, count=False)}"
                strip.classes.append((axis.at(of_class.mean), letters[name], title))
        rows.append(ForestRow(label, strip, look, result is None))
    further = max(0, len(block.results) - MOST_DRAWN)
    return Forest(f"{block.task}, {block.recipe}", axis, rows, letters, further)
