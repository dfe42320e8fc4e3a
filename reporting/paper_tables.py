"""What stands in the paper's tables: its values, and beside them ours from the records."""

import csv
import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.presets import RECIPES
from evaluation.records import (
    ROW_SETTINGS,
    STRICT_COMPARISON,
    Cell,
    interval,
    largest_group,
    one_per_seed,
)
from experiments.paper import (
    MINI_RECIPES,
    PAIR_TASKS,
    PAPER_ATTACKS,
    PAPER_DATASET,
    SINGLE_TASKS,
    TABLES,
    Model,
    Table,
    mini_recipes,
)
from experiments.scales import SCALES, Scale
from experiments.study import STUDIES
from reporting.comparisons import TESTS, Control, controls_of, difference
from reporting.missing import command
from utils.cli import UserError

PAPER_VALUES = Path(__file__).resolve().parent.parent / "results" / "paper_tables.csv"
# Metric of the paper's tables -> measure of our records.
MEASURES = {
    "clean": "clean_percent",
    "aua": "aua_percent",
    "suc": "suc_percent",
    "queries": "queries_per_row",
    "dev": "dev_accuracy_percent",
    "open": "expected_density_percent",
}
NEEDS = {
    "word_vectors": "the counter-fitted vectors",
    "sentence_encoder": "the Universal Sentence Encoder",
    "tagger": "NLTK's tagger",
    "masked_lm": "a masked language model",
    "wordnet": "WordNet",
}
DEFAULT_SEED = 42  # the stage scripts'


@functools.cache
def paper_values(path: Path = PAPER_VALUES) -> dict[tuple[str, ...], float]:
    """(table number, data set, method, attack or "", metric) -> the paper's value."""
    try:
        with open(path, newline="", encoding="utf-8") as f:
            return {
                (r["table"], r["dataset"], r["method"], r["attack"], r["metric"]): float(r["value"])
                for r in csv.DictReader(f)
            }
    except OSError as e:
        raise UserError(f"the paper's values cannot be read from {path}: {e.strerror}") from e
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{path} is damaged: no table of the paper's values ({e!r})") from e


@dataclass(frozen=True)
class Line:
    """A row of a sub-table: its model, its records (one a seed), the paper's values by metric, and
    beside a ticket its matched dense controls."""

    label: str
    model: Model
    records: list[dict]
    paper: dict[str, float]
    controls: list[Control] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """Of the model that is attacked: with the rest re-initialised it is dense."""
        dense = self.model.kind is None or self.model.reinitialise == "rest"
        return 0.0 if dense else self.model.sparsity

    def ours(self, metric: str) -> Cell:
        return Cell.of(self.records, MEASURES[metric])

    def interval(self, metric: str) -> tuple[float, float] | None:
        """95 %, in percent; None where there is none (Suc over several seeds, #Query)."""
        return interval(self.records, MEASURES[metric])

    def against(self, other: "Line", metric: str = "aua") -> str | None:
        """How this model differs from another on the same rows; None where it cannot be told."""
        told = difference(self.records, other.records, MEASURES[metric])
        return None if told is None else f"{self.label} {told}"

    def difference(self, metric: str) -> float | None:
        """Ours less the paper's."""
        ours, paper = self.ours(metric).mean, self.paper.get(metric)
        return None if ours is None or paper is None else ours - paper


@dataclass(frozen=True)
class SubTable:
    """One attack on one task.

    `attack`: the paper's column; None for an attack that the paper does not have. `recipe`: ours;
    None where none that could fill the column was run. `shared`: what all its records have in
    common; empty without records.
    """

    table: Table
    task: str
    scale: Scale
    attack: str | None
    recipe: str | None
    lines: list[Line]
    shared: dict
    notes: list[str]

    @property
    def of_the_paper(self) -> bool:
        """Whether the paper has rows of this table."""
        return any(row.paper_method for row in self.table.rows)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("clean", *self.table.metrics)

    @property
    def records(self) -> list[dict]:
        """Of the rows and of their controls, each once."""
        of_controls = [r for line in self.lines for c in line.controls for r in c.records]
        found = [r for line in self.lines for r in line.records] + of_controls
        return list({id(r): r for r in found}.values())

    @property
    def encoder(self) -> str:
        return self.shared.get("encoder", self.scale.encoder)

    def comparisons(self) -> list[str]:
        """Aua of each row against the first one's, row by row of the data."""
        first, *others = self.lines
        told = [text for line in others if (text := line.against(first)) is not None]
        if not told:
            return []
        return [f"Aua against {first.label}, on the same rows ({TESTS}): {'; '.join(told)}."]

    @property
    def seeds(self) -> list[int]:
        """That a row should have: those that any row has, or the default one."""
        return sorted({r["seed"] for r in self.records} | set(self.scale.seeds) or {DEFAULT_SEED})

    def commands(self) -> list[str]:
        """What fills the rows that lack seeds or controls, a command for each set of them."""
        rows: dict[tuple[int, ...], list[str]] = {}
        for line in self.lines:
            there = {r["seed"] for r in line.records}
            for control in line.controls:
                there &= {r["seed"] for r in control.records}
            lacking = tuple(sorted(set(self.seeds) - there))
            if lacking:
                rows.setdefault(lacking, []).append(line.label)
        return [self.command(seeds, labels) for seeds, labels in rows.items()]

    def command(self, seeds: Iterable[int], labels: Iterable[str]) -> str:
        return command(self.table.name, self.scale, [self.task], seeds, labels, self.recipe)


