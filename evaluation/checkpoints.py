"""Checkpoints to attack: finding and loading them, their facts, and the order of their labels."""

import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from evaluation import exports
from training import labels, models, tokenizers
from training.batching import encode
from training.checkpoints import checkpoint_facts
from training.loading import loading, not_loaded
from training.onnx_models import OnnxClassifier
from training.prediction import predict
from training.rows import Rows
from training.settings import DataSettings, data_settings_in, resolve_data_settings
from training.splits import load_splits
from training.tasks import TASKS, Task, resolve_task
from utils.cli import UserError
from utils.files import read_json, sha256_of
from utils.process_state import logging_level
from utils.runs import read_run
from utils.settings import Role, names_of

# Arguments of from_pretrained: read a folder, download nothing, and run no code that is in it.
LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Target:
    """A checkpoint folder. `name`: last, best or epochN in a run, else the folder's name.

    `facts`: its checkpoint.json; `run`: the run.json of its run. They are {} and None for a
    checkpoint that another program wrote. `runtime`: of exports.RUNTIMES for an ONNX export, which
    has name and facts of the checkpoint that it was made from; None for transformers.
    """

    folder: Path
    name: str
    run_folder: Path | None = None
    run: dict | None = None
    facts: dict = field(default_factory=dict)
    runtime: str | None = None

    @property
    def home(self) -> Path:
        """The folder that its attacks are stored in: the run's, or its own without a run."""
        return self.run_folder or self.folder

    def known(self, task: Task) -> dict:
        """Record entries: checkpoint.json, or what another program's checkpoint states.

        A run adds the accuracy on its whole test split and its last training loss.
        """
        architecture = (_config(self).architectures or [None])[0]
        facts = {"stage": None, "label_names": None}
        facts |= {"encoder": {"name": None, "architecture": architecture}}
        facts |= dict.fromkeys(("ticket", "seed", "protocol", "epochs", "epoch")) | self.facts
        path = self.home / "result.json"
        if self.run_folder is not None and path.is_file():
            evaluated = read_json(path).get("checkpoints", {})
            facts["clean_full_test_percent"] = evaluated.get(self.name, {}).get("clean_percent")
            # The loss at the end of the run, for every checkpoint: --stop_at_loss compares it.
            facts["last_training_loss"] = evaluated.get("last", {}).get("mean_training_loss")
        if self.runtime is not None:
            facts["runtime"] = self.runtime
        # The checkpoint may have the task's labels in another order; rows have the task's.
        return facts | {"task": task.name, "label_names": list(task.label_names)}


def find_targets(model_name: str, checkpoint: str, epochs: list[int] | None) -> list[Target]:
    """The checkpoints to attack: one, two, or one per epoch. Raises UserError if one is missing.

    `model_name`: a run folder, in which `checkpoint` (last, best or both) or `epochs` choose, a
    checkpoint folder, or an ONNX export of export.py.
    """
    folder = Path(model_name)
    if not folder.is_dir():
        raise UserError(
            f"no folder {model_name}; give a run folder or a checkpoint folder (download a model "
            f"of the hub with: hf download {model_name} --local-dir FOLDER)"
        )
    run = read_run(folder)
    if run is None:
        if epochs:
            raise UserError(f"{folder} has no run.json; --attack_epochs needs a run folder")
        if export := exports.find_onnx(folder):
            facts = {"facts": export.facts, "runtime": export.format}
            return [Target(folder, export.checkpoint, **facts)]
        parent = folder.resolve().parent
        above = read_run(parent)
        return [_target(folder, folder.resolve().name, parent if above else None, above)]
    if run.get("stage") == "search":
        raise UserError(
            f"{folder} holds a search; draw and retrain a ticket from it with retrain_ticket.py"
        )
    if not epochs:
        names = ("last", "best") if checkpoint == "both" else (checkpoint,)
        return [_target(folder / name, name, folder, run) for name in names]
    missing = [e for e in epochs if not (folder / f"epoch{e}" / "config.json").is_file()]
    if missing:
        names = [path.name.removeprefix("epoch") for path in folder.glob("epoch*")]
        present = sorted((name for name in names if name.isdecimal()), key=int)
        raise UserError(
            f"{folder} has no checkpoint of epoch {', '.join(map(str, missing))} (it has: "
            f"{', '.join(present) or 'none'}); see --keep_epochs of the training script"
        )
    return [_target(folder / f"epoch{e}", f"epoch{e}", folder, run) for e in epochs]


def _target(folder: Path, name: str, run_folder: Path | None, run: dict | None) -> Target:
    if not (folder / "config.json").is_file():
        unfinished = run is not None and run.get("status") != "finished"
        hint = "finish its run first" if unfinished else "give a run or checkpoint folder"
        raise UserError(f"{folder} is not a checkpoint: it has no config.json; {hint}")
    ours = (folder / "checkpoint.json").is_file()
    return Target(folder, name, run_folder, run, checkpoint_facts(folder) if ours else {})


