"""The numbers of a figure before it is drawn, and as CSV."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from evaluation.records import AttackRecord
from experiments.paper import PAPER_DATASET
from reporting import render
from reporting.cells import Cell


@dataclass(frozen=True)
class Point:
    """`x`: sparsity, epoch, or optimizer step; None for a dense model in Figure 2."""

    x: float | None
    cell: Cell
    attack_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One quantity on one task (under one attack): the points of each curve, by its name."""

    task: str
    recipe: str | None
    quantity: str
    curves: dict[str, list[Point]]

    @property
    def points(self) -> list[Point]:
        return [point for curve in self.curves.values() for point in curve]


@dataclass(frozen=True)
class HeatMap:
    """Share of weights kept on one task, by layer: a cell for each head, and one for the MLP."""

    task: str
    heads: list[list[Cell]]
    mlp: list[Cell]


@dataclass
class Shown:
    """What a figure shows. `remarks`: for its caption; `lacking`: what is missing in it."""

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
        cells = [point.cell for panel in self.panels for point in panel.points]
        cells += [cell for heat_map in self.maps for cell in heat_map.mlp]
        return sorted({seed for cell in cells for seed in cell.values})

    @property
    def longest_curve(self) -> int:
        """Number of points on it."""
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
    """Every number that the figure shows, one per line."""
    parts = [list(_panel_rows(figure, x_name, shown.panels)), list(_map_rows(figure, shown.maps))]
    return "".join(render.csv_text(rows) for rows in parts if rows)


def _panel_rows(figure: str, x_name: str, panels: list[Panel]) -> Iterator[dict]:
    for panel in panels:
        for name, points in panel.curves.items():
            for point in points:
                yield {
                    "figure": figure,
                    "task": panel.task,
                    "dataset_in_paper": PAPER_DATASET.get(panel.task),
                    "recipe": panel.recipe,
                    "quantity": panel.quantity,
                    "curve": name,
                    "x_name": x_name,
                    "x": point.x,
                    **_numbers(point.cell),
                    "attack_ids": ";".join(point.attack_ids),
                }


def _map_rows(figure: str, maps: list[HeatMap]) -> Iterator[dict]:
    for heat_map in maps:
        for layer, (heads, mlp) in enumerate(zip(heat_map.heads, heat_map.mlp, strict=True), 1):
            columns = {f"head {i}": cell for i, cell in enumerate(heads, 1)}
            for name, cell in (columns | {"MLP": mlp}).items():
                yield {
                    "figure": figure,
                    "task": heat_map.task,
                    "dataset_in_paper": PAPER_DATASET.get(heat_map.task),
                    "layer": layer,
                    "column": name,
                    **_numbers(cell),
                }


def _numbers(cell: Cell) -> dict:
    return {
        "mean": cell.mean,
        "deviation": cell.deviation,
        "n": cell.n,
        "values_by_seed": render.by_seed(cell),
    }
