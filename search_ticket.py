"""Stage 2: learn a score for every prunable weight, by the min-max objective of Eqs. 6-8.

    python search_ticket.py --model_name RUN_OF_STAGE_1 --output_dir FOLDER

Starts from stage 1's best-dev checkpoint, freezes its weights, gates every prunable matrix, and
writes score files from which retrain_ticket.py draws tickets of any sparsity.
"""

import dataclasses
from pathlib import Path

from training.deviations import SEARCH, SearchDeviations, apply_deviations
from training.methods import AdversarySettings
from training.settings import (
    DataSettings,
    MatrixSettings,
    ModelSettings,
    RunSettings,
    StructureSettings,
    TicketSettings,
    TrainingSettings,
    check_structure,
    resolve_data_settings,
)
from training.targets import TargetSettings, check_target
from training.tasks import check_task, resolve_task
from utils import cli, interrupts
from utils.settings import Role, changed, parse, recipe_of, setting


@dataclasses.dataclass(kw_only=True)
class Settings(
    ModelSettings,
    DataSettings,
    MatrixSettings,
    StructureSettings,
    RunSettings,
    TrainingSettings,
    SearchDeviations,
    AdversarySettings,
    TargetSettings,
):
    """Search (the paper's Table 6; the defaults are SST-2's)."""

    start_from: str = setting(
        "best",
        "D16: stage 1's checkpoint: the epoch with the best dev accuracy, or the last",
        choices=("best", "last"),
    )
    epochs: int = changed(TrainingSettings, "epochs", 20)
    lr: float = changed(TrainingSettings, "lr", 0.1)
    weight_decay: float = changed(TrainingSettings, "weight_decay", 1e-6)
    adv_steps: int = changed(AdversarySettings, "adv_steps", 5)
    adv_lr: float = changed(AdversarySettings, "adv_lr", 0.03)
    adv_init_mag: float = changed(AdversarySettings, "adv_init_mag", 0.05)
    adv_max_norm: float = changed(AdversarySettings, "adv_max_norm", 0.0)  # no bound
    adv_norm_type: str = changed(AdversarySettings, "adv_norm_type", "l2")
    redraw: str = changed(AdversarySettings, "redraw", "each_pass")
    clean_loss_weight: float = changed(AdversarySettings, "clean_loss_weight", 0.0)
    lambda_amp: float = setting(0.5, "lambda: weight of R(m)", cli.non_negative_float)
    lambda_startup_frac: float = setting(0.1, "share of training with lambda 0", cli.fraction)
    lambda_warmup_frac: float = setting(
        0.3, "share of training over which lambda then rises to --lambda_amp", cli.fraction
    )
    mask_p: float = setting(0.9, "initial value of every test-time gate (Eq. 5)", cli.open_fraction)
    out_w_per_mask: int = setting(
        1, "rows of weights per gate; 0 for the whole column", cli.non_negative_int
    )
    in_w_per_mask: int = setting(
        1, "columns of weights per gate; 0 for the whole row", cli.non_negative_int
    )
    token_type_ids: bool = setting(
        True, "D12: give pair tasks their token types; the released search does not"
    )
    sparsity: float = changed(TicketSettings, "sparsity", 0.3, Role.KEEP)
    keep_scores: list = setting(
        [],
        "D15: epochs whose scores are kept besides the last, such as best,5,10",
        cli.epochs_or_words("best"),
        role=Role.KEEP,
    )
    compile: bool | None = setting(
        None,
        "compile the gates, which needs a C++ compiler or Triton (default: where the run is long "
        "enough to gain by it)",
        role=Role.COMPUTE,
    )
    exact_gates: bool | None = setting(
        None,
        "draw the gates' noise in float32 and compute them step by step, as Eqs. 1-3 are written "
        "(default: faster, with noise of 16 or 23 bits)",
        role=Role.COMPUTE,
    )


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    check_task(args)
    apply_deviations(args, SEARCH)
    if args.exact_gates and args.compile:
        raise cli.UserError("--compile has no effect with --exact_gates: omit one of them")
    if args.clean_loss_weight and not args.adv_steps:
        raise cli.UserError("--clean_loss_weight has no effect with --adv_steps 0: omit it")
    check_structure(args)
    check_target(args)
    if any(e != "best" and e > args.epochs for e in args.keep_scores):
        raise cli.UserError(f"--keep_scores names an epoch beyond --epochs {args.epochs}")
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # answer wrong arguments before the imports below, which take seconds

import torch
import torch.nn.functional as F
from torch import Tensor

