"""A table of the paper or of the study as Markdown."""

from evaluation.by_class import Rate
from experiments.paper import Table
from reporting import render
from reporting.cells import Cell
from reporting.comparisons import Difference
from reporting.grids import Comparison, Grid, Number, Value, grids
from reporting.paper_tables import SubTable

OURS = (
    "Ours: mean ± standard deviation (n - 1) over n seeds. Brackets: 95 % intervals; for one seed "
    "Wilson's over rows, for several over new rows and new seeds (two-way random effects)."
)
LEGEND = (
    "Diff.: ours minus the paper's. Clean: accuracy before the attack. Aua: accuracy under attack. "
    "Both are shares of all attacked rows. Suc = 100 (1 - Aua / Clean). #Query: victim queries per "
    "row that was right before the attack. A row without numbers was not run. Control missing: a "
    "matched dense control of this ticket lacks a seed, so it is open whether longer or closer "
    "fitting explains its numbers. The control with the same training loss is an epoch from the "
    "middle of a longer schedule: its learning rate was not annealed. Suspicious: see the notes. "
    "One class survives: Aua of one class is far above the others', so the mean hides which class "
    "is robust."
)
OF_SEARCHES = (
    " Dev: accuracy of the trained model on the dev rows. R(m): expected share of open gates in "
    "the scores that the ticket is drawn from."
)
CONTROLS_HEADER = (
    "Ticket",
    "Dense control with the",
    "Epochs",
    "Training loss",
    "Clean %",
    "Aua %",
    "Δ Aua, ticket vs. control",
)


def text_of(value: Value) -> str:
    if isinstance(value, Cell):
        return render.cell(value)
    if isinstance(value, Difference):
        return render.long(value)
    if isinstance(value, Rate):
        return render.rate(value)
    return render.number(value.value, value.spec) if isinstance(value, Number) else value


def note(comparison: Comparison) -> str:
    against = "; ".join(f"{label} {render.long(d)}" for label, d in comparison.differences)
    return f"{comparison.start}: {against}."


def legend(table: Table) -> str:
    return LEGEND + (OF_SEARCHES if "open" in table.metrics else "")


def markdown(table: Table, subs: list[SubTable], remark: str = "") -> str:
    parts = [f"# {table.title}", remark]
    for grid in grids(subs):
        heads = [f"{head} {sub}".strip() for head, below in grid.columns for sub in below]
        rows = [list(map(text_of, row)) for row in grid.rows]
        parts += [f"## {grid.heading}", *grid.remarks, render.markdown_table(heads, rows)]
        parts += [*map(note, grid.comparisons), *grid.notes, *_controls(grid)]
        if grid.commands:
            commands = "\n".join(["```sh", *grid.commands, "```"])
            parts += ["To run what is missing or has fewer seeds:", commands]
    return render.paragraphs([*parts, f"{OURS} {legend(table)}"])


def _controls(grid: Grid) -> list[str]:
    if not grid.controls:
        return []
    header = [*CONTROLS_HEADER, *(f"Δ Aua {name}" for name in grid.classes)]
    rows = [list(map(text_of, row)) for row in grid.controls]
    return [
        "Matched dense controls: the same training settings, checkpoint rule, attack and rows.",
        render.markdown_table(header, rows, left=2),
    ]
