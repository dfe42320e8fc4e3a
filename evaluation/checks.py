"""Checks around an attack that flag results which may not mean what they seem to mean.

They follow AutoAttack's flags (Croce and Hein, ICML 2020) and the failures of evaluations listed by
Athalye, Carlini and Wagner (ICML 2018). This module does not import TextAttack.
"""

import numpy as np

from evaluation import calibration
from evaluation.by_class import one_class_survives
from training.rows import Rows

# Share of the attacked rows, in percent, from which on a result is flagged. The share for skipped
# rows is --flag_skipped_percent.
SATURATED_PERCENT = 5.0
EQUAL_IMPORTANCE_PERCENT = 5.0
BUDGET_PERCENT = 1.0

# Two answers to one text differ if a logit changes by more than this share of its size. Rounding
# stays below it.
ANSWER_TOLERANCE = 1e-4


def examine(victim, rows: Rows) -> dict:
    """Ask the victim twice for all rows, before the attack, and measure its answers.

    `victim` maps texts to float64 logits (texts, labels) in the order of the task's labels; its
    forget() clears its cache.
    """
    answers = []
    for _ in range(2):
        victim.forget()
        answers.append(victim(rows.for_tokenizer()).numpy())
    victim.forget()
    logits, again = answers
    tolerance = ANSWER_TOLERANCE * (1 + np.abs(logits).max(axis=1))
    differs = np.abs(logits - again).max(axis=1) > tolerance
    return calibration.measures(logits, np.array(rows.labels)) | {
        "rows_answered_differently_twice": int(differs.sum()),
        "classes_answered": len(set(logits.argmax(axis=1).tolist())),
    }


def overlaps(rows: Rows, train: Rows | None, dev: Rows | None) -> dict:
    """Count the attacked rows whose text is also in the model's training rows or dev rows.

    A count is None if those rows are not available.
    """
    attacked = _normalized(rows)

    def shared(other: Rows | None) -> int | None:
        if other is None:
            return None
        known = set(_normalized(other))
        return sum(text in known for text in attacked)

    return {"attacked_rows_in_train": shared(train), "attacked_rows_in_dev": shared(dev)}


def _normalized(rows: Rows) -> list[tuple[str, ...]]:
    """Lower-case texts with single spaces, as `training.splits` compares rows."""
    return [tuple(" ".join(part.lower().split()) for part in text) for text in rows.texts]


def flags_of(record: dict, skipped_percent: float) -> list[dict]:
    """Reasons to doubt the numbers of an attack record: [{"flag": name, "why": text}].

    `skipped_percent`: largest share of skipped rows that is not flagged.
    """
    flags = _flags_of_the_model(record) + _flags_of_the_attack(record, skipped_percent)
    return [{"flag": name, "why": why} for name, why in flags + _flags_of_the_rows(record)]


def _flags_of_the_model(record: dict) -> list[tuple[str, str]]:
    flags = []
    if record.get("classes_answered") == 1 and len(record["rows"]["rows_per_label"]) > 1:
        why = "the model predicts one class for every row; an attack cannot change such answers"
        flags.append(("one_answer", why))
    saturated = record.get("saturated_percent") or 0
    if saturated >= SATURATED_PERCENT:
        why = (
            f"on {saturated:.0f} % of the rows the top probability is exactly 1.0 in float32; an "
            "attack that ranks by probabilities cannot rank candidates there"
        )
        flags.append(("saturated_softmax", why))
    differing = record.get("rows_answered_differently_twice") or 0
    if differing:
        why = f"the model gave two different answers to {differing} rows"
        flags.append(("answers_differ", why))
    if record.get("temperature_at_bound"):
        why = "no temperature fits the dev rows: the model is wrong more often where it is surer"
        flags.append(("no_temperature", why))
    return flags


def _flags_of_the_attack(record: dict, skipped_percent: float) -> list[tuple[str, str]]:
    rows, flags = record["rows_attacked"], []
    equal = record.get("rows_of_equal_importance") or 0
    if 100 * equal >= EQUAL_IMPORTANCE_PERCENT * rows:
        why = (
            f"on {equal} rows the attack found all words equally important and could not rank them"
        )
        flags.append(("equal_importance", why))
    trained, here = record.get("trained_max_seq_length"), record["max_seq_length"]
    if trained is not None and trained != here:
        why = f"texts are cut at {here} tokens; in training they were cut at {trained}"
        flags.append(("other_truncation", why))
    skipped = record["rows_skipped"]
    if 100 * skipped > skipped_percent * rows:
        why = f"{skipped} of {rows} rows were misclassified before the attack"
        flags.append(("many_rows_skipped", why))
    exhausted = record.get("rows_out_of_budget") or 0
    if exhausted and 100 * exhausted >= BUDGET_PERCENT * rows:
        why = f"on {exhausted} rows the attack stopped at its query budget with words left to try"
        flags.append(("budget_exhausted", why))
    why = one_class_survives(record)
    if why:
        flags.append(("one_class_survives", why))
    return flags


def _flags_of_the_rows(record: dict) -> list[tuple[str, str]]:
    flags = []
    if len(record["rows"]["rows_per_label"]) == 1:
        flags.append(("one_class_sample", "all attacked rows belong to one class"))
    in_train, in_dev = record.get("attacked_rows_in_train"), record.get("attacked_rows_in_dev")
    if in_train:
        why = f"{in_train} attacked rows are also training rows"
        flags.append(("trained_on_attacked_rows", why))
    if in_dev:
        why = f"{in_dev} attacked rows are also dev rows, which select epochs and checkpoints"
        flags.append(("selected_on_attacked_rows", why))
    return flags
