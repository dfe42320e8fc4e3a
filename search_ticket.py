"""Stage 2: learn a score for every prunable weight, by the min-max objective of Eqs. 6-8.

    python search_ticket.py --model_name RUN_OF_STAGE_1 --output_dir FOLDER

Starts from stage 1's best-dev checkpoint, freezes its weights, gates every prunable matrix, and
writes score files from which retrain_ticket.py draws tickets of any sparsity.
"""

from training import deviations
from training.tasks import check_task, resolve_task
from utils import cli, interrupts


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model_name", required=True, help="run folder of stage 1 (finetune.py)")
    add(
        "--start_from",
        choices=["best", "last"],
        default="best",
        help="D16: stage 1's checkpoint: the epoch with the best dev accuracy, or the last",
    )
    cli.add_data_flags(parser)
    add(
        "--token_type_ids",
        action=cli.BooleanOptionalAction,
        default=True,
        help="D12: give pair tasks their token types; the released search does not",
    )
    cli.add_run_flags(parser)
    deviations.add_search_flags(parser)
    g = parser.add_argument_group("search (paper's Table 6; defaults are SST-2's)")
    add = g.add_argument
    add("--epochs", type=cli.positive_int, default=20, help="passes over the training rows")
    add("--bsz", type=cli.positive_int, default=32, help="sentences per optimizer step")
    add("--lr", type=cli.positive_float, default=0.1, help="learning rate of the scores")
    add("--weight_decay", type=cli.non_negative_float, default=1e-6, help="of the scores")
    add("--warmup_ratio", type=cli.fraction, default=0.1, help="share of steps in which lr rises")
    add("--max_grad_norm", type=cli.non_negative_float, default=1.0, help="clip, 0 for none")
    add("--adv_steps", type=cli.non_negative_int, default=5, help="K; 0 for no adversary")
    add("--adv_lr", type=cli.non_negative_float, default=0.03, help="eta, size of an ascent")
    add("--adv_init_mag", type=cli.non_negative_float, default=0.05, help="eps_0, size of delta_0")
    add(
        "--adv_max_norm",
        type=cli.non_negative_float,
        default=0.0,
        help="its bound, 0: none",
    )
    add("--adv_norm_type", choices=["l2", "linf"], default="l2", help="norm of delta, a sentence")
    add("--lambda_amp", type=cli.non_negative_float, default=0.5, help="lambda: weight of R(m)")
    add(
        "--lambda_startup_frac",
        type=cli.fraction,
        default=0.1,
        help="share of training with lambda 0",
    )
    add(
        "--lambda_warmup_frac",
        type=cli.fraction,
        default=0.3,
        help="share of training over which lambda then rises to --lambda_amp",
    )
    add(
        "--clean_loss_weight",
        type=cli.non_negative_float,
        default=0.0,
        help="weight of the loss without perturbation, added to the adversarial one",
    )
    add("--mask_p", type=cli.open_fraction, default=0.9, help="test-time gates at the start")
    add("--out_w_per_mask", type=cli.non_negative_int, default=1, help="rows per gate; 0: all")
    add("--in_w_per_mask", type=cli.non_negative_int, default=1, help="columns per gate; 0: all")
    add(
        "--redraw",
        choices=["each_pass", "each_step"],
        default="each_pass",
        help="draw gates and dropout anew in each pass, or once per optimizer step",
    )
    add(
        "--compile",
        action=cli.BooleanOptionalAction,
        help="compile the gates, which needs a C++ compiler or Triton (default: in bf16, where the "
        "run is long enough to gain by it)",
    )
    add("--no_compile", dest="compile", action="store_false", help="the same as --no-compile")
    add("--dropout", type=cli.fraction, help="every dropout probability (default: encoder's own)")
    add("--sparsity", type=cli.sparsity, default=0.3, help="of the ticket evaluated on dev")
    add(
        "--keep_scores",
        type=cli.epochs_or_words("best"),
        default=[],
        help="D15: keep scores of these epochs besides the last, e.g. best,5,10",
    )
    args = parser.parse_args(argv)
    check_task(args)
    deviations.apply_protocol(args, deviations.SEARCH)
    if args.clean_loss_weight and not args.adv_steps:
        raise cli.UserError("--clean_loss_weight is not read with --adv_steps 0")
    if any(e != "best" and e > args.epochs for e in args.keep_scores):
        raise cli.UserError(f"--keep_scores names an epoch beyond --epochs {args.epochs}")
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from masking import encoders, hard_concrete, surgery, ticket_files, tickets
from masking.layers import GatedLinear
from training import adversary, checkpoints, models, optim, prediction
from training.batching import collate, encode, epoch_batches
from training.splits import load_splits
from utils import devices
from utils.runs import Run, environment, read_run, seed_for


