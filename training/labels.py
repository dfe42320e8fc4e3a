"""Labels: how a cell names one, in which order they stand, and the logit of each.

The order of a custom task's labels is numeric where all of them are numbers, else that of the
sorted texts. A checkpoint stores it (id2label in config.json, label_names in checkpoint.json).
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


def is_label(value: object) -> bool:
    """Whether a cell holds a label: False for an empty cell, NaN, None, or a list."""
    return bool(pd.api.types.is_scalar(value) and not pd.isna(value) and str(value).strip())


def label_text(value: object) -> str:
    """A cell's label without surrounding spaces. A whole number has one form: 1, 1.0, "+1.00" -> 1.

    Columns of whole numbers with a gap reach us as floats. "v1.0", "01" and 0.5 stay as they are.
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, numbers.Real) and float(value).is_integer():
        return str(int(value))
    text = str(value).strip()
    whole = WHOLE_NUMBER.fullmatch(text)
    return (whole[1] or "0") if whole else text


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels, smallest number first where all are numbers, else sorted as texts."""
    distinct = sorted(set(labels))
    if all(NUMBER.fullmatch(label) for label in distinct):
        distinct.sort(key=Decimal)
    return tuple(distinct)


def shown(names: Iterable[str]) -> str:
    """Label names for a message; of very many the first ones."""
    names = list(names)
    more = [f"and {len(names) - MOST_SHOWN} more"] if len(names) > MOST_SHOWN else []
    return ", ".join([*names[:MOST_SHOWN], *more])


def finder(names: tuple[str, ...]) -> Callable[[str], int | None]:
    """A function from a label's text to its position in `names`, or None where it is none of them.

    It tries the exact name, then the name in other letter case where only one fits, then the
    position as a number, unless a name is a number itself: "2" of 1, 2, 3 is the name.
    """
    exact = {name: i for i, name in enumerate(names)}
    count = Counter(_folded(name) for name in names)
    folded = {_folded(name): i for i, name in enumerate(names) if count[_folded(name)] == 1}
    if not any(NUMBER.fullmatch(name) for name in names):
        folded |= {str(i): i for i in range(len(names))}
    return lambda label: exact.get(label, folded.get(_folded(label)))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _letters_and_digits(name: str) -> str:
    return re.sub(r"[\W_]", "", _folded(name))


def names_in(config: PretrainedConfig) -> list[str]:
    """The label names in a checkpoint's config.json, in the order of its logits."""
    return [str(config.id2label.get(i, "")) for i in range(config.num_labels)]


def task_with_labels_of(task: Task, config: PretrainedConfig, facts: dict) -> Task:
    """A custom task takes the labels of a checkpoint; any other task keeps its own.

    `facts`: its checkpoint.json. In a checkpoint without one, LABEL_0, LABEL_1 ... (what
    transformers writes where nobody named the labels) stand for 0, 1 ...
    """
    if task.label_names:
        return task
    names = [str(name) for name in facts.get("label_names") or ()] or names_in(config)
    if "label_names" not in facts and all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        names = [str(i) for i in range(len(names))]
    return replace(task, label_names=tuple(map(label_text, names)))


def label_order(config: PretrainedConfig, folder: Path, task: Task) -> list[int]:
    """order[i] is the logit of the task's label i. UserError where the labels do not match.

    The checkpoint's label names decide: as they are, else without regard to letter case, else by
    their letters and digits alone. LABEL_0, LABEL_1 ... name no label and are taken in the
    task's order, and so are numbers, unless the task's own labels are numbers.
    """
    names, wanted = names_in(config), list(task.label_names)
    if len(names) != len(wanted):
        raise UserError(
            f"{folder} has {len(names)} labels, {task.name} has {len(wanted)} ({shown(wanted)})"
        )
    for form in (label_text, _folded, _letters_and_digits):
        theirs, ours = [form(name) for name in names], [form(name) for name in wanted]
        if len(set(theirs)) == len(theirs) and sorted(theirs) == sorted(ours):
            return [theirs.index(name) for name in ours]
    any_number = any(NUMBER.fullmatch(name) for name in wanted)
    unnamed = r"LABEL_(\d+)" if any_number else r"(?:LABEL_)?(\d+)"
    places = [re.fullmatch(unnamed, name) for name in names]
    if all(places):
        return sorted(range(len(names)), key=lambda i: int(places[i][1]))
    raise UserError(
        f"{folder} names its labels {shown(n or '?' for n in names)}; {task.name} has "
        f"{shown(wanted)}: rename them in its config.json (id2label)"
    )
