"""What the study has beyond its tables: the records that it keeps, a summary, a figure."""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from evaluation.records import Cell, identity, interval, read_records, write_records, write_text
from experiments.study import STUDY_RECORDS
from reporting import costs, markdown
from reporting.comparisons import NOT_REACHED, Control, difference, mean_difference
from reporting.paper_tables import Line, SubTable
from reporting.style import save

# Okabe and Ito's colours; each with a marker of its own.
LOOKS = {
    "model": ("#D55E00", "o"),
    "same epochs": ("#000000", "s"),
    "same training loss": ("#0072B2", "^"),
    "same passes over the labels": ("#009E73", "D"),
}
LABELS = {
    "model": "the model",
    "same epochs": "dense, same epochs",
    "same training loss": "dense, same loss",
    "same passes over the labels": "dense, same passes",
}


def keep_records(records: list[dict], tasks: Iterable[str], encoder: str, folder: Path) -> None:
    """One file for all of the study's tables, which loses nothing that it has: its runs are kept
    nowhere. Also records that no row shows, such as of a control that never reached its loss, so
    that a plan does not ask for them again."""
    path = folder / STUDY_RECORDS
    own = [r for r in records if r["task"] in set(tasks) and r["encoder"] == encoder]
    kept = {identity(r): r for r in own}
    if path.is_file() and path.read_text(encoding="utf-8").strip():
        kept = {identity(r): r for r in read_records([path])} | kept
    if kept:
        write_records(path, list(kept.values()))


def write_more(subs: list[SubTable], encoder: str, folder: Path) -> list[Path]:
    """What the main table has beyond the others: figure, summary and, where measured, costs."""
    paths = [*draw(subs, folder), write_text(folder / "study-summary.md", summary(subs))]
    measured = costs.read(folder, encoder)
    if measured is not None:
        paths.append(write_text(folder / "study-costs.md", costs.markdown(subs, measured)))
        paths.append(write_text(folder / "study-costs.csv", costs.csv_text(subs, measured)))
    return paths


CONTROLS = list(LOOKS)[1:]
# What two data sets' models and attacks must have in common for a mean.
ATTACK = (
    "encoder",
    "recipe",
    "score_with",
    "similarity_threshold",
    "checkpoint_rule",
    "temperature_rule",
    "protocol",
)
SUMMARY_HEADER = (
    "model",
    "Clean %",
    "Aua %",
    "less dense, as many epochs",
    "less dense, same training loss",
    "less dense, as many passes",
)


def summary(subs: list[SubTable]) -> str:
    """The main table in short, for the README: rows that were run, each ticket less its controls;
    below it the rows that were not."""
    text = []
    for sub in (sub for sub in subs if sub.records):
        body = [SUMMARY_HEADER, ["---", *["---:"] * (len(SUMMARY_HEADER) - 1)]]
        usual = f" (n={len(_seeds(sub))})"  # said once, above the table
        for line in (line for line in sub.lines if line.records):
            controls = {control.name: control for control in line.controls}
            body.append(
                [
                    line.label + markdown.marks(line),
                    *(
                        str(Cell.of(line.records, name)).removesuffix(usual)
                        for name in ("clean_percent", "aua_percent")
                    ),
                    *(_less(line, controls.get(name)) for name in CONTROLS),
                ]
            )
        missing = [line.label for line in sub.lines if not line.records]
        first, rows = sub.records[0], sub.shared["rows_attacked"]
        text += [
            f"**{sub.task}**, {first.get('training_rows') or '?'} training rows, "
            f"{sub.recipe}, {rows} rows, seeds {', '.join(map(str, _seeds(sub)))}",
            "",
        ]
        text += ["| " + " | ".join(row) + " |" for row in body] + [""]
        text += [f"Not run: {'; '.join(missing)}.", ""] if missing else []
    return "\n".join(text + _over_tasks(subs))


