"""What is not there yet, and the command that makes it."""

import shlex
from collections.abc import Iterable

from utils.cli import UserError
from utils.scales import Scale


class Missing(UserError):
    """What a table or figure is made of is not there; the message says what, and the command."""


def command(
    target: str,
    scale: Scale,
    tasks: Iterable[str],
    seeds: Iterable[int] = (42,),
    rows: Iterable[str] = (),
) -> str:
    """The line for a shell that makes what a table or figure needs; no `rows`: all of them."""
    flags = {"--scale": [scale.name], "--tasks": tasks, "--seeds": seeds, "--rows": rows}
    words = ["sh", "reproduce.sh", target]
    for flag, values in flags.items():
        values = list(map(str, values))
        words += [flag, *values] if values else []
    return shlex.join([*words, *scale.further_flags])
