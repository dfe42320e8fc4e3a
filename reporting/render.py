"""From numbers to text: Markdown and CSV. Nothing reads the text back."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from evaluation.by_class import Rate
from evaluation.records import AttackRecord
from reporting.cells import Cell
from reporting.comparisons import Difference
from utils.files import write_atomically

NONE = "—"


def number(value: float | None, spec: str = ".1f") -> str:
    if value is None or math.isnan(value):
        return NONE
    return f"{value:{spec}}".replace("-", "−")


def decimals(value: float, places: int = 3) -> str:
    """A number with that many decimals; a value that rounds to zero has no sign."""
    return number(round(float(value), places) or 0.0, f".{places}f")


def cell(value: Cell, interval: bool = True, count: bool = True) -> str:
    """Mean ± deviation [low, high] (n=count), as far as each is known and asked for."""
    if value.mean is None:
        return NONE
    text = number(value.mean)
    text += "" if value.deviation is None else f" ± {value.deviation:.1f}"
    if interval and value.interval:
        text += f" [{value.interval[0]:.1f}, {value.interval[1]:.1f}]"
    return text + f" (n={value.n})" * count


def short(value: Difference) -> str:
    """The points with their interval or p-value; bold if distinguishable from noise."""
    points = number(value.points, "+.1f")
    certainty = f"p = {_p(value.p_values[0])}" if value.bounds is None else _bounds(value)
    text = f"{points if value.is_noise else f'**{points}**'} {certainty}"
    return text + (f" ({_seeds_only(value)})" if value.lacking else "")


def rate(value: Rate) -> str:
    """A gain in points with its interval; bold if the interval excludes zero."""
    points, ends = number(value.percent, "+.1f"), (value.low, value.high)
    points = points if ends[0] <= 0 <= ends[1] else f"**{points}**"
    return f"{points} [{number(ends[0], '+.1f')}, {number(ends[1], '+.1f')}]"


def long(value: Difference) -> str:
    """The same with McNemar's tests by seed, for a note."""
    points = number(value.points, "+.1f")
    seeds = f", {_seeds_only(value)}" if value.lacking else ""
    noise = ", not distinguishable from noise" if value.is_noise else ""
    if value.bounds is None:
        (a, b), p = value.right_alone[0], _p(value.p_values[0])
        return f"{points} (right alone on {a} rows against {b}, p = {p}){seeds}{noise}"
    of_seeds = zip(value.seeds, value.p_values, strict=True)
    tests = ", ".join(f"{seed}: {_p(p)}" for seed, p in of_seeds)
    return f"{points} {_bounds(value)}{seeds}{noise} (McNemar's p by seed: {tests})"


def _p(value: float) -> str:
    return number(value, ".2g")


def _bounds(value: Difference) -> str:
    low, high = value.bounds or (None, None)
    return f"[{number(low, '+.1f')}, {number(high, '+.1f')}]"


def _seeds_only(value: Difference) -> str:
    return f"seed{'s' * (len(value.seeds) > 1)} {', '.join(map(str, value.seeds))} only"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, its first `left` columns aligned to the left."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    cells = [[text.replace("|", "\\|") for text in row] for row in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def table_of(rows: Sequence[Mapping[str, str]], left: int = 1) -> str:
    """A Markdown table of rows that map each column to its cell."""
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows], left)


def paragraphs(parts: Iterable[str]) -> str:
    """Blocks of Markdown, those that are not empty, with a blank line between them."""
    return "\n\n".join(part for part in parts if part) + "\n"


def csv_text(
    rows: Sequence[Mapping[str, object]],
    columns: Iterable[str] = (),
    spec: str = ".6g",
    newline: str = "\r\n",
) -> str:
    """A CSV file of rows, empty without rows. `columns`: default those of the first row.

    `spec`: format of a float.
    """
    columns = list(columns) or list(rows[0] if rows else ())
    if not columns:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=newline)
    writer.writerow(columns)
    writer.writerows([csv_cell(row[name], spec) for name in columns] for row in rows)
    return text.getvalue()


def csv_cell(value: object, spec: str = ".6g") -> str:
    """Empty for None and NaN. A spreadsheet runs a text that begins like a formula, so such a text
    gets an apostrophe."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if not isinstance(value, str):
        return f"{value:{spec}}" if isinstance(value, float) else str(value)
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def by_seed(value: Cell) -> str:
    """The values by seed, in one cell of a CSV file."""
    return ";".join(f"{seed}:{v:.6g}" for seed, v in value.values.items())


def by_class(cells: Mapping[str, Cell]) -> str:
    return ";".join(f"{name}:{cell.mean:.6g}" for name, cell in cells.items())


def write_text(path: Path, text: str) -> Path:
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8", newline=""))
    return path


def write_records(path: Path, records: Iterable[AttackRecord]) -> Path:
    """The records as they were read, so that the same table can be made again."""
    lines = [json.dumps(r.raw, ensure_ascii=False) + "\n" for r in records]
    return write_text(path, "".join(lines))
