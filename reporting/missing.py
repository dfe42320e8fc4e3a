"""What was not run, and the command that runs it."""

import shlex
from collections.abc import Iterable

from evaluation.records import NoRecords
from experiments.scales import Scale, usual_recipes


class Missing(NoRecords):
    """A table or figure has no data; the message names it and the command that makes the data."""


def command(
    target: str,
    scale: Scale,
    tasks: Iterable[str],
    seeds: Iterable[int] = (42,),
    rows: Iterable[str] = (),
    recipe: str | None = None,
) -> str:
    """The shell command that runs what a table or figure needs; without `rows`, all rows.

    `recipe`: the one attack that is needed. It replaces the attacks that the user chose, and is
    named unless the target runs it by default.
    """
    further = scale.further_flags if recipe is None else _without("--recipes", scale.further_flags)
    named = [recipe] if recipe and recipe not in usual_recipes(target, scale.name) else []
    flags = {
        "--scale": [scale.name],
        "--tasks": tasks,
        "--seeds": seeds,
        "--rows": rows,
        "--recipes": named,
    }
    words = ["sh", "reproduce.sh", target]
    for flag, values in flags.items():
        values = list(map(str, values))
        words += [flag, *values] if values else []
    return shlex.join([*words, *further])


def _without(flag: str, words: Iterable[str]) -> list[str]:
    """The words of a command line without a flag and its values."""
    others, of_flag = [], False
    for word in words:
        of_flag = word == flag or (of_flag and not word.startswith("--"))
        others += [] if of_flag else [word]
    return others
