"""Stage 3: draw a ticket from scores, rewind to the pre-trained weights, fine-tune what is left.

    python retrain_ticket.py --model_name bert-base-uncased --scores FOLDER --sparsity 0.3 \\
        --output_dir FOLDER
    python retrain_ticket.py --model_name bert-base-uncased --ticket FILE --output_dir FOLDER

The kind of ticket is the kind of score file (search_ticket.py, make_scores.py). Writes ordinary
checkpoints whose pruned weights are exactly 0.0, and the ticket, one bit per weight.
"""

import dataclasses
from functools import partial
from pathlib import Path

from training.settings import (
    StageSettings,
    TicketSettings,
    check_kept_epochs,
    complete,
    resolve_data_settings,
)
from training.tasks import check_task, resolve_task
from utils import cli, interrupts
from utils.settings import Role, changed, parse, setting


@dataclasses.dataclass(kw_only=True)
class ReinitSettings:
    """What the weights start from (the paper's Table 4)."""

    reinitialise: str = setting(
        "nothing",
        "ticket: the kept weights start from noise, not from the pre-trained weights; rest: a "
        "dense model, in which the removed weights start from noise",
        choices=("nothing", "ticket", "rest"),
        role=Role.TICKET,
    )
    reinit_law: str | None = setting(
        None,
        "law of the noise: N(0, --reinit_std); normal with each matrix's own mean and deviation; "
        "the same weights in another order (default: normal)",
        choices=("normal", "matched", "shuffled"),
        role=Role.TICKET,
    )
    reinit_std: float | None = setting(
        None,
        "standard deviation of --reinit_law normal, and of the embeddings with --reinit_scope "
        "encoder (default: 0.02)",
        cli.positive_float,
        role=Role.TICKET,
    )
    reinit_scope: str | None = setting(
        None,
        "matrices: only weights of the prunable matrices; encoder: its embeddings, biases and "
        "LayerNorms as well (default: matrices)",
        choices=("matrices", "encoder"),
        role=Role.TICKET,
    )


@dataclasses.dataclass(kw_only=True)
class Settings(TicketSettings, ReinitSettings, StageSettings):
    """Retraining."""

    scores: str | None = changed(TicketSettings, "scores", None)
    sparsity: float | None = changed(TicketSettings, "sparsity", None)
    ticket: str | None = setting(
        None,
        "ticket file, or folder that holds ticket.safetensors, in place of --scores and --sparsity",
        role=Role.PLACE,
    )
    uniform: bool | None = setting(
        None,
        "scores of units: remove the same number of units in every layer, which an ordinary "
        "checkpoint can express (default: by the scores, which rank all layers together)",
        role=Role.TICKET,
    )
    shrink: bool | None = setting(
        None,
        "scores of units: write checkpoints from which the units are removed, not zeroed",
        role=Role.TICKET,
    )
    allow_other_encoder: bool = setting(
        False, "accept scores or a ticket of another encoder of the same shape", role=Role.TICKET
    )


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    check_task(args)
    check_kept_epochs(args)
    if args.ticket is None and args.scores is None:
        raise cli.UserError("give --scores and --sparsity, or --ticket")
    if args.ticket is not None and (args.scores is not None or args.sparsity is not None):
        raise cli.UserError(
            "--ticket is drawn already: omit --scores and --sparsity, or omit --ticket"
        )
    if args.ticket is not None and args.uniform:
        raise cli.UserError("--ticket is drawn already: omit --uniform")
    if args.shrink and args.reinitialise == "rest":
        raise cli.UserError("--reinitialise rest trains a dense model: omit --shrink")
    no_std = args.reinit_law in ("matched", "shuffled") and args.reinit_scope != "encoder"
    if no_std and args.reinit_std is not None:
        raise cli.UserError(
            f"--reinit_std has no effect with --reinit_law {args.reinit_law}: omit it"
        )
    for name, default in (("law", "normal"), ("std", 0.02), ("scope", "matrices")):
        if args.reinitialise == "nothing" and getattr(args, f"reinit_{name}") is not None:
            raise cli.UserError(f"--reinit_{name} needs --reinitialise ticket or rest")
        if getattr(args, f"reinit_{name}") is None:
            setattr(args, f"reinit_{name}", default)
    complete(args)
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # answer wrong arguments before the imports below, which take seconds

import torch
import torch.nn.functional as F

from masking import (
    encoders,
    removal,
    structures,
    surgery,
    ticket_files,
    tickets,
    unit_gates,
    unit_tickets,
)
from masking.kinds import GATE_KINDS
from training import adversary, loading, loop, models, optim, results, tokenizers
from training.batching import collate, encode
from training.penalty import Penalty
from training.prediction import inputs_of
from training.rounds import label_passes_of
from training.settings import recipe_in
from training.splits import load_splits
from training.trainee import check_processes, make_trainee
from utils import devices
from utils.files import write_json
from utils.runs import Run, environment, read_run, seed_for

