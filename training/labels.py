"""Labels: their text in a cell, their order, and the logit of each label.

The labels of a custom task are in numeric order if all of them are numbers, else sorted as texts. A
checkpoint stores their order (id2label in config.json, label_names in checkpoint.json).
"""

from __future__ import annotations

import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from training.tasks import Task
from utils.cli import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

WHOLE_NUMBER = re.compile(r"\+?(-?[1-9][0-9]*|0)(?:\.0+)?|(-0)(?:\.0+)?")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
MOST_SHOWN = 20  # labels in an error message
MOST_FRACTIONS = 10  # labels such as 0.5 and 1.5; more are targets of a regression


def is_label(value: object) -> bool:
    """Whether a cell holds a label. An empty cell, NaN, None and a list do not."""
    return bool(pd.api.types.is_scalar(value) and not pd.isna(value) and str(value).strip())


def label_text(value: object) -> str:
    """The label in a cell, without surrounding spaces. Whole numbers: 1, 1.0 and "+1.00" -> "1".

    pandas reads a column of whole numbers with an empty cell as floats. "v1.0", "01" and 0.5 do not
    change. Characters are composed (NFC), because editors write the same letter in two ways.
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, numbers.Real) and float(value).is_integer():
        return str(int(value))
    text = unicodedata.normalize("NFC", str(value)).strip()
    whole = WHOLE_NUMBER.fullmatch(text)
    return (whole[1] or "0") if whole else text


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels, in numeric order if all are numbers, else sorted as texts."""
    distinct = sorted(set(labels))
    if all(NUMBER.fullmatch(label) for label in distinct):
        distinct.sort(key=Decimal)
    return tuple(distinct)


def check_classes(labels: list[str]) -> None:
    """Raise ValueError if the labels of all rows are targets of a regression, or name rows."""
    distinct = set(labels)
    is_regression = len(distinct) > MOST_FRACTIONS and all(map(NUMBER.fullmatch, distinct))
    if is_regression and not all(map(WHOLE_NUMBER.fullmatch, distinct)):
        raise ValueError(
            f"{len(distinct)} different numbers with fractions, so this is a regression, which is "
            "not supported: name a column of classes with --label_column, or round the numbers"
        )
    if len(distinct) > max(MOST_SHOWN, len(labels) / 2):
        raise ValueError(
            f"{len(distinct)} different values in {len(labels)} rows are not classes: name another "
            "column with --label_column"
        )


def shown(names: Iterable[str]) -> str:
    """Label names for a message: the first MOST_SHOWN, and the number of the others."""
    names = list(names)
    more = [f"and {len(names) - MOST_SHOWN} more"] if len(names) > MOST_SHOWN else []
    return ", ".join([*names[:MOST_SHOWN], *more])


def finder(names: tuple[str, ...]) -> Callable[[str], int | None]:
    """A function from the text of a label to its position in `names`, or None if it has none.

    The one rule for cells of a table and for the labels of a checkpoint: first the exact name, then
    the name in another letter case if only one fits, then the position as a number. If a name is a
    number, it does not try positions: "2" of 1, 2, 3 is the name.
    """
    exact = {name: i for i, name in enumerate(names)}
    count = Counter(_folded(name) for name in names)
    folded = {_folded(name): i for i, name in enumerate(names) if count[_folded(name)] == 1}
    if not any(NUMBER.fullmatch(name) for name in names):
        folded |= {str(i): i for i in range(len(names))}
    return lambda label: exact.get(label, folded.get(_folded(label)))


def _folded(name: str) -> str:
    """A name without its letter case. Separators between letters are equal: not-good, Not_Good.

    Other characters count: c, c++ and c# differ, and so do -1 and 1.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", " ", folded)


def names_in(config: PretrainedConfig) -> list[str]:
    """Label names in the config.json of a checkpoint, in the order of its logits."""
    return [str(config.id2label.get(i, "")) for i in range(config.num_labels)]


def task_with_labels_of(task: Task, config: PretrainedConfig, facts: dict) -> Task:
    """Give a custom task the labels of a checkpoint. Other tasks do not change.

    `facts`: checkpoint.json of the checkpoint. Without it, LABEL_0, LABEL_1 ... mean 0, 1 ...;
    transformers writes these names if a program does not set names.
    """
    if task.label_names:
        return task
    names = [str(name) for name in facts.get("label_names") or ()] or names_in(config)
    if "label_names" not in facts and names == [f"LABEL_{i}" for i in range(len(names))]:
        names = [str(i) for i in range(len(names))]
    return replace(task, label_names=tuple(map(label_text, names)))


def label_order(config: PretrainedConfig, folder: Path, task: Task) -> list[int]:
    """order[i] is the index of the logit for the task's label i.

    The checkpoint's label names must be the task's by the rule of `finder`. LABEL_0, LABEL_1 ...
    name no label and mean the task's order. Positions are never permuted: a checkpoint whose names
    are 1, 0 contradicts them. Raises UserError if the labels do not match.
    """
    names, wanted = names_in(config), task.label_names
    if len(names) != len(wanted):
        raise UserError(
            f"{folder} has {len(names)} labels, {task.name} has {len(wanted)} ({shown(wanted)})"
        )
    find = finder(wanted)
    texts = [label_text(name) for name in names]
    positions = [find(text) for text in texts]
    in_order = list(range(len(names)))
    by_name = {_folded(text) for text in texts} == {_folded(name) for name in wanted}
    if set(positions) == set(in_order) and (by_name or positions == in_order):
        return [positions.index(i) for i in in_order]
    if names == [f"LABEL_{i}" for i in in_order]:
        return in_order
    raise UserError(
        f"{folder} names its labels {shown(n or '?' for n in names)}; {task.name} has "
        f"{shown(wanted)}: rename them in its config.json (id2label)"
    )
