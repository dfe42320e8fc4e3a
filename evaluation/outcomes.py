"""Outcomes of attacked rows: their names, their one-letter form in records, and their rates."""

from collections.abc import Sequence

import numpy as np

from training.metrics import wilson_interval

SUCCESS, FAILED, SKIPPED = "success", "failed", "skipped"

# A record's `row_outcomes` holds one letter per attacked row, in the order of the rows: r, the row
# is right after the attack; f, the attack fooled the model; w, the row was wrong before it.
# Intervals over seeds and paired comparisons are computed from these letters.
LETTERS = {FAILED: "r", SUCCESS: "f", SKIPPED: "w"}

# The letters that count as correct for each rate.
COUNTED = {"clean_percent": "rf", "aua_percent": "r"}

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def outcome_table(letters: Sequence[str | None], measure: str) -> np.ndarray | None:
    """bool, (records, rows): whether a row counts for the measure.

    `letters`: the `row_outcomes` of records on the same rows. None if a record lacks them, if their
    lengths differ, or for a measure without such letters.
    """
    if measure not in COUNTED or not letters or None in letters or len({*map(len, letters)}) > 1:
        return None
    return np.array([[letter in COUNTED[measure] for letter in line] for line in letters])


def encode_labels(labels: list[int]) -> str | list[int]:
    """A record's `row_labels`: one base-36 digit per row, in the order of `row_outcomes`.

    A digit is the index of a label in the task's label names. Labels above 35 do not fit in one
    digit; then `row_labels` is the list of indices itself.
    """
    if max(labels, default=0) < len(_DIGITS):
        return "".join(_DIGITS[label] for label in labels)
    return list(labels)


def decode_labels(row_labels: str | list[int]) -> list[int]:
    """The label indices of `encode_labels`. Raises ValueError for anything that it cannot write."""
    labels = row_labels
    if isinstance(labels, str):
        labels = [_DIGITS.find(digit) for digit in labels]  # -1: not a digit
    if not isinstance(labels, list) or any(type(i) is not int or i < 0 for i in labels):
        raise ValueError("row_labels is neither digits 0-9 and a-z nor a list of label indices")
    return list(labels)


def check_labels(record: dict) -> None:
    """Raise ValueError if a record's `row_labels` contradicts its rows; earlier records have none.

    Its length must be `rows_attacked` and its counts those of `rows.rows_per_label`.
    """
    if record.get("row_labels") is None:
        return
    labels = decode_labels(record["row_labels"])
    if len(labels) != record["rows_attacked"]:
        raise ValueError(f"has {len(labels)} row_labels for {record['rows_attacked']} rows")
    counts = {str(label): labels.count(label) for label in sorted(set(labels))}
    stated = record["rows"].get("rows_per_label")
    if stated is not None and counts != stated:
        raise ValueError(f"contradicts itself: rows_per_label is {stated}, its row_labels {counts}")


def tally(outcomes: list[dict]) -> dict:
    """Rates of an attack, from its rows' lines (outcome, queries, words_changed, words_total).

    clean_percent is the share of the attacked rows that are right before the attack, aua_percent
    the share that are right after it, suc_percent = 100 * (1 - aua / clean), or None if no row was
    right. queries_per_row is the mean over rows that were not skipped; words_changed_percent is the
    mean share of changed words over rows where the attack succeeded. Intervals are Wilson's, 95 %.
    """
    rows = len(outcomes)
    failed = sum(o["outcome"] == FAILED for o in outcomes)
    fooled = [o for o in outcomes if o["outcome"] == SUCCESS]
    right = failed + len(fooled)
    queries = [o["queries"] for o in outcomes if o["outcome"] != SKIPPED]
    shares = [100 * o["words_changed"] / o["words_total"] for o in fooled]
    return {
        "rows_attacked": rows,
        "rows_skipped": rows - right,
        "rows_failed": failed,
        "rows_successful": len(fooled),
        "clean_percent": 100 * right / rows,
        "aua_percent": 100 * failed / rows,
        "suc_percent": 100 * (1 - failed / right) if right else None,
        "queries_per_row": _mean(queries),
        "words_changed_percent": _mean(shares),
        "intervals_95": {
            "clean_percent": wilson_interval(right, rows),
            "aua_percent": wilson_interval(failed, rows),
            "suc_percent": wilson_interval(len(fooled), right),
        },
    }


def _mean(values: list) -> float | None:
    return sum(values) / len(values) if values else None


def so_far(outcomes: list[dict]) -> str:
    """The rates so far, for the progress line."""
    rates = tally(outcomes)
    suc = "-" if rates["suc_percent"] is None else f"{rates['suc_percent']:.1f} %"
    return f"clean {rates['clean_percent']:.1f} %, aua {rates['aua_percent']:.1f} %, suc {suc}"
