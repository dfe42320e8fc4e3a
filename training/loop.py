"""What stages 1 and 3 share around their loops: resume points, checkpoints, results."""

import math
import time
from dataclasses import dataclass, field

import numpy as np
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from training import checkpoints, optim, prediction
from training.batching import Encoded
from training.infobert import InfoBERT
from training.splits import Splits
from utils import cli, devices, interrupts
from utils.cli import DATA_FLAGS, PLACES
from utils.interrupts import SavePoints
from utils.runs import Run, environment, seed_for

WRITE_EVERY = 20  # optimizer steps between writes of the log

# Arguments that say nothing of how the weights come out, or that a record names by themselves.
_NO_SETTINGS = (
    PLACES
    | set(DATA_FLAGS)
    | {
        *(
            "seed",
            "epochs",
            "method",
            "protocol",
            "precision",
            "attn_implementation",
            "keep_epochs",
        ),
        *("sparsity", "allow_other_encoder", "reinitialise", "reinit_law", "reinit_std"),
        *("reinit_scope", "stop_at_loss", "from_run"),
    }
)


def settings_of(args) -> dict:
    """For the record: how the weights were trained (lr, batch, adversary ...)."""
    return {k: v for k, v in sorted(vars(args).items()) if k not in _NO_SETTINGS}


def check_processes(args, accelerator) -> None:
    """UserError where the method cannot be spread over several processes or parts of a batch."""
    if args.method == "infobert" and (accelerator.num_processes > 1 or args.micro_bsz):
        raise cli.UserError(
            "--method infobert contrasts a batch's texts: run it in one process, "
            "without --micro_bsz"
        )


def make_regularizer(model, args, accelerator) -> InfoBERT | None:
    """InfoBERT's terms with a fresh critic, on the device; None for the other methods."""
    if args.method != "infobert":
        return None
    check_processes(args, accelerator)
    regularizer = InfoBERT(model.config.hidden_size, args, seed_for(args.seed, "critic"))
    return regularizer.to(accelerator.device)


def trained_modules(model: nn.Module, regularizer: nn.Module | None) -> nn.ModuleDict:
    """What the optimizer trains and a resume point holds: model, and critic where there is one."""
    modules = {"model": model}
    return nn.ModuleDict(modules | ({"critic": regularizer} if regularizer is not None else {}))


@dataclass
class Progress:
    """Where a training run stands; all of it but `waiting` is in the resume point."""

    optimizer_step: int = 0
    finished_epochs: int = 0  # evaluated, too
    best_epoch: int = 0
    best_dev_accuracy_percent: float = -1.0
    dev_accuracy_percent: float = -1.0  # of the last finished epoch
    epoch_loss: float = 0.0  # sum over the epoch's optimizer steps so far
    epoch_steps: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0
    ended: bool = False  # before --epochs, by --stop_at_loss
    last_loss: float = math.nan
    since: float = field(default_factory=time.monotonic)
    waiting: list[dict] = field(default_factory=list)

    def admits(self, step: int, losses: Tensor, grad_norm: Tensor) -> bool:
        """Whether all is finite, so that the step may be made; see optim.Skips."""
        skips = optim.Skips(self.skipped_steps)
        admitted = skips.admits(step, losses, grad_norm)
        self.skipped_steps = skips.count
        return admitted

    def note(self, step: int, epoch: int, lr: float, logged: dict, grad_norm: Tensor) -> None:
        """Keep a step's figures as tensors until they are written.

        `logged`: of adversary.backward. `loss` is the mean over its passes.
        """
        self.optimizer_step = step
        line = {
            "optimizer_step": step,
            "epoch": epoch,
            "lr": lr,
            "grad_norm": grad_norm,
            "loss": logged["loss_per_pass"].mean(),
        }
        adversarial = logged if len(logged["delta_norm_per_pass"]) else {}
        self.waiting.append(line | adversarial)

    def write(self, run: Run | None) -> None:
        """Write the waiting lines (on the main process, which has a run)."""
        now = time.monotonic()
        self.seconds, self.since = self.seconds + now - self.since, now
        for line in self.waiting:
            line = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in line.items()}
            self.last_loss = line["loss"]
            if math.isfinite(line["loss"]):
                self.epoch_loss += line["loss"]
                self.epoch_steps += 1
            if run is not None:
                run.log(line)
        self.waiting.clear()

    def in_short(self) -> dict[str, str]:
        """For the progress line."""
        found = {} if math.isnan(self.last_loss) else {"loss": f"{self.last_loss:.3f}"}
        if self.dev_accuracy_percent >= 0:
            found["dev"] = f"{self.dev_accuracy_percent:.1f} %"
        return found

    def mean_loss(self) -> float:
        """Mean training loss since the last call."""
        mean = self.epoch_loss / max(1, self.epoch_steps)
        self.epoch_loss, self.epoch_steps = 0.0, 0
        return mean

    def saved(self) -> dict:
        fields = (
            "optimizer_step",
            "finished_epochs",
            "best_epoch",
            "best_dev_accuracy_percent",
            "epoch_loss",
            "epoch_steps",
            "seconds",
            "skipped_steps",
            "dev_accuracy_percent",
            "ended",
        )
        return {name: getattr(self, name) for name in fields}


def restore(run: Run, trained: nn.Module, optimizer, accelerator: Accelerator) -> Progress:
    """Go on from the resume point, or start. `trained`: of methods.trained_modules."""
    state = run.load_state()
    if state is None:
        progress = Progress()
    else:
        progress = Progress(**state["progress"])
        trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
    if accelerator.is_main_process:
        checkpoints.recover_checkpoints(run.folder)
        run.cut_log(progress.optimizer_step, progress.finished_epochs)
    interrupts.note_signals()
    return progress


