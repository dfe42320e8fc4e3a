"""What every training loop shares: where it stands, its log, its resume points, its results.

One resume system for fine-tuning, the search, iterative pruning and retraining. A script gives a
function that takes a snapshot of what it trains; the loop decides when to save it.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training import adversary, checkpoints, models, optim, prediction
from training.batching import Encoded, epoch_batches
from training.infobert import InfoBERT
from training.settings import RunSettings, StageSettings, WeightSettings
from training.splits import Splits
from utils import cli, devices, interrupts
from utils.environment import environment
from utils.interrupts import SavePoints
from utils.runs import Run, seed_for
from utils.settings import recipe_of

WRITE_EVERY = 20  # optimizer steps between writes of the log


@dataclass
class Counters:
    """Where a run stands; all of it is in the resume point."""

    optimizer_step: int = 0
    finished_epochs: int = 0  # trained and evaluated
    best_epoch: int = 0
    best_dev_accuracy_percent: float = -1.0
    dev_accuracy_percent: float = -1.0  # of the last finished epoch
    epoch_loss: float = 0.0  # sum over the epoch's optimizer steps so far
    epoch_steps: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0  # whose loss or gradient was not finite
    ended: bool = False  # before --epochs, by --stop_at_loss


class Loop:
    """A run's loop: batches in order from where it stands, log lines, resume points.

    `snapshot`: what the script needs to resume, besides the counters. `saved`: the snapshot of an
    interrupted run, for the script to load; None at a fresh start.
    """

    def __init__(
        self,
        run: Run,
        args: RunSettings,
        accelerator: Accelerator,
        total_steps: int,
        snapshot: Callable[[], dict[str, Any]],
    ):
        self.run, self.args, self.accelerator, self.snapshot = run, args, accelerator, snapshot
        self.is_main = accelerator.is_main_process
        state = run.load_state()
        self.saved: dict[str, Any] | None = state
        self.at = Counters(**state["counters"]) if state else Counters()
        if self.is_main:
            checkpoints.recover_checkpoints(run.folder)
            run.cut_log(self.at.optimizer_step, self.at.finished_epochs)
        interrupts.note_signals()
        self._points = SavePoints(args.checkpoint_every)
        self._since = time.monotonic()
        self._waiting: list[dict[str, Any]] = []
        self._shown: dict[str, str] = {}
        self._bar = cli.progress_bar(
            total_steps, self.at.optimizer_step, "step", run.stage, args.quiet or not self.is_main
        )

    @property
    def step(self) -> int:
        """The current optimizer step, from 1."""
        return self.at.optimizer_step

    def batches(self, lengths: list[int], bsz: int, epoch: int) -> Iterator[list[int]]:
        """Row positions of the epoch's remaining batches; each one begins an optimizer step."""
        seed = seed_for(self.args.seed, "batches", epoch)
        batches = epoch_batches(lengths, bsz, seed, self.args.group_by_length)
        for positions in batches[self.at.optimizer_step - (epoch - 1) * len(batches) :]:
            self.at.optimizer_step += 1
            yield positions

    def admits(self, losses: Tensor, grad_norm: Tensor) -> bool:
        """Whether all is finite, so that the optimizer may step; see optim.Skips."""
        skips = optim.Skips(self.at.skipped_steps)
        admitted = skips.admits(self.at.optimizer_step, losses, grad_norm)
        self.at.skipped_steps = skips.count
        return admitted

    def end_step(self, line: dict[str, Any], losses: Tensor) -> None:
        """Note the step's log line, and save the run if it is time to. `losses`: (passes,).

        Lines stay tensors until several are written together, so that no step waits for the device.
        """
        line = {"optimizer_step": self.at.optimizer_step, **line, "loss": losses.mean()}
        self._waiting.append(line | ({"loss_per_pass": losses} if len(losses) > 1 else {}))
        self._bar.update()
        if len(self._waiting) >= WRITE_EVERY:
            self.write_log()
        if self._points.due(self.at.optimizer_step, self.accelerator):
            self.save()
            interrupts.leave_if_requested(f"after optimizer step {self.at.optimizer_step}")

    def write_log(self) -> None:
        """Write the waiting lines; the main process alone has the run's files."""
        now = time.monotonic()
        self.at.seconds, self._since = self.at.seconds + now - self._since, now
        for line in self._waiting:
            line = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in line.items()}
            if math.isfinite(line["loss"]):
                self.at.epoch_loss += line["loss"]
                self.at.epoch_steps += 1
            self.show(loss=f"{line['loss']:.3f}")
            if self.is_main:
                self.run.log(line)
        self._waiting.clear()

    def show(self, **values: str) -> None:
        """Show these next to the progress."""
        self._shown |= values
        self._bar.set_postfix(self._shown, refresh=False)

    def mean_loss(self) -> float:
        """Mean training loss since the last call."""
        mean = self.at.epoch_loss / max(1, self.at.epoch_steps)
        self.at.epoch_loss, self.at.epoch_steps = 0.0, 0
        return mean

    def measure(self, evaluate: Callable[[], Any]) -> Any:
        """What `evaluate` returns, once the epoch's steps are in the log.

        Interrupted, the steps are saved, and the same command evaluates the epoch.
        """
        self.write_log()
        try:
            return evaluate()
        except interrupts.Stopped:
            self.save()
            raise

    def note_dev(self, epoch: int, accuracy_percent: float) -> bool:
        """Note the epoch's accuracy on dev; whether it is the best so far."""
        self.at.dev_accuracy_percent = accuracy_percent
        self.show(dev=f"{accuracy_percent:.1f} %")
        if accuracy_percent <= self.at.best_dev_accuracy_percent:
            return False
        self.at.best_epoch, self.at.best_dev_accuracy_percent = epoch, accuracy_percent
        return True

    def end_epoch(self, finished_epochs: int, always_save: bool = False) -> None:
        """The epoch is evaluated and what belongs to it is written: save the run if it is time."""
        self.at.finished_epochs = finished_epochs
        if self._points.due_at_epoch_end(self.at.optimizer_step, self.accelerator) or always_save:
            self.save()
        interrupts.leave_if_requested()

    def save(self) -> None:
        """Write the waiting log lines and the resume point."""
        self.write_log()
        if self.is_main:
            self.run.save_state({"counters": asdict(self.at)} | self.snapshot())

    def close(self) -> None:
        self.write_log()
        self._bar.close()


