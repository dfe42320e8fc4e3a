"""What every training loop shares: where it stands, its log, its resume points, its results.

One resume system for fine-tuning, the search, iterative pruning and retraining. A script gives a
function that takes a snapshot of what it trains; the loop decides when to save it.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from training import checkpoints, optim
from training.batching import epoch_batches
from training.settings import RunSettings
from utils import cli, interrupts
from utils.interrupts import SavePoints
from utils.runs import Run, seed_for

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
