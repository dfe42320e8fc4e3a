"""Tables and figures of the paper by name: from the record folders to files."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evaluation.records import AttackRecord, NoRecords, read_records
from experiments.models import assign
from experiments.paper import EPOCHS_FIGURE, FIGURES, Table
from experiments.scales import Scale, tables_of, tasks_of
from experiments.study import STUDIES, STUDY, STUDY_RECORDS
from reporting import (
    calibration_table,
    figure_data,
    figures,
    latex,
    markdown,
    paper_tables,
    search_epochs,
    searches,
    study,
    table_csv,
)
from reporting.figure_data import Shown
from reporting.missing import Missing, command
from reporting.render import paragraphs, write_records, write_text
from training.tasks import TASKS
from utils.cli import UserError

NEEDS = {
    "figure1": "no finished search in a folder search-robust",
    "figure2": "no attack records of its curves",
    "figure3": "no finished run of a robust ticket with density_by_head in its ticket.json",
    "figure4": f"no attack records of single epochs of trainings of {EPOCHS_FIGURE} epochs",
    "figure5": "no finished search in folders search-robust and search-robust-lambda...",
}
SPREADS = {
    "figure2": "Bars and bands: standard deviation over seeds",
    "figure3": "Mean over seeds",
    "figure4": "Bars: standard deviation over seeds",
}
NONE_USED = (
    "No attack record belongs to this table: their tasks, attacks, kinds of ticket, sparsities or "
    "trainings differ from the table's"
)
Records = list[AttackRecord]


class Sources:
    """What lies below --records, read when first used.

    `study_records`: a file that the study keeps; its records come before all others.
    """

    def __init__(self, paths: Iterable[str | Path], study_records: Path | None = None):
        self.paths = list(paths)
        for path in map(Path, self.paths):
            if not path.exists():
                raise UserError(f"--records {path} does not exist")
        self.of_study: Records = []
        if study_records and study_records.is_file() and study_records.stat().st_size:
            self.of_study = read_records([study_records])
            self.paths.insert(0, study_records)

    @cached_property
    def records(self) -> Records:
        """Those of test rows, possibly none: attacks on dev rows select models, not report them."""
        try:
            return [r for r in read_records(self.paths) if r.split != "dev"]
        except NoRecords:
            return []

    @cached_property
    def runs(self) -> searches.Runs:
        return searches.find_runs(self.paths)


@dataclass(frozen=True)
class Request:
    """What the tables and figures of one call have in common."""

    scale: Scale
    sources: Sources
    folder: Path
    checkpoint: str

    def tasks(self, target: str, asked: tuple[str, ...] | None) -> tuple[str, ...]:
        """The tasks that were asked for, or else the target's own.

        The study keeps a data set in its tables once it is recorded: it also has the tasks of its
        kept records or, if no tasks were asked for, of all records.
        """
        usual = asked or tasks_of(target, self.scale)
        if target not in STUDIES:
            return usual
        records = self.sources.of_study if asked else self.sources.records
        further = {r.task for r in records if r.encoder == self.scale.encoder} - {"custom"}
        return (*usual, *(task for task in TASKS if task in further - set(usual)))


def make(
    targets: Iterable[str],
    scale: Scale,
    sources: Sources,
    folder: Path,
    tasks: tuple[str, ...] | None = None,
    checkpoint: str = "last",
) -> list[Path]:
    """Write each target (names of TABLES, FIGURES and STUDIES) and return the paths.

    A target that cannot be made is reported with the command that it needs, and the others are
    made. Raises Missing if none could be made.
    """
    for task in set(tasks or ()) - (TASKS.keys() - {"custom"}):
        raise UserError(f"unknown task {task!r}; known are {', '.join(TASKS)}")
    is_study = bool(STUDIES.keys() & set(targets))
    if is_study:
        sources = Sources(sources.paths, folder / STUDY_RECORDS)
    request = Request(scale, sources, folder, checkpoint)
    missing: list[str] = []
    results: list[tuple[str, list[Path]]] = []
    for target in targets:
        its_tasks = request.tasks(target, tasks)
        try:
            for table in tables_of(target):
                results.append(_make_table(table, request, its_tasks))
            if target in FIGURES:
                results.append(_make_figure(target, request, its_tasks))
        except NoRecords as e:
            missing.append(f"{target} not made: {e}; run: {command(target, scale, its_tasks)}")
    paths = [path for _, written in results for path in written]
    if is_study:
        its_tasks = request.tasks(STUDY.name, tasks)
        paths += search_epochs.write(sources.runs, scale, its_tasks, folder)
    if not paths:
        raise Missing("; ".join(missing))
    # At the end: the reader of a pipe may close it early.
    for text in [*(text for text, _ in results), *missing]:
        print(text)
    return paths


def _make_table(table: Table, request: Request, tasks: Iterable[str]) -> tuple[str, list[Path]]:
    scale, folder, records = request.scale, request.folder, request.sources.records
    is_study = table.name in STUDIES
    if is_study:  # before anything can fail
        study.keep_records(records, tasks, scale.encoder, folder)
    subs = [
        sub
        for task in tasks
        for sub in paper_tables.sub_tables(table, task, scale, records, request.checkpoint)
    ]
    used = [r for sub in subs for r in sub.records]
    remark = (
        "" if used else f"{NONE_USED} ({scale.epochs} epochs, {request.checkpoint} checkpoint)."
    )
    text = markdown.markdown(table, subs, remark)
    paths = study.write_more(subs, scale.encoder, folder) if table is STUDY else []
    if not is_study or table is STUDY:
        candidates = _candidates(table, request, tasks)
        tempered = calibration_table.attacks(candidates)
        used += tempered
        if tempered:
            text += calibration_table.markdown(candidates)
            calibration = calibration_table.csv_text(candidates)
            paths.append(write_text(folder / f"{table.name}-calibration.csv", calibration))
    paths += [
        write_text(folder / f"{table.name}.md", text),
        write_text(folder / f"{table.name}.csv", table_csv.csv_text(subs)),
        write_text(folder / f"{table.name}.tex", latex.latex(table, subs)),
    ]
    if not is_study:
        path = folder / f"{table.name}-records.jsonl"
        paths.append(write_records(path, dict.fromkeys(used)))
    return text, paths


def _candidates(table: Table, request: Request, tasks: Iterable[str]) -> Records:
    """The records of the table's models at all temperatures, and of its possible controls."""
    of_tasks, chosen = [], set()
    for task in tasks:
        of_task = [
            r
            for r in request.sources.records
            if r.task == task and r.checkpoint_rule == request.checkpoint
        ]
        models = {row.label: row.model.at(task) for row in table.rows}
        chosen.update(*assign(of_task, models, request.scale.epochs).values())
        of_tasks += of_task
    chosen |= {r for r in of_tasks if table.controls and r.is_plain_dense}
    return [r for r in request.sources.records if r in chosen]


