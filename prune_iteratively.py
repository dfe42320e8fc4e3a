"""Iterative magnitude pruning (IMP): rounds of fine-tuning, pruning the smallest, rewinding.

    python prune_iteratively.py --model_name bert-base-uncased --task_name sst2 \\
        --to_sparsity 0.3 --output_dir FOLDER [--method freelb]

The lottery tickets of BERT (Chen et al., NeurIPS 2020), Table 1's LTH; with an adversarial --method
Table 3's "w/o mask learning". Writes one score file, the order in which weights were removed, from
which retrain_ticket.py draws tickets of any sparsity up to --to_sparsity.
"""

import dataclasses

from training.settings import (
    MatrixSettings,
    ModelSettings,
    WeightSettings,
    complete,
    resolve_data_settings,
)
from training.tasks import check_task, resolve_task
from utils import cli, interrupts
from utils.settings import REQUIRED, parse, recipe_of, setting


@dataclasses.dataclass(kw_only=True)
class Settings(ModelSettings, WeightSettings, MatrixSettings):
    """Iterative pruning."""

    to_sparsity: float = setting(
        REQUIRED, "fraction of the prunable weights that is removed in the end", cli.open_fraction
    )
    share_per_round: float = setting(0.1, "share of weights removed per round", cli.open_fraction)
    share_of: str = setting(
        "all",
        "what the share is of: all prunable weights, or those that remain",
        choices=("all", "remaining"),
    )


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    check_task(args)
    complete(args)
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # answer wrong arguments before the imports below, which take seconds

import torch
import torch.nn.functional as F
from torch import Tensor

from masking import encoders, surgery, ticket_files, tickets
from training import adversary, loading, loop, models, optim, prediction, tokenizers
from training.batching import Encoded, collate, encode
from training.prediction import inputs_of
from training.rounds import sparsities_of_rounds
from training.splits import load_splits
from training.trainee import Trainee, check_processes, make_trainee
from utils import devices
from utils.runs import Run, environment


def prune(
    matrices: dict,
    removed_in: dict[str, Tensor],
    magnitudes: dict[str, Tensor],
    round_: int,
    sparsity: float,
) -> None:
    """Mark as removed in `round_` the smallest surviving weights, all matrices together.

    Writes the round into `removed_in` and the survivors' |weight| into `magnitudes`, in place.
    """
    shapes = {name: tuple(matrix.weight.shape) for name, matrix in matrices.items()}
    for name, matrix in matrices.items():
        alive = removed_in[name] == 0
        magnitudes[name][alive] = matrix.weight.detach().abs().float().cpu()[alive]
    masks = tickets.draw(tickets.survival_scores(removed_in, magnitudes), shapes, sparsity)
    for name, mask in masks.items():
        removed_in[name][~mask & (removed_in[name] == 0)] = round_


