"""Stage 1: fine-tune all weights of a pre-trained encoder on a task, plainly or adversarially.

    python finetune.py --model_name bert-base-uncased --dataset_name glue --task_name sst2 \\
        --output_dir FOLDER [--method freelb]

Keeps the checkpoints of the last epoch and of the best dev accuracy. With --stop_at_loss it trains
a ticket's control: a dense model that fits its training rows as closely.
"""

import argparse
import dataclasses
import math
from pathlib import Path

from training.settings import StageSettings, check_kept_epochs, complete, resolve_data_settings
from training.tasks import check_task, resolve_task
from utils import cli, interrupts
from utils.settings import Role, parse, setting


@dataclasses.dataclass(kw_only=True)
class Settings(StageSettings):
    """Fine-tuning."""

    stop_at_loss: str | None = setting(
        None,
        "stop after the first epoch whose mean training loss is at most this number, or that of "
        "the last epoch of this ticket's run folder; --epochs is then the maximum",
        role=Role.KEEP,
    )
    from_run: str | None = setting(
        None,
        "with --stop_at_loss: copy the epoch from this finished run, which has the same settings "
        "and kept every epoch, instead of training again",
        role=Role.OUTPUT,
    )


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    if args.from_run and not args.stop_at_loss:
        raise cli.UserError("--from_run needs --stop_at_loss")
    if args.from_run and args.keep_epochs:
        raise cli.UserError("--from_run takes one epoch: omit --keep_epochs")
    check_task(args)
    complete(args)
    check_kept_epochs(args)
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # answer wrong arguments before the imports below, which take seconds

import torch.nn.functional as F

from masking import encoders
from training import (
    adversary,
    checkpoints,
    loading,
    loop,
    models,
    optim,
    results,
    tokenizers,
    trajectory,
)
from training.batching import collate, encode
from training.prediction import inputs_of
from training.splits import load_splits
from training.trainee import check_processes, make_trainee
from utils import devices
from utils.runs import Run, read_run


def loss_to_reach(text: str | None) -> dict | None:
    """What --stop_at_loss names: the loss and, where it is a run's, which ticket's it is."""
    if text is None:
        return None
    if not Path(text).is_dir():
        try:
            return {"loss": cli.positive_float(text), "ticket": None}
        except argparse.ArgumentTypeError as e:
            raise cli.UserError(f"--stop_at_loss: {e}, nor a run folder") from e
    run = read_run(text)
    if run is None or run.get("stage") != "retrain":
        raise cli.UserError(f"--stop_at_loss {text} is not a run folder of retrain_ticket.py")
    if run.get("status") != "finished":
        raise cli.UserError(f"the run in {text} is not finished: run the same command again")
    loss = checkpoints.checkpoint_facts(Path(text) / "last")["mean_training_loss"]
    return {"loss": loss, "ticket": run["ticket"], "seed": run["seed"], "epochs": run["epochs"]}


def take_epoch(args, run, model, tokenizer, about_run, facts, accelerator) -> loop.Counters:
    """--from_run: copy the epoch at which this training would have stopped."""
    same = {name: about_run[name] for name in ("data", "encoder")}
    source = trajectory.find_run(Path(args.from_run), args, same, facts["stop_at_loss"]["loss"])
    loop.begin(run, about_run | {"taken_from": source.folder.name}, accelerator)
    return trajectory.copy_epoch(source, run, model, tokenizer, facts, accelerator)