def _shown(target: str, task: str, request: Request) -> Shown:
    scale, sources = request.scale, request.sources
    if target == "figure2":
        return figure_data.over_sparsity(sources.records, task, scale, request.checkpoint)
    if target == "figure4":
        return figure_data.over_epochs(sources.records, task, scale)
    if target == "figure3":
        return searches.heat_maps(sources.runs, task, scale)
    return searches.over_steps(sources.runs, task, scale, lambdas=target == "figure5")


def _make_figure(target: str, request: Request, tasks: Iterable[str]) -> tuple[str, list[Path]]:
    folder, shown = request.folder, Shown()
    for task in tasks:
        of_task = _shown(target, task, request)
        if not of_task.rows:
            of_task.lacking.append(f"{task}: {NEEDS[target]}")
        shown += of_task
    if not shown.rows:
        raise Missing(NEEDS[target])
    text = _caption(target, tasks, request.scale, shown)
    paths = figures.draw(target, shown, folder)
    paths.append(write_text(folder / f"{target}.csv", figure_data.csv_text(target, shown)))
    paths.append(write_text(folder / f"{target}.md", text))
    if shown.records:
        paths.append(write_records(folder / f"{target}-records.jsonl", shown.records))
    return text, paths


def _caption(target: str, tasks: Iterable[str], scale: Scale, shown: Shown) -> str:
    spread = f"{SPREADS.get(target, 'Thin lines: single seeds')}, where there are several."
    remarks = [*shown.remarks, spread, *(f"Missing: {text}." for text in shown.lacking)]
    parts = [
        f"# {FIGURES[target]}",
        f"![{FIGURES[target]}]({target}.png)",
        "\n".join(f"- {remark}" for remark in remarks),
    ]
    if shown.lacking:
        to_run = command(target, scale, tasks, shown.seeds)
        parts += ["To run what is missing:", f"```sh\n{to_run}\n```"]
    return paragraphs([*parts, f"The numbers: `{target}.csv`."])