def search_step(
    model,
    gated: dict[str, GatedLinear],
    optimizer,
    batch: dict,
    args,
    lr: float,
    lambda_reg: float,
    redraw: Callable[[int], None],
    draw_delta: Callable[[], Tensor],
    accelerator,
    step: int,
    skips: optim.Skips,
) -> dict[str, Tensor]:
    """One optimizer step on the scores: min over m of max over delta (Eqs. 6-8), FreeLB's form.

    `redraw(k)` puts new noise into the gates (and dropout) for pass k, `draw_delta()` gives the
    first delta. `skips` leaves the update out where a loss or gradient is not finite. Returns what
    is logged, as tensors.
    """
    scores = [layer.scores for layer in gated.values()]
    # Eqs. 6-7: K passes, the mean of their gradients, delta ascending after each but the last. One
    # definition for gates here and for weights under FreeLB.
    logged = adversary.backward(model, batch, args, redraw, draw_delta, accelerator)
    devices.sum_over_processes(accelerator, model.parameters())
    penalty, l0_gradients = hard_concrete.penalty_and_gradients(
        scores, args.penalty_mean, lambda_reg
    )
    logged["score_grad_norm"] = optim.total_norm([s.grad for s in scores])
    logged["l0_grad_norm"] = optim.total_norm(l0_gradients)
    if args.clip_over == "accumulated":  # released (D2): weights' gradients of all steps, L0 after
        with_gradient = [p for p in model.parameters() if p.grad is not None]
        logged["clip_norm"] = optim.clip(with_gradient, args.max_grad_norm)
        torch._foreach_add_([s.grad for s in scores], l0_gradients)
    else:
        torch._foreach_add_([s.grad for s in scores], l0_gradients)
        logged["clip_norm"] = optim.clip(scores, args.max_grad_norm)
    logged["loss_per_pass"] = accelerator.reduce(logged["loss_per_pass"], "sum")
    optim.set_lr(optimizer, lr)
    if skips.admits(step, logged["loss_per_pass"], logged["clip_norm"]):
        optimizer.step()
    else:
        for p in model.parameters():  # what accumulates (D2) begins anew
            p.grad = None
    optimizer.zero_grad(set_to_none=True)  # of the scores; frozen weights have none
    return logged | {"penalty": penalty}


def collapse_of(shares: dict[str, float]) -> str | None:
    """closed or open where (nearly) all gates have come to be that; None where they have not."""
    for word, share in (("closed", shares["at_zero"]), ("open", shares["at_one"])):
        if share >= 0.999:
            return word
    return None


class Clocks:
    """Learning rate and lambda at each optimizer step, from 1."""

    def __init__(self, args, examples: int, steps_per_epoch: int, tensors_per_batch: int):
        self.args = args
        self.total_steps = args.epochs * steps_per_epoch
        # The released schedule ends after floor(examples * epochs / batch) steps.
        released = args.protocol == "released"
        self.lr_steps = examples * args.epochs // args.bsz if released else self.total_steps
        self.counts_per_step = tensors_per_batch if args.lambda_clock == "tensors" else 1  # D1

    def lr(self, step: int) -> float:
        warmup_steps = self.args.warmup_ratio * self.lr_steps
        return self.args.lr * optim.linear_schedule(step - 1, warmup_steps, self.lr_steps)

    def lambda_reg(self, step: int) -> float:
        a = self.args
        return optim.lambda_at(
            step * self.counts_per_step,
            self.total_steps,
            a.lambda_amp,
            a.lambda_startup_frac,
            a.lambda_warmup_frac,
        )


