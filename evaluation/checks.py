"""An evaluation that distrusts itself: what is measured around an attack, and what it makes one
doubt. In the spirit of AutoAttack's flags (Croce and Hein, ICML 2020) and of the failures listed by
Athalye, Carlini and Wagner (ICML 2018). No TextAttack.
"""

import numpy as np

from evaluation import calibration
from training.splits import Rows

# From which share of the attacked rows on a thing is flagged, in percent. That of skipped rows is
# --flag_skipped_percent.
SATURATED_PERCENT = 5.0
EQUAL_IMPORTANCE_PERCENT = 5.0
BUDGET_PERCENT = 1.0

# Logits of one text, asked for twice, that differ by more than rounding does.
ANSWER_TOLERANCE = 1e-4


def examine(victim, rows: Rows) -> dict:
    """What the victim answers to the attacked rows before they are attacked, asked for twice.

    `victim`: texts in, float64 logits (texts, labels) out, in the task's label order, with a
    forget() for what it remembers.
    """
    answers = []
    for _ in range(2):
        victim.forget()
        answers.append(victim(rows.for_tokenizer()).numpy())
    victim.forget()
    logits, again = answers
    apart = np.abs(logits - again).max(axis=1) > ANSWER_TOLERANCE * (1 + np.abs(logits).max(axis=1))
    return calibration.measures(logits, np.array(rows.labels)) | {
        "rows_answered_differently_twice": int(apart.sum()),
        "classes_answered": len(set(logits.argmax(axis=1).tolist())),
    }


def overlaps(rows: Rows, train: Rows | None, dev: Rows | None) -> dict:
    """How many attacked rows stand, by their text, in what the model was trained or selected on.

    None where those rows are not known.
    """

    attacked = _plain(rows)

    def shared(other: Rows | None) -> int | None:
        if other is None:
            return None
        known = set(_plain(other))
        return sum(text in known for text in attacked)

    return {"attacked_rows_in_train": shared(train), "attacked_rows_in_dev": shared(dev)}


def _plain(rows: Rows) -> list[tuple[str, ...]]:
    """Case and spaces apart, as rows are compared where splits are made."""
    return [tuple(" ".join(part.lower().split()) for part in text) for text in rows.texts]


def flags_of(record: dict, skipped_percent: float) -> list[dict]:
    """What in an attack's record makes its numbers doubtful: [{"flag": name, "why": text}]."""
    rows, found = record["rows_attacked"], []

    def flag(name: str, why: str) -> None:
        found.append({"flag": name, "why": why})

    classes = len(record["rows"]["rows_per_label"])
    if classes == 1:
        flag("one_class_sample", "all attacked rows are of one class")
    if record.get("classes_answered") == 1 and classes > 1:
        flag(
            "one_answer",
            "the model answers all rows with one class: what a constant gets right "
            "cannot be attacked",
        )
    saturated = record.get("saturated_percent") or 0
    if saturated >= SATURATED_PERCENT:
        flag(
            "saturated_softmax",
            f"on {saturated:.0f} % of the rows the top probability is 1.0 to "
            "the last digit of float32: an attack that ranks by probabilities is blind "
            "there",
        )
    equal = record.get("rows_of_equal_importance") or 0
    if 100 * equal >= EQUAL_IMPORTANCE_PERCENT * rows:
        flag(
            "equal_importance",
            f"on {equal} rows all words were equally important to the attack, "
            "so it went through them in no order",
        )
    differing = record.get("rows_answered_differently_twice") or 0
    if differing:
        flag("answers_differ", f"the model answered {differing} rows differently when asked twice")
    trained, here = record.get("trained_max_seq_length"), record["max_seq_length"]
    if trained is not None and trained != here:
        flag("other_truncation", f"texts are cut at {here} tokens, in training at {trained}")
    skipped = record["rows_skipped"]
    if 100 * skipped > skipped_percent * rows:
        flag("many_rows_skipped", f"{skipped} of {rows} rows were wrong before the attack")
    exhausted = record.get("rows_out_of_budget") or 0
    if exhausted and 100 * exhausted >= BUDGET_PERCENT * rows:
        flag(
            "budget_exhausted",
            f"on {exhausted} rows the attack ended at its query budget, not for want of words",
        )
    in_train, in_dev = record.get("attacked_rows_in_train"), record.get("attacked_rows_in_dev")
    if in_train:
        flag("trained_on_attacked_rows", f"{in_train} attacked rows stand in the training rows")
    if in_dev:
        flag(
            "selected_on_attacked_rows",
            f"{in_dev} attacked rows stand in the dev rows, by which "
            "epochs and checkpoints are selected",
        )
    if record.get("temperature_at_bound"):
        flag(
            "no_temperature",
            "no temperature fits the dev rows: the more sure the model, the more often it is wrong",
        )
    return found