def sub_tables(
    table: Table, task: str, scale: Scale, records: list[dict], checkpoint: str
) -> list[SubTable]:
    """The paper's columns, each recipe of a column apart, then attacks that need no hub.

    Where the scale has no recipe for a column and none was run, the column is there without one.
    """
    records = [r for r in records if r.get("temperature_rule") is None]  # these have their table
    own = [
        r
        for r in records
        if r["task"] == task
        and r["checkpoint_rule"] == checkpoint
        and any(row.model.at(task).owns(r, scale.epochs) for row in table.rows)
    ]
    if table.name in STUDIES:  # attacks with softmax are there to be calibrated
        own = [r for r in own if r["score_with"] == "log_odds"]
    present = {r["recipe"] for r in own}
    columns: list[tuple[str | None, str | None]] = []
    for attack in table.attacks:
        recipes = PAPER_ATTACKS[attack]
        if scale.name != "paper":
            recipes = [r for r in recipes if r in present] or [None]
        columns += [(attack, recipe) for recipe in recipes]
    if scale.name != "paper":
        # An attack that was run for Table 1 alone has records of the rows that another table shares
        # with it, too; they make no table.
        further = {r["recipe"] for r in own if not _of_table_1(r, task, scale)}
        shown = further | set(mini_recipes(table.attacks) if table.attacks else present)
        columns = [(None, r) for r in MINI_RECIPES if r in present & shown] + columns
    return [_sub_table(table, task, scale, own, records, *column) for column in columns]


def _of_table_1(record: dict, task: str, scale: Scale) -> bool:
    rows = TABLES["table1"].rows
    return any(row.model.at(task).owns(record, scale.epochs) for row in rows)


def _sub_table(
    table: Table,
    task: str,
    scale: Scale,
    own: list[dict],
    all_records: list[dict],
    attack: str | None,
    recipe: str | None,
) -> SubTable:
    of_recipe = [r for r in own if r["recipe"] == recipe]
    records, notes = largest_group(of_recipe, STRICT_COMPARISON, scale.encoder)
    lines, repeated = [], 0
    for row in table.rows:
        model = row.model.at(task)
        mine = [r for r in records if model.owns(r, scale.epochs)]
        mine, other_noise = largest_group(mine, ROW_SETTINGS, scale.encoder)
        notes += [f"{row.label}: {note}" for note in other_noise]
        latest = one_per_seed(mine)
        repeated += len(mine) - len(latest)
        is_ticket = model.kind is not None and model.reinitialise == "nothing"
        with_controls = latest and is_ticket and table.controls
        controls = controls_of(latest, all_records) if with_controls else []
        paper = _paper_of(table, task, row, attack)
        lines.append(Line(row.label, model, latest, paper, controls))
    if repeated:
        notes.append(f"Left out: {repeated} earlier of several attacks on a row with one seed.")
    shared = {key: records[0].get(key) for key in STRICT_COMPARISON} if records else {}
    shared |= {"rows_attacked": records[0]["rows_attacked"]} if records else {}
    return SubTable(table, task, scale, attack, recipe, lines, shared, notes)


def _paper_of(table: Table, task: str, row, attack: str | None) -> dict[str, float]:
    """The paper's values of a row by metric; of an attack that it does not have, Clean alone."""
    start = (table.name.removeprefix("table"), PAPER_DATASET.get(task), row.paper_method)
    keys = {"clean": (*start, "", "clean")}
    keys |= {metric: (*start, attack, metric) for metric in table.metrics}
    values = paper_values()
    return {metric: values[key] for metric, key in keys.items() if key in values}


def orientation(task: str, encoder: str) -> str | None:
    """Why a difference to the paper is no reproduction gap; None where it is one."""
    dataset, paper_encoder = PAPER_DATASET.get(task), SCALES["paper"].encoder
    if dataset is None:
        return f"The paper has no values for {task}."
    other = ["another data set"] if task not in SINGLE_TASKS + PAIR_TASKS else []
    other += ["another encoder"] if Path(encoder).name != paper_encoder else []
    if not other:
        return None
    return (
        f"The paper's values are for BERT-base on {dataset}. This is {' and '.join(other)} "
        f"({task}, {encoder}), so the differences are no reproduction gap."
    )


def why_not_run(attack: str) -> str:
    """What the recipes of a column of the paper need that this scale does not have."""
    recipes = []
    for recipe in PAPER_ATTACKS[attack]:
        needs = [NEEDS[need] for need in RECIPES[recipe]]
        recipes.append(
            f"{recipe} needs {', '.join(needs[:-1])}{' and ' * bool(needs[1:])}{needs[-1]}"
        )
    return f"{attack}: not run; {'; '.join(recipes)} (see README, Attacks)."
