"""What stages 1 and 3 share around their loops: flags, resume points, checkpoints, results."""

import math
import time
from dataclasses import dataclass, field

from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from utils import cli, evaluation, models
from utils.batching import Encoded
from utils.cli import DATA_FLAGS, PLACES
from utils.data import Splits
from utils.runs import Run, environment


def add_flags(parser: cli.Parser, of_epochs: str = "passes over the training rows") -> None:
    g = parser.add_argument_group("training (paper's Table 5)")
    add = g.add_argument
    add("--epochs", type=cli.positive_int, default=3, help=of_epochs)
    add("--bsz", type=cli.positive_int, default=32, help="rows per optimizer step")
    add("--lr", type=cli.positive_float, default=2e-5, help="peak learning rate")
    add("--weight_decay", type=cli.non_negative_float, default=1e-2, help="AdamW's, not on "
        "biases and LayerNorm weights")  # fmt: skip
    add("--warmup_ratio", type=cli.fraction, default=0.1, help="share of steps in which lr rises")
    add("--dropout", type=cli.fraction, help="every dropout probability (default: encoder's own)")


def add_keep_epochs(parser: cli.Parser) -> None:
    parser.add_argument("--keep_epochs", type=cli.epoch_list, default=[], help="keep checkpoints "
        "of these epochs too, e.g. 1,2,3 (attack.py --attack_epochs)")  # fmt: skip


# Arguments that say nothing of how the weights come out, or that a record names by themselves.
_NO_SETTINGS = PLACES | set(DATA_FLAGS) | {
    *("seed", "epochs", "method", "protocol", "precision", "attn_implementation", "keep_epochs"),
    *("sparsity", "allow_other_encoder", "reinitialise", "reinit_law", "reinit_std"),
    "reinit_scope",
}  # fmt: skip


def settings_of(args) -> dict:
    """For the record: how the weights were trained (lr, batch, adversary ...)."""
    return {k: v for k, v in sorted(vars(args).items()) if k not in _NO_SETTINGS}


def check_epochs(args) -> None:
    if args.keep_epochs and max(args.keep_epochs) > args.epochs:
        raise cli.UserError(f"--keep_epochs names an epoch beyond --epochs {args.epochs}")


@dataclass
class Progress:
    """Where a training run stands; all of it but `waiting` is in the resume point."""

    optimizer_step: int = 0
    best_epoch: int = 0
    best_dev_accuracy_percent: float = -1.0
    epoch_loss: float = 0.0  # sum over the epoch's optimizer steps so far
    epoch_steps: int = 0
    seconds: float = 0.0
    since: float = field(default_factory=time.monotonic)
    waiting: list[dict] = field(default_factory=list)

    def note(self, step: int, epoch: int, lr: float, logged: dict, grad_norm: Tensor) -> None:
        """Keep a step's figures as tensors until they are written, so that nothing waits.

        `logged`: of adversary.backward. `loss` is the mean over its passes.
        """
        self.optimizer_step = step
        line = {"optimizer_step": step, "epoch": epoch, "lr": lr, "grad_norm": grad_norm,
                "loss": logged["loss_per_pass"].mean()}  # fmt: skip
        adversarial = logged if len(logged["delta_norm_per_pass"]) else {}
        self.waiting.append(line | adversarial)

    def write(self, run: Run | None) -> None:
        """Write the waiting lines (on the main process, which has a run)."""
        now = time.monotonic()
        self.seconds, self.since = self.seconds + now - self.since, now
        for line in self.waiting:
            line = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in line.items()}
            if not math.isfinite(line["loss"]):
                raise cli.UserError(
                    f"the loss is {line['loss']} at optimizer step {line['optimizer_step']}: "
                    "lower --lr, or use --precision fp32"
                )
            self.epoch_loss += line["loss"]
            self.epoch_steps += 1
            if run is not None:
                run.log(line)
        self.waiting.clear()

    def mean_loss(self) -> float:
        """Mean training loss since the last call."""
        mean = self.epoch_loss / max(1, self.epoch_steps)
        self.epoch_loss, self.epoch_steps = 0.0, 0
        return mean

    def saved(self) -> dict:
        fields = ("optimizer_step", "best_epoch", "best_dev_accuracy_percent",
                  "epoch_loss", "epoch_steps", "seconds")  # fmt: skip
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
        run.cut_log(progress.optimizer_step)
    return progress


