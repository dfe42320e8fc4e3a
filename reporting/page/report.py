"""report.html: the answer, the table, curves and texts of one set of records."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from experiments.paper import FIGURES
from experiments.scales import tables_of
from reporting.figure_data import Shown
from reporting.page import curves, reliability, table, texts, tickets
from reporting.page.blocks import Block, alike, of_sub_tables, of_tables, without_repetitions
from reporting.page.group import Group
from reporting.page.plots import Plot
from reporting.page.write import write as write_page
from reporting.paper_tables import SubTable
from reporting.search_epochs import NAME as SEARCH_LOG
from reporting.searches import Runs, find_runs
from reporting.summary_table import make_tables
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
    groups.sort(key=lambda group: not group.answers)  # those that answer first
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


def write_targets(
    folder: Path,
    targets: Iterable[str],
    subs: Sequence[SubTable],
    figures: Mapping[str, Shown],
    paths: Sequence[str],
) -> Path:
    """The page of tables and figures of the paper or of the study, by their names.

    Without a table, its models are those of the figures.
    """
    first, *others = targets
    title = next((table.title for table in tables_of(first)), FIGURES.get(first, first))
    title = ", ".join([title, *others])
    blocks = of_sub_tables(subs)
    if not blocks:
        records = list(dict.fromkeys(r for shown in figures.values() for r in shown.records))
        blocks = of_tables(make_tables(records), title)
    titled = {FIGURES[name]: shown for name, shown in figures.items()}
    return write(folder, title, blocks, paths, titled)


def _curves(
    folder: Path, blocks: list[Block], paths: Sequence[str], figures: Mapping[str, Shown]
) -> Curves:
    """What cannot be read becomes a note: the page is about the attacks."""
    shown = Curves(
        curves.of_models(blocks),
        {title: plots for title, of in figures.items() if (plots := curves.of_shown(of))},
        reliability.plots(blocks),
        reliability.has_bins(blocks),
    )
    runs: Runs = []
    with _noting(shown.notes, "Runs are not shown"):
        runs = find_runs(paths)
    searched, log = _searched(blocks, runs), folder / f"{SEARCH_LOG}.jsonl"
    with _noting(shown.notes, "Steps of searches are not shown"):
        shown.searches += curves.over_search_steps(runs, *searched)
    with _noting(shown.notes, "Epochs of searches are not shown"):
        shown.searches += curves.over_search_epochs(runs, log, *searched)
    found = tickets.find([*paths, folder / SEARCH_LOG])
    with _noting(shown.notes, "Tickets are not compared"):
        shown.densities = tickets.densities(found)
        shown.agreement, notes = tickets.agreement(found)
        shown.notes += notes
    return shown


@contextmanager
def _noting(notes: list[str], start: str) -> Iterator[None]:
    """Turn an error about the files of a section into a note."""
    try:
        yield
    except UserError as e:
        notes.append(f"{start}: {e}.")


def _searched(blocks: list[Block], runs: Runs) -> tuple[str, list[str]]:
    """Encoder and tasks of the models; without any, those of the searches."""
    firsts = [result.first for block in blocks for result in block.results]
    known = [(first.encoder, first.task) for first in firsts] or [
        (run.get("encoder", {}).get("name", ""), run.get("task", ""))
        for _, run in runs
        if run.get("stage") == "search"
    ]
    return known[0][0] if known else "", list(dict.fromkeys(task for _, task in known))