def task_of(args: DataSettings, target: Target) -> Task:
    """The task that the flags name, else that of the run or of the ONNX export; fills in `args`.

    Raises UserError if it is not known.
    """
    earlier = dict(target.run["args"]) if target.run is not None else {}
    sources = names_of(DataSettings, Role.DATA_PLACE)
    if any(getattr(args, name) for name in sources):
        earlier |= dict.fromkeys(sources)  # a given source replaces all sources of the run
    resolve_data_settings(args, earlier)
    if target.run is None and args.task_name is None and args.dataset_name is None:
        if target.runtime is None or target.facts.get("task") not in TASKS:
            raise UserError(f"{target.folder} has no run.json; give --task_name")
        args.task_name = target.facts["task"]
    return with_checkpoint_labels(resolve_task(args), target)


def with_checkpoint_labels(task: Task, target: Target) -> Task:
    """Give a custom task, which has no labels yet, the labels of the checkpoint."""
    return labels.task_with_labels_of(task, _config(target), target.facts)


def label_order(target: Target, task: Task) -> list[int]:
    """order[i] is the index of the logit for the task's label i. UserError if labels differ."""
    return labels.label_order(_config(target), target.folder, task)


def _config(target: Target):
    with loading("configuration", str(target.folder)):
        return AutoConfig.from_pretrained(target.folder, **LOCAL)


def weights_digest(target: Target) -> str:
    """16 hex digits of the SHA-256 of the weight files, which identify a checkpoint."""
    kinds = (".safetensors", ".bin") if target.runtime is None else (".onnx", ".data")
    files = [p for p in sorted(target.folder.iterdir()) if p.suffix in kinds]
    digest = hashlib.sha256("".join(sha256_of(p) for p in files).encode())
    return digest.hexdigest()[:16]


def rows_it_was_made_with(target: Target, task: Task) -> dict[str, Rows | None]:
    """Train and dev rows of the target's run; None without a run, or if its data are gone.

    Also None if the run was made with another data set than an open task's: labels could differ.
    """
    names = ("train", "dev")
    with contextlib.suppress(UserError):
        if target.run is not None:
            settings = data_settings_in(target.run.get("args", {}))
            task_of_run = resolve_task(settings)
            if task_of_run.name == task.name or not (task_of_run.is_open or task.is_open):
                if task_of_run.is_open:  # its own splits, whichever are attacked
                    task = with_checkpoint_labels(task_of_run, target)
                splits = load_splits(settings, task, names)
                return {name: splits[name] for name in names}
    return dict.fromkeys(names)


def load_classifier(target: Target) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (float32, CPU, evaluation mode) and tokenizer.

    Raises UserError if weights are missing, or for an ONNX export.
    """
    if target.runtime is not None:
        raise UserError(f"{target.folder} is an ONNX export; give a checkpoint of transformers")
    model, missing = load_model(AutoModelForSequenceClassification, target.folder, "classifier")
    if missing:
        raise UserError(
            f"{target.folder} is not a fine-tuned classifier: it has no weights for "
            f"{', '.join(missing[:3])}; run finetune.py first"
        )
    return model, _tokenizer_for(model, target)


def load_victim(
    target: Target,
) -> tuple[PreTrainedModel | OnnxClassifier, PreTrainedTokenizerBase]:
    """A classifier of transformers or an ONNX export, and its tokenizer. UserError as above."""
    if target.runtime is None:
        return load_classifier(target)
    path = target.folder / exports.MODEL
    model = OnnxClassifier(path, _config(target), quantizes_activations=target.runtime != "onnx")
    return model.eval(), _tokenizer_for(model, target)


def _tokenizer_for(model, target: Target) -> PreTrainedTokenizerBase:
    tokenizer = tokenizers.load_tokenizer(str(target.folder))
    tokenizers.fit_tokenizer(model, tokenizer)
    return tokenizer


def labeler(
    target: Target, task: Task, max_seq_length: int, batch_size: int, accelerator: Accelerator
) -> Callable[[Rows], np.ndarray]:
    """A function that gives the label of the checkpoint for each row, int, (rows,)."""
    order = label_order(target, task)
    model, tokenizer = load_victim(target)
    models.check_length(model, max_seq_length)
    model.to(accelerator.device)

    def labels_of(rows: Rows) -> np.ndarray:
        logits = predict(model, encode(rows, tokenizer, max_seq_length), batch_size, accelerator)
        return logits[:, order].argmax(axis=1)

    return labels_of


def load_model(kind: type, folder: Path, what: str) -> tuple[PreTrainedModel, list[str]]:
    """A model in a local folder (float32, CPU, evaluation mode), and the weights that it lacks.

    `kind`: transformers' AutoModelFor... Raises UserError if the folder cannot be loaded.
    """
    with loading(what, str(folder)), logging_level(logging.ERROR, "transformers"):
        model, report = kind.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **LOCAL
        )
    return model.eval(), not_loaded(report)
