"""What attack.py resolves before it attacks a row: task, models to compare, temperature, folder.

This module imports TextAttack only inside `Setup`, after `resources.import_textattack`. A process
that attacks rows can therefore unpickle a Setup first.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation import calibration, checkpoints, protocol, resources
from evaluation.checkpoints import Target
from evaluation.minilm import SIMILARITY_THRESHOLDS
from evaluation.presets import needs_of
from evaluation.settings import RESOURCE_FLAGS, AttackRun
from training import models, onnx_models
from training.rows import Rows
from training.settings import DataSettings, data_settings_in
from training.splits import load_splits
from training.tasks import Task
from utils import cli
from utils.cli import UserError
from utils.settings import Role, names_of

DEV_ONLY = {"validation_file"}


@dataclass(frozen=True)
class Setup:
    """Everything that an attack on one checkpoint is built from. It can be pickled."""

    args: AttackRun
    target: Target
    label_order: list[int]
    task: Task
    rows: Rows
    paths: dict[str, Path]
    max_seq_length: int
    device: str
    search: str = "stock"  # of presets.SEARCHES

    @property
    def similarity_threshold(self) -> float | None:
        """That of --similarity_threshold, else the recipe's; None for a recipe without MiniLM."""
        given = self.args.similarity_threshold
        return SIMILARITY_THRESHOLDS.get(self.args.recipe) if given is None else given

    @property
    def rows_at_once(self) -> int:
        """Rows that a process attacks at the same time: --rows_at_once, or by the device."""
        return self.args.rows_at_once or (1 if self.device == "cpu" else 16)

    def victim(self, device: str | None = None, temperature: float = 1.0):
        """The checkpoint as the `Victim` that TextAttack queries."""
        from evaluation.victim import Victim

        model, tokenizer = checkpoints.load_victim(self.target)
        how = (self.max_seq_length, self.args.eval_bsz, self.args.precision, device or self.device)
        return Victim(model, tokenizer, self.label_order, *how, temperature)

    def attack(self, victim, loaded):
        """TextAttack's Attack on the victim; `loaded` comes from `recipes.load`."""
        from evaluation import recipes

        args = self.args
        how = (args.score_with, self.similarity_threshold, args.query_budget)
        return recipes.build(args.recipe, victim, self.task, loaded, *how, self.search)

    def settings(self, data: dict, rows: dict, resource_facts: dict, rule: str) -> dict:
        """The settings that identify an attack, for its folder and its record.

        `data`, `rows`: from `protocol.describe_data` and `describe_rows`. `rule`: of temperature.
        Settings of later versions are omitted at their defaults (test rows, no budget, temperature
        1, the recipe's own search), so that earlier attacks keep their id.
        """
        args = self.args
        settings = {
            "task": self.task.name,
            "checkpoint": self.target.name,
            "checkpoint_sha256": checkpoints.weights_digest(self.target),
            "label_order": self.label_order,
            "max_seq_length": self.max_seq_length,
            "precision": args.precision,
            "device": self.device,
            "recipe": args.recipe,
            "score_with": args.score_with,
            "similarity_threshold": self.similarity_threshold,
            "attack_seed": args.seed,
            "data": data,
            "rows": rows,
            "resources": resource_facts,
        }
        later = {"split": args.split, "query_budget": args.query_budget, "temperature_rule": rule}
        later["search"] = self.search
        if args.precision == "bf16" and self.rows_at_once > 1:  # rounding then decides outcomes
            later["rows_at_once"] = self.rows_at_once
        usual = ("test", None, "1", "stock")
        return settings | {n: v for n, v in later.items() if v not in usual}


@dataclass(frozen=True)
class Subject:
    """What attack.py's flags name: models, task, data and rows. `orders`: see `label_order`.

    `common`: a record entry for the models that --row_choice intersection compares.
    """

    targets: list[Target]
    orders: list[list[int]]
    task: Task
    device: str
    split: Rows
    rows: Rows
    common: dict
    max_seq_length: int


def resolve(args: AttackRun) -> Subject:
    """Find the models and choose the rows. Fills in `args` with what the run decides."""
    targets = checkpoints.find_targets(args.model_name, args.checkpoint, args.attack_epochs)
    check_runtime(args, targets[0])
    check_dev_file(args, targets[0])
    task = checkpoints.task_of(args, targets[0])
    for target in targets if task.label_names else ():  # before the data are read
        checkpoints.label_order(target, task)
    device = device_name(args.device) if targets[0].runtime is None else "cpu"
    splits = load_splits(args, task, (args.split,))
    task, split = splits.task, splits[args.split]
    orders = [checkpoints.label_order(target, task) for target in targets]
    length = args.max_seq_length or targets[0].facts.get("max_seq_length") or task.max_seq_length
    models.check_length(checkpoints.load_victim(targets[0])[0], length)
    args.num_examples = args.num_examples or task.paper_attacked_rows or 1000
    candidates, common = split, {}
    if args.row_choice == "intersection":
        compared = compared_models(args, targets)
        candidates = right_for_all(args, compared, task, split, length, device)
        common = {"right_for": sorted(checkpoints.weights_digest(t) for t in compared)}
    how = (args.num_examples, args.row_choice, args.seed, args.new_rows_after)
    rows = protocol.choose_rows(candidates, *how)
    return Subject(targets, orders, task, device, split, rows, common, length)