from masking import (
    encoders,
    hard_concrete,
    removal,
    structures,
    surgery,
    ticket_files,
    tickets,
    unit_gates,
    unit_tickets,
)
from masking.parts import kinds_of, split_fused
from training import adversary, checkpoints, loop, models, optim, prediction, tokenizers
from training.batching import collate, encode
from training.latency import LatencyTable
from training.penalty import TOLERANCE, Penalty, TargetPenalty
from training.prediction import inputs_of
from training.splits import load_splits
from utils import devices
from utils.runs import Run, environment, read_run


class Search:
    """The gated model, the optimizer of its scores, and the noise of its steps."""

    def __init__(self, model, gated, args: Settings, accelerator, draws, penalty=None):
        self.model, self.gated, self.args = model, gated, args
        self.accelerator, self.draws = accelerator, draws
        self.penalty = penalty or Penalty([], args.penalty_mean)
        self.scores = [layer.scores for layer in gated.values()]
        if args.clip_over == "scores":  # D2: freeze the weights
            model.requires_grad_(False)
            for s in self.scores:
                s.requires_grad_(True)
        self.optimizer = optim.make_adamw(args.adamw, self.scores, args.lr, args.weight_decay)

    def step(self, batch: dict, lr: float, lambda_reg: float, admits) -> tuple[Tensor, dict]:
        """One optimizer step: min over m of [max over delta of L] + lambda R(m), Eqs. 6-8.

        `admits(losses, norm)`: whether all is finite. Returns the loss of each pass, (passes,), and
        what is logged, as tensors, so that nothing waits for the device.
        """
        args, model, scores = self.args, self.model, self.scores
        steps = args.adv_steps  # K
        weights = [1 / steps] * steps if steps else [1.0]  # FreeLB: the mean over the passes
        if args.adv_gradient == "last":  # D10: Eqs. 6-7 read literally
            weights = [0.0] * steps + [1.0]
        delta = self.draws.delta() if steps else None  # (sentences, tokens, hidden), 0 at padding
        losses, norms = [], []

        def loss_at(rows: dict, shift: Tensor | None) -> Tensor:  # L(f(x + delta; m * theta), y)
            with self.accelerator.autocast(), adversary.perturbed(model, shift):
                logits = model(**inputs_of(rows)).logits
            losses = F.cross_entropy(logits.float(), rows["labels"], reduction="sum")
            return losses * rows["row_weight"]  # a share of the batch's mean

        for k, weight in enumerate(weights):  # Eqs. 6-7: maximize over delta
            self.draws.redraw(k)  # Eqs. 1-3: new gates m, new dropout
            ascends = k + 1 < len(weights)
            norms += [adversary.sentence_norms(delta).mean()] if steps else []
            parts, gradients = [], []
            for rows, shift in adversary.micro_batches(batch, delta, args.micro_bsz, ascends):
                loss = loss_at(rows, shift)
                (weight * loss if weight else loss).backward(inputs=None if weight else [shift])
                parts.append(loss.detach())
                gradients.append(shift.grad if ascends else None)
            losses.append(adversary.sum_of_losses(parts))
            if ascends:
                delta = adversary.ascend(delta, torch.cat(gradients), args)  # Eq. 7
        if args.clean_loss_weight:
            self.draws.redraw(0)
            for rows, _ in adversary.micro_batches(batch, None, args.micro_bsz):
                (args.clean_loss_weight * loss_at(rows, None)).backward()
        devices.sum_over_processes(self.accelerator, model.parameters())

        logged, l0_gradients = self.penalty.gradients(scores, lambda_reg)  # R(m), Eqs. 4 and 8
        logged["l0_grad_norm"] = optim.total_norm(l0_gradients)
        optim.check_gradients({name: layer.scores for name, layer in self.gated.items()})
        logged["score_grad_norm"] = optim.total_norm([s.grad for s in scores])
        if args.clip_over == "accumulated":  # D2: the weights' gradients of all steps; L0 after it
            clipped = [p for p in model.parameters() if p.grad is not None]
            logged["clip_norm"] = optim.clip(clipped, args.max_grad_norm)
        torch._foreach_add_([s.grad for s in scores], l0_gradients)
        if args.clip_over == "scores":
            logged["clip_norm"] = optim.clip(scores, args.max_grad_norm)

        losses = self.accelerator.reduce(torch.stack(losses), "sum")
        optim.set_lr(self.optimizer, lr)
        if admits(losses, logged["clip_norm"]):
            self.optimizer.step()
        else:  # what accumulates (D2) starts again
            model.zero_grad(set_to_none=True)
        self.optimizer.zero_grad(set_to_none=True)  # of the scores alone
        return losses, logged | ({"delta_norm_per_pass": torch.stack(norms)} if norms else {})

    def snapshot(self) -> dict:
        """For the resume point: scores, optimizer, and (D2 as released) the weights' gradients."""
        return {
            "scores": [s.detach() for s in self.scores],
            "optimizer": self.optimizer.state_dict(),
            "gradients": [p.grad for p in self.model.parameters()],
            "penalty": self.penalty.snapshot(),
        }

    def load(self, snapshot: dict) -> None:
        for parameter, saved in zip(self.scores, snapshot["scores"], strict=True):
            parameter.data.copy_(saved)
        self.optimizer.load_state_dict(snapshot["optimizer"])
        for parameter, saved in zip(self.model.parameters(), snapshot["gradients"], strict=True):
            parameter.grad = None if saved is None else saved.to(parameter.device)
        self.penalty.load(snapshot.get("penalty", {}))


