"""Rows of a split: their texts, labels and ids, and how to read, divide and sample them."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from training import labels
from training.tasks import Task
from utils.cli import UserError, warn


@dataclass(frozen=True)
class Rows:
    """The rows of a split.

    `texts`: a tuple of one or two strings per row. `labels`: positions in the task's labels, from
    0. `ids`: split and row number in the file, such as "test:17". `source`: where they come from.
    """

    texts: list[tuple[str, ...]]
    labels: list[int]
    ids: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: list[int]) -> "Rows":
        """The rows at `positions`, in this order."""

        def pick(values: list) -> list:
            return [values[i] for i in positions]

        return replace(self, texts=pick(self.texts), labels=pick(self.labels), ids=pick(self.ids))

    def for_tokenizer(self) -> list[str] | list[tuple[str, ...]]:
        """One string per row, or one pair of strings, as a tokenizer or victim expects them."""
        return [text[0] if len(text) == 1 else text for text in self.texts]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of the texts and labels, in order."""
        digest = hashlib.sha256(json.dumps([self.texts, self.labels]).encode())
        return digest.hexdigest()[:16]


def rows_of(
    table: pd.DataFrame, task: Task, split: str, source: str
) -> tuple[Rows, dict[str, int]]:
    """Check the columns, texts and labels of a table. Ids contain its row numbers, from 0.

    Returns the rows, and the numbers of rows that were dropped: those with an empty text and, of an
    open data set, which nobody here can correct, those without a label.
    """
    for column in (*task.text_columns, task.label_column):
        if column not in table:
            raise UserError(
                f"{source}: no column {column!r} for the task {task.name} (columns: "
                f"{', '.join(map(str, table.columns))}); see --text_columns and --label_column"
            )
    values = list(table[task.label_column])
    find = labels.finder(task.label_names)
    positions = [find(labels.label_text(value)) for value in values]
    unlabeled = [i for i, v in enumerate(values) if task.is_open and not labels.is_label(v)]
    if unlabeled:
        warn(
            f"{source}: {len(unlabeled)} of {len(values)} rows have no label and are dropped (in "
            "csv files of a data set, texts such as NA and None count as missing)"
        )
    unknown = [i for i, position in enumerate(positions) if position is None]
    unknown = sorted({*unknown} - {*unlabeled})
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
    rows = Rows(texts, [-1 if i is None else i for i in positions], ids, source)
    empty = [i for i, text in enumerate(texts) if not all(part.strip() for part in text)]
    is_allowed = task.is_open or split == "train" and len(task.text_columns) > 1
    if empty and not is_allowed:  # the hub's QQP has two training pairs with an empty question
        raise UserError(f"{source}: the text in row {empty[0]} is empty")
    dropped = {"empty": len(empty)} | ({"without_label": len(unlabeled)} if task.is_open else {})
    gone = {*empty, *unlabeled}
    return rows.take(sorted(set(range(len(rows))) - gone)) if gone else rows, dropped


def _text(value: object, source: str) -> str:
    """The text of a cell. None and NaN, which pandas writes for an empty cell, become ""."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if not isinstance(value, str | int | float):
        raise UserError(f"{source}: a text is of type {type(value).__name__}, not a string")
    # Neither is a character of a text, and some libraries use them as internal marks.
    return str(value).replace("\x00", " ").replace("\uffff", " ")


def normalized(text: tuple[str, ...]) -> tuple[str, ...]:
    """A text as it is compared with others: lower case, single spaces."""
    return tuple(" ".join(part.lower().split()) for part in text)


def without(train: Rows, other: Rows) -> tuple[Rows, int]:
    """Remove the rows of `train` whose texts are in `other`, whatever their letter case and spaces.

    Returns the remaining rows and the number of removed rows.
    """
    seen = {normalized(t) for t in other.texts}
    positions = [i for i, t in enumerate(train.texts) if normalized(t) not in seen]
    return train.take(positions), len(train) - len(positions)


def sample_balanced(rows: Rows, limit: int, seed: int) -> Rows:
    """Draw at most `limit` rows, in file order.

    The classes get equal numbers of rows as far as their sizes allow.
    """
    if limit >= len(rows):
        return rows
    generator = np.random.default_rng(seed)
    queues = {
        label: generator.permutation([i for i, y in enumerate(rows.labels) if y == label]).tolist()
        for label in sorted(set(rows.labels))
    }
    chosen: list[int] = []
    while len(chosen) < limit:
        for queue in queues.values():
            if queue and len(chosen) < limit:
                chosen.append(queue.pop())
    return rows.take(sorted(chosen))


def split_off(rows: Rows, share: float, split_seed: int, name: str) -> tuple[Rows, Rows]:
    """Split off the fraction `share` of the rows, stratified. Both parts keep the file's order.

    At least one row of each class is split off, except of a class that has only one row.
    """
    counts = Counter(rows.labels)
    several = [i for i, label in enumerate(rows.labels) if counts[label] > 1]
    classes = len({rows.labels[i] for i in several})
    size = max(math.ceil(share * len(several)), classes)
    try:
        if classes < 2 <= len(counts):
            raise ValueError("fewer than two classes have two rows")
        _, second = train_test_split(
            np.array(several, int),
            test_size=size,
            random_state=split_seed,
            stratify=[rows.labels[i] for i in several],
        )
    except ValueError as e:
        raise UserError(
            f"{rows.source}: {len(rows)} rows are too few to split off {100 * share:g}% for {name} "
            f"({e}); give more rows"
        ) from e
    part = rows.take(sorted(second.tolist()))
    first = sorted({*range(len(rows))} - {*second.tolist()})
    return rows.take(first), replace(
        part, source=f"{100 * share:g}% of {rows.source}, split seed {split_seed}"
    )