def dev_measures(model, gated, dev, args, accelerator) -> dict:
    """Dev accuracy with soft gates and with the ticket at --sparsity, and what the gates are."""
    scores = {name: layer.scores.detach() for name, layer in gated.items()}
    shapes = {name: tuple(layer.weight.shape) for name, layer in gated.items()}
    masks = tickets.draw(scores, shapes, args.sparsity)
    kinds = encoders.matrix_kinds(list(gated))
    found = {}
    for name, gates in (("soft_gates", surgery.soft_gates(gated)), ("ticket", masks)):
        surgery.fix_gates(gated, gates)
        accuracy = prediction.accuracy_percent(model, dev, 4 * args.bsz, accelerator)
        found[f"dev_accuracy_{name}_percent"] = accuracy
    surgery.fix_gates(gated, None)
    by_kind: dict[str, list[Tensor]] = {}
    for name, s in scores.items():
        by_kind.setdefault(kinds[name], []).append(s)
    shares = hard_concrete.gate_shares(list(scores.values()))
    return found | {
        "gate_shares": shares,
        "collapsed": collapse_of(shares),
        "penalty_of_all_gates": float(hard_concrete.penalty(list(scores.values()))),
        "open_probability_by_kind": {
            k: float(hard_concrete.penalty(s)) for k, s in by_kind.items()
        },
        "ticket_sparsity": tickets.sparsity_of(masks),
        "ticket_density_by_kind": tickets.density_by(masks, kinds),
    }


def prepare_fast_gates(gated, args, accelerator, passes: int) -> bool:
    """Whether noise is drawn in bytes, with which the gates are fast; compiles them if asked.

    fp32 without --compile stays with the plain gates, bit for bit; so do weights that are not
    frozen. Where --compile is not given, bf16 compiles if the run is long enough to gain by it:
    a pass over 10 million gates gains some 25 ms, and compiling takes some 20 s.
    """
    low = accelerator.mixed_precision == "bf16"
    if args.clip_over != "scores" or not (low or args.compile):
        return False
    gates = sum(layer.scores.numel() for layer in gated.values())
    if args.compile or (args.compile is None and gates * passes > 1e10):
        try:
            surgery.compile_gates(gated)
        except Exception as e:  # of many kinds, from a missing compiler to a full disk
            cli.warn(f"gates are not compiled ({type(e).__name__}); the same without, more slowly")
    return True


def write_log(run: Run | None, waiting: list[dict]) -> None:
    """Write the waiting lines (None: of another process than the main one, which writes them)."""
    for line in waiting if run is not None else ():
        line = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in line.items()}
        run.log(line)
    waiting.clear()


def restore(state: dict, model, scores: list[Tensor], optimizer) -> None:
    """Put a resume point back: scores, optimizer, and (D2 as released) the weights' gradients."""
    for parameter, saved in zip(scores, state["scores"], strict=True):
        parameter.data.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    for parameter, saved in zip(model.parameters(), state["gradients"], strict=True):
        parameter.grad = None if saved is None else saved.to(parameter.device)


def resume_point(model, scores: list[Tensor], optimizer) -> dict:
    return {
        "scores": [s.detach() for s in scores],
        "optimizer": optimizer.state_dict(),
        "gradients": [p.grad for p in model.parameters()],
    }


