"""What the study has beyond its tables: its records, and a figure."""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from evaluation.records import read_records
from experiments.study import STUDY_RECORDS
from reporting import costs, study_summary
from reporting.cells import Cell, Records
from reporting.comparisons import SAME_EPOCHS, SAME_LOSS, SAME_PASSES
from reporting.paper_tables import Line, SubTable
from reporting.render import write_records, write_text
from reporting.style import class_letters, legend, save
from reporting.summary_table import point

# Okabe and Ito's colors, each with its own marker and legend.
MODEL = ("the model", "#D55E00", "o")
LOOKS = {
    SAME_EPOCHS: ("dense, same epochs", "#000000", "s"),
    SAME_LOSS: ("dense, same training loss", "#0072B2", "^"),
    SAME_PASSES: ("dense, same label passes", "#009E73", "D"),
}


def keep_records(records: Records, tasks: Iterable[str], encoder: str, folder: Path) -> None:
    """Add records to the study's file, which loses nothing: its runs are kept nowhere else.

    Records that no row shows are kept too, such as those of a control that never reached its loss,
    so that a plan does not ask for them again.
    """
    path, tasks = folder / STUDY_RECORDS, set(tasks)
    new = {r.identity: r for r in records if r.task in tasks and r.encoder == encoder}
    if path.is_file() and path.read_text(encoding="utf-8").strip():
        new = {r.identity: r for r in read_records([path])} | new
    if new:
        write_records(path, new.values())


def write_more(subs: list[SubTable], encoder: str, folder: Path) -> list[Path]:
    """study.png and .pdf, the main table's summary and, if epochs were measured, its costs."""
    measured = costs.read(folder, encoder)
    summary = study_summary.markdown(subs, measured)
    shown = [sub for sub in subs if sub.recipe is not None and sub.records]
    paths = save(lambda: _figure(shown), "study", folder) if shown else []
    paths.append(write_text(folder / "study-summary.md", summary))
    return paths + (costs.write(subs, measured, folder) if measured is not None else [])


def _figure(subs: list[SubTable]) -> Figure:
    """A panel per task and attack."""
    lines = [[line for line in sub.lines if line.records] for sub in subs]
    heights = [0.21 * len(of_panel) + 0.35 for of_panel in lines]
    figure = Figure(figsize=(6.8, sum(heights) + 0.7), layout="constrained")
    panels = figure.subplots(len(subs), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, sub, of_panel in zip(panels, subs, lines, strict=True):
        _panel(axes, sub, of_panel)
    panels[-1].set_xlabel("accuracy under attack (%), with 95 % intervals")
    legend(figure, [label for label, *_ in (MODEL, *LOOKS.values())], handlelength=1.2)
    return figure


def _panel(axes, sub: SubTable, lines: list[Line]) -> None:
    letters = class_letters(sub.classes)
    for y, line in enumerate(lines):
        _point(axes, line.records, y, MODEL)
        for name, cell in line.by_class.items():
            letter = f"${letters[name]}$"
            axes.plot(cell.mean, y - 0.25, marker=letter, color=MODEL[1], markersize=4.5)
        controls = [control for control in line.controls if control.records]
        for i, control in enumerate(controls, 1):
            _point(axes, control.records, y + 0.16 * i, LOOKS[control.name])
    axes.set_yticks(range(len(lines)), [line.label for line in lines])
    axes.set_ylim(len(lines) - 0.3, -0.5)
    seeds, rows = len(study_summary.seeds_of(sub)), sub.records[0].rows_attacked
    title = f"{sub.task}, {sub.recipe}, {rows} rows, {seeds} seed{'s' * (seeds > 1)}"
    title += "".join(f"; {letter}: {name}" for name, letter in letters.items())
    axes.set_title(title, loc="left")
    axes.grid(axis="y", visible=False)


def _point(axes, records: Records, y: float, look: tuple[str, str, str]) -> None:
    label, color, marker = look
    style = {"fmt": marker, "color": color, "capsize": 1.5, "elinewidth": 0.7, "markersize": 3}
    is_known = label in axes.get_legend_handles_labels()[1]
    point(axes, Cell.of(records, "aua_percent"), y, **style, label=None if is_known else label)
