"""The train, dev and test splits, which are the same in each stage.

They depend only on the data and on the split seed.
"""

import argparse
import os
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from training import labels
from training.columns import kinds_of_table, with_columns
from training.data_sets import open_tables
from training.data_sources import (
    BUILTIN_TEST_FRACTION,
    Tables,
    builtin_tables,
    files_in,
    hub_tables,
    read_table,
)
from training.rows import Rows, rows_of, sample_balanced, split_off, without
from training.tasks import Task
from utils.cli import UserError, explain

DEV_FRACTION = 0.1


@dataclass(frozen=True)
class Splits:
    """Rows by split name, the task with its labels, and numbers of dropped training rows."""

    task: Task
    rows: dict[str, Rows]
    dropped: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Rows:
        return self.rows[name]

    def facts(self) -> dict:
        """The entries of a record that describe the data."""
        return {
            "splits": {
                name: {"rows": len(r), "source": r.source, "fingerprint": r.fingerprint}
                for name, r in self.rows.items()
            },
            "training_rows_dropped": self.dropped,
        }


def load_splits(
    args: argparse.Namespace, task: Task, need: tuple[str, ...] = ("train", "dev", "test")
) -> Splits:
    """Load and check the splits named in `need`.

    Without a dev file, dev is a stratified 10 % of train. Training rows whose texts are also in
    test or dev are dropped and counted. --max_train_rows and --max_eval_rows then draw samples with
    equal class sizes. Reads the data flags and split_seed of `args`.
    Raises UserError if a split is missing or empty, has a wrong column or label, or has one class.
    """
    task, frames = _sources(args, task, need)
    names = _names_in_the_data(task, frames)
    if names:
        task = replace(task, label_names=names)
    if not task.label_names and "train" not in frames:
        raise UserError(f"no train rows, which define the labels of {task.name}: give --train_file")
    if not task.label_names:
        task = _with_labels(task, frames)
        _print(args, _order_of_labels(task))
    rows, dropped_by_split = {}, {}
    for name, (frame, source) in frames.items():
        rows[name], dropped_by_split[name] = rows_of(frame, task, name, source)
    dropped: dict[str, int] = {}
    if "train" in rows:
        dropped = dropped_by_split["train"]
        if "test" not in rows and task.is_open:
            share = BUILTIN_TEST_FRACTION
            rows["train"], rows["test"] = split_off(rows["train"], share, args.split_seed, "test")
        if "test" in rows:
            rows["train"], dropped["also_in_test"] = without(rows["train"], rows["test"])
        if "dev" not in rows:
            rows["train"], rows["dev"] = split_off(
                rows["train"], DEV_FRACTION, args.split_seed, "dev"
            )
        rows["train"], dropped["also_in_dev"] = without(rows["train"], rows["dev"])
    missing = [name for name in need if name not in rows]
    if missing:
        raise UserError(f"no {' and no '.join(missing)} rows: give --{_flag(missing[0])}")
    rows = {name: rows[name] for name in need}
    if task.is_open and {*need} == {"train", "dev", "test"}:  # stages 1 and 3, not an attack
        _print(args, _description(task, rows))
    for name in need:
        limit = args.max_train_rows if name == "train" else args.max_eval_rows
        unused = _check_classes(rows[name], task, name, unused=task.is_open)
        if limit is not None:
            rows[name] = sample_balanced(rows[name], limit, args.split_seed)
            _check_classes(rows[name], task, name, unused=unused)
    return Splits(task, rows, dropped)


def _flag(split: str) -> str:
    return {"train": "train_file", "dev": "validation_file", "test": "test_file"}[split]