def _over_tasks(subs: list[SubTable]) -> list[str]:
    """Of each attack on several data sets: each ticket less its controls, as mean over those that
    have both."""
    by_attack: dict[tuple, list[SubTable]] = {}
    for sub in (sub for sub in subs if sub.records):
        by_attack.setdefault(tuple(sub.shared[key] for key in ATTACK), []).append(sub)
    text = []
    for alike in by_attack.values():
        labels = dict.fromkeys(line.label for sub in alike for line in sub.lines if line.controls)
        body = []
        for label in labels:
            of_tasks = {
                sub.task: line
                for sub in alike
                for line in sub.lines
                if line.label == label and line.controls
            }
            cells = [_mean_less(of_tasks, name, len(alike)) for name in CONTROLS]
            is_told = any(cell not in ("", "not run") for cell in cells)
            marks = max((markdown.marks(line) for line in of_tasks.values()), key=len)
            body += [[label + marks, *cells]] if is_told else []
        if len(alike) < 2 or not body:
            continue
        head = [(SUMMARY_HEADER[0], *SUMMARY_HEADER[3:]), ["---", *["---:"] * len(CONTROLS)]]
        tasks = ", ".join(sub.task for sub in alike)
        text += [f"**Mean over {tasks}**, {alike[0].recipe}, over the seeds that all have", ""]
        text += ["| " + " | ".join(row) + " |" for row in [*head, *body]] + [""]
    return text


def _mean_less(lines: dict[str, Line], name: str, n_tasks: int) -> str:
    """Over the tasks that have a ticket and its control the one less the other; these are named
    where they are not all; not run, where fewer than two have both."""
    found = {
        task: (line.records, control.records)
        for task, line in lines.items()
        for control in line.controls
        if control.name == name and control.records
    }
    told = mean_difference(list(found.values())) if len(found) > 1 else None
    if told is None:
        by_nature = any(
            control.name == name for line in lines.values() for control in line.controls
        )
        return "not run" if by_nature else ""
    return told.in_short + (f" ({', '.join(found)})" if len(found) < n_tasks else "")


def _less(line: Line, control: Control | None) -> str:
    """A ticket less one of its controls; empty where there is no such control by its nature."""
    if control is None:
        return ""
    if not control.records:
        return "not reached" if NOT_REACHED in control.wanted else "not run"
    told = difference(line.records, control.records)
    return told.in_short if told else "other rows"


def _seeds(sub: SubTable) -> list[int]:
    """Of its rows; sub.seeds are those that were asked for."""
    return sorted({r["seed"] for line in sub.lines for r in line.records})


def draw(subs: list[SubTable], folder: Path) -> list[Path]:
    """study.png and .pdf: a panel per task and attack; the paths written."""
    shown = [sub for sub in subs if sub.recipe is not None and sub.records]
    return save(lambda: _figure(shown), "study", folder) if shown else []


def _figure(subs: list[SubTable]) -> Figure:
    lines = [[line for line in sub.lines if line.records] for sub in subs]
    heights = [0.21 * len(found) + 0.35 for found in lines]
    figure = Figure(figsize=(6.8, sum(heights) + 0.7), layout="constrained")
    panels = figure.subplots(len(subs), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, sub, found in zip(panels, subs, lines, strict=True):
        for y, line in enumerate(found):
            _point(axes, line.records, y, "model")
            for i, control in enumerate(_run(line)):
                _point(axes, control.records, y + 0.16 * (i + 1), control.name)
        axes.set_yticks(range(len(found)), [line.label for line in found])
        axes.set_ylim(len(found) - 0.3, -0.5)
        rows, seeds = sub.shared["rows_attacked"], len(_seeds(sub))
        axes.set_title(
            f"{sub.task}, {sub.recipe}, {rows} rows, {seeds} seed{'s' * (seeds > 1)}", loc="left"
        )
        axes.grid(axis="y", visible=False)
    panels[-1].set_xlabel("accuracy under attack (%), with 95 % intervals")
    handles: dict[str, object] = {}
    for axes in panels:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    names = [LABELS[name] for name in LOOKS if LABELS[name] in handles]
    figure.legend(
        [handles[n] for n in names],
        names,
        loc="outside upper center",
        ncols=4,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.0,
    )
    return figure


def _run(line: Line) -> list[Control]:
    return [control for control in line.controls if control.records]


def _point(axes, records: list[dict], y: float, name: str) -> None:
    mean = Cell.of(records, "aua_percent").mean
    low, high = interval(records, "aua_percent") or (mean, mean)
    colour, marker = LOOKS[name]
    known = axes.get_legend_handles_labels()[1]
    axes.errorbar(
        mean,
        y,
        xerr=[[max(0, mean - low)], [max(0, high - mean)]],
        fmt=marker,
        color=colour,
        capsize=1.5,
        elinewidth=0.7,
        markersize=3,
        label=LABELS[name] if LABELS[name] not in known else None,
    )
