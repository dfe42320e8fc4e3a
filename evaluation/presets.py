"""What attack.py's arguments stand for. Light: they are checked before the heavy imports."""

import re

from utils.cli import UserError

# Ways to evaluate, by name (--attack_protocol); a flag of its own overrides each setting.
PRESETS = {
    # Ours: an equal share of each class, and candidates ranked where nothing saturates.
    "balanced": {"rows": "balanced", "score_with": "log_odds", "max_seq_length": None},
    # The paper's text (B.2): random rows, whatever their classes, TextAttack's defaults. It states
    # no length; the training's (None) is the one that its models were made for.
    "paper": {"rows": "random", "score_with": "softmax", "max_seq_length": None},
    # The released code: the file's first rows (D6), texts cut at 512 tokens (D11); and under the
    # name of BERT-Attack another attack (D5).
    "released": {"rows": "first", "score_with": "softmax", "max_seq_length": 512},
    # Rows that all compared models get right, so that Clean is 100 for each and Aua compares
    # nothing but what the attack does.
    "intersection": {"rows": "intersection", "score_with": "log_odds", "max_seq_length": None},
}
RELEASED_RECIPES = {"bertattack": "bertattack-released"}  # D5

SWEEP = ("0.25xfitted", "fitted", "4xfitted")  # of temperatures
FLAG_SKIPPED_PERCENT = 25.0  # of the attacked rows: where more were wrong before, it is flagged


def temperature_rules(text: str) -> list[str]:
    """'1,fitted' -> ["1", "fitted"]: of a number, fitted, 4xfitted, sweep (which is SWEEP)."""
    words = [part.strip() for part in text.split(",") if part.strip()]
    found: list[str] = []
    for word in words:
        for rule in SWEEP if word == "sweep" else (word,):
            factor_and_rest = re.fullmatch(r"(?:(.+)x)?fitted|(.+)", rule)
            number = factor_and_rest[1] or factor_and_rest[2] or "1"
            try:
                value = float(number)
            except ValueError:
                value = 0.0
            if not 0 < value < float("inf"):
                raise UserError(
                    f"--temperature {word!r} is not a number above 0, fitted, a "
                    "multiple such as 4xfitted, or sweep"
                )
            fitted = rule.endswith("fitted")
            plain = f"{value:g}" if not fitted else "fitted" if value == 1 else f"{value:g}xfitted"
            found += [plain] * (plain not in found)
    if not found:
        raise UserError("--temperature names no temperature")
    return found