def read_stage_1(args) -> tuple[Path, dict]:
    """The checkpoint to start from and what is known of it; the data flags are taken over."""
    run = read_run(args.model_name)
    if run is None or run.get("stage") != "finetune":
        raise cli.UserError(f"--model_name {args.model_name} is no run folder of finetune.py")
    if run["status"] != "finished":
        raise cli.UserError(f"the run in {args.model_name} is not finished: run it again first")
    cli.inherit_data_flags(args, run["args"])
    checkpoint = Path(args.model_name) / args.start_from
    return checkpoint, checkpoints.checkpoint_facts(checkpoint)


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    epochs_to_keep = {e for e in args.keep_scores if e != "best"}
    checkpoint, facts = read_stage_1(args)
    task = resolve_task(args)
    args.max_seq_length = args.max_seq_length or facts["max_seq_length"]
    run = Run(args.output_dir, "search", vars(args))
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return

    # Data and model: stage 1's splits and best-dev checkpoint, a gate for every prunable weight.
    accelerator = devices.make_accelerator(args)
    if args.clip_over == "accumulated" and accelerator.num_processes > 1:
        raise cli.UserError("--clip_over accumulated (--protocol released) runs in one process")
    splits = load_splits(args, task, ("train", "dev"))
    tokenizer = models.load_tokenizer(str(checkpoint))
    train, dev = (
        encode(splits[name], tokenizer, args.max_seq_length, args.token_type_ids)
        for name in ("train", "dev")
    )
    model = checkpoints.load_checkpoint(
        checkpoint, splits.task, args.attn_implementation, args.dropout
    )
    models.check_length(model, args.max_seq_length)
    models.check_tokenizer(model, tokenizer)
    with cli.explain():
        gated = surgery.install_gates(model, args.mask_p, args.out_w_per_mask, args.in_w_per_mask)
    models.fit_memory(model, args)
    model.to(accelerator.device).train()
    scores = [layer.scores for layer in gated.values()]
    if args.clip_over == "scores":  # D2: the weights are frozen
        model.requires_grad_(False)
        for s in scores:
            s.requires_grad_(True)
    optimizer = optim.make_adamw(args.adamw, scores, args.lr, args.weight_decay)

    steps_per_epoch = -(-len(train) // args.bsz)
    clocks = Clocks(args, len(train), steps_per_epoch, len(tokenizer.model_input_names))
    hidden = model.get_input_embeddings().embedding_dim
    passes = clocks.total_steps * (args.adv_steps or 1)
    in_bytes = prepare_fast_gates(gated, args, accelerator, passes)
    draws = adversary.Draws(
        hidden, args, accelerator, lambda generator: surgery.draw_noise(gated, generator, in_bytes)
    )
    manifest = {
        "kind": "robust" if args.adv_steps else "no_adversary",
        "task": task.name,
        "seed": args.seed,
        "encoder": facts["encoder"],
        "gates": sum(s.numel() for s in scores),
        "settings": {k: v for k, v in run.identity.items() if k not in cli.PLACES},
        "environment": environment(),
    }
    shapes = {name: tuple(layer.weight.shape) for name, layer in gated.items()}
    accelerator.wait_for_everyone()  # before anything is written, all have looked at the folder
    if accelerator.is_main_process:
        run.begin(
            {
                "task": task.name,
                "label_names": splits.task.label_names,
                "encoder": facts["encoder"],
                "data": splits.facts(),
                "gates": manifest["gates"],
                "optimizer_steps": clocks.total_steps,
            }
        )
    accelerator.wait_for_everyone()
    state = run.load_state()
    step, finished_epochs, best, measured, skipped_steps = 0, 0, -1.0, None, 0
    seconds_before, since = 0.0, time.monotonic()
    if state is not None:
        step, finished_epochs = state["optimizer_step"], state["finished_epochs"]
        best, measured = state["best_dev_accuracy_percent"], state["measured"]
        skipped_steps = state["skipped_steps"]
        seconds_before = state.get("seconds", 0.0)
        restore(state, model, scores, optimizer)
    if accelerator.is_main_process:
        run.cut_log(step, finished_epochs)
    interrupts.note_signals()

    waiting: list[dict] = []
    points = interrupts.SavePoints(args.checkpoint_every)
    skips = optim.Skips(skipped_steps)

    def save(epochs_done: int) -> None:
        if accelerator.is_main_process:
            write_log(run, waiting)
            at = {
                "optimizer_step": step,
                "finished_epochs": epochs_done,
                "measured": measured,
                "best_dev_accuracy_percent": best,
                "skipped_steps": skips.count,
                "seconds": seconds_before + time.monotonic() - since,
            }
            run.save_state(at | resume_point(model, scores, optimizer))

    shares_every = max(1, clocks.total_steps // 50)  # enough for the curves of Figures 1 and 5
    progress = cli.progress_bar(
        clocks.total_steps, step, "step", "search", args.quiet or not accelerator.is_main_process
    )
    for epoch in range(finished_epochs + 1, args.epochs + 1):
        batches = epoch_batches(
            train.lengths, args.bsz, seed_for(args.seed, "batches", epoch), args.group_by_length
        )
        for positions in batches[step - (epoch - 1) * steps_per_epoch :]:
            step += 1
            lr, lambda_reg = clocks.lr(step), clocks.lambda_reg(step)
            arrays = collate(train, positions)
            batch = devices.to_device(arrays, accelerator)
            draws.start_step(step, batch, arrays["input_ids"].shape)
            logged = search_step(
                model,
                gated,
                optimizer,
                batch,
                args,
                lr,
                lambda_reg,
                draws.redraw,
                draws.delta,
                accelerator,
                step,
                skips,
            )
            waiting.append(
                {
                    "optimizer_step": step,
                    "epoch": epoch,
                    "lr": lr,
                    "lambda_reg": lambda_reg,
                    **logged,
                }
            )
            if step % shares_every == 0:
                waiting[-1]["gate_shares"] = hard_concrete.gate_shares(scores)
            progress.update()
            ends_epoch = step == epoch * steps_per_epoch
            if len(waiting) >= 20 or ends_epoch:
                shown = {
                    "loss": f"{float(logged['loss_per_pass'].mean()):.3f}",
                    "density": f"{float(logged['penalty']):.3f}",
                }
                if measured is not None:
                    shown["dev"] = f"{measured['dev_accuracy_soft_gates_percent']:.1f} %"
                progress.set_postfix(shown)
                write_log(run if accelerator.is_main_process else None, waiting)
            if points.due(step, accelerator):
                save(epoch - 1)
                interrupts.leave_if_requested(f"behind optimizer step {step}")

        try:
            measured = dev_measures(model, gated, dev, args, accelerator)
        except interrupts.Stopped:  # the epoch's steps are kept; the same command evaluates it
            save(epoch - 1)
            raise
        if measured["collapsed"] and accelerator.is_main_process:
            cli.warn(
                f"after epoch {epoch} nearly all gates are {measured['collapsed']}: the "
                "search has collapsed; lower --lambda_amp or --lr"
            )
        improved = measured["dev_accuracy_soft_gates_percent"] > best
        best = max(best, measured["dev_accuracy_soft_gates_percent"])
        # Epochs that the mask has seen the labels for: its own, and those of the weights it gates.
        seen = {"epoch": epoch, "label_passes": epoch + facts["epochs"]}
        if accelerator.is_main_process:
            run.log({"optimizer_step": step, "finished_epochs": epoch, "dev": measured})
            names = ["scores.safetensors"] if epoch == args.epochs else []
            names += [f"scores_epoch{epoch}.safetensors"] if epoch in epochs_to_keep else []
            names += ["scores_best.safetensors"] if improved and "best" in args.keep_scores else []
            for name in names:
                ticket_files.save_scores(
                    run.folder / name,
                    dict(zip(gated, scores, strict=True)),
                    shapes,
                    manifest | seen,
                )
        if points.due_at_epoch_end(step, accelerator):
            save(epoch)
        interrupts.leave_if_requested()

    progress.close()
    if accelerator.is_main_process:
        run.finish(
            {
                "scores": "scores.safetensors",
                "epoch": args.epochs,
                "optimizer_steps": step,
                "best_dev_accuracy_percent": best,
                "last_epoch": measured,
                "skipped_steps": skips.count,
                "seconds_of_search": seconds_before + time.monotonic() - since,
                "peak_memory_bytes": devices.peak_memory_bytes(),
            },
            [],
        )
        print(
            f"scores in {run.folder}; R(m) {measured['penalty_of_all_gates']:.3f}, dev accuracy "
            f"{measured['dev_accuracy_soft_gates_percent']:.1f} % with soft gates, "
            f"{measured['dev_accuracy_ticket_percent']:.1f} % with the ticket at sparsity "
            f"{args.sparsity}"
        )


if __name__ == "__main__":
    cli.run(main)
