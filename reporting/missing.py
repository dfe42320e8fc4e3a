"""What is not there yet, and the command that makes it."""

import shlex
from collections.abc import Iterable

from evaluation.records import NoRecords
from experiments.scales import Scale, usual_recipes


class Missing(NoRecords):
    """What a table or figure is made of is not there; the message says what, and the command."""


def command(
    target: str,
    scale: Scale,
    tasks: Iterable[str],
    seeds: Iterable[int] = (42,),
    rows: Iterable[str] = (),
    recipe: str | None = None,
) -> str:
    """The line for a shell that makes what a table or figure needs; no `rows`: all of them.

    `recipe`: the one attack that is needed, whichever were asked for; it is named where the target
    does not run it by itself.
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
    """The words of a command line but for a flag and its values."""
    kept, of_flag = [], False
    for word in words:
        of_flag = word == flag or (of_flag and not word.startswith("--"))
        kept += [] if of_flag else [word]
    return kept
