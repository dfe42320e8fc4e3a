"""Cells of CSV files."""

import csv
import io
from collections.abc import Iterable, Sequence

from reporting.cells import Cell


def number(value: float | None) -> str:
    """Six digits; empty where there is none."""
    return "" if value is None else f"{value:.6g}"


def text_cell(value: object) -> str:
    """A text that a spreadsheet would take for a formula gets an apostrophe."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def joined(value: Cell) -> str:
    """The values by seed."""
    return ";".join(f"{seed}:{number(v)}" for seed, v in value.values.items())


def by_seed(value: Cell) -> str:
    return text_cell(joined(value))


def by_class(cells: dict[str, Cell]) -> str:
    return text_cell(";".join(f"{name}:{number(cell.mean)}" for name, cell in cells.items()))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], newline: str = "\r\n") -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=newline).writerows([header, *rows])
    return text.getvalue()
