"""The study's main table in short, for the pages that quote it."""

from evaluation.records import AttackRecord
from reporting import render
from reporting.cells import Cell
from reporting.comparisons import CONTROLS, Control, difference, mean_difference
from reporting.grids import marks
from reporting.paper_tables import Line, SubTable

# What the models and attacks of two data sets must have in common for a mean.
ATTACK = (
    "encoder",
    "recipe",
    "score_with",
    "similarity_threshold",
    "checkpoint_rule",
    "temperature_rule",
    "deviations",
)
DELTAS = tuple(f"Δ Aua vs. dense ({name})" for name in CONTROLS)
NOT_RUN, NOT_REACHED = "not run", "not reached"


def markdown(subs: list[SubTable], measured: dict | None) -> str:
    """Of each sub-table the rows that were run, each ticket minus its controls; then means over
    data sets. `measured`: costs of an epoch (costs.read)."""
    parts = []
    for sub in (sub for sub in subs if sub.records):
        parts += _of_one(sub)
    return render.paragraphs([*parts, *_over_tasks(subs)])


def seeds_of(sub: SubTable) -> list[int]:
    """The seeds of its rows; sub.seeds also has those that were asked for."""
    return sorted({r.seed for line in sub.lines for r in line.records})


def _of_one(sub: SubTable) -> list[str]:
    seeds, first = seeds_of(sub), sub.records[0]
    body = []
    for line in (line for line in sub.lines if line.records):
        controls = {control.name: control for control in line.controls}
        cells = [Cell.of(line.records, name) for name in ("clean_percent", "aua_percent")]
        body.append(
            [
                line.label + marks(line),
                # The number of seeds stands above the table.
                *(render.cell(c, interval=False, count=c.n != len(seeds)) for c in cells),
                *(_delta(line, controls.get(name)) for name in CONTROLS),
            ]
        )
    missing = [line.label for line in sub.lines if not line.records]
    return [
        f"**{sub.task}**, {first.training_rows or '?'} training rows, {sub.recipe}, "
        f"{first.rows_attacked} rows, seeds {', '.join(map(str, seeds))}",
        render.markdown_table(["model", "Clean %", "Aua %", *DELTAS], body),
        f"Not run: {'; '.join(missing)}." if missing else "",
    ]


def _delta(line: Line, control: Control | None) -> str:
    """Aua of a ticket minus that of a control; empty if there is no such control by its nature."""
    if control is None:
        return ""
    if not control.records:
        return NOT_RUN if control.is_reached else NOT_REACHED
    delta = difference(line.records, control.records)
    return render.short(delta) if delta else "other rows"


def _over_tasks(subs: list[SubTable]) -> list[str]:
    """For each attack on several data sets, the mean of each ticket minus its controls."""
    by_attack: dict[tuple, list[SubTable]] = {}
    for sub in (sub for sub in subs if sub.shared):
        by_attack.setdefault(tuple(getattr(sub.shared, key) for key in ATTACK), []).append(sub)
    parts = []
    for alike in by_attack.values():
        labels = dict.fromkeys(line.label for sub in alike for line in sub.lines if line.controls)
        body = [row for label in labels if (row := _mean_row(alike, label))]
        if len(alike) > 1 and body:
            tasks = ", ".join(sub.task for sub in alike)
            parts += [
                f"**Mean over {tasks}**, {alike[0].recipe}, over the seeds that all have",
                render.markdown_table(["model", *DELTAS], body),
            ]
    return parts


Compared = dict[str, tuple[list[AttackRecord], list[AttackRecord]]]  # task -> ticket and control


def _mean_row(alike: list[SubTable], label: str) -> list[str]:
    """A ticket's mean differences from its controls; empty if there are none."""
    lines = {
        sub.task: line
        for sub in alike
        for line in sub.lines
        if line.label == label and line.controls
    }
    cells, has_any = [], False
    for name in CONTROLS:
        of_name = {t: c for t, line in lines.items() for c in line.controls if c.name == name}
        run: Compared = {t: (lines[t].records, c.records) for t, c in of_name.items() if c.records}
        mean = mean_difference(list(run.values())) if len(run) > 1 else None
        has_any = has_any or mean is not None
        if mean is None:
            cells.append(NOT_RUN if of_name else "")
        else:
            some_lack = len(run) < len(alike)
            cells.append(render.short(mean) + (f" ({', '.join(run)})" if some_lack else ""))
    longest = max(map(marks, lines.values()), key=len)
    return [label + longest, *cells] if has_any else []
