"""Command lines of the scripts: what a plan sets, and what the environment overrides.

A script's own parse_args checks each command before anything runs, and says which settings it
stands for. The variable that overrides --flag is FLAG. A prefix (SEARCH_, IMP_, ATTACK_, or a
method's, such as FREELB_) chooses the script or method, which is necessary for a flag that has
another meaning in stages 1 and 3.
"""

import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from experiments.hyperparameters import Training
from training.methods import MethodSettings
from training.settings import DataSettings, StageSettings, resolve_data_settings
from utils.cli import UserError
from utils.settings import Role, identity_of, names_of, variable_of

ROOT = Path(__file__).resolve().parent.parent

PREFIXES = {"search_ticket": "SEARCH_", "prune_iteratively": "IMP_", "attack": "ATTACK_"}
SHORT_NAMES = {  # that the stage scripts use
    ("search_ticket", "lr"): "MASK_LR",
    ("search_ticket", "lambda_amp"): "LAMBDA",
    ("search_ticket", "adv_init_mag"): "ADV_INIT",
    ("prune_iteratively", "share_per_round"): "IMP_SHARE",
}
# Flags whose plain variable is not the script's but that of stages 1 and 3, or of the baselines. A
# batch has one size in all stages.
_OF_TRAINING = {*Training.__dataclass_fields__} - {"bsz"}
_OF_BASELINES = {*names_of(MethodSettings, *Role)}
NOT_PLAIN = {
    "attack": {*names_of(StageSettings, *Role)},
    "search_ticket": _OF_TRAINING,
    "prune_iteratively": _OF_TRAINING | _OF_BASELINES,
}
# What a plan decides itself: no variable changes it.
DECIDED = (Role.SEED, Role.PLACE, Role.DATA_PLACE, Role.KEEP)
ANSWERS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True)
class Command:
    """One call of a Python script. `args`: what its parse_args returned for `words`."""

    script: str
    words: tuple[str, ...]
    args: Any = field(compare=False, repr=False)

    @property
    def line(self) -> list[str]:
        return [sys.executable, str(ROOT / f"{self.script}.py"), *self.words]

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that define the run, as run.json holds them."""
        return json.loads(json.dumps(identity_of(self.args)))


def make(script: str, planned: dict[str, Any], tuned: dict[str, Any] | None = None) -> Command:
    """The command of a script (its name without .py).

    `planned`: flags and values that no variable changes; None omits the flag.
    `tuned`: hyper-parameters, which the environment overrides, as it does every other setting of
    the script whose role is not in DECIDED.
    """
    settings = (tuned or {}) | planned
    words = words_of(settings)
    args = parse(script, words)
    decided = {*planned, *names_of(type(args), *DECIDED)}
    variables = {}
    for name in vars(args).keys() - decided:
        candidates = variables_of(script, name, planned.get("method", "plain"))
        if given := [variable for variable in candidates if os.environ.get(variable)]:
            variables[name] = given[0]
    if not variables:
        return Command(script, words, args)
    for variable in variables.values():
        if "\r" in os.environ[variable]:
            raise UserError(
                f"{variable} in the environment: it contains a carriage return (Windows line "
                "endings?); remove it"
            )
    words = words_of(settings | {name: _given(args, name, v) for name, v in variables.items()})
    try:
        return Command(script, words, parse(script, words))
    except UserError as e:
        named = [v for name, v in variables.items() if f"--{name}" in str(e)]
        blamed = ", ".join(named or sorted(variables.values()))
        raise UserError(f"{blamed} in the environment: {e}") from e


def variables_of(script: str, name: str, method: str = "plain") -> list[str]:
    """Environment variables that set a flag of a script, the most specific one first."""
    plain, variables = variable_of(name), []
    if method != "plain" and name in _OF_BASELINES:
        variables.append(f"{method.upper()}_{plain}")
    if (script, name) in SHORT_NAMES:
        variables.append(SHORT_NAMES[script, name])
    if script in PREFIXES:
        variables.append(PREFIXES[script] + plain)
    if name not in NOT_PLAIN.get(script, _OF_BASELINES):
        variables.append(plain)
    return variables


def _given(args: Any, name: str, variable: str) -> str | bool:
    """A variable's value; yes or no for a pair of flags."""
    text = os.environ[variable]
    if get_type_hints(type(args))[name] not in (bool, bool | None):
        return text
    if text.lower() not in ANSWERS:
        raise UserError(f"{variable} in the environment: {text!r} is not yes or no")
    return ANSWERS[text.lower()]


def words_of(settings: dict[str, Any]) -> tuple[str, ...]:
    words: list[str] = []
    for name, value in settings.items():
        if value is None or value == ():
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif name == "run":  # of export.py, a word without a flag
            words.append(str(value))
        elif name == "compared_with":
            words += [f"--{name}", *value.split()]
        elif isinstance(value, tuple):
            words += [f"--{name}", ",".join(map(str, value))]
        else:
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return tuple(words)


@cache
def parse(script: str, words: tuple[str, ...]) -> Any:
    """What the script's parse_args makes of the words; UserError with its message if it refuses."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            args = _head_of(script).parse_args(list(words))
    except SystemExit as e:
        message = complaint.getvalue().strip().splitlines()[-1].removeprefix("error: ")
        raise UserError(message.split(" (see ")[0]) from e
    if isinstance(args, DataSettings):
        resolve_data_settings(args)  # as the script does before it writes run.json
    return args


@cache
def _head_of(script: str) -> ModuleType:
    """A script's settings and parse_args, without the imports after them, which take seconds."""
    module, path = ModuleType(script), ROOT / f"{script}.py"
    head = path.read_text(encoding="utf-8").split('\nif __name__ == "__main__":')[0]
    exec(compile(head, path, "exec"), vars(module))
    return module
