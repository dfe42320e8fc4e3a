"""Checks around an attack that flag results which may not mean what they seem to mean.

They follow AutoAttack's flags (Croce and Hein, ICML 2020) and the failures of evaluations listed by
Athalye, Carlini and Wagner (ICML 2018). This module does not import TextAttack.
"""

from collections import defaultdict

import numpy as np

from evaluation import calibration
from evaluation.by_class import one_class_survives
from training.rows import Rows, normalized

# Share of the attacked rows, in percent, from which on a result is flagged. The share for skipped
# rows is --flag_skipped_percent.
SATURATED_PERCENT = 5.0
EQUAL_IMPORTANCE_PERCENT = 5.0
BUDGET_PERCENT = 1.0

# Two answers to one text differ if a logit changes by more than this share of its size. Rounding
# stays below it.
ANSWER_TOLERANCE = 1e-4

# Why each flag is raised, with numbers of the record; by_class.py has the words of
# one_class_survives.
WHY = {
    "one_answer": "the model predicts one class for every row; an attack cannot change such "
    "answers",
    "saturated_softmax": "on {saturated_percent:.0f} % of the rows the top probability is exactly "
    "1.0 in float32; an attack that ranks by probabilities cannot rank candidates there",
    "answers_differ": "the model gave two different answers to {rows_answered_differently_twice} "
    "rows",
    "no_temperature": "no temperature fits the dev rows: the model is wrong more often where it is "
    "surer",
    "equal_importance": "on {rows_of_equal_importance} rows the attack found all words equally "
    "important and could not rank them",
    "other_truncation": "texts are cut at {max_seq_length} tokens; in training they were cut at "
    "{trained_max_seq_length}",
    "many_rows_skipped": "{rows_skipped} of {rows_attacked} rows were misclassified before the "
    "attack",
    "budget_exhausted": "on {rows_out_of_budget} rows the attack stopped at its query budget with "
    "words left to try",
    "one_class_sample": "all attacked rows belong to one class",
    "trained_on_attacked_rows": "{attacked_rows_in_train} attacked rows are also training rows",
    "selected_on_attacked_rows": "{attacked_rows_in_dev} attacked rows are also dev rows, which "
    "select epochs, checkpoints and the suite's bias",
}


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
    """Numbers of attacked rows whose text is in the train rows or dev rows; None without those."""
    counts = {}
    for name, others in (("train", train), ("dev", dev)):
        known = None if others is None else set(map(normalized, others.texts))
        count = None if known is None else sum(normalized(text) in known for text in rows.texts)
        counts[f"attacked_rows_in_{name}"] = count
    return counts


def flags_of(record: dict, skipped_percent: float) -> list[dict]:
    """Reasons to doubt the numbers of an attack record: [{"flag": name, "why": text}].

    `skipped_percent`: largest share of skipped rows that is not flagged.
    """
    n = defaultdict(int, {name: value for name, value in record.items() if value is not None})
    rows, labels = record["rows_attacked"], record["rows"]["rows_per_label"]
    trained, exhausted = record.get("trained_max_seq_length"), n["rows_out_of_budget"]
    survives = one_class_survives(record)
    holds = {
        "one_answer": n["classes_answered"] == 1 and len(labels) > 1,
        "saturated_softmax": n["saturated_percent"] >= SATURATED_PERCENT,
        "answers_differ": n["rows_answered_differently_twice"],
        "no_temperature": n["temperature_at_bound"],
        "equal_importance": 100 * n["rows_of_equal_importance"] >= EQUAL_IMPORTANCE_PERCENT * rows,
        "other_truncation": trained not in (None, record["max_seq_length"]),
        "many_rows_skipped": 100 * n["rows_skipped"] > skipped_percent * rows,
        "budget_exhausted": exhausted > 0 and 100 * exhausted >= BUDGET_PERCENT * rows,
        "one_class_survives": survives,
        "one_class_sample": len(labels) == 1,
        "trained_on_attacked_rows": n["attacked_rows_in_train"],
        "selected_on_attacked_rows": n["attacked_rows_in_dev"],
    }
    whys = {name: why.format_map(n) for name, why in WHY.items()} | {"one_class_survives": survives}
    return [{"flag": name, "why": whys[name]} for name, flagged in holds.items() if flagged]
