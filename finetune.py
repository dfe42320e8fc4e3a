"""Stage 1: fine-tune all weights of a pre-trained encoder on a task, plainly or adversarially.

    python finetune.py --model_name bert-base-uncased --dataset_name glue --task_name sst2 \\
        --output_dir FOLDER [--method freelb]

With --stop_at_loss, the control of a ticket: a dense model that fits its training rows as well.
Keeps the last epoch's checkpoint and that of the best dev accuracy, both ordinary checkpoints.
"""

import argparse
import math
from pathlib import Path

from training import deviations, methods
from training.tasks import check_task, resolve_task
from utils import cli, interrupts


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    parser.add_argument(
        "--model_name",
        required=True,
        help="pre-trained encoder: hub name, local folder, or builtin/minilm",
    )
    cli.add_data_flags(parser)
    cli.add_run_flags(parser)
    deviations.add_training_flags(parser)
    cli.add_training_flags(parser)
    cli.add_keep_epochs(parser)
    parser.add_argument(
        "--stop_at_loss",
        help="end with the first epoch whose mean training loss "
        "is at most this: a number, or a ticket's run folder, whose last epoch's "
        "it is; --epochs is then the most, and the lr falls over it",
    )
    parser.add_argument(
        "--from_run",
        help="with --stop_at_loss: a finished run of the same "
        "settings that kept every epoch (--keep_epochs); the epoch is taken from "
        "it, not trained again",
    )
    methods.add_flags(parser)
    args = parser.parse_args(argv)
    if args.from_run and not args.stop_at_loss:
        parser.error("--from_run is of use with --stop_at_loss only")
    if args.from_run and args.keep_epochs:
        parser.error("--from_run takes one epoch: it has no others for --keep_epochs")
    check_task(args)
    deviations.apply_protocol(args, deviations.TRAINING)
    methods.apply_method(args)
    cli.check_epochs(args)
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds


from masking import encoders
from training import adversary, checkpoints, loop, models, optim, trajectory
from training.batching import collate, encode, epoch_batches
from training.splits import load_splits
from utils import devices
from utils.interrupts import SavePoints
from utils.runs import Run, read_run, seed_for


def loss_to_reach(text: str | None) -> dict | None:
    """What --stop_at_loss names: the loss and, where it is a run's, whose it is."""
    if text is None:
        return None
    if not Path(text).is_dir():
        try:
            return {"loss": cli.positive_float(text), "ticket": None}
        except argparse.ArgumentTypeError as e:
            raise cli.UserError(f"--stop_at_loss: {e}, and no run folder") from e
    run = read_run(text)
    if run is None or run.get("stage") != "retrain":
        raise cli.UserError(f"--stop_at_loss {text} is no run folder of retrain_ticket.py")
    if run.get("status") != "finished":
        raise cli.UserError(f"the run in {text} is not finished: run it again first")
    loss = checkpoints.checkpoint_facts(Path(text) / "last")["mean_training_loss"]
    return {"loss": loss, "ticket": run["ticket"], "seed": run["seed"], "epochs": run["epochs"]}


