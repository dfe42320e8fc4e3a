"""Write, recover, check and load checkpoint folders of fine-tuned classifiers."""

import logging
import shutil
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training import labels
from training.loading import attention_for, configure, loading, not_loaded
from training.tasks import Task
from utils import process_state
from utils.cli import UserError
from utils.files import read_json, sha256_of, write_json


def _put_labels_in_order(model: PreTrainedModel, order: list[int]) -> None:
    """Reorder the rows of the head so that logit i is that of the task's label i."""
    inside = set(model.base_model.modules())
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inside]
    head = next(m for m in reversed(heads) if m.out_features == len(order))
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        if head.bias is not None:
            head.bias.copy_(head.bias[order].clone())
    names = [model.config.id2label[i] for i in order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}


def load_checkpoint(
    folder: str | Path, task: Task | None, attention: str, dropout: float | None = None
) -> PreTrainedModel:
    """Load a fine-tuned classifier in float32, with its logits in the order of the task's labels.

    `task`: None accepts any labels and keeps their order. Raises UserError if the labels are not
    those of `task`, or if the folder lacks weights.
    """
    with loading("checkpoint", str(folder)):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        configure(config, dropout)
        order = None if task is None else labels.label_order(config, Path(folder), task)
        with process_state.logging_level(logging.ERROR, "transformers"):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention_for(config, attention),
                output_loading_info=True,
                trust_remote_code=False,
            )
    lost = not_loaded(report)
    if lost:
        raise UserError(
            f"{folder} is not a complete checkpoint: it lacks {len(lost)} weights, such as "
            f"{lost[0]}; save the model again"
        )
    if order is not None and order != sorted(order):
        _put_labels_in_order(model, order)
    return model


def save_checkpoint(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: dict
) -> None:
    """Write an ordinary checkpoint folder, with `facts` and checksums in checkpoint.json.

    The function writes to another folder and renames it. The old checkpoint stays until the new one
    is complete.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    recover_checkpoints(folder.parent)
    new.mkdir(parents=True)
    write_checkpoint(new, model, tokenizer, facts)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def write_checkpoint(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: dict
) -> None:
    """Write the files of a checkpoint to an empty folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sums = {p.name: sha256_of(p) for p in sorted(folder.iterdir())}
    write_json(folder / "checkpoint.json", facts | {"sha256": sums})


def recover_checkpoints(run_folder: Path) -> None:
    """Restore checkpoints of a process that was killed between two renames; remove the rest."""
    for old in run_folder.glob(".*.old"):
        folder = run_folder / old.name[1:].removesuffix(".old")
        if not folder.exists():
            old.rename(folder)
    for leftover in [*run_folder.glob(".*.old"), *run_folder.glob(".*.new")]:
        shutil.rmtree(leftover)


def checkpoint_facts(folder: Path) -> dict:
    """checkpoint.json of a checkpoint that a stage wrote, without the checksums.

    Raises UserError if it is missing, or if a file has changed since it was written.
    """
    path = folder / "checkpoint.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a checkpoint of a stage: it has no checkpoint.json")
    facts = read_json(path)
    for name, written in facts.pop("sha256", {}).items():
        if not (folder / name).is_file() or sha256_of(folder / name) != written:
            raise UserError(
                f"{folder / name} is missing or damaged: it is not the file that the run wrote; "
                "run its stage again"
            )
    return facts
