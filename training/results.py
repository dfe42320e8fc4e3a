"""What stages 1 and 3 write at the end of an epoch and of the run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training import checkpoints, prediction
from training.batching import Encoded
from training.loop import Counters, Loop
from training.settings import StageSettings, WeightSettings
from training.splits import Splits
from utils import cli, devices
from utils.environment import environment
from utils.runs import Run
from utils.settings import recipe_of


def stage_facts(
    stage: str,
    args: WeightSettings,
    labels: tuple[str, ...],
    task_name: str,
    encoder: dict[str, Any],
    training_rows: int,
) -> dict[str, Any]:
    """What a checkpoint and its records say of a training."""
    facts = {
        "stage": stage,
        "task": task_name,
        "label_names": labels,
        "encoder": encoder,
        "method": args.method,
        "seed": args.seed,
        "deviations": args.deviations,
        "max_seq_length": args.max_seq_length,
        "epochs": args.epochs,
        "training_rows": training_rows,
    }
    recipe = {k: v for k, v in sorted(recipe_of(args).items()) if k not in facts}
    return facts | {"training": recipe}


def evaluate_epoch(
    loop: Loop,
    epoch: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dev: Encoded,
    args: StageSettings,
    facts: dict[str, Any],
    stop_at_loss: float = -math.inf,
    make_smaller: Callable[[], tuple[PreTrainedModel, dict]] | None = None,
) -> None:
    """Measure dev, log the epoch, write the checkpoints that are due, save the run if it is time.

    `make_smaller`: makes the model that is written in place of `model`, and says what it removed.

    Sets `loop.at.ended` where the epoch's mean training loss is at most `stop_at_loss`.
    """
    at = loop.at
    accuracy = loop.measure(
        lambda: prediction.accuracy_percent(model, dev, 4 * args.bsz, loop.accelerator)
    )
    mean_loss = loop.mean_loss()
    at.ended = mean_loss <= stop_at_loss
    is_last = at.ended or epoch == args.epochs
    is_best = loop.note_dev(epoch, accuracy)
    if loop.is_main:
        measured = {"dev_accuracy_percent": accuracy, "mean_training_loss": mean_loss}
        loop.run.log({"optimizer_step": loop.step, "finished_epochs": epoch, **measured})
        due = {"last": is_last, "best": is_best, f"epoch{epoch}": epoch in args.keep_epochs}
        written, removed = model, {}
        if make_smaller and any(due.values()):
            with cli.explain():
                written, facts_of_removal = make_smaller()
            removed = {"removed": facts_of_removal}
        for name in (name for name, is_due in due.items() if is_due):
            of_checkpoint = facts | removed | {"epoch": epoch} | measured
            checkpoints.save_checkpoint(loop.run.folder / name, written, tokenizer, of_checkpoint)
    # The last epoch always, for the evaluation on test that follows.
    loop.end_epoch(epoch, always_save=is_last)


def finish(
    run: Run,
    at: Counters,
    model: PreTrainedModel,
    test: Encoded,
    accelerator: Accelerator,
    bsz: int,
    facts: dict[str, Any],
    splits: Splits,
) -> None:
    """Evaluate the last and the best-dev checkpoint on test; write the records and the result."""
    by_checkpoint: dict[str, dict] = {}
    records = []
    for name in ("last", "best"):
        accelerator.wait_for_everyone()
        checkpoint = checkpoints.checkpoint_facts(run.folder / name)
        if name == "last" or checkpoint["epoch"] != at.finished_epochs:
            if name == "best":
                model = _with_weights_of(model, run.folder / name, checkpoint)
            measured = _measure(model, test, 4 * bsz, accelerator)
        kept = ("epoch", "dev_accuracy_percent", "mean_training_loss")
        by_checkpoint[name] = measured | {k: checkpoint[k] for k in kept}
        records.append(
            {
                "kind": "evaluation",
                **facts,
                "checkpoint": name,
                **by_checkpoint[name],
                "rows": splits.facts()["splits"]["test"],
                "seconds_of_training": at.seconds,
                "skipped_steps": at.skipped_steps,
                "environment": environment(),
            }
        )
    if not accelerator.is_main_process:
        return
    result = {
        "checkpoints": by_checkpoint,
        "best_dev_epoch": at.best_epoch,
        "seconds_of_training": at.seconds,
        "peak_memory_bytes": devices.peak_memory_bytes(),
        **splits.facts(),
    }
    run.finish(result, records)
    _report(run, at, by_checkpoint)


def _with_weights_of(model: PreTrainedModel, folder: Path, facts: dict) -> PreTrainedModel:
    """The model of the checkpoint: this one with other weights, or a smaller one."""
    if "removed" in facts:
        attention = model.config._attn_implementation
        return checkpoints.load_checkpoint(folder, None, attention).to(model.device)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def _measure(model: nn.Module, test: Encoded, bsz: int, accelerator: Accelerator) -> dict:
    measured = prediction.evaluation_record(model, test, bsz, accelerator)
    most_frequent = 100 * max(np.bincount(test.labels)) / len(test)
    measured["at_chance"] = bool(measured["clean_interval_95_percent"][0] <= most_frequent)
    return measured


def _report(run: Run, at: Counters, by_checkpoint: dict[str, dict]) -> None:
    for name, measured in by_checkpoint.items():
        if measured["at_chance"]:
            cli.warn(
                f"the {name} checkpoint is no better than always answering the most frequent "
                "class: train for more steps, or lower --lr"
            )
    last, best = by_checkpoint["last"], by_checkpoint["best"]
    print(
        f"{run.folder}: test accuracy {last['clean_percent']:.1f} % (last, epoch "
        f"{at.finished_epochs}), {best['clean_percent']:.1f} % (best dev, epoch {best['epoch']}); "
        f"training loss {last['mean_training_loss']:.4f}"
    )