class Clocks:
    """Learning rate and lambda at each optimizer step, from 1."""

    def __init__(self, args: Settings, examples: int, tensors_per_batch: int):
        self.args = args
        self.total_steps = args.epochs * -(-examples // args.bsz)
        is_short = args.schedule_length == "examples"  # D17
        self.lr_steps = examples * args.epochs // args.bsz if is_short else self.total_steps
        self.counts_per_step = tensors_per_batch if args.lambda_clock == "tensors" else 1  # D1

    def lr(self, step: int) -> float:
        return optim.lr_at(step, self.args.lr, self.args.warmup_ratio, self.lr_steps)

    def lambda_reg(self, step: int) -> float:
        """lambda; with a target, the share of the way to it."""
        a, count = self.args, step * self.counts_per_step
        amplitude = 1.0 if a.has_target else a.lambda_amp
        return optim.lambda_at(
            count, self.total_steps, amplitude, a.lambda_startup_frac, a.lambda_warmup_frac
        )


def measure_gates(search: Search, dev) -> dict:
    """Dev accuracy with soft gates and with the ticket at --sparsity; what the gates are like.

    With a target, the ticket is the one that comes nearest to it.
    """
    gated, args, penalty = search.gated, search.args, search.penalty
    scores = {name: layer.scores.detach() for name, layer in gated.items()}
    measured: dict = {}
    sparsity, is_uniform = args.sparsity, False
    if isinstance(penalty, TargetPenalty):
        measured["target"] = penalty.reached(scores)
        sparsity, is_uniform = measured["target"]["sparsity"], measured["target"]["uniform"]
    if not penalty.units:
        masks = tickets.draw(scores, {name: g.shape for name, g in gated.items()}, sparsity)
        ticket_sparsity = tickets.sparsity_of(masks)
    else:  # a mask per unit
        masks = unit_tickets.draw(penalty.units, scores, sparsity, is_uniform)
        ticket_sparsity = unit_tickets.removed_share(penalty.units, masks)
    for name, gates in (("soft_gates", surgery.soft_gates(gated)), ("ticket", masks)):
        surgery.fix_gates(gated, gates)
        measured[f"dev_accuracy_{name}_percent"] = prediction.accuracy_percent(
            search.model, dev, 4 * args.bsz, search.accelerator
        )
    surgery.fix_gates(gated, None)
    heads = search.model.config.num_attention_heads
    score_parts = split_fused(scores, heads)
    by_kind: dict[str, list[Tensor]] = {}
    for name, s in score_parts.items():
        by_kind.setdefault(kinds_of(name)[0], []).append(s)
    mask_parts = split_fused(masks, heads)
    kinds = {name: kinds_of(name)[0] for name in mask_parts}
    shares = hard_concrete.gate_shares(list(scores.values()))
    return measured | {
        "gate_shares": shares,
        "collapsed": hard_concrete.collapsed(shares),
        "penalty_of_all_gates": penalty.density(list(scores.values())),
        "open_probability_by_kind": {
            k: float(hard_concrete.penalty(s)) for k, s in by_kind.items()
        },
        "ticket_sparsity": ticket_sparsity,
        "ticket_density_by_kind": tickets.density_by(mask_parts, kinds),
    }


def make_penalty(args: Settings, units, steps: int, device) -> Penalty:
    """lambda R(m), or what leads to the target."""
    if not args.has_target:
        return Penalty(units, args.penalty_mean)
    wanted = 1 / args.target_speedup if args.target_speedup else 1 - args.target_sparsity
    table = LatencyTable(args.latency_table) if args.latency_table else None
    return TargetPenalty(units, wanted, args.multiplier_lr / steps, table, device)


def install_gates(model, args: Settings) -> tuple[dict, list]:
    """The gates by name, and the units that have one each; no units where weights have."""
    if not args.structure:
        encoders.select(model, args.matrices, args.exclude)
        gated = surgery.install_gates(model, args.mask_p, args.out_w_per_mask, args.in_w_per_mask)
        return gated, []
    units = structures.find_units(model, args.structure)
    removal.check_units(model, units)
    encoders.select(model, structures.covered_kinds(units))
    return unit_gates.install_unit_gates(model, units, args.mask_p), units


def prepare_gates(gated, args: Settings, passes: int, accelerator) -> str:
    """The form in which noise is drawn (surgery.draw_noise); compiles the gates if that pays.

    Weights that are not frozen keep the plain gates. Over 10 million gates, compiling takes some
    20 s and saves some 40 ms a pass.
    """
    if args.exact_gates or args.clip_over != "scores" or args.structure:
        return "floats"
    gates = sum(layer.scores.numel() for layer in gated.values())
    if args.compile or (args.compile is None and gates * passes > 1e10):
        try:
            with accelerator.autocast():
                surgery.compile_gates(gated)
            return "key"
        except Exception as e:  # of many kinds, from a missing compiler to a full disk
            cli.warn(f"the gates are not compiled ({type(e).__name__}), so the search is slower")
    return "bytes"


def read_stage_1(args: Settings) -> tuple[Path, dict]:
    """The checkpoint to start from and its facts; takes over that run's data settings."""
    run = read_run(args.model_name)
    if run is None or run.get("stage") != "finetune":
        raise cli.UserError(f"--model_name {args.model_name} is not a run folder of finetune.py")
    if run["status"] != "finished":
        raise cli.UserError(
            f"the run in {args.model_name} is not finished: run the same command again"
        )
    resolve_data_settings(args, run["args"])
    checkpoint = Path(args.model_name) / args.start_from
    return checkpoint, checkpoints.checkpoint_facts(checkpoint)


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    checkpoint, facts = read_stage_1(args)
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or facts["max_seq_length"]
    run = Run(args.output_dir, "search", args)
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data and model: stage 1's splits and checkpoint, a gate for every prunable weight.
    models.settle_precision(args, str(checkpoint))
    accelerator = devices.make_accelerator(args)
    if args.clip_over == "accumulated" and accelerator.num_processes > 1:
        raise cli.UserError("--clip_over accumulated runs in one process: use one GPU")
    splits = load_splits(args, task, ("train", "dev"))
    tokenizer = tokenizers.load_tokenizer(str(checkpoint))
    model = checkpoints.load_checkpoint(
        checkpoint, splits.task, args.attn_implementation, args.dropout
    )
    models.check_length(model, args.max_seq_length)
    tokenizers.fit_tokenizer(model, tokenizer)
    train, dev = (
        encode(splits[name], tokenizer, args.max_seq_length, args.token_type_ids)
        for name in ("train", "dev")
    )
    with cli.explain():
        gated, units = install_gates(model, args)
    models.fit_memory(model, args.checkpoint_activations)
    model.to(accelerator.device).train()
    clocks = Clocks(args, len(train), len(tokenizer.model_input_names))
    passes = clocks.total_steps * (args.adv_steps or 1)
    form = prepare_gates(gated, args, passes, accelerator)
    draws = adversary.Draws(
        model.get_input_embeddings().embedding_dim,
        args,
        args.seed,
        accelerator,
        lambda generator: surgery.draw_noise(gated, generator, form),
    )
    penalty = make_penalty(args, units, clocks.total_steps, accelerator.device)
    search = Search(model, gated, args, accelerator, draws, penalty)

    manifest = {
        "kind": "robust" if args.adv_steps else "no_adversary",
        "task": task.name,
        "seed": args.seed,
        "encoder": facts["encoder"],
        "gates": sum(s.numel() for s in search.scores),
        "recipe": recipe_of(args),
        "environment": environment(),
    }
    if kinds := encoders.selected(model):
        manifest["matrices"] = kinds
    if args.structure:
        manifest["structure"] = args.structure
    about_run = {k: manifest[k] for k in ("task", "encoder", "gates", "recipe")}
    about_run |= {"label_names": splits.task.label_names, "data": splits.facts()}
    about_run["optimizer_steps"] = clocks.total_steps
    loop.begin(run, about_run, accelerator)
    measured: dict = {}
    training = loop.Loop(
        run, args, accelerator, clocks.total_steps, lambda: search.snapshot() | {"dev": measured}
    )
    if training.saved is not None:
        search.load(training.saved)
        measured = training.saved["dev"]
    shares_every = max(1, clocks.total_steps // 50)  # enough for the curves of Figures 1 and 5

    # Search.
    for epoch in range(training.at.finished_epochs + 1, args.epochs + 1):
        for positions in training.batches(train.lengths, args.bsz, epoch):
            step = training.step
            arrays = collate(train, positions)
            batch = devices.to_device(arrays, accelerator)
            draws.start_step(step, batch, arrays["input_ids"].shape)
            lr, lambda_reg = clocks.lr(step), clocks.lambda_reg(step)
            losses, logged = search.step(batch, lr, lambda_reg, training.admits)
            if step % shares_every == 0:
                logged["gate_shares"] = hard_concrete.gate_shares(search.scores)
            line = {"epoch": epoch, "lr": lr, "lambda_reg": lambda_reg, **logged}
            training.end_step(line, losses)

        # Dev accuracy, score files, log, resume point.
        measured = training.measure(lambda: measure_gates(search, dev))
        is_best = training.note_dev(epoch, measured["dev_accuracy_soft_gates_percent"])
        if training.is_main:
            warn_if_collapsed(epoch, measured["collapsed"])
            run.log({"optimizer_step": training.step, "finished_epochs": epoch, "dev": measured})
            # Label passes: of the search, and of the weights that it gates.
            seen = {"epoch": epoch, "label_passes": epoch + facts["epoch"]}
            seen |= {k: measured[k] for k in ("target",) if k in measured}
            for name in score_files(args, epoch, is_best):
                scores = dict(zip(gated, search.scores, strict=True))
                shapes = {name: layer.shape for name, layer in gated.items()}
                ticket_files.save_scores(run.folder / name, scores, shapes, manifest | seen)
        training.end_epoch(epoch)

    training.close()
    if accelerator.is_main_process:
        finish(run, training.at, args, measured)


def warn_if_collapsed(epoch: int, collapsed: str | None) -> None:
    if collapsed:
        cli.warn(
            f"after epoch {epoch} nearly all gates are {collapsed}: the search has collapsed; "
            "lower --lambda_amp or --lr"
        )


def score_files(args: Settings, epoch: int, is_best: bool) -> list[str]:
    """Names of the score files that are due after an epoch."""
    names = ["scores.safetensors"] if epoch == args.epochs else []
    names += [f"scores_epoch{epoch}.safetensors"] if epoch in args.keep_scores else []
    return names + (["scores_best.safetensors"] if is_best and "best" in args.keep_scores else [])


def finish(run: Run, at: loop.Counters, args: Settings, measured: dict) -> None:
    result = {
        "scores": "scores.safetensors",
        "epoch": args.epochs,
        "optimizer_steps": at.optimizer_step,
        "best_dev_accuracy_percent": at.best_dev_accuracy_percent,
        "last_epoch": measured,
        "skipped_steps": at.skipped_steps,
        "seconds_of_search": at.seconds,
        "peak_memory_bytes": devices.peak_memory_bytes(),
    }
    run.finish(result, [])
    print(
        f"scores in {run.folder}; R(m) {measured['penalty_of_all_gates']:.3f}, dev accuracy "
        f"{measured['dev_accuracy_soft_gates_percent']:.1f} % with soft gates, "
        f"{measured['dev_accuracy_ticket_percent']:.1f} % with the ticket at sparsity "
        f"{measured['ticket_sparsity']:g}"
    )
    if "target" in measured:
        report_target(measured)


def report_target(measured: dict) -> None:
    """Say what the search reached. Warns if its gates or its ticket miss the target."""
    target = measured["target"]
    print(
        f"target: {target['asked']}; its ticket is that at sparsity {target['sparsity']:.3f}"
        + (", drawn with --uniform" if target["uniform"] else "")
        + f", with a cost of {target['drawn_cost']:.3f}"
    )
    wanted = target["wanted_cost"]
    if abs(target["drawn_cost"] - wanted) > TOLERANCE:
        cli.warn(
            f"no ticket that follows these scores comes nearer to the target's cost of "
            f"{wanted:.3f}: its units are too large; ask for another target, or for smaller units"
        )
    if abs(target["expected_cost"] - wanted) > TOLERANCE:
        cli.warn(
            f"the search ended at an expected cost of {target['expected_cost']:.3f}, not at the "
            f"target's {wanted:.3f}: raise --epochs, --lr or --multiplier_lr"
        )


if __name__ == "__main__":
    cli.run(main)