def _sources(args: argparse.Namespace, task: Task, need: tuple[str, ...]) -> tuple[Task, Tables]:
    """The task with its columns, and split name -> (table, source).

    Uses the given files or folder; without them, the hub.
    """
    files = {name: getattr(args, _flag(name)) for name in ("train", "dev", "test")}
    files = {name: Path(path) for name, path in files.items() if path}
    if args.data_dir and files:
        raise UserError("give either --data_dir or single files, not both")
    if args.data_dir and task.is_open:
        if not Path(args.data_dir).is_dir():
            raise UserError(f"--data_dir {args.data_dir} is not a folder")
        return open_tables(replace(task, hub_id=args.data_dir, hub_config=None), need)
    if args.data_dir:
        files = files_in(Path(args.data_dir), task)
    if "dev" in files and "test" not in files:
        # The only evaluation rows given are the reported ones, like GLUE's official dev. The dev
        # rows that select the epoch must be others, so they are split off train.
        files["test"] = files.pop("dev")
    wanted = set(need)
    if "dev" in need or not task.label_names:  # train contains dev and defines the labels
        wanted.add("train")
    if "train" in wanted:
        wanted.add("test")  # its texts are removed from train before dev is split off
    if files:
        tables = {n: (read_table(p), p.name) for n, p in files.items() if n in wanted}
        if task.is_open and tables:
            table, source = next(iter(tables.values()))
            task = with_columns(task, kinds_of_table(table), source)
        return task, tables
    if task.is_open:
        return open_tables(task, need)
    if task.name.startswith("builtin/"):
        return task, builtin_tables(task, args.split_seed)
    if task.hub_id is None:
        raise UserError(
            f"the task {task.name} has no built-in data: give --train_file and --test_file, "
            "or --data_dir"
        )
    return task, hub_tables(task, wanted)


def _names_in_the_data(task: Task, frames: Tables) -> tuple[str, ...] | None:
    """The label names that an open data set states itself, also for a class without rows."""
    for table, source in frames.values() if task.is_open else ():
        column = table.get(task.label_column)
        if column is not None and isinstance(column.dtype, pd.CategoricalDtype):
            names = tuple(map(labels.label_text, column.cat.categories))
            if len(set(names)) < len(names):
                raise UserError(f"{source}: two label names are equal ({labels.shown(names)})")
            return names
    return None


def _with_labels(task: Task, frames: Tables) -> Task:
    """Give a custom task the labels of its training table, in every stage."""
    if task.label_column not in frames["train"][0]:
        return task  # rows_of reports the missing column
    table, source = frames["train"]
    values = table[task.label_column]
    missing = [i for i, value in enumerate(values) if not labels.is_label(value)]
    if missing and not task.is_open:
        raise UserError(
            f"{source}: row {missing[0]} has no label ({len(missing)} such rows); add them"
        )
    texts = [labels.label_text(value) for value in values if labels.is_label(value)]
    with explain(f"{source}, column {task.label_column!r}: "):
        labels.check_classes(texts)
    return replace(task, label_names=labels.ordered(texts))


def _order_of_labels(task: Task) -> str:
    order = labels.shown(f"{i} = {name}" for i, name in enumerate(task.label_names))
    return f"labels of the task {task.name}, in order: {order}"


def _description(task: Task, rows: dict[str, Rows]) -> str:
    """What was chosen where no flag decides."""
    sources = ", ".join(f"{name} from {part.source}" for name, part in rows.items())
    columns = " and ".join(map(repr, task.text_columns))
    return f"{task.name}: text in {columns}, label in {task.label_column!r}; {sources}"


def _print(args: argparse.Namespace, line: str) -> None:
    if not getattr(args, "quiet", False) and os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)


def _check_classes(rows: Rows, task: Task, split: str, unused: bool | set[str] = False) -> set[str]:
    """The classes without rows. Raises UserError if a training split has such classes.

    `unused`: those that a training split may lack; True: any.
    """
    counts = Counter(rows.labels)
    absent = [name for i, name in enumerate(task.label_names) if not counts[i]]
    refused = [name for name in absent if unused is not True and name not in (unused or ())]
    if len(counts) < 2 or (refused and split == "train"):
        raise UserError(
            f"{rows.source} ({split}): {len(rows)} rows of {len(counts)} class(es), "
            f"{task.name} has {len(task.label_names)}"
            + (f"; no row of: {', '.join(refused[:5])}" if refused else "")
            + (f" and {len(refused) - 5} more" if len(refused) > 5 else "")
        )
    return set(absent)
