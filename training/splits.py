"""The train, dev and test splits, which are the same in each stage.

They depend only on the data and on the split seed.
"""

import argparse
import os
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from training import labels
from training.data_sources import Tables, builtin_tables, files_in, hub_tables, read_table
from training.rows import Rows, sample_balanced, without
from training.tasks import Task
from utils.cli import UserError

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
    frames = _sources(args, task, need)
    if not task.label_names and "train" not in frames:
        raise UserError(f"no train rows, which define the labels of {task.name}: give --train_file")
    if not task.label_names:
        task = _with_labels(task, frames)
        _print_label_order(args, task)
    rows = {name: _rows(frame, task, name, source) for name, (frame, source) in frames.items()}
    dropped: dict[str, int] = {}
    if "train" in rows:
        dropped["empty"] = len(frames["train"][0]) - len(rows["train"])
        if "test" in rows:
            rows["train"], dropped["also_in_test"] = without(rows["train"], rows["test"])
        if "dev" not in rows:
            rows["train"], rows["dev"] = _split(rows["train"], DEV_FRACTION, args.split_seed)
        rows["train"], dropped["also_in_dev"] = without(rows["train"], rows["dev"])
    missing = [name for name in need if name not in rows]
    if missing:
        raise UserError(f"no {' and no '.join(missing)} rows: give --{_flag(missing[0])}")
    rows = {name: rows[name] for name in need}
    for name in need:
        limit = args.max_train_rows if name == "train" else args.max_eval_rows
        _check_classes(rows[name], task, name)
        if limit is not None:
            rows[name] = sample_balanced(rows[name], limit, args.split_seed)
            _check_classes(rows[name], task, name)
    return Splits(task, rows, dropped)


def _flag(split: str) -> str:
    return {"train": "train_file", "dev": "validation_file", "test": "test_file"}[split]


def _sources(args: argparse.Namespace, task: Task, need: tuple[str, ...]) -> Tables:
    """Split name -> (table, source). Uses the given files or folder; without them, the hub."""
    files = {name: getattr(args, _flag(name)) for name in ("train", "dev", "test")}
    files = {name: Path(path) for name, path in files.items() if path}
    if args.data_dir and files:
        raise UserError("give either --data_dir or single files, not both")
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
        return {n: (read_table(p), p.name) for n, p in files.items() if n in wanted}
    if task.name.startswith("builtin/"):
        return builtin_tables(task, args.split_seed)
    if task.hub_id is None:
        raise UserError(
            f"the task {task.name} has no built-in data: give --train_file and --test_file, "
            "or --data_dir"
        )
    return hub_tables(task, wanted)


def _with_labels(task: Task, frames: Tables) -> Task:
    """Give a custom task the labels of its training table, in every stage."""
    if task.label_column not in frames["train"][0]:
        return task  # _rows reports the missing column
    table, source = frames["train"]
    values = table[task.label_column]
    missing = [i for i, value in enumerate(values) if not labels.is_label(value)]
    if missing:
        raise UserError(
            f"{source}: row {missing[0]} has no label ({len(missing)} such rows); add them"
        )
    return replace(task, label_names=labels.ordered(map(labels.label_text, values)))


def _print_label_order(args: argparse.Namespace, task: Task) -> None:
    if not getattr(args, "quiet", False) and os.environ.get("RANK", "0") == "0":
        order = labels.shown(f"{i} = {name}" for i, name in enumerate(task.label_names))
        print(f"labels of the task {task.name}, in order: {order}", file=sys.stderr)


def _rows(table: pd.DataFrame, task: Task, split: str, source: str) -> Rows:
    """Check the columns, texts and labels of a table. Ids contain its row numbers, from 0."""
    for column in (*task.text_columns, task.label_column):
        if column not in table:
            raise UserError(
                f"{source}: no column {column!r} for the task {task.name} (columns: "
                f"{', '.join(map(str, table.columns))}); see --text_columns and --label_column"
            )
    values = list(table[task.label_column])
    find = labels.finder(task.label_names)
    positions = [find(labels.label_text(value)) for value in values]
    unknown = [i for i, position in enumerate(positions) if position is None]
    if unknown:
        raise UserError(
            f"{source}: label {str(values[unknown[0]])!r} in row {unknown[0]} "
            f"({len(unknown)} such rows) is not a label of the task {task.name}, which has "
            f"{labels.shown(task.label_names)}"
        )
    texts = [
        tuple(_text(v, source) for v in row)
        for row in zip(*(table[c] for c in task.text_columns), strict=True)
    ]
    ids = [f"{split}:{i}" for i in range(len(positions))]
    rows = Rows(texts, [i for i in positions if i is not None], ids, source)
    empty = [i for i, text in enumerate(texts) if not all(part.strip() for part in text)]
    if empty and (split != "train" or len(task.text_columns) == 1):
        raise UserError(f"{source}: the text in row {empty[0]} is empty")
    # The hub's QQP has two training pairs with an empty question.
    return rows.take(sorted(set(range(len(rows))) - set(empty))) if empty else rows


def _text(value: object, source: str) -> str:
    """The text of a cell. None and NaN, which pandas writes for an empty cell, become ""."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if not isinstance(value, str | int | float):
        raise UserError(f"{source}: a text is of type {type(value).__name__}, not a string")
    # Neither is a character of a text, and some libraries use them as internal marks.
    return str(value).replace("\x00", " ").replace("\uffff", " ")


def _check_classes(rows: Rows, task: Task, split: str) -> None:
    counts = Counter(rows.labels)
    absent = [name for i, name in enumerate(task.label_names) if not counts[i]]
    if len(counts) < 2 or (absent and split == "train"):
        raise UserError(
            f"{rows.source} ({split}): {len(rows)} rows of {len(counts)} class(es), "
            f"{task.name} has {len(task.label_names)}"
            + (f"; no row of: {', '.join(absent[:5])}" if absent else "")
            + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        )


def _split(rows: Rows, share: float, split_seed: int) -> tuple[Rows, Rows]:
    """Split off the fraction `share` of the rows, stratified. Both parts keep the file's order."""
    try:
        first, second = train_test_split(
            np.arange(len(rows)), test_size=share, random_state=split_seed, stratify=rows.labels
        )
    except ValueError as e:
        raise UserError(
            f"{rows.source}: {len(rows)} rows are too few to split off {share:.0%} for dev ({e}); "
            "give more rows"
        ) from e
    part = rows.take(sorted(second.tolist()))
    return rows.take(sorted(first.tolist())), replace(
        part, source=f"{share:.0%} of {rows.source}, split seed {split_seed}"
    )
