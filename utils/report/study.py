"""The study's figure: Aua of every model with its interval, tickets beside their dense controls."""

from pathlib import Path

from matplotlib.figure import Figure

from utils.experiments import STUDY
from utils.report.comparing import Control, difference
from utils.report.figures import save
from utils.report.records import Cell, interval, read_records, write_records
from utils.report.tables import Line, SubTable

# Okabe and Ito's colours; each with a marker of its own.
LOOKS = {
    "model": ("#D55E00", "o"),
    "same epochs": ("#000000", "s"),
    "same training loss": ("#0072B2", "^"),
    "same passes over the labels": ("#009E73", "D"),
}
LABELS = {"model": "the model", "same epochs": "dense, same epochs",
          "same training loss": "dense, same loss",
          "same passes over the labels": "dense, same passes"}  # fmt: skip


RECORDS = f"{STUDY.name}-records.jsonl"


def keep_records(records: list[dict], folder: Path) -> Path:
    """One file for all of the study's tables, which loses nothing that it has: its runs are kept
    nowhere. Also records that no row shows, such as of a control that never reached its loss, so
    that a plan does not ask for them again."""
    path = folder / RECORDS
    kept = {(r["attack_id"], r["seed"]): r for r in records}
    if path.is_file():
        known = {(r["attack_id"], r["seed"]): r for r in read_records([path])}
        kept = known | kept
    return write_records(path, list(kept.values()))


SUMMARY_HEADER = ("model", "Clean %", "Aua %", "less dense, as many epochs",
                  "less dense, same training loss", "less dense, as many passes")  # fmt: skip


def summary(subs: list[SubTable]) -> str:
    """The main table in short, for the README: rows that were run, each ticket less its controls;
    below it the rows that were not."""
    text = []
    for sub in (sub for sub in subs if sub.records):
        body = [SUMMARY_HEADER, ["---", *["---:"] * (len(SUMMARY_HEADER) - 1)]]
        for line in (line for line in sub.lines if line.records):
            of_controls = {c.name: difference(line.records, c.records) for c in line.controls}
            told = [of_controls.get(name) for name in list(LOOKS)[1:]]
            body.append([line.label, str(Cell.of(line.records, "clean_percent")),
                         str(Cell.of(line.records, "aua_percent")),
                         *(d.in_short if d else "—" for d in told)])  # fmt: skip
        missing = [line.label for line in sub.lines if not line.records]
        rows, seeds = sub.shared["rows_attacked"], ", ".join(map(str, sub.seeds))
        text += [f"**{sub.task}**, {sub.shared['training_rows']:,} training rows, {sub.recipe}, "
                 f"{rows} rows, seeds {seeds}", ""]  # fmt: skip
        text += ["| " + " | ".join(row) + " |" for row in body] + [""]
        text += [f"Not run: {'; '.join(missing)}.", ""] if missing else []
    return "\n".join(text)


def draw(subs: list[SubTable], folder: Path) -> list[Path]:
    """study.png and .pdf: a panel per task and attack; the paths written."""
    shown = [sub for sub in subs if sub.recipe is not None and sub.records]
    return save(lambda: _figure(shown), "study", folder) if shown else []


def _figure(subs: list[SubTable]) -> Figure:
    lines = [[line for line in sub.lines if line.records] for sub in subs]
    heights = [0.24 * len(found) + 0.35 for found in lines]
    figure = Figure(figsize=(5.2, sum(heights) + 0.7), layout="constrained")
    panels = figure.subplots(len(subs), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, sub, found in zip(panels, subs, lines, strict=True):
        for y, line in enumerate(found):
            _point(axes, line.records, y, "model")
            for i, control in enumerate(_run(line)):
                _point(axes, control.records, y + 0.16 * (i + 1), control.name)
        axes.set_yticks(range(len(found)), [line.label for line in found])
        axes.set_ylim(len(found) - 0.3, -0.5)
        rows, seeds = sub.shared["rows_attacked"], len(sub.seeds)
        axes.set_title(f"{sub.task}, {sub.recipe}, {rows} rows, {seeds} seed{'s' * (seeds > 1)}",
                       loc="left")  # fmt: skip
        axes.grid(axis="y", visible=False)
    panels[-1].set_xlabel("accuracy under attack (%), with 95 % intervals")
    handles: dict[str, object] = {}
    for axes in panels:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    names = [LABELS[name] for name in LOOKS if LABELS[name] in handles]
    figure.legend([handles[n] for n in names], names, loc="outside upper center", ncols=4,
                  frameon=False, handlelength=1.2, columnspacing=1.0)  # fmt: skip
    return figure


def _run(line: Line) -> list[Control]:
    return [control for control in line.controls if control.records]


def _point(axes, records: list[dict], y: float, name: str) -> None:
    mean = Cell.of(records, "aua_percent").mean
    low, high = interval(records, "aua_percent") or (mean, mean)
    colour, marker = LOOKS[name]
    known = axes.get_legend_handles_labels()[1]
    axes.errorbar(mean, y, xerr=[[max(0, mean - low)], [max(0, high - mean)]], fmt=marker,
                  color=colour, capsize=1.5, elinewidth=0.7, markersize=3,
                  label=LABELS[name] if LABELS[name] not in known else None)  # fmt: skip
