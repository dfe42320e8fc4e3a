"""A training that stops at a loss, taken from a longer training that made the same steps."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from training import checkpoints
from training.loop import Counters
from training.settings import StageSettings
from utils.cli import UserError
from utils.files import read_json, read_jsonl
from utils.runs import Run, read_run
from utils.settings import Role, by_role, identity_of


@dataclass(frozen=True)
class Trajectory:
    """The epochs of a finished run up to the one at which a training would stop.

    `lines`: the log of these epochs. `at`: the counters after them. Its seconds are the run's
    seconds times the fraction of the steps.
    """

    folder: Path
    lines: list[dict]
    at: Counters

    def checkpoint(self, epoch: int) -> Path:
        return self.folder / f"epoch{epoch}"


def find_run(folder: Path, settings: StageSettings, facts: dict, stop_at_loss: float) -> Trajectory:
    """The run in `folder` up to its first epoch with a mean training loss <= `stop_at_loss`.

    Returns the whole run if no epoch has such a loss. `settings`: those of the training that the
    run replaces. `facts`: its data and encoder. Raises UserError if the run is unfinished, damaged
    or a different one, or if it did not keep the checkpoints of the epochs.
    """
    run = read_run(folder)
    if run is None or run["stage"] != "finetune" or run["status"] != "finished":
        raise UserError(f"--from_run {folder} is not a finished run of finetune.py")
    free = by_role(settings, Role.KEEP)  # which epochs are kept changes no step
    both = run.get("args", {}), json.loads(json.dumps(identity_of(settings)))
    earlier, now = ({k: v for k, v in args.items() if k not in free} for args in both)
    differing = [k for k in sorted(earlier.keys() | now.keys()) if earlier.get(k) != now.get(k)]
    facts = json.loads(json.dumps(facts))
    differing += [f"its {name} is another" for name in facts if run.get(name) != facts[name]]
    if run.get("stop_at_loss"):
        differing.append("it stopped at a loss itself")
    if differing:
        raise UserError(
            f"--from_run {folder} was trained with other settings: {', '.join(differing)}"
        )
    try:
        lines = read_jsonl(folder / "log.jsonl")
        seconds = read_json(folder / "result.json")["seconds_of_training"]
        trajectory = _until(folder, lines, seconds, stop_at_loss)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as e:
        raise UserError(f"--from_run {folder}: its log or result is damaged ({e!r})") from e
    for epoch in (trajectory.at.best_epoch, trajectory.at.finished_epochs):
        if not trajectory.checkpoint(epoch).is_dir():
            raise UserError(
                f"--from_run {folder} has not kept epoch {epoch}: train it with --keep_epochs and "
                "all of its epochs, or omit --from_run"
            )
        checkpoints.checkpoint_facts(trajectory.checkpoint(epoch))  # raises UserError if damaged
    return trajectory


def _until(folder: Path, lines: list[dict], seconds: float, stop_at_loss: float) -> Trajectory:
    ends = []
    for line in (x for x in lines if "finished_epochs" in x):
        ends.append(line)
        if line["mean_training_loss"] <= stop_at_loss:
            break
    best = max(ends, key=lambda x: x["dev_accuracy_percent"])  # the first of equal ones
    last = ends[-1]
    until_last = lines[: lines.index(last) + 1]
    at = Counters(
        optimizer_step=last["optimizer_step"],
        finished_epochs=last["finished_epochs"],
        best_epoch=best["finished_epochs"],
        best_dev_accuracy_percent=best["dev_accuracy_percent"],
        seconds=seconds * last["optimizer_step"] / lines[-1]["optimizer_step"],
        skipped_steps=sum(_was_skipped(line) for line in until_last if "loss" in line),
        ended=last["mean_training_loss"] <= stop_at_loss,
    )
    return Trajectory(folder, until_last, at)


def _was_skipped(line: dict) -> bool:
    """Whether Skips.admits rejected the step: its loss or gradient norm is not finite."""
    return not all(
        isinstance(line[k], int | float) and math.isfinite(line[k]) for k in ("loss", "grad_norm")
    )


def copy_epoch(
    trajectory: Trajectory,
    run: Run,
    model: nn.Module,
    tokenizer,
    facts: dict,
    accelerator: Accelerator,
) -> Counters:
    """Write the best and last checkpoints and the log into `run`. `model` then holds the last."""
    at = trajectory.at
    for name, epoch in (("best", at.best_epoch), ("last", at.finished_epochs)):
        checkpoint = trajectory.checkpoint(epoch)
        earlier = checkpoints.checkpoint_facts(checkpoint)
        measured = {k: earlier[k] for k in ("epoch", "dev_accuracy_percent", "mean_training_loss")}
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        if accelerator.is_main_process:
            checkpoints.save_checkpoint(run.folder / name, model, tokenizer, facts | measured)
    if accelerator.is_main_process:
        run.cut_log(0, 0)
        for line in trajectory.lines:
            run.log(line)
    return at
