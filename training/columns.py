"""Which columns of any data set hold the texts and the label, where that is unambiguous."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from training.tasks import Task
from utils.cli import UserError

TEXTS = ("text", "sentence", "content", "review", "tweet", "comment", "document")
QUERIES = ("utterance", "query", "question", "headline", "message")
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
# The first that a data set has; TREC has a coarse and a fine label.
LABELS = ("label", "labels", "coarse_label", "label_coarse")
# Where none of those is there, and no column has label names of its own.
OTHER_LABELS = ("target", "class", "category", "sentiment", "emotion", "intent", "topic")

TEXT, CLASS, SCALAR, OTHER = "text", "class", "scalar", "other"  # kinds of columns


def kinds_of_features(features: Mapping[str, Any]) -> dict[str, str]:
    """The kinds of a data set's columns. CLASS: a column with label names of its own."""
    import datasets

    def kind(feature: Any) -> str:
        if isinstance(feature, datasets.ClassLabel):
            return CLASS
        if not isinstance(feature, datasets.Value) or feature.dtype in ("binary", "null"):
            return OTHER
        return TEXT if "string" in feature.dtype else SCALAR

    return {name: kind(feature) for name, feature in features.items()}


def kinds_of_table(table: pd.DataFrame) -> dict[str, str]:
    """The kinds of a local table's columns, by their first cell that is not empty."""

    def kind(column: pd.Series) -> str:
        value = next(iter(column.dropna()), None)
        if isinstance(value, str):
            return TEXT
        return SCALAR if pd.api.types.is_scalar(value) and value is not None else OTHER

    return {str(name): kind(table[name]) for name in table.columns}


def with_columns(task: Task, kinds: dict[str, str], where: str) -> Task:
    """Give an open task the columns that its flags do not name.

    `kinds`: of its columns. `where`: the data set and its splits, for messages. Raises UserError if
    a named column does not exist or holds lists, or if a column must be named.
    """
    for column in (*task.text_columns, *([task.label_column] if task.label_column else [])):
        if column not in kinds:
            raise UserError(
                f"{where} has no column {column!r} (columns: {', '.join(kinds)}); see "
                "--text_columns and --label_column"
            )
    label = task.label_column or _label(kinds, task.text_columns)
    texts = task.text_columns or _texts([n for n, k in kinds.items() if k == TEXT and n != label])
    shown = ", ".join(f"{name} ({kind})" if kind == OTHER else name for name, kind in kinds.items())
    unknown = [] if texts else ["the text column, or two with a comma, by --text_columns"]
    unknown += [] if label else ["the label column by --label_column"]
    if label is None or unknown:
        raise UserError(f"{where} has the columns {shown}: name {' and '.join(unknown)}")
    for column in (*texts, label):
        if kinds[column] == OTHER:
            raise UserError(
                f"{where}: the column {column!r} holds no single texts or labels, but lists, bytes "
                f"or nothing: name another one (columns: {shown}); texts with several labels are "
                "not supported"
            )
    return replace(task, text_columns=texts, attack_column=texts[-1], label_column=label)


def _label(kinds: dict[str, str], texts: tuple[str, ...]) -> str | None:
    by_name = {name.strip().lower(): name for name in kinds if name not in texts}
    named = [by_name[name] for name in LABELS if name in by_name]
    classes = [name for name, kind in kinds.items() if kind == CLASS]
    others = [by_name[name] for name in OTHER_LABELS if name in by_name]
    if named:
        return named[0]
    return _only(classes) or (_only(others) if not classes else None)


def _texts(candidates: list[str]) -> tuple[str, ...]:
    by_name = {name.strip().lower(): name for name in candidates}
    pairs = [pair for pair in PAIRS if all(name in by_name for name in pair)]
    in_pairs = {name for pair in pairs for name in pair}
    single = [
        by_name[name] for name in (*TEXTS, *QUERIES) if name in by_name and name not in in_pairs
    ]
    if pairs:
        is_clear = len(pairs) == 1 and not single
        return tuple(by_name[name] for name in pairs[0]) if is_clear else ()
    text = _only(single) or (_only(candidates) if not single else None)
    return (text,) if text else ()


def _only(names: Iterable[str]) -> str | None:
    names = list(names)
    return names[0] if len(names) == 1 else None
