"""A figure's numbers, before they are drawn, and as CSV."""

import csv
import io
from dataclasses import dataclass, field

from evaluation.records import AttackRecord
from experiments.paper import PAPER_DATASET
from reporting.cells import Cell
from reporting.csv_cells import by_seed, number, text_cell

PANEL_HEADER = (
    "figure",
    "task",
    "dataset_in_paper",
    "recipe",
    "quantity",
    "curve",
    "x_name",
    "x",
    "mean",
    "deviation",
    "n",
    "values_by_seed",
    "attack_ids",
)
MAP_HEADER = (
    "figure",
    "task",
    "dataset_in_paper",
    "layer",
    "column",
    "mean",
    "deviation",
    "n",
    "values_by_seed",
)


@dataclass(frozen=True)
class Point:
    """`x`: sparsity, epoch or optimizer step; None for a dense model in Figure 2."""

    x: float | None
    cell: Cell
    attack_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One quantity on one task (under one attack): points by the curve's name."""

    task: str
    recipe: str | None
    quantity: str
    curves: dict[str, list[Point]]


@dataclass(frozen=True)
class HeatMap:
    """Share of weights kept on one task, by layer: a cell per head, and the MLP's."""

    task: str
    heads: list[list[Cell]]
    mlp: list[Cell]


@dataclass
class Shown:
    """`remarks`: for the caption; `lacking`: what belongs into the figure and is not there."""

    panels: list[Panel] = field(default_factory=list)
    maps: list[HeatMap] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    records: list[AttackRecord] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.panels and not self.maps

    @property
    def seeds(self) -> list[int]:
        points = [p for panel in self.panels for curve in panel.curves.values() for p in curve]
        cells = [point.cell for point in points] + [c for m in self.maps for c in m.mlp]
        return sorted({seed for cell in cells for seed in cell.values})

    @property
    def longest_curve(self) -> int:
        """Points on it."""
        return max(len(points) for panel in self.panels for points in panel.curves.values())

    def __add__(self, other: "Shown") -> "Shown":
        return Shown(
            self.panels + other.panels,
            self.maps + other.maps,
            self.remarks + other.remarks,
            self.lacking + other.lacking,
            self.records + other.records,
        )


def csv_text(figure: str, x_name: str, shown: Shown) -> str:
    """Every number that the figure shows, a line each."""
    text = io.StringIO()
    writer = csv.writer(text)
    if shown.panels:
        writer.writerow(PANEL_HEADER)
    for panel in shown.panels:
        start = (figure, panel.task, PAPER_DATASET.get(panel.task), panel.recipe, panel.quantity)
        for name, points in panel.curves.items():
            for point in points:
                x = "" if point.x is None else repr(point.x)
                ids = text_cell(";".join(point.attack_ids))
                start_of_line = map(text_cell, (*start, name, x_name))
                writer.writerow([*start_of_line, x, *_numbers(point.cell), ids])
    if shown.maps:
        writer.writerow(MAP_HEADER)
    for heat_map in shown.maps:
        start = [figure, text_cell(heat_map.task), PAPER_DATASET.get(heat_map.task)]
        for layer, heads in enumerate(heat_map.heads, 1):
            columns = {f"head {i}": cell for i, cell in enumerate(heads, 1)}
            for name, cell in (columns | {"MLP": heat_map.mlp[layer - 1]}).items():
                writer.writerow([*start, layer, name, *_numbers(cell)])
    return text.getvalue()


def _numbers(cell: Cell) -> list[str]:
    return [number(cell.mean), number(cell.deviation), number(cell.n), by_seed(cell)]
