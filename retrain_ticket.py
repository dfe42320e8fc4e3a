"""Stage 3: draw a ticket from scores, rewind to the pre-trained weights, fine-tune what is left.

    python retrain_ticket.py --model_name bert-base-uncased --scores FOLDER --sparsity 0.3 \\
        --output_dir FOLDER

The kind of ticket is the kind of score file (search_ticket.py, make_scores.py). Writes ordinary
checkpoints whose pruned weights are exactly 0.0, and the ticket, one bit per weight.
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
        help="pre-trained encoder to rewind to: hub name, local folder, or builtin/minilm",
    )
    add("--scores", required=True, help="score file, or folder holding scores.safetensors")
    add("--sparsity", type=cli.sparsity, required=True, help="fraction of weights removed")
    add(
        "--allow_other_encoder",
        action=cli.BooleanOptionalAction,
        default=False,
        help="accept scores learnt for another encoder of the same shape",
    )
    g = parser.add_argument_group("what the weights start from (Table 4)")
    add = g.add_argument
    add(
        "--reinitialise",
        choices=["nothing", "ticket", "rest"],
        default="nothing",
        help="ticket: the kept weights start from noise, not from the pre-trained ones; rest: a "
        "dense model, in which the removed weights start from noise",
    )
    add(
        "--reinit_law",
        choices=["normal", "matched", "shuffled"],
        help="noise: N(0, --reinit_std); normal with each matrix's own mean and deviation; the "
        "same weights in another order (default: normal)",
    )
    add(
        "--reinit_std",
        type=cli.positive_float,
        help="of --reinit_law normal, and of the "
        "embeddings with --reinit_scope encoder (default: 0.02)",
    )
    add(
        "--reinit_scope",
        choices=["matrices", "encoder"],
        help="only weights of the prunable matrices, or embeddings, biases and LayerNorms of the "
        "encoder, too (default: matrices)",
    )
    cli.add_data_flags(parser)
    cli.add_run_flags(parser)
    deviations.add_training_flags(parser)
    cli.add_training_flags(parser)
    cli.add_keep_epochs(parser)
    methods.add_flags(parser)
    args = parser.parse_args(argv)
    check_task(args)
    deviations.apply_protocol(args, deviations.TRAINING)
    methods.apply_method(args)
    cli.check_epochs(args)
    no_std = args.reinit_law in ("matched", "shuffled") and args.reinit_scope != "encoder"
    if no_std and args.reinit_std is not None:
        raise cli.UserError(f"--reinit_std is not read with --reinit_law {args.reinit_law}")
    for name, default in (("law", "normal"), ("std", 0.02), ("scope", "matrices")):
        if args.reinitialise == "nothing" and getattr(args, f"reinit_{name}") is not None:
            raise cli.UserError(f"--reinit_{name} is read with --reinitialise ticket or rest only")
        if getattr(args, f"reinit_{name}") is None:
            setattr(args, f"reinit_{name}", default)
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds

import torch

from masking import encoders, hard_concrete, surgery, ticket_files, tickets
from masking.tickets import GATE_KINDS
from training import adversary, loop, models, optim
from training.batching import collate, encode, epoch_batches
from training.splits import load_splits
from utils import devices
from utils.files import write_json
from utils.interrupts import SavePoints
from utils.runs import Run, environment, read_run, seed_for


def draw_ticket(args, model) -> tuple[tickets.Masks, dict]:
    """The masks, and the manifest: where they come from, what was asked and what was got.

    `expected_density_percent`: 100 R(m) of the scores, where they are gates.
    """
    path = ticket_files.score_file(args.scores)
    with cli.explain():
        scores, shapes, source = ticket_files.load_scores(path)
        ticket_files.check_origin(source, path)
    scores, shapes = models.scores_for(
        model, args.model_name, path, scores, shapes, source["encoder"], args.allow_other_encoder
    )
    with cli.explain():
        ticket_files.check_order(source, args.sparsity, path)
        masks = tickets.draw(scores, shapes, args.sparsity)
    fingerprint = encoders.encoder_fingerprint(model)
    kept_facts = (
        "kind",
        "task",
        "seed",
        "epoch",
        "encoder",
        "settings",
        "of",
        "matched_to",
        "complement_of",
        "sparsity_after_round",
        "label_passes",
    )
    manifest = {
        "sparsity_asked": args.sparsity,
        "source": {k: source[k] for k in kept_facts if k in source} | {"sha256": source["sha256"]},
        "rewound_to": models.encoder_facts(args.model_name, model, fingerprint),
        "expected_density_percent": 100 * float(hard_concrete.penalty(list(scores.values())))
        if source["kind"] in GATE_KINDS
        else None,
        "density_by_head": surgery.density_by_head(masks, model.config.num_attention_heads),
        "density_by_matrix": tickets.density_by(masks, {name: name for name in masks}),
        "environment": environment(),
    }
    return masks, manifest


def label_passes_of(source: dict, sparsity: float) -> int:
    """Epochs over the labels that went into a ticket's mask.

    Iterative pruning has as many rounds behind it as the sparsity took; noise has seen no label.
    """
    after_round = source.get("sparsity_after_round")
    if not after_round:
        return source.get("label_passes") or 0
    rounds = sum(reached < sparsity - 1e-9 for reached in after_round) + 1
    return min(rounds, len(after_round)) * source["settings"]["epochs"]


def redraw_weights(args, model, masks: tickets.Masks) -> None:
    """Table 4: the ticket's weights, or all others, start from noise."""
    noise = torch.Generator().manual_seed(seed_for(args.seed, "reinitialisation"))
    surgery.reinitialise(model, masks, args.reinitialise, args.reinit_law, args.reinit_std, noise)
    if args.reinit_scope == "encoder":
        surgery.reinitialise_the_rest_of_the_encoder(model, args.reinit_std, noise)


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    if not ticket_files.score_file(args.scores).is_file():
        raise cli.UserError(f"no scores file at {ticket_files.score_file(args.scores)}")
    scores_run = read_run(ticket_files.score_file(args.scores).parent)
    cli.inherit_data_flags(args, (scores_run or {}).get("args", {}))
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or task.max_seq_length
    run = Run(args.output_dir, "retrain", vars(args))
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data and model: the pre-trained weights, a fresh classifier, the ticket.
    accelerator = devices.make_accelerator(args)
    splits = load_splits(args, task)
    labels = splits.task.label_names
    tokenizer = models.load_tokenizer(args.model_name)
    model = models.load_pretrained(
        args.model_name, labels, args.seed, args.dropout, args.attn_implementation
    )
    models.check_length(model, args.max_seq_length)
    models.check_tokenizer(model, tokenizer)
    masks, manifest = draw_ticket(args, model)
    train, dev, test = (
        encode(splits[name], tokenizer, args.max_seq_length) for name in ("train", "dev", "test")
    )
    if args.reinitialise != "nothing":
        redraw_weights(args, model, masks)
    models.fit_memory(model, args)
    model.to(accelerator.device).train()
    if args.reinitialise != "rest":
        surgery.apply_ticket(model, masks)
    regularizer = loop.make_regularizer(model, args, accelerator)
    trained = loop.trained_modules(model, regularizer)
    optimizer = optim.make_adamw(
        args.adamw, optim.decay_groups(trained, args.weight_decay), args.lr, 0.0
    )
    draws = adversary.Draws(model.get_input_embeddings().embedding_dim, args, accelerator)
    steps_per_epoch = -(-len(train) // args.bsz)
    total_steps = args.epochs * steps_per_epoch

    source = manifest["source"]
    ticket = {
        "kind": source["kind"],
        "sparsity_asked": args.sparsity,
        "sparsity": tickets.sparsity_of(masks),
        "scores_epoch": source.get("epoch"),
        "scores_seed": source["seed"],
        "scores_sha256": source["sha256"],
        "reinitialised": args.reinitialise,
        "expected_density_percent": manifest["expected_density_percent"],
        "search": cli.settings_of_search(source.get("settings", {})),
    }
    emptied = [name for name, d in manifest["density_by_matrix"].items() if d == 0]
    if emptied:
        ticket["emptied_matrices"] = emptied
        cli.warn(f"the ticket removes all weights of {len(emptied)} matrices, such as {emptied[0]}")
    if args.reinitialise != "nothing":
        ticket |= {
            "reinit_law": args.reinit_law,
            "reinit_std": args.reinit_std,
            "reinit_scope": args.reinit_scope,
        }
    facts = {
        "stage": "retrain",
        "task": task.name,
        "label_names": labels,
        "encoder": manifest["rewound_to"],
        "ticket": ticket,
        "method": args.method,
        "seed": args.seed,
        "protocol": args.protocol,
        "max_seq_length": args.max_seq_length,
        "epochs": args.epochs,
        "training_rows": len(train),
        "label_passes": args.epochs + label_passes_of(source, args.sparsity),
        "training": loop.settings_of(args),
    }
    accelerator.wait_for_everyone()  # before anything is written, all have looked at the folder
    if accelerator.is_main_process:
        run.begin({**facts, "data": splits.facts(), "optimizer_steps": total_steps})
        written = ticket_files.save_ticket(run.folder / "ticket.safetensors", masks, manifest)
        write_json(run.folder / "ticket.json", written)
    accelerator.wait_for_everyone()
    progress = loop.restore(run, trained, optimizer, accelerator)
    step = progress.optimizer_step
    points = SavePoints(args.checkpoint_every)

    # Loop.
    bar = cli.progress_bar(
        total_steps, step, "step", "retrain", args.quiet or not accelerator.is_main_process
    )
    for epoch in range(progress.finished_epochs + 1, args.epochs + 1):
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
        )
        bar.set_postfix(progress.in_short())
    bar.close()
    unpruned = surgery.count_unpruned(model, masks)
    if unpruned and args.reinitialise != "rest":
        raise RuntimeError(f"{unpruned} pruned weights are not 0.0 after training")
    loop.finish(run, progress, model, test, accelerator, args, facts, splits)


if __name__ == "__main__":
    cli.run(main)
