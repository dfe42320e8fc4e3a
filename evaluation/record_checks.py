"""What an attack record must be before a table is made of it: its keys, types and ranges, and that
its rates are those of its rows. Files are edited, cut and merged by hand; a wrong value would be a
traceback later, or worse, a number."""

import math
from collections.abc import Callable

from evaluation.outcomes import LETTERS

Rule = tuple[str, Callable[[object], bool]]  # in words, for whoever mends the file; as a test


def _is_finite(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_finite, value))


TEXT: Rule = ("a text", lambda v: isinstance(v, str))
MAPPING: Rule = ("an object", lambda v: isinstance(v, dict))
FINITE: Rule = ("a finite number", _is_finite)
PERCENT: Rule = ("a number from 0 to 100", lambda v: _is_finite(v) and 0 <= v <= 100)
SHARE: Rule = ("a number in [0, 1)", lambda v: _is_finite(v) and 0 <= v < 1)
WHOLE: Rule = ("a whole number", _is_whole)
COUNT: Rule = ("a whole number above 0", lambda v: _is_whole(v) and v > 0)
NAMES: Rule = (
    "a list of two texts",
    lambda v: isinstance(v, list) and [type(x) for x in v] == [str, str],
)
INTERVALS: Rule = (
    "an object of pairs of numbers",
    lambda v: isinstance(v, dict) and all(x is None or _is_pair(x) for x in v.values()),
)
OBJECTS: Rule = (
    "a list of objects",
    lambda v: isinstance(v, list) and all(isinstance(x, dict) for x in v),
)

NEEDED = {
    "attack_id": TEXT,
    "task": TEXT,
    "recipe": TEXT,
    "score_with": TEXT,
    "encoder": MAPPING,
    "rows": MAPPING,
    "rows_attacked": COUNT,
    "clean_percent": PERCENT,
    "aua_percent": PERCENT,
    "intervals_95": INTERVALS,
}
# These may be null or, in records of earlier versions, absent.
IF_GIVEN = {
    **dict.fromkeys(
        ("method", "protocol", "protocol_id", "temperature_rule", "checkpoint", "row_outcomes"),
        TEXT,
    ),
    **dict.fromkeys(("ticket", "stop_at_loss", "resources", "environment", "training"), MAPPING),
    **dict.fromkeys(
        ("seed", "epochs", "epoch", "label_passes", "training_rows", "max_seq_length"), WHOLE
    ),
    **dict.fromkeys(
        (
            "suc_percent",
            "queries_per_row",
            "words_changed_percent",
            "similarity_threshold",
            "temperature",
            "ece_percent",
            "saturated_percent",
            "mean_top_probability_percent",
            "dev_accuracy_percent",
            "clean_full_test_percent",
            "mean_training_loss",
            "last_training_loss",
        ),
        FINITE,
    ),
    "made_in": NAMES,
    "flags": OBJECTS,
}
OF_A_TICKET = {"kind": TEXT, "sparsity_asked": SHARE}
OF_A_TICKET_IF_GIVEN = {
    "search": MAPPING,
    "scores_epoch": WHOLE,
    "reinitialised": TEXT,
    "expected_density_percent": FINITE,
}


def check(record: dict) -> None:
    """ValueError, in words that follow the record's place, where it is not as it must be."""
    _check("", record, NEEDED, IF_GIVEN)
    _check("encoder.", record["encoder"], {}, {"name": TEXT})
    _check("rows.", record["rows"], {"ids_fingerprint": TEXT, "fingerprint": TEXT}, {})
    for i, flag in enumerate(record.get("flags") or []):
        _check(f"flags[{i}].", flag, {"flag": TEXT, "why": TEXT}, {})
    if record.get("stage", "ours") is not None:  # else another program's checkpoint
        _check("", record, {"seed": WHOLE, "epochs": WHOLE, "checkpoint": TEXT}, {})
    if "ticket" not in record:
        raise ValueError("lacks 'ticket'")
    stop = record.get("stop_at_loss")
    if stop:
        _check("stop_at_loss.", stop, {"loss": FINITE}, {"ticket": MAPPING, "epochs": WHOLE})
        _check("", record, {"epoch": WHOLE}, {})
    for of, ticket in (("", record["ticket"]), ("stop_at_loss.", (stop or {}).get("ticket"))):
        if ticket:
            _check(f"{of}ticket.", ticket, OF_A_TICKET, OF_A_TICKET_IF_GIVEN)
    _check_outcomes(record)


def _check(of: str, found: dict, needed: dict[str, Rule], if_given: dict[str, Rule]) -> None:
    for key, (words, admits) in needed.items():
        if key not in found:
            raise ValueError(f"lacks '{of}{key}'")
        if not admits(found[key]):
            raise ValueError(f"lacks {words} as {of}{key} (it has {str(found[key])[:40]!r})")
    for key, (words, admits) in if_given.items():
        if found.get(key) is not None and not admits(found[key]):
            raise ValueError(f"lacks {words} as {of}{key} (it has {str(found[key])[:40]!r})")


def _check_outcomes(record: dict) -> None:
    letters, rows = record.get("row_outcomes"), record["rows_attacked"]
    if letters is None:
        return
    if len(letters) != rows or set(letters) - set(LETTERS.values()):
        letters = ", ".join(sorted(LETTERS.values()))
        raise ValueError(f"lacks in row_outcomes a letter of {letters} for each of {rows} rows")
    for measure, counted in (("clean_percent", "rf"), ("aua_percent", "r")):
        share = 100 * sum(map(letters.count, counted)) / rows
        if abs(share - record[measure]) > 0.01:
            raise ValueError(
                f"contradicts itself: {measure} is {record[measure]:g}, of its "
                f"row_outcomes {share:g}"
            )
