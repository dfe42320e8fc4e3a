"""CSV files and Markdown tables of the analyses: the one writer of each."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence

NONE = "—"


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A CSV file with these columns of each row."""
    text = io.StringIO()
    csv.writer(text).writerows([columns, *([_csv_cell(row[c]) for c in columns] for row in rows)])
    return text.getvalue()


def _csv_cell(value: object) -> str:
    """Six digits of a float, nothing for None or NaN, an apostrophe before a formula.

    A spreadsheet would run a text that begins like a formula.
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    is_formula = isinstance(value, str) and text.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{text}" if is_formula else text


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1
) -> list[str]:
    """Lines of a Markdown table, its first `left` columns aligned to the left."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    cells = [[text.replace("|", "\\|") for text in row] for row in (header, rule, *rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def decimals(value: float, places: int = 3) -> str:
    """A number with that many decimals; a value that rounds to zero has no sign."""
    if math.isnan(value):
        return NONE
    text = f"{value:.{places}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")
