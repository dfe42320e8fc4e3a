"""Tables and figures of the paper by name: from what lies below the record folders to files."""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from evaluation.records import NoRecords, read_records, write_records, write_text
from experiments.paper import EPOCHS_FIGURE, FIGURES, Table
from experiments.scales import Scale, tables_of, tasks_of
from experiments.study import STUDIES, STUDY, STUDY_RECORDS
from reporting import (
    calibration_table,
    curves,
    figures,
    latex,
    markdown,
    paper_tables,
    search_epochs,
    searches,
    study,
)
from reporting.figure_data import Shown, csv_text
from reporting.missing import Missing, command
from training.tasks import TASKS
from utils.cli import UserError

X_NAMES = {
    "figure1": "optimizer_step",
    "figure2": "sparsity",
    "figure3": "",
    "figure4": "epoch",
    "figure5": "optimizer_step",
}
NOT_THERE = {
    "figure1": "no finished search in a folder search-robust",
    "figure2": "no attack records of its curves",
    "figure3": "no finished run of a robust ticket with density_by_head in its ticket.json",
    "figure4": f"no attack records of single epochs of trainings of {EPOCHS_FIGURE} epochs",
    "figure5": "no finished search in folders search-robust and search-robust-lambda...",
}
SPREADS = {
    "figure1": "Thin lines: single seeds, where there are several.",
    "figure2": "Bars and bands: standard deviation over seeds, where there are several.",
    "figure3": "Mean over seeds, where there are several.",
    "figure4": "Bars: standard deviation over seeds, where there are several.",
    "figure5": "Thin lines: single seeds, where there are several.",
}
NONE_USED = (
    "No attack record belongs into this table: their tasks, attacks, kinds of ticket or sparsities "
    "are others than its own, or their training"
)


class Sources:
    """What lies below --records, read when first asked for."""

    def __init__(self, paths: Iterable[str | Path]):
        self.paths = list(paths)
        self.kept: list[dict] = []
        for path in map(Path, self.paths):
            if not path.exists():
                raise UserError(f"--records {path} does not exist")

    def with_kept(self, path: Path) -> "Sources":
        """And the records that the study keeps in a file, before all others."""
        kept = [path] if path.is_file() and path.stat().st_size else []
        both = Sources([*kept, *self.paths])
        both.kept = read_records(kept) if kept else []
        return both

    @cached_property
    def records(self) -> list[dict]:
        """Those of test rows: an attack on dev rows is there to select by, not to be reported."""
        return [r for r in read_records(self.paths) if r.get("split") != "dev"]

    @cached_property
    def found(self) -> list[dict]:
        """The records, or none where nothing was run."""
        try:
            return self.records
        except NoRecords:
            return []

    @cached_property
    def runs(self) -> searches.Runs:
        return searches.find_runs(self.paths)


def make(
    targets: Iterable[str],
    scale: Scale,
    sources: Sources,
    folder: Path,
    tasks: tuple[str, ...] | None = None,
    checkpoint: str = "last",
    say: Callable = print,
) -> list[Path]:
    """Write each target (names of TABLES and FIGURES); the paths written.

    What is missing for one is said, and the others are made all the same; Missing where nothing
    could be made.
    """
    for task in set(tasks or ()) - (TASKS.keys() - {"custom"}):
        raise UserError(f"unknown task {task!r}; known are {', '.join(TASKS)}")
    paths, missing = [], []
    texts: list[str] = []  # said when all is written: whoever reads them may leave early
    is_study = bool(STUDIES.keys() & set(targets))
    if is_study:
        sources = sources.with_kept(folder / STUDY_RECORDS)
    for target in targets:
        own_tasks = _tasks(target, tasks, scale, sources)
        try:
            for table in tables_of(target):
                text, of_table = _make_table(table, own_tasks, scale, sources, folder, checkpoint)
                texts, paths = [*texts, text], [*paths, *of_table]
            if not tables_of(target):
                text, of_one = _make_figure(target, own_tasks, scale, sources, folder, checkpoint)
                texts, paths = [*texts, text], [*paths, *of_one]
        except NoRecords as e:
            line = f"{target} not made: {e}; run: {command(target, scale, own_tasks)}"
            missing.append(line)
    if is_study:
        own_tasks = _tasks(STUDY.name, tasks, scale, sources)
        paths += search_epochs.write(sources.runs, scale, own_tasks, folder)
    if not paths:
        raise Missing("; ".join(missing))
    for line in [*texts, *missing]:
        say(line)
    return paths


