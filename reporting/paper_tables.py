"""The tables of the paper and of the study as numbers: the paper's next to ours from records."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from evaluation.records import ROW_SETTINGS, STRICT_COMPARISON, AttackRecord
from experiments.models import Model, assign
from experiments.paper import OWN_RECIPES, PAPER_ATTACKS, TABLES, Table, replacing
from experiments.scales import Scale, usual_recipes
from experiments.study import STUDIES
from reporting.cells import Cell, Records, largest_group, one_per_seed
from reporting.comparisons import Result, classes_of, controls_of
from reporting.paper_values import values_of

# Metric of the paper's tables: its heading, and our records' measure.
METRICS = {
    "clean": ("Clean %", "clean_percent"),
    "aua": ("Aua %", "aua_percent"),
    "suc": ("Suc %", "suc_percent"),
    "queries": ("#Query", "queries_per_row"),
    "dev": ("Dev %", "dev_accuracy_percent"),
    "open": ("R(m) %", "expected_density_percent"),
}
DEFAULT_SEED = 42  # the stage scripts'


@dataclass(frozen=True)
class Line(Result):
    """A row of a sub-table: its model, and the paper's values by metric."""

    model: Model
    paper: dict[str, float]

    @property
    def sparsity(self) -> float:
        """Of the attacked model: it is dense if the removed weights are re-initialized."""
        dense = self.model.kind is None or self.model.reinitialise == "rest"
        return 0.0 if dense else self.model.sparsity or 0.0

    def ours(self, metric: str) -> Cell:
        return Cell.of(self.records, METRICS[metric][1])

    def difference(self, metric: str) -> float | None:
        """Ours minus the paper's."""
        ours, paper = self.ours(metric).mean, self.paper.get(metric)
        return None if ours is None or paper is None else ours - paper


@dataclass
class SubTable:
    """One attack on one task.

    `attack`: the paper's column; None for an attack that the paper does not have. `recipe`: ours;
    None if no recipe for the column was run. `shared`: one of the records, for what all of them
    have in common.
    """

    table: Table
    task: str
    scale: Scale
    attack: str | None
    recipe: str | None
    shared: AttackRecord | None = None
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def of_the_paper(self) -> bool:
        """Whether the paper has rows of this table."""
        return any(row.paper_method for row in self.table.rows)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("clean", *self.table.metrics)

    @cached_property
    def records(self) -> Records:
        """Of the rows, then of their controls, each once."""
        of_rows = [r for line in self.lines for r in line.records]
        of_controls = [r for line in self.lines for c in line.controls for r in c.records]
        return list(dict.fromkeys(of_rows + of_controls))

    @cached_property
    def classes(self) -> list[str]:
        return classes_of(self.lines)

    @property
    def encoder(self) -> str:
        return self.shared.encoder if self.shared else self.scale.encoder

    @property
    def seeds(self) -> list[int]:
        """The seeds that a row should have: those that any row has, or the default one."""
        return sorted({r.seed for r in self.records} | set(self.scale.seeds) or {DEFAULT_SEED})

    def commands(self) -> list[str]:
        """What fills the rows that lack seeds or controls, one command per set of seeds."""
        rows: dict[tuple[int, ...], list[str]] = {}
        for line in self.lines:
            if lacking := self.lacking_seeds(line):
                rows.setdefault(lacking, []).append(line.label)
        return [self.command(seeds, labels) for seeds, labels in rows.items()]

    def lacking_seeds(self, line: Line) -> tuple[int, ...]:
        """The seeds of which a line lacks its own record, or that of a control."""
        complete = {r.seed for r in line.records}
        for control in line.controls:
            complete &= {r.seed for r in control.records}
        return tuple(sorted(set(self.seeds) - complete))

    def command(self, seeds: Iterable[int], labels: Iterable[str]) -> str:
        return command(self.table.name, self.scale, [self.task], seeds, labels, self.recipe)