def begin(run: Run, facts: dict[str, Any], accelerator: Accelerator) -> None:
    """Take the run's folder, once all processes have looked at it and nothing is wrong."""
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run.begin(facts)
    accelerator.wait_for_everyone()


def check_processes(args: WeightSettings, accelerator: Accelerator) -> None:
    """UserError where the method cannot be spread over several processes or parts of a batch."""
    if args.method == "infobert" and (accelerator.num_processes > 1 or args.micro_bsz):
        raise cli.UserError(
            "--method infobert contrasts the texts of a batch: run it in one process, without "
            "--micro_bsz"
        )


@dataclass
class Trainee:
    """A model with what trains it. `modules`: the model, and InfoBERT's critic if there is one."""

    model: PreTrainedModel
    modules: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    draws: adversary.Draws
    regularizer: InfoBERT | None

    def snapshot(self) -> dict[str, Any]:
        """For the resume point."""
        return {"trained": self.modules.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, snapshot: dict[str, Any]) -> None:
        self.modules.load_state_dict(snapshot["trained"])
        self.optimizer.load_state_dict(snapshot["optimizer"])


def make_trainee(model: PreTrainedModel, args: WeightSettings, accelerator: Accelerator) -> Trainee:
    """The model on its device in training mode, with AdamW and the noise of its steps.

    A ticket is applied afterward, or has been before: neither makes a difference to the optimizer.
    """
    models.fit_memory(model, args.checkpoint_activations)
    model.to(accelerator.device).train()
    parts, regularizer = {"model": model}, None
    if args.method == "infobert":
        regularizer = InfoBERT(model.config.hidden_size, args, seed_for(args.seed, "critic"))
        parts["critic"] = regularizer.to(accelerator.device)
    modules = nn.ModuleDict(parts)
    groups = optim.decay_groups(modules, args.weight_decay)
    optimizer = optim.make_adamw(args.adamw, groups, args.lr, 0.0)
    hidden = model.get_input_embeddings().embedding_dim
    draws = adversary.Draws(hidden, args, args.seed, accelerator)
    return Trainee(model, modules, optimizer, draws, regularizer)


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
) -> None:
    """Measure dev, log the epoch, write the checkpoints that are due, save the run if it is time.

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
        for name in (name for name, is_due in due.items() if is_due):
            checkpoint_facts = facts | {"epoch": epoch} | measured
            checkpoints.save_checkpoint(loop.run.folder / name, model, tokenizer, checkpoint_facts)
    # The last epoch always, for the evaluation on test that follows.
    loop.end_epoch(epoch, always_save=is_last)


def finish(
    run: Run,
    at: Counters,
    model: nn.Module,
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
                _load_weights(model, run.folder / name)
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


def _load_weights(model: nn.Module, folder: Path) -> None:
    model.load_state_dict(load_file(folder / "model.safetensors"))


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
