"""Iterative magnitude pruning (IMP): rounds of fine-tuning, pruning the smallest, rewinding.

    python prune_iteratively.py --model_name bert-base-uncased --task_name sst2 \\
        --to_sparsity 0.3 --output_dir FOLDER [--method freelb]

The lottery tickets of BERT (Chen et al., NeurIPS 2020), Table 1's LTH; with an adversarial
--method Table 3's "w/o mask learning". Writes one score file, the order in which weights were
removed, from which retrain_ticket.py draws tickets of any sparsity up to --to_sparsity.
"""

from training import deviations, methods
from training.tasks import check_task, resolve_task
from utils import cli, interrupts


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--model_name",
        required=True,
        help="pre-trained encoder that every round starts from: hub "
        "name, local folder, or builtin/minilm",
    )
    add("--to_sparsity", type=cli.open_fraction, required=True, help="fraction removed in the end")
    add("--share_per_round", type=cli.open_fraction, default=0.1, help="removed in each round")
    add(
        "--share_of",
        choices=["all", "remaining"],
        default="all",
        help="that share of all prunable weights, or of those still there",
    )
    cli.add_data_flags(parser)
    cli.add_run_flags(parser)
    deviations.add_training_flags(parser)
    cli.add_training_flags(parser, "of each round; the learning rate rises and falls in each")
    methods.add_flags(parser)
    args = parser.parse_args(argv)
    check_task(args)
    deviations.apply_protocol(args, deviations.TRAINING)
    methods.apply_method(args)
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds

import torch
from torch import Tensor

from masking import encoders, surgery, ticket_files, tickets
from training import adversary, loop, models, optim, prediction
from training.batching import collate, encode, epoch_batches
from training.splits import load_splits
from utils import devices
from utils.runs import Run, environment, seed_for

MOST_ROUNDS = 1000


def sparsities_of_rounds(to_sparsity: float, share: float, share_of: str) -> list[float]:
    """Sparsity after each round; the last round removes what is left to `to_sparsity`."""
    reached, after = 0.0, []
    while not after or reached < to_sparsity - 1e-9:
        reached += share if share_of == "all" else share * (1 - reached)
        after.append(min(round(reached, 12), to_sparsity))
        if len(after) > MOST_ROUNDS:
            raise cli.UserError(
                f"--share_per_round {share} takes more than {MOST_ROUNDS} rounds to --to_sparsity "
                f"{to_sparsity}: remove more in each"
            )
    return after