def command(
    target: str,
    scale: Scale,
    tasks: Iterable[str],
    seeds: Iterable[int] = (DEFAULT_SEED,),
    rows: Iterable[str] = (),
    recipe: str | None = None,
) -> str:
    """The shell command that runs what a table or figure needs; without `rows`, all rows.

    `recipe`: the one attack that is needed. It replaces the attacks that the user chose, and is
    named unless the target runs it by default.
    """
    further, dropped = [], False
    for word in scale.further_flags:  # without --recipes and its values
        dropped = recipe is not None and (
            word == "--recipes" or (dropped and not word.startswith("--"))
        )
        further += [] if dropped else [word]
    named = [recipe] if recipe and recipe not in usual_recipes(target, scale.name) else []
    words = ["sh", "reproduce.sh", target, "--scale", scale.name]
    flags = {"--tasks": tasks, "--seeds": seeds, "--rows": rows, "--recipes": named}
    for flag, values in flags.items():
        values = list(map(str, values))
        words += [flag, *values] if values else []
    return shlex.join([*words, *further])


def sub_tables(
    table: Table, task: str, scale: Scale, records: Records, checkpoint: str
) -> list[SubTable]:
    """The paper's columns, one sub-table per recipe, and before them attacks that need no hub.

    If the scale has no recipe for a column and none was run, its sub-table has no recipe.
    """
    # Attacks at a temperature have a table of their own (calibration_table.py).
    records = [r for r in records if r.temperature_rule is None]
    of_task = [r for r in records if r.task == task and r.checkpoint_rule == checkpoint]
    if table.name in STUDIES:  # its attacks with softmax only serve the calibration table
        of_task = [r for r in of_task if r.score_with == "log_odds"]

    def rows_of(table: Table) -> dict[str, Records]:
        return assign(of_task, {row.label: row.model.at(task) for row in table.rows}, scale.epochs)

    rows = rows_of(table)
    in_a_row = {r for of_row in rows.values() for r in of_row}
    present = {r.recipe for r in in_a_row}
    columns: list[tuple[str | None, str | None]] = []
    for attack in table.attacks:
        recipes: Iterable[str | None] = PAPER_ATTACKS[attack]
        if scale.name != "paper":
            recipes = [r for r in recipes if r in present] or [None]
        columns += [(attack, recipe) for recipe in recipes]
    if scale.name != "paper":
        # An attack that was run for Table 1 only also has records of rows that another table
        # shares with Table 1. They do not justify a sub-table there.
        further = {r.recipe for r in in_a_row.difference(*rows_of(TABLES["table1"]).values())}
        replaced = replacing(table.attacks, OWN_RECIPES) if table.attacks else present
        shown = further | set(replaced)
        columns = [(None, r) for r in OWN_RECIPES if r in present & shown] + columns
    subs = [SubTable(table, task, scale, attack, recipe) for attack, recipe in columns]
    for sub in subs:
        _fill(sub, rows, records)
    return subs


def _fill(sub: SubTable, rows: dict[str, Records], all_records: Records) -> None:
    """Add the lines, from the records of each row's model, and notes on what is skipped."""
    in_a_row = {r for of_row in rows.values() for r in of_row}
    of_recipe = [r for r in all_records if r in in_a_row and r.recipe == sub.recipe]
    comparable, sub.notes = largest_group(of_recipe, STRICT_COMPARISON, sub.scale.encoder)
    sub.shared, repeated = next(iter(comparable), None), 0
    for row in sub.table.rows:
        model, members = row.model.at(sub.task), set(rows[row.label])
        ordered = [r for r in comparable if r in members]
        of_row, other_settings = largest_group(ordered, ROW_SETTINGS, sub.scale.encoder)
        sub.notes += [f"{row.label}: {note}" for note in other_settings]
        latest = one_per_seed(of_row)
        repeated += len(of_row) - len(latest)
        is_ticket = model.kind is not None and model.reinitialise == "nothing"
        with_controls = latest and is_ticket and sub.table.controls
        controls = controls_of(latest, all_records) if with_controls else []
        paper = values_of(sub.table, sub.task, row, sub.attack)
        sub.lines.append(Line(row.label, latest, controls, model, paper))
    if repeated:
        sub.notes.append(f"Skipped: {repeated} earlier of several attacks on a row with one seed.")