def save(
    run: Run,
    progress: Progress,
    trained: nn.Module,
    optimizer,
    accelerator,
    further: dict | None = None,
) -> None:
    """Write the waiting log lines and the resume point, with what else the stage needs in it."""
    progress.write(run if accelerator.is_main_process else None)
    if accelerator.is_main_process:
        state = {"trained": trained.state_dict(), "optimizer": optimizer.state_dict()}
        run.save_state(state | {"progress": progress.saved()} | (further or {}))


def save_where_due(
    points: SavePoints,
    run: Run,
    progress: Progress,
    trained: nn.Module,
    optimizer,
    accelerator,
    further: dict | None = None,
) -> None:
    """Behind each optimizer step: save if it is time to, and leave where a signal asked for it."""
    if len(progress.waiting) >= WRITE_EVERY:
        progress.write(run if accelerator.is_main_process else None)
    if points.due(progress.optimizer_step, accelerator):
        save(run, progress, trained, optimizer, accelerator, further)
        interrupts.leave_if_requested(f"behind optimizer step {progress.optimizer_step}")


def end_epoch(
    points: SavePoints,
    run: Run,
    progress: Progress,
    epoch: int,
    trained: nn.ModuleDict,
    tokenizer,
    optimizer,
    accelerator: Accelerator,
    args,
    facts: dict,
    dev: Encoded,
    stop_at_loss: float = -math.inf,
) -> None:
    """Measure dev, log, write the checkpoints that are due and, if it is time, the resume point.

    Sets `progress.ended` where the epoch's mean training loss is at most `stop_at_loss`.
    """
    model = trained["model"]
    try:
        accuracy = prediction.accuracy_percent(model, dev, 4 * args.bsz, accelerator)
    except interrupts.Stopped:  # the epoch's steps are kept; the same command evaluates it
        save(run, progress, trained, optimizer, accelerator)
        raise
    main = accelerator.is_main_process
    progress.write(run if main else None)
    mean_loss = progress.mean_loss()
    progress.dev_accuracy_percent, progress.ended = accuracy, mean_loss <= stop_at_loss
    is_last = progress.ended or epoch == args.epochs
    improved = accuracy > progress.best_dev_accuracy_percent
    if improved:
        progress.best_epoch, progress.best_dev_accuracy_percent = epoch, accuracy
    if main:
        run.log(
            {
                "optimizer_step": progress.optimizer_step,
                "finished_epochs": epoch,
                "mean_training_loss": mean_loss,
                "dev_accuracy_percent": accuracy,
            }
        )
        found = facts | {
            "epoch": epoch,
            "dev_accuracy_percent": accuracy,
            "mean_training_loss": mean_loss,
        }
        due = {"last": is_last, "best": improved, f"epoch{epoch}": epoch in args.keep_epochs}
        for name in (name for name, is_due in due.items() if is_due):
            checkpoints.save_checkpoint(run.folder / name, model, tokenizer, found)
    progress.finished_epochs = epoch
    # The last epoch's end always, for the test evaluation that follows.
    if points.due_at_epoch_end(progress.optimizer_step, accelerator) or is_last:
        save(run, progress, trained, optimizer, accelerator)
    interrupts.leave_if_requested()


def finish(
    run: Run,
    progress: Progress,
    model,
    test: Encoded,
    accelerator: Accelerator,
    args,
    facts: dict,
    splits: Splits,
) -> None:
    """Evaluate the last and the best-dev checkpoint on test; write records and result."""
    found, records = {}, []
    for name in ("last", "best"):
        accelerator.wait_for_everyone()
        checkpoint = checkpoints.checkpoint_facts(run.folder / name)
        same_as_last = name == "best" and checkpoint["epoch"] == progress.finished_epochs
        if not same_as_last:
            if name == "best":
                weights = load_file(run.folder / name / "model.safetensors")
                model.load_state_dict(weights)
            measured = prediction.evaluation_record(model, test, 4 * args.bsz, accelerator)
            most_frequent = 100 * max(np.bincount(test.labels)) / len(test)
            low = measured["clean_interval_95_percent"][0]
            measured["at_chance"] = bool(low <= most_frequent)
        kept = ("epoch", "dev_accuracy_percent", "mean_training_loss")
        found[name] = measured | {k: checkpoint[k] for k in kept}
        records.append(
            {
                "kind": "evaluation",
                **facts,
                "checkpoint": name,
                **found[name],
                "rows": splits.facts()["splits"]["test"],
                "seconds_of_training": progress.seconds,
                "skipped_steps": progress.skipped_steps,
                "environment": environment(),
            }
        )
    if not accelerator.is_main_process:
        return
    run.finish(
        {
            "checkpoints": found,
            "best_dev_epoch": progress.best_epoch,
            "seconds_of_training": progress.seconds,
            "peak_memory_bytes": devices.peak_memory_bytes(),
            **splits.facts(),
        },
        records,
    )
    for name in found:
        if found[name]["at_chance"]:
            cli.warn(
                f"the {name} checkpoint is no better than always saying the most frequent "
                "class: too few steps, or too high a --lr?"
            )
    print(
        f"{run.folder}: test accuracy {found['last']['clean_percent']:.1f} % (last, epoch "
        f"{progress.finished_epochs}), {found['best']['clean_percent']:.1f} % (best dev, epoch "
        f"{found['best']['epoch']}); training loss {found['last']['mean_training_loss']:.4f}"
    )
