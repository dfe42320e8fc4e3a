"""Command lines of the scripts: what a plan sets, and what the environment overrides.

A script's own parse_args checks each command before anything runs, and says which settings it
stands for. The variable that overrides --flag is FLAG. A prefix (SEARCH_, IMP_, ATTACK_, or a
method's, such as FREELB_) chooses the script or method, which is necessary for a flag that has
another meaning in stages 1 and 3.
"""

import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from experiments.hyperparameters import Training
from training.methods import MethodSettings
from training.settings import DataSettings, StageSettings, resolve_data_settings
from utils.cli import UserError
from utils.settings import Role, identity_of, names_of, variable_of

ROOT = Path(__file__).resolve().parent.parent

PREFIXES = {"search_ticket": "SEARCH_", "prune_iteratively": "IMP_", "attack": "ATTACK_"}
# Short names that the stage scripts use.
SHORT_NAMES = {
    ("search_ticket", "lr"): "MASK_LR",
    ("search_ticket", "lambda_amp"): "LAMBDA",
    ("search_ticket", "adv_init_mag"): "ADV_INIT",
    ("prune_iteratively", "share_per_round"): "IMP_SHARE",
}
# Flags whose plain variable is for stages 1 and 3 only. A batch has one size in all stages.
TRAINING_ONLY = {*Training.__dataclass_fields__} - {"bsz"}
BASELINES_ONLY = {*names_of(MethodSettings, *Role)}
ALL_STAGES = {*names_of(StageSettings, *Role)}  # for attack.py these are other settings
# What a plan decides itself: no variable changes it.
DECIDED = (Role.SEED, Role.PLACE, Role.DATA_PLACE, Role.KEEP)


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
    args = parse(script, words_of(settings))
    overrides, variables = {}, {}
    decided = names_of(type(args), *DECIDED)
    for name in vars(args).keys() - planned.keys() - set(decided):
        for variable in variables_of(script, name, planned.get("method", "plain")):
            if os.environ.get(variable):
                overrides[name], variables[name] = _given(args, name, variable), variable
                break
    if not overrides:
        return Command(script, words_of(settings), args)
    words = words_of(settings | overrides)
    try:
        return Command(script, words, parse(script, words))
    except UserError as e:
        named = [v for name, v in variables.items() if f"--{name}" in str(e)]
        blamed = ", ".join(named or sorted(variables.values()))
        raise UserError(f"{blamed} in the environment: {e}") from e


def variables_of(script: str, name: str, method: str = "plain") -> Iterable[str]:
    """Environment variables that set a flag of a script, the most specific one first."""
    plain, prefix = variable_of(name), PREFIXES.get(script, "")
    if method != "plain" and name in BASELINES_ONLY:
        yield f"{method.upper()}_{plain}"
    if (script, name) in SHORT_NAMES:
        yield SHORT_NAMES[script, name]
    if prefix:
        yield prefix + plain
    other = {
        "attack": ALL_STAGES,
        "search_ticket": TRAINING_ONLY,
        "prune_iteratively": TRAINING_ONLY | BASELINES_ONLY,
    }
    if name not in other.get(script, BASELINES_ONLY):
        yield plain


def _given(args: Any, name: str, variable: str) -> str | bool:
    """A variable's value; yes or no for a pair of flags."""
    text = os.environ[variable]
    is_pair = get_type_hints(type(args))[name] in (bool, bool | None)
    answers = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if is_pair and text.lower() not in answers:
        raise UserError(f"{variable} in the environment: {text!r} is not yes or no")
    return answers[text.lower()] if is_pair else text


def words_of(settings: dict[str, Any]) -> tuple[str, ...]:
    words: list[str] = []
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif name == "compared_with":
            words += [f"--{name}", *str(value).split()]
        elif isinstance(value, tuple):
            words += [f"--{name}", ",".join(map(str, value))] if value else []
        else:
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return tuple(words)


@cache
def parse(script: str, words: tuple[str, ...]) -> Any:
    """What the script's parse_args makes of the words; UserError with its message if it refuses."""
    module = importlib.import_module(script)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            args = module.parse_args(list(words))
    except SystemExit as e:
        message = complaint.getvalue().strip().splitlines()[-1].removeprefix("error: ")
        raise UserError(message.split(" (see ")[0]) from e
    if isinstance(args, DataSettings):
        resolve_data_settings(args)  # as the script does before it writes run.json
    return args
