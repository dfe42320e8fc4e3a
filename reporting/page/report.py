"""report.html: the answer, the table, curves and texts of one set of records."""

from collections.abc import Iterable
from pathlib import Path

from reporting.page import table
from reporting.page.blocks import Block, alike, without_repetitions
from reporting.page.group import Group
from reporting.page.write import write as write_page

NAME = "report.html"


def write(folder: Path, title: str, blocks: Iterable[Block]) -> Path:
    """Write the page into the folder. The first table of `blocks` with records is the answer."""
    blocks = without_repetitions(blocks)
    of_first = next((block.title for block in blocks if block.results), None)
    groups = [Group(g) for g in alike(b for b in blocks if b.title == of_first)]
    models = [result for block in blocks for result in block.results]
    records = {r for m in models for r in m.records}
    records |= {r for m in models for c in m.controls for r in c.records}
    sections = [("table", "All models", "table.html")] if blocks else []
    context = {
        "title": title,
        "groups": groups,
        "table": table.make(blocks),
        "records": len(records),
        "sections": sections,
    }
    return write_page(folder / NAME, "report.html", context)
