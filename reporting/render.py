"""From numbers to text: Markdown and CSV. Nothing reads the text back."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from evaluation.by_class import Rate
from evaluation.records import AttackRecord
from reporting.cells import Cell, Records, doubts_of
from reporting.comparisons import Difference, Result, difference
from utils.files import write_atomically

NONE = "—"
# A word, or a sign, of a text whose changes are shown.
TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
# Sentences that the legends of several tables share.
OF_MEASURES = (
    "Clean: accuracy before the attack. Aua: accuracy under attack. Both are shares of all "
    "attacked rows. Suc = 100 (1 - Aua / Clean). #Query: victim queries per row that was right "
    "before the attack. "
)
OF_INTERVALS = (
    "Brackets: 95 % intervals; for one seed Wilson's over rows, for several over new rows and new "
    "seeds (two-way random effects). "
)
OF_FLAGS = (
    "Suspicious: see the notes. One class survives: Aua of one class is far above the others', so "
    "the mean hides which class is robust."
)
TESTS = (
    "one seed: McNemar's exact test; several: 95 % interval for new rows and seeds, and that test "
    "for each; not corrected for their number"
)


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
    low, high = value.interval
    if interval and low is not None:
        text += f" [{low:.1f}, {high:.1f}]"
    return text + f" (n={value.n})" * count


def short(value: Difference, bold: bool = True) -> str:
    """The points with their interval or p-value; bold if distinguishable from noise."""
    points = number(value.points, "+.1f")
    certainty = bounds(*value.bounds) or f"p = {p_value(value)}"
    seeds = f" ({_seeds(value)} only)" if value.lacking else ""
    return f"{f'**{points}**' if bold and not value.is_noise else points} {certainty}{seeds}"


def in_points(value: Difference) -> str:
    """The points with their interval or p-value, for a sentence."""
    certainty = bounds(*value.bounds) or f"(McNemar's p = {p_value(value)})"
    return f"{number(value.points, '+.1f')} points {certainty}"


def in_words(value: Difference) -> str:
    """The same, and whether it is distinguishable from noise."""
    seeds = f" ({_seeds(value)} only)" if value.lacking else ""
    noise = "not distinguishable from noise" if value.is_noise else "beyond noise"
    return f"{in_points(value)}{seeds}, {noise}"


def p_value(value: Difference) -> str:
    """Of the first seed, the only one of a difference without an interval."""
    return number(value.tests[0][2], ".2g")


def rate(value: Rate | None, bold: bool = True) -> str:
    """A gain in points with its interval; bold if the interval excludes zero."""
    if value is None:
        return NONE
    points = number(value.percent, "+.1f")
    points = points if value.low <= 0 <= value.high or not bold else f"**{points}**"
    return f"{points} {bounds(value.low, value.high)}"


def long(value: Difference) -> str:
    """The same with McNemar's tests by seed, for a note."""
    points, certainty = number(value.points, "+.1f"), bounds(*value.bounds)
    seeds = f", {_seeds(value)} only" if value.lacking else ""
    noise = ", not distinguishable from noise" if value.is_noise else ""
    p_values = [number(p, ".2g") for _, _, p in value.tests]
    if not certainty:
        a, b, _ = value.tests[0]
        return f"{points} (right alone on {a} rows against {b}, p = {p_values[0]}){seeds}{noise}"
    tests = ", ".join(f"{seed}: {p}" for seed, p in zip(value.seeds, p_values, strict=True))
    return f"{points} {certainty}{seeds}{noise} (McNemar's p by seed: {tests})"


def bounds(low: float | None, high: float | None) -> str:
    """An interval of a difference; empty if unknown."""
    return "" if low is None else f"[{number(low, '+.1f')}, {number(high, '+.1f')}]"


def _seeds(value: Difference) -> str:
    return f"seed{'s' * (len(value.seeds) > 1)} {', '.join(map(str, value.seeds))}"


def compared(results: Sequence[Result]) -> list[str]:
    """A note on Aua of each model against the first one's; none if all are unknown."""
    first, *others = results
    differences = [(result.label, difference(result.records, first.records)) for result in others]
    texts = [f"{label} {long(d)}" for label, d in differences if d]
    note = f"Aua compared with {first.label}, on the same rows ({TESTS}): {'; '.join(texts)}."
    return [note] if texts else []


def suspicious(models: Iterable[tuple[str, Records]]) -> list[str]:
    """A note per named model with flags."""
    doubts = [(name, doubts_of(records)) for name, records in models]
    return [f"Suspicious: {name}: {'; '.join(texts)}." for name, texts in doubts if texts]


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
    rows: Sequence[Mapping[str, object]], columns: Iterable[str] = (), spec: str = ".6g"
) -> str:
    """A CSV file of rows, empty without rows. `columns`: default those of the first row.

    `spec`: format of a float.
    """
    columns = list(columns) or list(rows[0] if rows else ())
    if not columns:
        return ""
    text = io.StringIO()
    writer = csv.writer(text)
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