def _tasks(target: str, asked: tuple[str, ...] | None, scale: Scale, sources: Sources):
    """Those asked for, else the target's own; of the study also those whose records are kept or,
    where none were asked for, given: what is recorded does not leave its tables."""
    own = asked or tasks_of(target, scale)
    if target not in STUDIES:
        return own
    there = sources.kept if asked else sources.found
    further = {r["task"] for r in there if r["encoder"] == scale.encoder} - {"custom"}
    return (*own, *(task for task in TASKS if task in further - set(own)))


def _make_table(table: Table, tasks, scale, sources, folder, checkpoint) -> tuple[str, list[Path]]:
    records = sources.found
    subs = [
        sub
        for task in tasks
        for sub in paper_tables.sub_tables(table, task, scale, records, checkpoint)
    ]
    used = {id(r): r for sub in subs for r in sub.records}
    models = [row.model for row in table.rows]
    candidates = [
        r
        for r in records
        if r["task"] in tasks
        and r["checkpoint_rule"] == checkpoint
        and (
            any(m.at(r["task"]).owns(r, scale.epochs) for m in models)
            or table.controls
            and _is_plain_dense(r)
        )
    ]
    is_study = table.name in STUDIES
    if is_study:  # first of all: whatever a drawing may stumble over
        study.keep_records(records, tasks, scale.encoder, folder)
    tempered = [] if is_study and table is not STUDY else calibration_table.attacks(candidates)
    remark = f"{NONE_USED} ({scale.epochs} epochs, {checkpoint} checkpoint)." if not used else ""
    text = markdown.markdown(table, subs, remark)
    text += calibration_table.markdown(candidates) if tempered else ""
    paths = study.write_more(subs, scale.encoder, folder) if table is STUDY else []
    if tempered:
        csv_of_them = calibration_table.csv_text(candidates)
        paths.append(write_text(folder / f"{table.name}-calibration.csv", csv_of_them))
    used |= {id(r): r for r in tempered}
    paths += [
        write_text(folder / f"{table.name}.md", text),
        write_text(folder / f"{table.name}.csv", markdown.csv_text(subs)),
        write_text(folder / f"{table.name}.tex", latex.latex(table, subs)),
    ]
    if not is_study:
        of_table = folder / f"{table.name}-records.jsonl"
        paths.append(write_records(of_table, list(used.values())))
    return text, paths


def _is_plain_dense(record: dict) -> bool:
    """Trained for however long: such may be a ticket's control."""
    return record["ticket"] is None and record.get("method", "plain") == "plain"


def _shown(target: str, task: str, scale: Scale, sources: Sources, checkpoint: str) -> Shown:
    if target == "figure2":
        return curves.over_sparsity(sources.records, task, scale, checkpoint)
    if target == "figure4":
        return curves.over_epochs(sources.records, task, scale)
    if target == "figure3":
        return searches.heat_maps(sources.runs, task, scale)
    return searches.over_steps(sources.runs, task, scale, lambdas=target == "figure5")


def _make_figure(target, tasks, scale, sources, folder, checkpoint) -> tuple[str, list[Path]]:
    shown = Shown()
    for task in tasks:
        of_task = _shown(target, task, scale, sources, checkpoint)
        if of_task.empty:
            of_task.lacking.append(f"{task}: {NOT_THERE[target]}")
        shown += of_task
    if shown.empty:
        raise Missing(NOT_THERE[target])
    text = _caption(target, tasks, scale, shown)
    paths = figures.draw(target, shown, folder)
    paths.append(write_text(folder / f"{target}.csv", csv_text(target, X_NAMES[target], shown)))
    paths.append(write_text(folder / f"{target}.md", text))
    if shown.records:
        paths.append(write_records(folder / f"{target}-records.jsonl", shown.records))
    return text, paths


def _caption(target: str, tasks: Iterable[str], scale: Scale, shown: Shown) -> str:
    lines = [f"# {FIGURES[target]}", "", f"![{FIGURES[target]}]({target}.png)", ""]
    lines += [f"- {remark}" for remark in shown.remarks]
    lines += [f"- {SPREADS[target]}"]
    if shown.lacking:
        lines += [f"- Lacking: {text}." for text in shown.lacking]
        lines += [
            "",
            "To fill what is lacking:",
            "",
            "```sh",
            command(target, scale, tasks, shown.seeds),
            "```",
        ]
    return "\n".join([*lines, "", f"The numbers: `{target}.csv`.", ""])