def check_runtime(args: AttackRun, target: Target) -> None:
    """Raise UserError for flags that an ONNX export cannot follow, or without ONNX Runtime."""
    if target.runtime is None:
        return
    if args.precision == "bf16":
        raise UserError(
            f"--precision bf16: {target.folder} is an ONNX export, which computes in the precision "
            "that it was exported in; omit --precision"
        )
    if args.device == "cuda":
        raise UserError(
            f"--device cuda: {target.folder} is an ONNX export, which runs on the CPU; omit "
            "--device"
        )
    onnx_models.check_installed("onnxruntime")


def check_dev_file(args: AttackRun, target: Target) -> None:
    """Raise UserError for a dev file that would be attacked as test rows by surprise.

    Without a training file and a test file, a dev file is the test, as in GLUE. A run has test rows
    of its own, and a bias or --split dev asks for dev rows.
    """
    if {n for n in names_of(DataSettings, Role.DATA_PLACE) if getattr(args, n)} != DEV_ONLY:
        return
    if target.run is not None or args.split == "dev" or "dev" in (args.suite or ()):
        raise UserError(
            "--validation_file without --test_file would be attacked as test rows; give the test "
            "rows as --test_file, too, or omit --validation_file"
        )


def device_name(wanted: str) -> str:
    """cpu or cuda for --device. Raises UserError if CUDA is asked for and not available."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def locate_resources(args: AttackRun, device: str) -> dict[str, Path]:
    """Paths of the recipe's resources; warns about resource flags that the recipe does not read."""
    given = {name: getattr(args, name) for name in RESOURCE_FLAGS}
    for name in RESOURCE_FLAGS:
        # Not an error: a shell script passes all resources that it has to each recipe.
        if given[name] is not None and name not in needs_of(args.recipe, given):
            cli.warn(f"--{name} has no effect with the recipe {args.recipe}")
    return resources.locate(args.recipe, given, device)


def compared_models(args: AttackRun, targets: list[Target]) -> list[Target]:
    """The checkpoints of --compared_with and the attacked ones, each once."""
    others = [checkpoints.find_targets(name, args.checkpoint, None) for name in args.compared_with]
    return list({t.folder.resolve(): t for t in [*sum(others, []), *targets]}.values())


def right_for_all(
    args: AttackRun, compared: list[Target], task: Task, rows: Rows, length: int, device: str
) -> Rows:
    """The rows, cut at `length` tokens, that all models classify correctly. UserError if none."""
    resources.import_textattack(device)
    labels, right = torch.tensor(rows.labels), torch.ones(len(rows), dtype=torch.bool)
    for target in compared:
        order = checkpoints.label_order(target, task)
        victim = Setup(args, target, order, task, rows, {}, length, device).victim()
        right &= victim(rows.for_tokenizer()).argmax(dim=1) == labels
    if not right.any():
        raise UserError(
            f"no row is right for all {len(compared)} compared models; use --row_choice balanced"
        )
    return rows.take(right.nonzero().flatten().tolist())


def dev_rows(args: AttackRun, task: Task) -> Rows | None:
    """The dev rows that a temperature is fitted on; None if no rule needs them or none exist."""
    if any(rule.endswith("fitted") for rule in args.temperature):
        with contextlib.suppress(UserError):
            return load_splits(args, task, ("dev",))["dev"]
    return None


def bias_rows(args: AttackRun, task: Task, target: Target, of_run: Rows | None) -> Rows:
    """The dev rows that the suite chooses its bias on: those that the flags name, else the run's.

    `of_run`: dev rows of the target's run; None for a checkpoint without a run, or one whose data
    are gone.
    """
    if target.run is not None and of_run is not None:
        made_with = data_settings_in(target.run["args"])
        names = {*names_of(DataSettings, Role.DATA_PLACE), "task_name", "dataset_name"}
        names -= {"test_file"}  # holds no dev rows
        if all(getattr(args, name) in (None, getattr(made_with, name)) for name in names):
            return of_run
    return load_splits(args, task, ("dev",))["dev"]


def set_temperature(victim, rule: str, dev: Rows | None, seed: int, folder: Path) -> dict:
    """Set the victim's temperature by `rule`. Returns the record entries that describe it.

    `dev`: rows that a fitted temperature is fitted on. `seed`: of the choice among them.
    `folder`: the checkpoint, for the error if `dev` is needed and missing.
    """
    if rule == "1":
        return {}
    fitted, facts = None, {}
    if rule.endswith("fitted"):
        if dev is None:
            raise UserError(
                f"--temperature {rule} is fitted on dev rows, and {folder} has none; give training "
                "rows (10 % of them become dev rows) with --data_dir or --train_file, or give a "
                "number"
            )
        dev = protocol.choose_rows(dev, calibration.MOST_DEV_ROWS, "random", seed)
        logits = victim(dev.for_tokenizer()).numpy()
        fitted = calibration.fit_temperature(logits, np.array(dev.labels))
        facts = {
            "temperature_fitted_on": {"rows": len(dev), "fingerprint": dev.fingerprint},
            "temperature_at_bound": calibration.at_bound(fitted),
        }
    victim.temperature = calibration.temperature_of(rule, fitted)
    return facts | {"temperature": victim.temperature}


def output_dir(args: AttackRun, target: Target, rule: str) -> Path:
    """The folder of one attack: in --output_dir, or in attacks/ of the run or checkpoint folder.

    --output_dir gets a folder per checkpoint and per temperature if there are several.
    """
    if args.output_dir:
        several = args.attack_epochs or args.checkpoint == "both"
        parts = [target.name] * bool(several)
        parts += [f"T{rule}"] * (len(args.temperature) > 1)
        return Path(args.output_dir, *parts)
    return target.home / "attacks" / protocol.folder_name(args, target.name, rule)