ABOUT_SCORES = (
    *("kind", "task", "seed", "epoch", "encoder", "of", "matched_to", "complement_of"),
    *("matrices", "structure", "sparsity_after_round", "label_passes"),
)


def ticket_file(args: Settings) -> Path:
    """The file that the ticket is read or drawn from."""
    if args.ticket is not None:
        return ticket_files.ticket_file(args.ticket)
    return ticket_files.score_file(args.scores)


def read_ticket(args: Settings, model) -> tuple[tickets.Masks, dict, list[structures.Units]]:
    """The masks of --ticket, or those that --scores give at --sparsity, their origin, and the units
    that they keep or remove whole (none for single weights).

    The origin says what the scores were made with and for, the sparsity that was asked for, and
    `expected_density_percent`: 100 R(m) of the scores, where they are gates.
    """
    path, units = ticket_file(args), []
    with cli.explain():
        if args.ticket is not None:
            tensors, file = ticket_files.load_ticket(path)
            shapes, source = tickets.shapes_of(tensors), file.get("source", {})
        else:
            tensors, shapes, source = ticket_files.load_scores(path)
        ticket_files.check_origin(source, path)
        encoders.select(model, source.get("matrices"))
        if source.get("structure"):
            units = structures.find_units(model, source["structure"])
            removal.check_units(model, units)
    check_structured(args, path, units)
    expected = structures.virtual_shapes(units) if units and args.ticket is None else None
    tensors, shapes = models.tensors_for(
        *(model, args.model_name, path, tensors, shapes, source["encoder"]),
        *(args.allow_other_encoder, expected),
    )
    origin = {key: source[key] for key in ABOUT_SCORES if key in source}
    origin |= {"recipe": recipe_in(source), "sha256": source.get("sha256")}
    facts = {"source": origin}
    if args.ticket is not None:
        facts["sparsity_asked"] = file.get("sparsity_asked", file["sparsity"])
        facts["expected_density_percent"] = file.get("expected_density_percent")
        return tensors, facts | {k: file[k] for k in ("uniform",) if k in file}, units
    sparsity, uniform = asked_for(args, source, path)
    facts |= {"sparsity_asked": sparsity, "expected_density_percent": None}
    with cli.explain():
        ticket_files.check_order(source, sparsity, path)
        if units:
            facts["uniform"] = uniform
            kept = unit_tickets.draw(units, tensors, sparsity, uniform)
            masks = unit_tickets.masks_of(units, kept, encoders.weight_shapes(model))
        else:
            masks = tickets.draw(tensors, shapes, sparsity)
    if source["kind"] in GATE_KINDS:
        density = Penalty(units, "entries").density(list(tensors.values()))
        facts["expected_density_percent"] = 100 * density
    return masks, facts, units


def check_structured(args: Settings, path: Path, units: list) -> None:
    """UserError for flags of whole units with a ticket of single weights."""
    for flag in ("uniform", "shrink"):
        if getattr(args, flag) and not units:
            raise cli.UserError(
                f"{path} ranks or removes single weights, so --{flag} has no effect: omit it, "
                "or search with --structure ffn_neurons"
            )


def asked_for(args: Settings, source: dict, path: Path) -> tuple[float, bool]:
    """The sparsity, and whether it is --uniform: by the flags, or by the search's target."""
    target = source.get("target") or {}
    if args.sparsity is None and not target:
        raise cli.UserError(f"give --sparsity: the scores in {path} were not searched for a target")
    if args.sparsity is None:
        return target["sparsity"], args.uniform or target["uniform"]
    return args.sparsity, bool(args.uniform)


def describe_ticket(args: Settings, model, masks: tickets.Masks, origin: dict) -> dict:
    """The manifest of a ticket: its origin, and the sparsity that it has."""
    fingerprint = encoders.encoder_fingerprint(model)
    return origin | {
        "rewound_to": models.encoder_facts(args.model_name, model, fingerprint),
        "density_by_head": surgery.density_by_head(
            masks, model.config.num_attention_heads, encoders.key_value_heads(model)
        ),
        "density_by_matrix": tickets.density_by(masks, {name: name for name in masks}),
        "environment": environment(),
    }


def reinitialise(args: Settings, model, masks: tickets.Masks) -> None:
    """Table 4: the ticket's weights, or all others, start from noise."""
    noise = torch.Generator().manual_seed(seed_for(args.seed, "reinitialisation"))
    surgery.reinitialise(model, masks, args.reinitialise, args.reinit_law, args.reinit_std, noise)
    if args.reinit_scope == "encoder":
        surgery.reinitialise_the_rest_of_the_encoder(model, args.reinit_std, noise)