def prune(
    linears: dict,
    removed_in: dict[str, Tensor],
    magnitudes: dict[str, Tensor],
    round_: int,
    sparsity: float,
) -> None:
    """Mark as removed in `round_` the smallest surviving weights, all matrices together.

    Writes the round into `removed_in` and the survivors' |weight| into `magnitudes`, in place.
    """
    shapes = {name: tuple(linear.weight.shape) for name, linear in linears.items()}
    for name, linear in linears.items():
        alive = removed_in[name] == 0
        magnitudes[name][alive] = linear.weight.detach().abs().float().cpu()[alive]
    masks = tickets.draw(tickets.survival_scores(removed_in, magnitudes), shapes, sparsity)
    for name, mask in masks.items():
        removed_in[name][~mask & (removed_in[name] == 0)] = round_


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or task.max_seq_length
    sparsities = sparsities_of_rounds(args.to_sparsity, args.share_per_round, args.share_of)
    run = Run(args.output_dir, "imp", vars(args))
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data, and what every round starts from.
    accelerator = devices.make_accelerator(args)
    loop.check_processes(args, accelerator)
    splits = load_splits(args, task, ("train", "dev"))
    labels = splits.task.label_names
    tokenizer = models.load_tokenizer(args.model_name)
    train, dev = (encode(splits[name], tokenizer, args.max_seq_length) for name in ("train", "dev"))

    def rewound():
        fresh = models.load_pretrained(
            args.model_name, labels, args.seed, args.dropout, args.attn_implementation
        )
        models.fit_memory(fresh, args)
        return fresh

    model = rewound()
    models.check_length(model, args.max_seq_length)
    models.check_tokenizer(model, tokenizer)
    with cli.explain():
        fingerprint = encoders.encoder_fingerprint(model)
        shapes = encoders.weight_shapes(model)
    encoder = models.encoder_facts(args.model_name, model, fingerprint)
    removed_in = {name: torch.zeros(shape, dtype=torch.int16) for name, shape in shapes.items()}
    magnitudes = {name: torch.zeros(shape) for name, shape in shapes.items()}
    steps_per_epoch = -(-len(train) // args.bsz)
    steps_per_round = args.epochs * steps_per_epoch
    total_steps = len(sparsities) * steps_per_round

    accelerator.wait_for_everyone()  # before anything is written, all have looked at the folder
    if accelerator.is_main_process:
        run.begin(
            {
                "task": task.name,
                "label_names": labels,
                "encoder": encoder,
                "data": splits.facts(),
                "sparsity_after_round": sparsities,
                "optimizer_steps": total_steps,
            }
        )
    accelerator.wait_for_everyone()
    state = run.load_state()
    progress = loop.Progress(**state["progress"]) if state else loop.Progress()
    step = progress.optimizer_step
    points = interrupts.SavePoints(args.checkpoint_every)
    found: dict[str, float] = {}  # of the last finished round
    if state is not None:
        removed_in, magnitudes = state["removed_in"], state["magnitudes"]
        found = state["found"]
    if accelerator.is_main_process:
        run.cut_log(step, progress.finished_epochs)
    interrupts.note_signals()

    bar = cli.progress_bar(
        total_steps, step, "step", "IMP", args.quiet or not accelerator.is_main_process
    )
    for round_ in range(progress.finished_epochs // args.epochs + 1, len(sparsities) + 1):
        # Rewind: the pre-trained weights, the same fresh classifier, what earlier rounds left.
        first_step = (round_ - 1) * steps_per_round
        model = rewound().to(accelerator.device).train()
        surgery.apply_ticket(model, {name: r == 0 for name, r in removed_in.items()})
        regularizer = loop.make_regularizer(model, args, accelerator)
        trained = loop.trained_modules(model, regularizer)
        optimizer = optim.make_adamw(
            args.adamw, optim.decay_groups(trained, args.weight_decay), args.lr, 0.0
        )
        further = {"removed_in": removed_in, "magnitudes": magnitudes, "found": found}
        draws = adversary.Draws(model.get_input_embeddings().embedding_dim, args, accelerator)
        if state is not None and step > first_step:
            trained.load_state_dict(state["trained"])
            optimizer.load_state_dict(state["optimizer"])

        # Fine-tune.
        for epoch in range((step - first_step) // steps_per_epoch + 1, args.epochs + 1):
            overall = (round_ - 1) * args.epochs + epoch
            batches = epoch_batches(
                train.lengths,
                args.bsz,
                seed_for(args.seed, "batches", overall),
                args.group_by_length,
            )
            for positions in batches[step - (overall - 1) * steps_per_epoch :]:
                step += 1
                lr = args.lr * optim.linear_schedule(
                    step - first_step - 1, args.warmup_ratio * steps_per_round, steps_per_round
                )
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

                progress.note(step, overall, lr, logged, grad_norm)
                bar.update()
                bar.set_postfix(progress.in_short(), refresh=False)
                loop.save_where_due(points, run, progress, trained, optimizer, accelerator, further)
            if points.due_at_epoch_end(step, accelerator):
                loop.save(run, progress, trained, optimizer, accelerator, further)

        # Prune.
        try:
            accuracy = prediction.accuracy_percent(model, dev, 4 * args.bsz, accelerator)
        except interrupts.Stopped:  # the round's steps are kept; the same command evaluates it
            loop.save(run, progress, trained, optimizer, accelerator, further)
            raise
        found["dev_accuracy_percent"] = accuracy
        prune(
            encoders.prunable_linears(model), removed_in, magnitudes, round_, sparsities[round_ - 1]
        )
        found["sparsity_after"] = tickets.sparsity_of({n: r == 0 for n, r in removed_in.items()})
        progress.dev_accuracy_percent = accuracy
        bar.set_postfix(progress.in_short() | {"sparsity": f"{found['sparsity_after']:.2f}"})
        progress.write(run if accelerator.is_main_process else None)
        found["mean_training_loss"] = progress.mean_loss()
        if accelerator.is_main_process:
            run.log(
                {
                    "optimizer_step": step,
                    "finished_epochs": round_ * args.epochs,
                    "round": round_,
                    **found,
                }
            )
        progress.finished_epochs = round_ * args.epochs
        if points.due_at_epoch_end(step, accelerator):
            loop.save(run, progress, trained, optimizer, accelerator, further)
        interrupts.leave_if_requested()

    bar.close()
    if accelerator.is_main_process:
        kind = "imp" if args.method == "plain" else f"imp_{args.method}"
        manifest = {
            "kind": kind,
            "task": task.name,
            "seed": args.seed,
            "encoder": encoder,
            "sparsity_after_round": sparsities,
            "up_to_sparsity": args.to_sparsity,
            "settings": {k: v for k, v in run.identity.items() if k not in cli.PLACES},
            "environment": environment(),
        }
        ticket_files.save_scores(
            run.folder / "scores.safetensors",
            tickets.survival_scores(removed_in, magnitudes),
            shapes,
            manifest,
        )
        run.finish(
            {
                "scores": "scores.safetensors",
                "sparsity_after_round": sparsities,
                "last_round": found,
                "seconds_of_training": progress.seconds,
            },
            [],
        )
        print(
            f"scores in {run.folder}: {len(sparsities)} rounds, sparsity "
            f"{found['sparsity_after']:.3f}; dev accuracy before the last pruning "
            f"{found['dev_accuracy_percent']:.1f} %"
        )


if __name__ == "__main__":
    cli.run(main)