def warn_unless_reached(at: loop.Counters, to_reach: dict | None, epochs: int) -> None:
    if to_reach and not at.ended:
        cli.warn(
            f"after {epochs} epochs the mean training loss is still above {to_reach['loss']:.4g}: "
            "the control is not matched"
        )


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    to_reach = loss_to_reach(args.stop_at_loss)
    resolve_data_settings(args)
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or task.max_seq_length
    run = Run(args.output_dir, "finetune", args)
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data and model.
    loading.warn_if_tuned_on(args.model_name, task.name)
    models.settle_precision(args, args.model_name)
    accelerator = devices.make_accelerator(args)
    check_processes(args, accelerator)
    splits = load_splits(args, task)
    labels = splits.task.label_names
    tokenizer = tokenizers.load_tokenizer(args.model_name)
    model = models.load_pretrained(
        args.model_name, labels, args.seed, args.dropout, args.attn_implementation
    )
    models.check_length(model, args.max_seq_length)
    tokenizers.fit_tokenizer(model, tokenizer)
    with cli.explain():
        fingerprint = encoders.encoder_fingerprint(model)
    encoder = models.encoder_facts(args.model_name, model, fingerprint)
    train, dev, test = (
        encode(splits[name], tokenizer, args.max_seq_length) for name in ("train", "dev", "test")
    )
    trainee = make_trainee(model, args, accelerator)
    draws, optimizer = trainee.draws, trainee.optimizer
    total_steps = args.epochs * -(-len(train) // args.bsz)

    facts = results.stage_facts("finetune", args, labels, task.name, encoder, len(train))
    facts |= {"ticket": None, "label_passes": args.epochs, "stop_at_loss": to_reach}
    about_run = {**facts, "data": splits.facts(), "optimizer_steps": total_steps}
    if args.from_run:
        at = take_epoch(args, run, trainee.model, tokenizer, about_run, facts, accelerator)
        warn_unless_reached(at, to_reach, args.epochs)
        results.finish(run, at, model, test, accelerator, args.bsz, facts, splits)
        return
    loop.begin(run, about_run, accelerator)
    training = loop.Loop(run, args, accelerator, total_steps, trainee.snapshot)
    if training.saved is not None:
        trainee.load(training.saved)

    # Training.
    last_epoch = training.at.finished_epochs if training.at.ended else args.epochs
    for epoch in range(training.at.finished_epochs + 1, last_epoch + 1):
        for positions in training.batches(train.lengths, args.bsz, epoch):
            arrays = collate(train, positions)
            batch = devices.to_device(arrays, accelerator)
            draws.start_step(training.step, batch, arrays["input_ids"].shape)
            if args.method == "plain":
                draws.redraw(0)  # dropout
                parts, logged = [], {}
                for rows, _ in adversary.micro_batches(batch, None, args.micro_bsz):
                    with accelerator.autocast():
                        logits = model(**inputs_of(rows)).logits
                    loss = F.cross_entropy(logits.float(), rows["labels"], reduction="sum")
                    loss = loss * rows["row_weight"]  # a share of the batch's mean
                    loss.backward()
                    parts.append(loss.detach())
                losses = adversary.sum_of_losses(parts)[None]
            else:  # FreeLB, PGD, InfoBERT: several passes, with a perturbation of the embeddings
                losses, logged = adversary.backward(
                    model, batch, args, draws, accelerator, trainee.regularizer
                )
            losses = accelerator.reduce(losses, "sum")
            devices.sum_over_processes(accelerator, trainee.modules.parameters())
            grad_norm = optim.clip(trainee.modules.parameters(), args.max_grad_norm)
            lr = optim.lr_at(training.step, args.lr, args.warmup_ratio, total_steps)
            optim.set_lr(optimizer, lr)
            if training.admits(losses, grad_norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            training.end_step({"epoch": epoch, "lr": lr, "grad_norm": grad_norm, **logged}, losses)

        # Dev accuracy, checkpoints, log, resume point.
        stop_at = to_reach["loss"] if to_reach else -math.inf
        results.evaluate_epoch(training, epoch, model, tokenizer, dev, args, facts, stop_at)
        if training.at.ended:
            break

    training.close()
    warn_unless_reached(training.at, to_reach, args.epochs)
    results.finish(run, training.at, model, test, accelerator, args.bsz, facts, splits)


if __name__ == "__main__":
    cli.run(main)
