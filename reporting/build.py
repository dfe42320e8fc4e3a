"""Tables and figures of the paper by name: from the record folders to files."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evaluation.records import NoRecords, read_records
from experiments.models import assign
from experiments.paper import EPOCHS_FIGURE, FIGURES, Table
from experiments.scales import Scale, tables_of, tasks_of
from experiments.study import STUDIES, STUDY, STUDY_RECORDS
from reporting import calibration_table, figure_data, figures, search_epochs, searches, study
from reporting.cells import Records
from reporting.paper_tables import SubTable, command, sub_tables
from reporting.render import paragraphs, write_records, write_text
from reporting.table_files import csv_text, latex, markdown
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


@dataclass(frozen=True)
class Request:
    """What to make, from what, and where. What lies below `paths` is read when first used.

    `targets`: names of TABLES, FIGURES and STUDIES. `asked_tasks`: None for those of each target.
    `html`: also write report.html.
    """

    targets: Collection[str]
    paths: list[str]
    scale: Scale
    folder: Path
    asked_tasks: tuple[str, ...] | None
    checkpoint: str
    html: bool = False

    @cached_property
    def kept(self) -> list[Path]:
        """The study's file of records, if it has any; they come before all others."""
        path, is_study = self.folder / STUDY_RECORDS, STUDIES.keys() & set(self.targets)
        return [path] if is_study and path.is_file() and path.stat().st_size else []

    @cached_property
    def records(self) -> Records:
        """Those of test rows, possibly none: attacks on dev rows select models, not report them."""
        try:
            return [r for r in read_records([*self.kept, *self.paths]) if r.split != "dev"]
        except NoRecords:
            return []

    @cached_property
    def _of_study(self) -> Records:
        return read_records(self.kept) if self.kept else []

    @cached_property
    def runs(self) -> searches.Runs:
        return searches.find_runs(self.paths)

    def tasks(self, target: str) -> tuple[str, ...]:
        """The tasks that were asked for, or else the target's own.

        The study keeps a data set in its tables once it is recorded: it also has the tasks of its
        kept records or, if no tasks were asked for, of all records.
        """
        usual = self.asked_tasks or tasks_of(target, self.scale)
        if target not in STUDIES:
            return usual
        records = self._of_study if self.asked_tasks else self.records
        further = {r.task for r in records if r.encoder == self.scale.encoder} - {"custom"}
        others = [task for task in TASKS if task in further] + sorted(further - TASKS.keys())
        return (*usual, *(task for task in others if task not in usual))


def make(request: Request) -> list[Path]:
    """Write each target and return the paths.

    A target that cannot be made is reported with the command that it needs, and the others are
    made. Raises NoRecords if none could be made.
    """
    for path in map(Path, request.paths):
        if not path.exists():
            raise UserError(f"--records {path} does not exist")
    if "custom" in (request.asked_tasks or ()):
        known = ", ".join(name for name in TASKS if name != "custom")
        raise UserError(f"unknown task 'custom': its data are not named; known are {known}")
    scale = request.scale
    missing: list[str] = []
    results: list[tuple[str, list[Path]]] = []
    subs: list[SubTable] = []
    figures: dict[str, figure_data.Shown] = {}
    for target in request.targets:
        its_tasks = request.tasks(target)
        try:
            for table in tables_of(target):
                of_table = _sub_tables(table, request, its_tasks)
                results.append(_make_table(table, of_table, request, its_tasks))
                subs += of_table
            if target in FIGURES:
                shown = _shown(target, its_tasks, request)
                results.append(_make_figure(target, shown, request, its_tasks))
                figures[target] = shown
        except NoRecords as e:
            missing.append(f"{target} not made: {e}; run: {command(target, scale, its_tasks)}")
    written = [path for _, of_target in results for path in of_target]
    if STUDIES.keys() & set(request.targets):
        its_tasks = request.tasks(STUDY.name)
        written += search_epochs.write(request.runs, scale, its_tasks, request.folder)
    if not written:
        raise NoRecords("; ".join(missing))
    if request.html:
        from reporting.page import report as page  # here: it imports torch, which takes seconds

        shown = page.write_targets(request.folder, request.targets, subs, figures, request.paths)
        written.append(shown)
    # At the end: the reader of a pipe may close it early.
    for text in [*(text for text, _ in results), *missing]:
        print(text)
    return written


