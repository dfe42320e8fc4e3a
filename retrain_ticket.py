"""Stage 3: draw a ticket from scores, rewind to the pre-trained weights, fine-tune what is left.

    python retrain_ticket.py --model_name bert-base-uncased --scores FOLDER --sparsity 0.3 \\
        --output_dir FOLDER

The kind of ticket is the kind of score file (search_ticket.py, make_scores.py). Writes ordinary
checkpoints whose pruned weights are exactly 0.0, and the ticket, one bit per weight.
"""

import torch
import torch.nn.functional as F
from tqdm import tqdm

from masking import surgery, tickets
from utils import cli, data, devices, evaluation, models, optim, protocols, training
from utils.batching import collate, encode, epoch_batches
from utils.runs import Run, environment, read_run, seed_for, write_json
from utils.tasks import resolve_task


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model_name", required=True, help="pre-trained encoder to rewind to: hub name, "
        "local folder, or builtin/minilm")  # fmt: skip
    add("--scores", required=True, help="score file, or folder holding scores.safetensors")
    add("--sparsity", type=cli.sparsity, required=True, help="fraction of weights removed")
    add("--allow_other_encoder", action=cli.BooleanOptionalAction, default=False,
        help="accept scores learnt for another encoder of the same shape")  # fmt: skip
    cli.add_data_flags(parser)
    cli.add_run_flags(parser)
    protocols.add_training_flags(parser)
    training.add_flags(parser)
    args = parser.parse_args(argv)
    protocols.apply_protocol(args, protocols.TRAINING)
    return args


def draw_ticket(args, model) -> tuple[tickets.Masks, dict]:
    """The masks, and the manifest: where they come from, what was asked and what was got."""
    path = tickets.score_file(args.scores)
    with cli.explain():
        scores, shapes, source = tickets.load_scores(path)
    with cli.explain(f"{path}: "):
        surgery.check_masks_fit(model, shapes)
        masks = tickets.draw(scores, shapes, args.sparsity)
        fingerprint = surgery.encoder_fingerprint(model)
    learnt_for = source["encoder"]
    if learnt_for["fingerprint"] != fingerprint and not args.allow_other_encoder:
        raise cli.UserError(
            f"{path} was made for the encoder {learnt_for['name']} ({learnt_for['fingerprint']}), "
            f"{args.model_name} is another one ({fingerprint}): rewind to the encoder that stage 1 "
            "started from, or pass --allow_other_encoder"
        )
    kept_facts = ("kind", "task", "seed", "epoch", "encoder", "settings", "of", "matched_to")
    manifest = {
        "sparsity_asked": args.sparsity,
        "source": {k: source[k] for k in kept_facts if k in source} | {"sha256": source["sha256"]},
        "rewound_to": models.encoder_facts(args.model_name, model, fingerprint),
        "density_by_matrix": tickets.density_by(masks, {name: name for name in masks}),
        "environment": environment(),
    }
    return masks, manifest


def main() -> None:
    args = parse_args()
    training.check_epochs(args)
    scores_run = read_run(tickets.score_file(args.scores).parent)
    cli.inherit_data_flags(args, (scores_run or {}).get("args", {}))
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or task.max_seq_length
    run = Run(args.output_dir, "retrain", vars(args))
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data and model: the pre-trained weights, a fresh classifier, the ticket.
    accelerator = devices.make_accelerator(args)
    splits = data.load_splits(args, task)
    labels = splits.task.label_names
    tokenizer = models.load_tokenizer(args.model_name)
    model = models.load_pretrained(
        args.model_name, labels, args.seed, args.dropout, args.attn_implementation
    )
    models.check_length(model, args.max_seq_length)
    masks, manifest = draw_ticket(args, model)
    train, dev, test = (
        encode(splits[name], tokenizer, args.max_seq_length) for name in ("train", "dev", "test")
    )
    model.to(accelerator.device).train()
    surgery.apply_ticket(model, masks)
    optimizer = optim.make_adamw(
        args.adamw, optim.decay_groups(model, args.weight_decay), args.lr, 0.0
    )
    steps_per_epoch = -(-len(train) // args.bsz)
    total_steps = args.epochs * steps_per_epoch

    source = manifest["source"]
    ticket = {"kind": source["kind"], "sparsity_asked": args.sparsity,
              "sparsity": tickets.sparsity_of(masks), "scores_epoch": source.get("epoch"),
              "scores_seed": source["seed"], "scores_sha256": source["sha256"]}  # fmt: skip
    facts = {"stage": "retrain", "task": task.name, "label_names": labels,
             "encoder": manifest["rewound_to"], "ticket": ticket, "seed": args.seed,
             "protocol": args.protocol, "max_seq_length": args.max_seq_length,
             "epochs": args.epochs}  # fmt: skip
    accelerator.wait_for_everyone()  # before anything is written, all have looked at the folder
    if accelerator.is_main_process:
        run.begin({**facts, "data": splits.facts(), "optimizer_steps": total_steps})
        written = tickets.save_ticket(run.folder / "ticket.safetensors", masks, manifest)
        write_json(run.folder / "ticket.json", written)
    accelerator.wait_for_everyone()
    progress = training.restore(run, model, optimizer, accelerator)
    step = progress.optimizer_step

    # Loop.
    bar = tqdm(total=total_steps, initial=step, unit="step", desc="retrain",
               disable=args.quiet or not accelerator.is_main_process)  # fmt: skip
    for epoch in range(step // steps_per_epoch + 1, args.epochs + 1):
        batches = epoch_batches(
            train.lengths, args.bsz, seed_for(args.seed, "batches", epoch), args.group_by_length
        )
        for positions in batches[step - (epoch - 1) * steps_per_epoch :]:
            step += 1
            warmup_steps = args.warmup_ratio * total_steps
            lr = args.lr * optim.linear_schedule(step - 1, warmup_steps, total_steps)
            batch = devices.to_device(collate(train, positions), accelerator)
            torch.manual_seed(seed_for(args.seed, "dropout", step, accelerator.process_index))
            with accelerator.autocast():
                logits = model(**evaluation.inputs_of(batch)).logits.float()
            loss = F.cross_entropy(logits, batch["labels"], reduction="sum") * batch["row_weight"]
            loss.backward()
            devices.sum_over_processes(accelerator, model.parameters())
            grad_norm = optim.clip(model.parameters(), args.max_grad_norm)
            optim.set_lr(optimizer, lr)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            loss = accelerator.reduce(loss.detach(), "sum")
            progress.note(step, epoch, lr, loss, grad_norm)
            bar.update()
            if args.checkpoint_every and step % args.checkpoint_every == 0:
                training.save(run, progress, model, optimizer, accelerator)
        accuracy = training.end_epoch(run, progress, epoch, model, tokenizer, optimizer,
                                      accelerator, args, facts, dev)  # fmt: skip
        bar.set_postfix(dev=f"{accuracy:.1f} %")
    bar.close()
    unpruned = surgery.count_unpruned(model, masks)
    if unpruned:
        raise RuntimeError(f"{unpruned} pruned weights are not 0.0 after training")
    training.finish(run, progress, model, test, accelerator, args, facts, splits)


if __name__ == "__main__":
    cli.run(main)