def ticket_facts(args: Settings, masks: tickets.Masks, manifest: dict) -> dict:
    """What a record says of the ticket. Warns where the ticket removes whole matrices."""
    source = manifest["source"]
    facts = {
        "kind": source["kind"],
        "sparsity_asked": manifest["sparsity_asked"],
        "sparsity": tickets.sparsity_of(masks),
        "scores_epoch": source.get("epoch"),
        "scores_seed": source["seed"],
        "scores_sha256": source["sha256"],
        "reinitialised": args.reinitialise,
        "expected_density_percent": manifest["expected_density_percent"],
        "search": source["recipe"],
    }
    for name in ("structure", "uniform"):
        if (value := manifest["source"].get(name) or manifest.get(name)) is not None:
            facts[name] = value
    if abs(facts["sparsity"] - facts["sparsity_asked"]) > 5e-4:
        print(
            f"asked for sparsity {facts['sparsity_asked']:g}; whole units or blocks come nearest "
            f"to it at {facts['sparsity']:.4f}"
        )
    emptied = [name for name, d in manifest["density_by_matrix"].items() if d == 0]
    if "layers" in facts.get("structure", []):
        emptied = []  # as the ticket is meant to
    if emptied:
        facts["emptied_matrices"] = emptied
        cli.warn(f"the ticket removes all weights of {len(emptied)} matrices, such as {emptied[0]}")
    if args.reinitialise != "nothing":
        names = ("reinit_law", "reinit_std", "reinit_scope")
        facts |= {name: getattr(args, name) for name in names}
    return facts


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    if not ticket_file(args).is_file():
        kind = "score" if args.ticket is None else "ticket"
        raise cli.UserError(f"there is no {kind} file at {ticket_file(args)}")
    earlier_run = read_run(ticket_file(args).parent)
    resolve_data_settings(args, (earlier_run or {}).get("args", {}))
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or task.max_seq_length
    run = Run(args.output_dir, "retrain", args)
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data and model: the pre-trained weights, a new classifier, the ticket.
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
    masks, origin, units = read_ticket(args, model)
    manifest = describe_ticket(args, model, masks, origin)
    train, dev, test = (
        encode(splits[name], tokenizer, args.max_seq_length) for name in ("train", "dev", "test")
    )
    if args.reinitialise != "nothing":
        reinitialise(args, model, masks)
    trainee = make_trainee(model, args, accelerator)
    if args.reinitialise != "rest":
        surgery.apply_ticket(model, masks)
        unit_gates.hold_at_zero(model, units, masks)
    draws, optimizer = trainee.draws, trainee.optimizer
    total_steps = args.epochs * -(-len(train) // args.bsz)

    ticket = ticket_facts(args, masks, manifest)
    facts = results.stage_facts(
        "retrain", args, labels, task.name, manifest["rewound_to"], len(train)
    )
    passes = args.epochs + label_passes_of(manifest["source"], manifest["sparsity_asked"])
    facts |= {"ticket": ticket, "label_passes": passes}

    # A checkpoint cannot skip a layer, so removed layers never stay in it.
    without_layers = "layers" in ticket.get("structure", ()) and args.reinitialise != "rest"
    make_smaller = None
    if args.shrink or without_layers:
        make_smaller = partial(
            removal.without_units, model, units, masks, only_layers=not args.shrink
        )
        with cli.explain():
            make_smaller()  # what the family cannot express is reported before the training
    about_run = {**facts, "data": splits.facts(), "optimizer_steps": total_steps}
    loop.begin(run, about_run, accelerator)
    if accelerator.is_main_process:
        whole_manifest = ticket_files.save_ticket(
            run.folder / "ticket.safetensors", masks, manifest
        )
        write_json(run.folder / "ticket.json", whole_manifest)
    training = loop.Loop(run, args, accelerator, total_steps, trainee.snapshot)
    if training.saved is not None:
        trainee.load(training.saved)

    # Training.
    for epoch in range(training.at.finished_epochs + 1, args.epochs + 1):
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
            lr = optim.lr_at(training.step, args.lr, args.warmup_ratio, total_steps)
            optim.set_lr(optimizer, lr)
            if training.admits(losses, grad_norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            training.end_step({"epoch": epoch, "lr": lr, "grad_norm": grad_norm, **logged}, losses)

        # Dev accuracy, checkpoints, log, resume point.
        results.evaluate_epoch(
            training, epoch, model, tokenizer, dev, args, facts, make_smaller=make_smaller
        )

    training.close()
    unpruned = surgery.count_unpruned(model, masks)
    if unpruned and args.reinitialise != "rest":
        raise RuntimeError(f"{unpruned} pruned weights are not 0.0 after training")
    results.finish(run, training.at, model, test, accelerator, args.bsz, facts, splits)


if __name__ == "__main__":
    cli.run(main)
