"""report.html: the answer, the table, curves and texts of one set of records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reporting.figure_data import Shown
from reporting.page import curves, reliability, table, texts, tickets
from reporting.page.blocks import Block, alike, without_repetitions
from reporting.page.group import Group
from reporting.page.plots import Plot
from reporting.page.write import write as write_page
from reporting.search_epochs import NAME as SEARCH_LOG
from reporting.searches import find_runs
from utils.cli import UserError

NAME = "report.html"


@dataclass
class Curves:
    """What the section of this name shows."""

    models: list[Plot]
    figures: dict[str, list[Plot]]
    reliability: list[Plot]
    has_bins: bool
    searches: list[Plot] = field(default_factory=list)
    densities: list[tickets.HeatMap] = field(default_factory=list)
    agreement: list[tickets.HeatMap] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write(
    folder: Path,
    title: str,
    blocks: Iterable[Block],
    paths: Sequence[str],
    figures: Mapping[str, Shown] | None = None,
) -> Path:
    """Write the page into the folder. The first table of `blocks` with records is the answer.

    `paths`: folders of runs, and record files, where searches, tickets and texts may lie.
    `figures`: title -> what a figure of the paper shows.
    """
    blocks = without_repetitions(blocks)
    of_first = next((block.title for block in blocks if block.results), None)
    groups = [Group(g) for g in alike(b for b in blocks if b.title == of_first)]
    models = [result for block in blocks for result in block.results]
    records = {r for m in models for r in m.records}
    records |= {r for m in models for c in m.controls for r in c.records}
    sections = [("table", "All models", "table.html")] if blocks else []
    sections += [("curves", "Curves", "curves.html"), ("texts", "Texts", "texts.html")]
    context = {
        "title": title,
        "groups": groups,
        "table": table.make(blocks),
        "curves": _curves(folder, blocks, paths, figures or {}),
        "texts": texts.read(blocks, paths),
        "records": len(records),
        "sections": sections,
    }
    return write_page(folder / NAME, "report.html", context)


def _curves(
    folder: Path, blocks: list[Block], paths: Sequence[str], figures: Mapping[str, Shown]
) -> Curves:
    """What cannot be read becomes a note: the page is about the attacks."""
    shown = Curves(
        curves.of_models(blocks),
        {title: curves.of_shown(of_figure) for title, of_figure in figures.items()},
        reliability.plots(blocks),
        reliability.has_bins(blocks),
    )
    firsts = [result.first for block in blocks for result in block.results]
    try:
        tasks = list(dict.fromkeys(first.task for first in firsts))
        log, encoder = folder / f"{SEARCH_LOG}.jsonl", firsts[0].encoder if firsts else ""
        shown.searches = curves.of_searches(find_runs(paths), log, encoder, tasks)
    except UserError as e:
        shown.notes.append(f"The searches are not shown: {e}.")
    found = tickets.find([*paths, folder / SEARCH_LOG])
    try:
        shown.densities = tickets.densities(found)
        shown.agreement, notes = tickets.agreement(found)
        shown.notes += notes
    except UserError as e:
        shown.notes.append(f"The tickets are not compared: {e}.")
    return shown