def warn_unless_reached(progress: loop.Progress, to_reach: dict | None, epochs: int) -> None:
    if to_reach and not progress.ended:
        cli.warn(
            f"after {epochs} epochs the mean training loss is still above "
            f"{to_reach['loss']:.4g}: the control is not matched"
        )


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    to_reach = loss_to_reach(args.stop_at_loss)
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or task.max_seq_length
    run = Run(args.output_dir, "finetune", vars(args))
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data and model.
    accelerator = devices.make_accelerator(args)
    splits = load_splits(args, task)
    labels = splits.task.label_names
    tokenizer = models.load_tokenizer(args.model_name)
    model = models.load_pretrained(
        args.model_name, labels, args.seed, args.dropout, args.attn_implementation
    )
    models.check_length(model, args.max_seq_length)
    models.check_tokenizer(model, tokenizer)
    with cli.explain():
        fingerprint = encoders.encoder_fingerprint(model)
    encoder = models.encoder_facts(args.model_name, model, fingerprint)
    train, dev, test = (
        encode(splits[name], tokenizer, args.max_seq_length) for name in ("train", "dev", "test")
    )
    models.fit_memory(model, args)
    model.to(accelerator.device).train()
    regularizer = loop.make_regularizer(model, args, accelerator)
    trained = loop.trained_modules(model, regularizer)
    optimizer = optim.make_adamw(
        args.adamw, optim.decay_groups(trained, args.weight_decay), args.lr, 0.0
    )
    draws = adversary.Draws(model.get_input_embeddings().embedding_dim, args, accelerator)
    steps_per_epoch = -(-len(train) // args.bsz)
    total_steps = args.epochs * steps_per_epoch

    facts = {
        "stage": "finetune",
        "task": task.name,
        "label_names": labels,
        "encoder": encoder,
        "ticket": None,
        "method": args.method,
        "seed": args.seed,
        "protocol": args.protocol,
        "max_seq_length": args.max_seq_length,
        "epochs": args.epochs,
        "training_rows": len(train),
        "label_passes": args.epochs,
        "stop_at_loss": to_reach,
        "training": loop.settings_of(args),
    }
    source = None
    if args.from_run:
        same = {"data": splits.facts(), "encoder": encoder}
        source = trajectory.find(Path(args.from_run), run.identity, same, to_reach["loss"])
    accelerator.wait_for_everyone()  # before anything is written, all have looked at the folder
    if accelerator.is_main_process:
        origin = {"taken_from": source.folder.name} if source else {}
        run.begin({**facts, **origin, "data": splits.facts(), "optimizer_steps": total_steps})
    accelerator.wait_for_everyone()
    if source:
        progress = trajectory.take(source, run, model, tokenizer, facts, accelerator)
        warn_unless_reached(progress, to_reach, args.epochs)
        loop.finish(run, progress, model, test, accelerator, args, facts, splits)
        return
    progress = loop.restore(run, trained, optimizer, accelerator)
    step = progress.optimizer_step
    points = SavePoints(args.checkpoint_every)

    # Loop.
    bar = cli.progress_bar(
        total_steps, step, "step", "finetune", args.quiet or not accelerator.is_main_process
    )
    last = progress.finished_epochs if progress.ended else args.epochs
    for epoch in range(progress.finished_epochs + 1, last + 1):
        batches = epoch_batches(
            train.lengths, args.bsz, seed_for(args.seed, "batches", epoch), args.group_by_length
        )
        for positions in batches[step - (epoch - 1) * steps_per_epoch :]:
            step += 1
            warmup_steps = args.warmup_ratio * total_steps
            lr = args.lr * optim.linear_schedule(step - 1, warmup_steps, total_steps)
            arrays = collate(train, positions)
            batch = devices.to_device(arrays, accelerator)
            draws.start_step(step, batch, arrays["input_ids"].shape)
            logged = adversary.backward(
                model, batch, args, draws.redraw, draws.delta, accelerator, regularizer
            )
            logged["loss_per_pass"] = accelerator.reduce(logged["loss_per_pass"], "sum")
            devices.sum_over_processes(accelerator, trained.parameters())
            grad_norm = optim.clip(trained.parameters(), args.max_grad_norm)
            optim.set_lr(optimizer, lr)
            if progress.admits(step, logged["loss_per_pass"], grad_norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            progress.note(step, epoch, lr, logged, grad_norm)
            bar.update()
            bar.set_postfix(progress.in_short(), refresh=False)
            loop.save_where_due(points, run, progress, trained, optimizer, accelerator)
        loop.end_epoch(
            points,
            run,
            progress,
            epoch,
            trained,
            tokenizer,
            optimizer,
            accelerator,
            args,
            facts,
            dev,
            to_reach["loss"] if to_reach else -math.inf,
        )
        bar.set_postfix(progress.in_short())
        if progress.ended:
            break

    bar.close()
    warn_unless_reached(progress, to_reach, args.epochs)
    loop.finish(run, progress, model, test, accelerator, args, facts, splits)


if __name__ == "__main__":
    cli.run(main)
