"""From numbers to text: cells and differences as Markdown. Nothing reads the text back."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from evaluation.by_class import Rate
from evaluation.records import AttackRecord
from reporting import sheets
from reporting.cells import Cell
from reporting.comparisons import Difference
from reporting.sheets import NONE
from utils.files import write_atomically


def number(value: float | None, spec: str = ".1f") -> str:
    return NONE if value is None else f"{value:{spec}}".replace("-", "−")


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
    return "\n".join(sheets.markdown_table(header, rows, left))


def paragraphs(parts: Iterable[str]) -> str:
    """Blocks of Markdown, those that are not empty, with a blank line between them."""
    return "\n\n".join(part for part in parts if part) + "\n"


def write_text(path: Path, text: str) -> Path:
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8", newline=""))
    return path


def write_records(path: Path, records: Iterable[AttackRecord]) -> Path:
    """The records as they were read, so that the same table can be made again."""
    lines = [json.dumps(r.raw, ensure_ascii=False) + "\n" for r in records]
    return write_text(path, "".join(lines))
