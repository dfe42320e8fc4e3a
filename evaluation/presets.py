"""Names that attack.py accepts: recipes, presets and temperature rules.

This module imports nothing heavy, so that a script can check its arguments first.
"""

import re
from collections.abc import Mapping

from utils.cli import UserError

# Recipe -> the resources it needs. All recipes except TextFooler and its variants also use NLTK's
# stop words, for which `resources.provide_stop_words` has a substitute.
RECIPES: dict[str, tuple[str, ...]] = {
    "textfooler": ("word_vectors", "sentence_encoder", "tagger"),
    "textbugger": ("word_vectors", "sentence_encoder"),
    "bertattack": ("masked_lm", "sentence_encoder"),
    "bertattack-released": ("word_vectors", "sentence_encoder", "tagger"),
    "bae": ("masked_lm", "sentence_encoder", "tagger"),
    "pwws": ("wordnet",),
    "deepwordbug": (),
    "textfooler-minilm": ("minilm_table", "minilm"),
    "textbugger-minilm": ("minilm_table", "minilm"),
    "textfooler-neighbours": ("neighbours", "tagger", "minilm"),
    "textfooler-use3": ("minilm_table", "use3"),
}


def needs_of(recipe: str, given: Mapping[str, object]) -> tuple[str, ...]:
    """The resources of a recipe. `given`: resource -> path or None, as the flags give them.

    textfooler-use3 takes given word vectors, or else a given table, in place of MiniLM's table,
    whose words have equal parts of speech.
    """
    if recipe == "textfooler-use3":
        for name in ("word_vectors", "neighbours"):
            if given.get(name):
                return (name, "tagger", "use3")
    return RECIPES[recipe]


# Values of --preset. An explicit flag overrides the preset's value.
PRESETS = {
    # The default: the same number of rows per class, and candidates ranked by log-odds, which
    # cannot saturate.
    "balanced": {"row_choice": "balanced", "score_with": "log_odds"},
    # The paper's text (B.2): random rows of any class and TextAttack's defaults. The paper states
    # no length; None is the length that the model was trained with.
    "paper": {"row_choice": "random", "score_with": "softmax"},
    # The released code: the first rows of the file (D6), texts cut at 512 tokens (D11), and a
    # different attack under the name of BERT-Attack (D5).
    "released": {"row_choice": "first", "score_with": "softmax", "max_seq_length": 512},
    # Rows that all compared models classify correctly: Clean is 100 % for each of them, and Aua
    # compares only the effect of the attack.
    "intersection": {"row_choice": "intersection", "score_with": "log_odds"},
}
# How an attack searches: as its recipe does; or without an end at success (`margin_search`), as
# greedy search, beam search of width 4, greedy search over the words in random order, or greedy
# search without the recipe's sentence similarity.
SEARCHES = ("stock", "margin", "beam", "restart", "unconstrained")
# Recipe of the suite -> the second recipe, whose attack is united with its own.
SUITE_RECIPES = {
    "textfooler": "textbugger",
    "textfooler-minilm": "textbugger-minilm",
    "textfooler-neighbours": "textbugger-minilm",
}
# Part of the suite -> the parts that it needs, in the order in which they run. Those from second
# to unconstrained attack the rows that still stand, which depends on the bias of the dev rows.
SUITE_NEEDS = {
    "dev": (),
    "margin": (),
    "second": ("dev", "margin"),
    "beam": ("second",),
    "restart1": ("beam",),
    "restart2": ("restart1",),
    "unconstrained": ("restart2",),
    "carried": ("margin",),
    "probe": (),
}
SUITE_PARTS = tuple(SUITE_NEEDS)
# Parts within the recipes' constraints. Their union is what a table reports.
SUITE_CONSTRAINED = ("margin", "second", "beam", "restart1", "restart2", "carried")

RELEASED_RECIPES = {"bertattack": "bertattack-released"}  # D5

SWEEP = ("0.25xfitted", "fitted", "4xfitted")  # the temperature rules that "sweep" stands for


def temperature_rules(text: str) -> list[str]:
    """Parse a list of temperature rules: '1,4xfitted' -> ["1", "4xfitted"]; sweep is SWEEP.

    Equal rules are merged and numbers are written in their shortest form. Raises UserError for
    anything else.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError("--temperature is empty; give a number or fitted")
    rules = [rule for word in words for rule in (SWEEP if word == "sweep" else (word,))]
    return list(dict.fromkeys(map(_shortest, rules)))


def _shortest(rule: str) -> str:
    factor = re.fullmatch(r"(?:(.+)x)?fitted|(.+)", rule)
    try:
        value = float(factor[1] or factor[2] or 1)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(
            f"--temperature {rule!r} is not valid; give a number above 0, fitted, a multiple such "
            "as 4xfitted, or sweep"
        )
    if factor[2]:
        return f"{value:g}"
    return "fitted" if value == 1 else f"{value:g}xfitted"


def suite_parts(text: str) -> list[str]:
    """Parse --suite: "standard" (all parts) or parts with commas, with those that they need.

    Raises UserError for any other word.
    """
    words = [part.strip() for part in text.split(",") if part.strip()]
    waiting = list(SUITE_PARTS) if words == ["standard"] else words
    parts: set[str] = set()
    while waiting:
        part = waiting.pop()
        if part not in SUITE_NEEDS:
            raise UserError(
                f"--suite {part!r} is not a part; give standard or some of {', '.join(SUITE_PARTS)}"
            )
        parts.add(part)
        waiting += SUITE_NEEDS[part]
    if not parts:
        raise UserError("--suite is empty; give standard")
    return [part for part in SUITE_PARTS if part in parts]