def save(
    run: Run, progress: Progress, trained: nn.Module, optimizer, accelerator,
    further: dict | None = None,
) -> None:  # fmt: skip
    """Write the waiting log lines and the resume point, with what else the stage needs in it."""
    progress.write(run if accelerator.is_main_process else None)
    if accelerator.is_main_process:
        state = {"trained": trained.state_dict(), "optimizer": optimizer.state_dict()}
        run.save_state(state | {"progress": progress.saved()} | (further or {}))


def end_epoch(
    run: Run, progress: Progress, epoch: int, trained: nn.ModuleDict, tokenizer, optimizer,
    accelerator: Accelerator, args, facts: dict, dev: Encoded,
) -> float:  # fmt: skip
    """Measure dev, log, write the checkpoints that are due and the resume point; dev accuracy."""
    model = trained["model"]
    accuracy = evaluation.accuracy_percent(model, dev, 4 * args.bsz, accelerator)
    main = accelerator.is_main_process
    progress.write(run if main else None)
    mean_loss = progress.mean_loss()
    improved = accuracy > progress.best_dev_accuracy_percent
    if improved:
        progress.best_epoch, progress.best_dev_accuracy_percent = epoch, accuracy
    if main:
        run.log({"optimizer_step": progress.optimizer_step, "epoch": epoch,
                 "mean_training_loss": mean_loss, "dev_accuracy_percent": accuracy})  # fmt: skip
        found = facts | {"epoch": epoch, "dev_accuracy_percent": accuracy,
                         "mean_training_loss": mean_loss}  # fmt: skip
        due = {"last": epoch == args.epochs, "best": improved,
               f"epoch{epoch}": epoch in args.keep_epochs}  # fmt: skip
        for name in (name for name, is_due in due.items() if is_due):
            models.save_checkpoint(run.folder / name, model, tokenizer, found)
    save(run, progress, trained, optimizer, accelerator)
    return accuracy


def finish(
    run: Run, progress: Progress, model, test: Encoded, accelerator: Accelerator, args,
    facts: dict, splits: Splits,
) -> None:  # fmt: skip
    """Evaluate the last and the best-dev checkpoint on test; write records and result."""
    found, records = {}, []
    for name in ("last", "best"):
        accelerator.wait_for_everyone()
        checkpoint = models.checkpoint_facts(run.folder / name)
        same_as_last = name == "best" and checkpoint["epoch"] == args.epochs
        if not same_as_last:
            if name == "best":
                weights = load_file(run.folder / name / "model.safetensors")
                model.load_state_dict(weights)
            measured = evaluation.evaluation_record(model, test, 4 * args.bsz, accelerator)
        kept = ("epoch", "dev_accuracy_percent", "mean_training_loss")
        found[name] = measured | {k: checkpoint[k] for k in kept}
        records.append({"kind": "evaluation", **facts, "checkpoint": name, **found[name],
                        "rows": splits.facts()["splits"]["test"],
                        "seconds_of_training": progress.seconds,
                        "environment": environment()})  # fmt: skip
    if not accelerator.is_main_process:
        return
    run.finish(
        {"checkpoints": found, "best_dev_epoch": progress.best_epoch,
         "seconds_of_training": progress.seconds, **splits.facts()}, records)  # fmt: skip
    print(
        f"{run.folder}: test accuracy {found['last']['clean_percent']:.1f} % (last, epoch "
        f"{args.epochs}), {found['best']['clean_percent']:.1f} % (best dev, epoch "
        f"{found['best']['epoch']}); training loss {found['last']['mean_training_loss']:.4f}"
    )