def _sub_tables(table: Table, request: Request, tasks: Iterable[str]) -> list[SubTable]:
    scale, records = request.scale, request.records
    if table.name in STUDIES:  # before anything can fail
        study.keep_records(records, tasks, scale.encoder, request.folder)
    return [s for t in tasks for s in sub_tables(table, t, scale, records, request.checkpoint)]


def _make_table(
    table: Table, subs: list[SubTable], request: Request, tasks: Iterable[str]
) -> tuple[str, list[Path]]:
    scale, folder, is_study = request.scale, request.folder, table.name in STUDIES
    used = [r for sub in subs for r in sub.records]
    trainings = f"{scale.epochs} epochs, {request.checkpoint} checkpoint"
    text = markdown(table, subs, "" if used else f"{NONE_USED} ({trainings}).")
    paths = study.write_more(subs, scale.encoder, folder) if table is STUDY else []
    if not is_study or table is STUDY:
        tempered = calibration_table.groups(_candidates(table, request, tasks))
        used += [r for group in tempered for r in group.records]
        text += calibration_table.markdown(tempered)
        if tempered:
            calibration = calibration_table.csv_text(tempered)
            paths.append(write_text(folder / f"{table.name}-calibration.csv", calibration))
    paths += [
        write_text(folder / f"{table.name}.md", text),
        write_text(folder / f"{table.name}.csv", csv_text(subs)),
        write_text(folder / f"{table.name}.tex", latex(table, subs)),
    ]
    if not is_study:
        path = folder / f"{table.name}-records.jsonl"
        paths.append(write_records(path, dict.fromkeys(used)))
    return text, paths


def _candidates(table: Table, request: Request, tasks: Iterable[str]) -> Records:
    """The records of the table's models at all temperatures, and of its possible controls."""
    of_rule = [r for r in request.records if r.checkpoint_rule == request.checkpoint]
    chosen = {r for r in of_rule if table.controls and r.is_plain_dense and r.task in tasks}
    for task in tasks:
        models = {row.label: row.model.at(task) for row in table.rows}
        of_task = [r for r in of_rule if r.task == task]
        chosen.update(*assign(of_task, models, request.scale.epochs).values())
    return [r for r in of_rule if r in chosen]


def _shown(target: str, tasks: Iterable[str], request: Request) -> figure_data.Shown:
    """What a figure shows. NoRecords if that is nothing."""
    shown = figure_data.Shown()
    for task in tasks:
        of_task = _shown_of(target, task, request)
        if not of_task.rows:
            of_task.lacking.append(f"{task}: {NEEDS[target]}")
        shown += of_task
    if not shown.rows:
        raise NoRecords(NEEDS[target])
    return shown


def _shown_of(target: str, task: str, request: Request) -> figure_data.Shown:
    scale = request.scale
    if target == "figure2":
        return figure_data.over_sparsity(request.records, task, scale, request.checkpoint)
    if target == "figure4":
        return figure_data.over_epochs(request.records, task, scale)
    if target == "figure3":
        return searches.heat_maps(request.runs, task, scale.encoder)
    return searches.over_steps(request.runs, task, scale.encoder, lambdas=target == "figure5")


def _make_figure(
    target: str, shown: figure_data.Shown, request: Request, tasks: Iterable[str]
) -> tuple[str, list[Path]]:
    folder = request.folder
    spread = f"{SPREADS.get(target, 'Thin lines: single seeds')}, where there are several."
    remarks = [*shown.remarks, spread, *(f"Missing: {text}." for text in shown.lacking)]
    caption = "\n".join(f"- {remark}" for remark in remarks)
    parts = [f"# {FIGURES[target]}", f"![{FIGURES[target]}]({target}.png)", caption]
    if shown.lacking:
        to_run = command(target, request.scale, tasks, shown.seeds)
        parts += ["To run what is missing:", f"```sh\n{to_run}\n```"]
    text = paragraphs([*parts, f"The numbers: `{target}.csv`."])
    paths = figures.draw(target, shown, folder)
    paths.append(write_text(folder / f"{target}.csv", figure_data.csv_text(target, shown)))
    paths.append(write_text(folder / f"{target}.md", text))
    if shown.records:
        paths.append(write_records(folder / f"{target}-records.jsonl", shown.records))
    return text, paths
