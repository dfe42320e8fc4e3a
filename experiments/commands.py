"""Command lines of the scripts: what a plan sets, and what the environment overrides.

A script's own parse_args checks each command before anything runs, and says which settings it
stands for. The variable that overrides --flag is FLAG. A prefix (SEARCH_, IMP_, ATTACK_, or a
method's, such as FREELB_) chooses the script or method, which is necessary for a flag that has
another meaning in stages 1 and 3.
"""

import contextlib
import functools
import importlib
import io
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from experiments.hyperparameters import Adversary, Training
from utils.cli import UserError
from utils.runs import NOT_IDENTITY

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
TRAINING_ONLY = set(Training.__dataclass_fields__) - {"bsz"}
BASELINES_ONLY = set(Adversary.__dataclass_fields__)
# Where inputs lie and what is done again: a plan decides it, no variable does.
DECIDED = (
    *("model_name", "output_dir", "overwrite", "result_file", "seed", "from_run", "stop_at_loss"),
    *("dataset_name", "task_name", "data_dir", "train_file", "validation_file", "test_file"),
    *("text_columns", "label_column", "keep_epochs", "keep_scores", "scores", "sparsity"),
    *("reinitialise", "method", "to_sparsity", "attack_epochs", "recipe", "num_examples"),
)


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
        settings = {k: v for k, v in vars(self.args).items() if k not in NOT_IDENTITY}
        return json.loads(json.dumps(settings))


def make(script: str, planned: dict[str, Any], tuned: dict[str, Any] | None = None) -> Command:
    """The command of a script (its name without .py).

    `planned`: flags and values that no variable changes; a value of None leaves out the flag.
    `tuned`: hyper-parameters, which the environment overrides, as it does every other setting of
    the script that is neither in `planned` nor in DECIDED.
    """
    settings = (tuned or {}) | planned
    args = parse(script, words_of(settings))
    overrides, variables = {}, {}
    for name in vars(args).keys() - planned.keys() - set(DECIDED):
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
    plain, prefix = name.upper(), PREFIXES.get(script, "")
    if method != "plain" and name in BASELINES_ONLY:
        yield f"{method.upper()}_{plain}"
    if (script, name) in SHORT_NAMES:
        yield SHORT_NAMES[script, name]
    if prefix:
        yield prefix + plain
    is_other = name in TRAINING_ONLY if prefix else name in BASELINES_ONLY
    if script == "prune_iteratively":
        is_other |= name in BASELINES_ONLY
    if script == "attack":
        is_other = name in _flags_of_stage_1()
    if not is_other:
        yield plain


@functools.cache
def _flags_of_stage_1() -> frozenset[str]:
    """Names that mean the training's in a variable without prefix, such as BSZ or PRECISION."""
    return frozenset(vars(parse("finetune", ("--model_name", "x", "--output_dir", "x"))))


def _given(args: Any, name: str, variable: str) -> str | bool:
    """A variable's value; yes or no for a pair of flags."""
    text = os.environ[variable]
    if is_dataclass(args):
        is_pair = get_type_hints(type(args))[name] in (bool, bool | None)
    else:
        is_pair = isinstance(getattr(args, name), bool)
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


@functools.cache
def parse(script: str, words: tuple[str, ...]) -> Any:
    """What the script's parse_args makes of the words; UserError with its message if it refuses."""
    module = importlib.import_module(script)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return module.parse_args(list(words))
    except SystemExit as e:
        message = complaint.getvalue().strip().splitlines()[-1].removeprefix("error: ")
        raise UserError(message.split(" (see ")[0]) from e


def flags(group: Any) -> dict[str, Any]:
    """The flags that a group of hyper-parameters sets."""
    return asdict(group)
