"""Which checkpoint is attacked, what is known of it, and whose labels its logits are."""

import hashlib
import re
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from evaluation import LOCAL
from training import labels, models
from training.checkpoints import checkpoint_facts
from training.splits import Rows, load_splits
from training.tasks import Task
from utils.cli import DATA_FLAGS, UserError
from utils.files import read_json, sha256_of
from utils.runs import read_run


@dataclass(frozen=True)
class Target:
    """A checkpoint folder. `name`: last, best or epochN in a run, else the folder's own name.

    `facts`: its checkpoint.json, `run`: the run.json above it; {} and None for a checkpoint that
    no stage of ours wrote.
    """

    folder: Path
    name: str
    run_folder: Path | None = None
    run: dict | None = None
    facts: dict = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder under which attacks on it are kept: the run's, else its own."""
        return self.run_folder or self.folder

    def known(self, task: Task) -> dict:
        """For the record: checkpoint.json, or as much of it as another's checkpoint tells; and
        the accuracy on the whole test split and the last training loss, where its run tells."""
        config = AutoConfig.from_pretrained(self.folder, **LOCAL)
        architecture = (config.architectures or [None])[0]
        facts = {
            "stage": None,
            "label_names": task.label_names,
            "encoder": {"name": None, "architecture": architecture},
            "ticket": None,
            "seed": None,
            "protocol": None,
            "epochs": None,
            "epoch": None,
        } | self.facts
        path = self.home / "result.json"
        if self.run_folder is not None and path.is_file():
            evaluated = read_json(path).get("checkpoints", {})
            facts["clean_full_test_percent"] = evaluated.get(self.name, {}).get("clean_percent")
            # Of the run's end, whichever checkpoint this is: what --stop_at_loss goes by.
            facts["last_training_loss"] = evaluated.get("last", {}).get("mean_training_loss")
        return facts | {"task": task.name}


def find_targets(model_name: str, checkpoint: str, epochs: list[int] | None) -> list[Target]:
    """Checkpoints to attack: one, or one per epoch. UserError where there is none.

    `model_name`: a run folder (then `checkpoint` or `epochs` choose inside it) or a checkpoint's.
    `checkpoint`: last, best, or both.
    """
    folder = Path(model_name)
    if not folder.is_dir():
        raise UserError(
            f"no folder {model_name}: give a run or a checkpoint folder (a model of the hub is "
            f"fetched with: hf download {model_name} --local-dir FOLDER)"
        )
    run = read_run(folder)
    if run is None:
        if epochs:
            raise UserError(f"--attack_epochs needs a run folder; {folder} has no run.json")
        parent = folder.resolve().parent
        above = read_run(parent)
        return [_target(folder, folder.resolve().name, parent if above else None, above)]
    if run.get("stage") == "search":
        raise UserError(f"{folder} holds a search: draw and retrain a ticket from it first")
    if not epochs:
        names = ("last", "best") if checkpoint == "both" else (checkpoint,)
        return [_target(folder / name, name, folder, run) for name in names]
    missing = [e for e in epochs if not (folder / f"epoch{e}" / "config.json").is_file()]
    if missing:
        kept = sorted(
            int(p.name.removeprefix("epoch"))
            for p in folder.glob("epoch*")
            if re.fullmatch(r"epoch\d+", p.name)
        )
        raise UserError(
            f"{folder} kept no checkpoint of epoch {', '.join(map(str, missing))} (kept: "
            f"{', '.join(map(str, kept)) or 'none'}); see --keep_epochs of the training script"
        )
    return [_target(folder / f"epoch{e}", f"epoch{e}", folder, run) for e in epochs]


def _target(folder: Path, name: str, run_folder: Path | None, run: dict | None) -> Target:
    if not (folder / "config.json").is_file():
        unfinished = run is not None and run.get("status") != "finished"
        hint = "; its run is not finished" if unfinished else ""
        raise UserError(f"{folder} is no checkpoint: it has no config.json{hint}")
    ours = (folder / "checkpoint.json").is_file()
    return Target(folder, name, run_folder, run, checkpoint_facts(folder) if ours else {})


def with_checkpoint_labels(task: Task, target: Target) -> Task:
    """A custom task, which has no labels of its own, takes the checkpoint's; others stay."""
    return labels.task_with_labels_of(task, _config(target), target.facts)


def label_order(target: Target, task: Task) -> list[int]:
    """order[i] is the logit of the task's label i. UserError where labels do not fit."""
    return labels.label_order(_config(target), target.folder, task)


def _config(target: Target):
    try:
        return AutoConfig.from_pretrained(target.folder, **LOCAL)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{target.folder}/config.json is no configuration that can be read") from e


def weights_digest(target: Target) -> str:
    """16 hex digits over the weight files, to tell whether a checkpoint is still the same."""
    files = [p for p in sorted(target.folder.iterdir()) if p.suffix in (".safetensors", ".bin")]
    digest = hashlib.sha256("".join(sha256_of(p) for p in files).encode())
    return digest.hexdigest()[:16]


def rows_it_was_made_with(target: Target, task: Task) -> dict[str, Rows | None]:
    """The train and dev rows of the target's run, by the run's own data flags; None where there is
    no run, or where its data are no longer to be had."""
    nothing = {"train": None, "dev": None}
    if target.run is None:
        return nothing
    known = dict.fromkeys(DATA_FLAGS) | target.run.get("args", {})
    try:
        splits = load_splits(Namespace(**known), task, ("train", "dev"))
    except UserError:
        return nothing
    return {name: splits[name] for name in nothing}


def load_classifier(target: Target) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (float32, CPU, no dropout) and tokenizer; UserError where weights are missing."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # missing weights are reported below, in one line
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            target.folder,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        SafetensorError,
    ) as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"{target.folder} holds no classifier that can be loaded: {reason}") from e
    finally:
        logging.set_verbosity(level)
    if report["missing_keys"]:
        raise UserError(
            f"{target.folder} is no fine-tuned classifier: it has no weights for "
            f"{', '.join(sorted(report['missing_keys'])[:3])}"
        )
    tokenizer = models.load_tokenizer(str(target.folder))
    models.check_tokenizer(model, tokenizer)
    return model.eval(), tokenizer