def fine_tune(
    trainee: Trainee, training: loop.Loop, train: Encoded, first_step: int, args: Settings
) -> None:
    """The rest of a round's epochs, of which `first_step` optimizer steps of the run came before.

    The learning rate rises and falls in each round.
    """
    model, draws, optimizer = trainee.model, trainee.draws, trainee.optimizer
    accelerator = training.accelerator
    steps_per_epoch = -(-len(train) // args.bsz)
    last_epoch = first_step // steps_per_epoch + args.epochs  # epochs count over all rounds
    for epoch in range(training.step // steps_per_epoch + 1, last_epoch + 1):
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
                    loss.backward()  # zeroes the gradients of pruned weights
                    parts.append(loss.detach())
                losses = adversary.sum_of_losses(parts)[None]
            else:  # FreeLB, PGD, InfoBERT: several passes, with a perturbation of the embeddings
                losses, logged = adversary.backward(
                    model, batch, args, draws, accelerator, trainee.regularizer
                )
            losses = accelerator.reduce(losses, "sum")
            devices.sum_over_processes(accelerator, trainee.modules.parameters())
            grad_norm = optim.clip(trainee.modules.parameters(), args.max_grad_norm)
            total_steps = args.epochs * steps_per_epoch
            lr = optim.lr_at(training.step - first_step, args.lr, args.warmup_ratio, total_steps)
            optim.set_lr(optimizer, lr)
            if training.admits(losses, grad_norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            training.end_step({"epoch": epoch, "lr": lr, "grad_norm": grad_norm, **logged}, losses)
        training.end_epoch(training.at.finished_epochs)


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    resolve_data_settings(args)
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or task.max_seq_length
    sparsities = sparsities_of_rounds(args.to_sparsity, args.share_per_round, args.share_of)
    run = Run(args.output_dir, "imp", args)
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data, and what every round starts from.
    loading.warn_if_tuned_on(args.model_name, task.name)
    models.settle_precision(args, args.model_name)
    accelerator = devices.make_accelerator(args)
    check_processes(args, accelerator)
    splits = load_splits(args, task, ("train", "dev"))
    labels = splits.task.label_names
    tokenizer = tokenizers.load_tokenizer(args.model_name)

    def rewound():
        model = models.load_pretrained(
            args.model_name, labels, args.seed, args.dropout, args.attn_implementation
        )
        tokenizers.fit_tokenizer(model, tokenizer)
        with cli.explain():
            encoders.select(model, args.matrices, args.exclude)
        return model

    model = rewound()
    models.check_length(model, args.max_seq_length)
    train, dev = (encode(splits[name], tokenizer, args.max_seq_length) for name in ("train", "dev"))
    with cli.explain():
        fingerprint = encoders.encoder_fingerprint(model)
        shapes = encoders.weight_shapes(model)
    encoder = models.encoder_facts(args.model_name, model, fingerprint)
    removed_in = {name: torch.zeros(shape, dtype=torch.int16) for name, shape in shapes.items()}
    magnitudes = {name: torch.zeros(shape) for name, shape in shapes.items()}
    measured: dict[str, float] = {}  # of the last finished round
    steps_per_round = args.epochs * -(-len(train) // args.bsz)
    total_steps = len(sparsities) * steps_per_round

    facts = {"task": task.name, "label_names": labels, "encoder": encoder}
    facts["sparsity_after_round"] = sparsities
    facts |= {"data": splits.facts(), "optimizer_steps": total_steps}
    loop.begin(run, facts, accelerator)
    training = loop.Loop(
        run,
        args,
        accelerator,
        total_steps,
        lambda: (
            trainee.snapshot()
            | {"removed_in": removed_in, "magnitudes": magnitudes, "measured": measured}
        ),
    )
    saved = training.saved
    if saved is not None:
        removed_in, magnitudes = saved["removed_in"], saved["magnitudes"]
        measured = saved["measured"]

    for round_ in range(training.at.finished_epochs // args.epochs + 1, len(sparsities) + 1):
        # Rewind to the pre-trained weights and the same new classifier, under the earlier mask.
        first_step = (round_ - 1) * steps_per_round
        trainee = make_trainee(rewound(), args, accelerator)
        model = trainee.model
        surgery.apply_ticket(model, {name: r == 0 for name, r in removed_in.items()})
        if saved is not None and training.step > first_step:
            trainee.load(saved)

        fine_tune(trainee, training, train, first_step, args)

        # Prune the smallest weights.
        accuracy = training.measure(
            lambda model=model: prediction.accuracy_percent(model, dev, 4 * args.bsz, accelerator)
        )
        sparsity = sparsities[round_ - 1]
        prune(encoders.prunable_matrices(model), removed_in, magnitudes, round_, sparsity)
        reached = tickets.sparsity_of({n: r == 0 for n, r in removed_in.items()})
        training.note_dev(round_ * args.epochs, accuracy)
        training.show(sparsity=f"{reached:.2f}")
        measured = {"dev_accuracy_percent": accuracy, "sparsity_after": reached}
        measured["mean_training_loss"] = training.mean_loss()
        if training.is_main:
            ends = {"optimizer_step": training.step, "finished_epochs": round_ * args.epochs}
            run.log({**ends, "round": round_, **measured})
        training.end_epoch(round_ * args.epochs)

    training.close()
    if accelerator.is_main_process:
        manifest = {
            "kind": "imp" if args.method == "plain" else f"imp_{args.method}",
            "task": task.name,
            "seed": args.seed,
            "encoder": encoder,
            "sparsity_after_round": sparsities,
            "up_to_sparsity": args.to_sparsity,
            "recipe": recipe_of(args),
            "environment": environment(),
        }
        if kinds := encoders.selected(model):
            manifest["matrices"] = kinds
        scores = tickets.survival_scores(removed_in, magnitudes)
        ticket_files.save_scores(run.folder / "scores.safetensors", scores, shapes, manifest)
        finish(run, training.at, sparsities, measured)


def finish(run: Run, at: loop.Counters, sparsities: list[float], measured: dict) -> None:
    result = {
        "scores": "scores.safetensors",
        "sparsity_after_round": sparsities,
        "last_round": measured,
        "seconds_of_training": at.seconds,
    }
    run.finish(result, [])
    print(
        f"scores in {run.folder}: {len(sparsities)} rounds, sparsity "
        f"{measured['sparsity_after']:.3f}; dev accuracy before the last pruning "
        f"{measured['dev_accuracy_percent']:.1f} %"
    )


if __name__ == "__main__":
    cli.run(main)
