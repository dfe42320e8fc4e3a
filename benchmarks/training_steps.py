"""Seconds, work and memory of a search step and a retraining step, compared with dense steps.

    python benchmarks/training_steps.py --encoder builtin/minilm --lengths sst2
    python benchmarks/training_steps.py --encoder bert-base --lengths imdb --device cuda

search: ours, with the default deviations. released: benchmarks/released_step.py. dense_adversarial:
FreeLB on the ungated model, with the same passes, weight gradients of the same matrices and one
fused AdamW step. retrain and dense: a plain training step of all weights, with and without a ticket
of sparsity 0.3. Our steps and the dense ones take the same batches, grouped by length; the released
step takes shuffled batches of the same rows. Unknown flags go to search_ticket.py. Writes
results/benchmarks/training_steps.jsonl and training_steps.md.
"""

import argparse
import functools
import itertools
import time
from collections.abc import Callable

import common
import released_step
import torch
import torch.nn.functional as F

import finetune
import retrain_ticket
import search_ticket
from masking import encoders, surgery, tickets
from training import adversary, optim
from training.batching import Encoded, collate, epoch_batches
from training.prediction import inputs_of
from training.trainee import make_trainee
from utils import cli, devices

# The ratios of seconds that the table shows.
RATIOS = (("search", "dense_adversarial"), ("released", "search"), ("retrain", "dense"))
VARIANTS = ("search", "released", "dense_adversarial", "retrain", "dense")
REPEATS_ALONE = 3  # of the middle batch, for the floors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = common.make_parser(__doc__)
    add = parser.add_argument
    models = "builtin/minilm, a folder, or with random weights bert-base and bert-LAYERSxWIDTH"
    add("--encoder", default="builtin/minilm", help=models)
    add("--lengths", default="sst2", help=f"{', '.join(common.LENGTHS)}, or a number of tokens")
    add("--bsz", type=int, default=32, help="sentences per step")
    add("--adv_steps", type=int, default=5, help="K, passes of the adversarial steps")
    common.add_precision(parser, "of all but the released step, which is fp32")
    minutes = "minutes after which no further repeat begins"
    add("--minutes", type=cli.positive_float, default=5.0, help=minutes)
    add("--batches", type=int, default=3, help="batches per repeat, at quantiles of the lengths")
    add("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="time these only")
    args, args.search_flags = parser.parse_known_args(argv)
    return args


class Bench:
    """The variants: each method returns a step, a callable of a batch's number, on a new model.

    `rows` replace the rows drawn from --lengths.
    """

    def __init__(self, args: argparse.Namespace, rows: Encoded | None = None):
        self.args = args
        flags = common.flags(model_name="-", output_dir="-", task_name="sst2")
        flags += common.flags(precision=args.precision, device=args.device)
        passes = common.flags(adv_steps=args.adv_steps)
        self.search_args = search_ticket.parse_args([*flags, *passes, *args.search_flags])
        self.freelb_args = finetune.parse_args([*flags, *passes, "--method", "freelb"])
        self.train_args = retrain_ticket.parse_args([*flags, "--scores", "-", "--sparsity", "0.3"])
        self.accelerator = devices.make_accelerator(self.search_args)
        self.precision = "bf16" if self.accelerator.mixed_precision == "bf16" else "fp32"
        rows = rows or common.draw_rows(args.lengths, 50 * args.bsz, seed=0)
        self.rows = len(rows)
        # The device holds ids and mask from the start: data_pipeline.py times the batching.
        grouped = [collate(rows, b) for b in epoch_batches(rows.lengths, args.bsz, 0)]
        grouped = common.representative(grouped, args.batches)
        self.shapes = [b["input_ids"].shape for b in grouped]
        self.batches = [devices.to_device(b, self.accelerator) for b in grouped]
        shuffled = released_step.shuffled_batches(rows.input_ids, rows.labels, args.bsz, seed=0)
        shuffled = common.representative(list(shuffled), args.batches)
        self.shuffled = [{k: v.to(args.device) for k, v in b.items()} for b in shuffled]

    def _model(self):
        return common.load_model(self.args.encoder, self.args.device)

    def _draws(self, model, args, draw_gates=None) -> adversary.Draws:
        hidden = model.get_input_embeddings().embedding_dim
        return adversary.Draws(hidden, args, args.seed, self.accelerator, draw_gates)

    def search(self) -> Callable[[int], object]:
        model, args = self._model(), self.search_args
        gated = surgery.install_gates(model, args.mask_p)
        form = search_ticket.prepare_gates(gated, args, 10**6, self.accelerator)
        draws = self._draws(model, args, lambda g: surgery.draw_noise(gated, g, form))
        search = search_ticket.Search(model, gated, args, self.accelerator, draws)

        def update(batch: dict, admits: Callable) -> None:
            search.step(batch, args.lr, args.lambda_amp, admits)

        return self._steps(draws, update)

    def released(self) -> Callable[[int], object]:
        # Enough epochs that neither schedule ends during the timing.
        passes, size = self.args.adv_steps, self.args.bsz
        settings = released_step.Settings(adv_steps=passes, batch_size=size, epochs=10**6)
        draw = functools.partial(torch.rand, device=self.args.device)
        search = released_step.ReleasedSearch(self._model(), settings, self.rows, draw)

        def step(j: int) -> None:
            # The released code does not ask for deterministic kernels; our scripts do.
            before = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(False)
            search.step(self.shuffled[j])
            torch.use_deterministic_algorithms(before, warn_only=True)

        return step

    def dense_adversarial(self) -> Callable[[int], object]:
        model, args = self._model(), self.freelb_args
        model.requires_grad_(False)
        weights = [m.weight.requires_grad_() for m in encoders.prunable_matrices(model).values()]
        optimizer = optim.make_adamw("torch", weights, 2e-5, 0.01)

        def backward(batch: dict, draws: adversary.Draws):
            return adversary.backward(model, batch, args, draws, self.accelerator, None)[0]

        return self._dense_step(model, weights, optimizer, args, backward)

    def dense(self) -> Callable[[int], object]:
        return self._plain(self._model())

    def retrain(self) -> Callable[[int], object]:
        model = self._model()
        linears = encoders.prunable_matrices(model)
        scores = {n: m.weight.detach().abs() for n, m in linears.items()}
        masks = tickets.draw(scores, encoders.weight_shapes(model), self.train_args.sparsity)
        surgery.apply_ticket(model, masks)
        return self._plain(model)

    def _plain(self, model) -> Callable[[int], object]:
        trainee = make_trainee(model, self.train_args, self.accelerator)

        def backward(batch: dict, draws: adversary.Draws):
            draws.redraw(0)
            with self.accelerator.autocast():
                logits = model(**inputs_of(batch)).logits
            loss = F.cross_entropy(logits.float(), batch["labels"], reduction="sum")
            loss = loss * batch["row_weight"]
            loss.backward()
            return loss.detach()[None]

        weights = list(model.parameters())
        return self._dense_step(model, weights, trainee.optimizer, self.train_args, backward)

    def _dense_step(self, model, weights, optimizer, args, backward) -> Callable[[int], object]:
        draws = self._draws(model, args)

        def update(batch: dict, admits: Callable) -> None:
            losses = backward(batch, draws)
            if admits(losses, optim.clip(weights, args.max_grad_norm)):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return self._steps(draws, update)

    def _steps(self, draws, update: Callable[[dict, Callable], None]) -> Callable[[int], object]:
        skips, numbers = optim.Skips(), itertools.count(1)

        def step(j: int) -> None:
            number = next(numbers)
            draws.start_step(number, self.batches[j], self.shapes[j])
            update(self.batches[j], functools.partial(skips.admits, number))

        return step


def measure(args: argparse.Namespace, note: Callable[[dict], None] = lambda ratios: None) -> dict:
    """The record. `note` gets the ratios as soon as they are known, before the floors."""
    device, until = args.device, time.monotonic() + 60 * args.minutes
    count = 2 + common.side_by_side_steps(len(args.variants), args.batches, args.repeats)
    count += len(args.variants) * (2 + common.side_by_side_steps(1, 1, REPEATS_ALONE))
    with common.make_progress(count, 0, "measurement", "training_steps") as progress:
        bench, steps, memory = Bench(args), {}, {}
        for name in args.variants:
            before = torch.cuda.memory_allocated()
            steps[name] = getattr(bench, name)()
            last = functools.partial(steps[name], args.batches - 1)
            memory[name] = common.peak_memory(last, device, before)
            progress.update()
        seconds = common.time_side_by_side(
            steps, args.batches, args.repeats, device, progress, until
        )
        ratios = ratios_of(seconds, memory)
        note(ratios)
        rates = {p: common.machine_rates(device, p) for p in {bench.precision, "fp32"}}
        progress.update(2)
        measured = {}
        for name, step in steps.items():
            rate = rates["fp32" if name == "released" else bench.precision]
            measured[name] = {
                "seconds_a_step": common.quartiles(seconds[name]),
                "peak_memory_bytes": memory[name],
                **floors(functools.partial(step, args.batches // 2), rate, device, progress),
            }
    return {
        "row": {
            "encoder": args.encoder.rstrip("/").split("/")[-1],
            **{name: getattr(args, name) for name in ("lengths", "bsz", "adv_steps")},
            "precision": bench.precision,
            "device": device,
            "flags": args.search_flags,
        },
        "tokens_a_row": {
            "ours": [s[1] for s in bench.shapes],
            "released": [b["input_ids"].shape[1] for b in bench.shuffled],
        },
        "repeats": len(next(iter(seconds.values()))),
        "steps": measured,
        "ratios": ratios,
        "machine_rates": rates,
        **common.device_facts(device),
    }


def ratios_of(seconds: dict[str, list[float]], memory: dict[str, int | None]) -> dict:
    ratios = {
        f"{a} : {b}": common.ratio(seconds[a], seconds[b])
        for a, b in RATIOS
        if a in seconds and b in seconds
    }
    if memory.get("search") and memory.get("released"):
        ratios["peak memory, search : released"] = memory["search"] / memory["released"]
    return ratios


def floors(step: Callable[[], object], rate: dict, device: str, progress) -> dict:
    """Work of a step, and its seconds over those of the machine's best rate."""
    done = common.work(step)
    progress.update()
    alone = {"": lambda _: step()}
    fastest = min(common.time_side_by_side(alone, 1, REPEATS_ALONE, device, progress)[""])
    return {
        **done,
        "time_over_flops_floor": fastest / (done["flops"] / rate["flops_per_second"]),
        "time_over_bytes_floor": fastest / (done["bytes"] / rate["bytes_per_second"]),
    }


def rows_of(record: dict) -> list[dict[str, str]]:
    row = record["row"]
    what = f"{row['encoder']}, {row['lengths']}, batch {row['bsz']}, K = {row['adv_steps']}, "
    what += ", ".join([row["precision"], *[" ".join(row["flags"])] * bool(row["flags"])])
    rows = []
    for name, step in record["steps"].items():
        peak = step["peak_memory_bytes"]
        ratios = [
            f"{pair.split(' : ')[1]}: {common.spread(ratio)}"
            for pair, ratio in record["ratios"].items()
            if pair.startswith(f"{name} : ")
        ]
        rows.append(
            {
                "what": what,
                "step": name,
                "seconds": common.spread(step["seconds_a_step"], 3),
                "ratio to": "; ".join(ratios) or "-",
                "peak GiB": f"{peak / 2**30:.2f}" if peak else "-",
                "GFLOP": f"{step['flops'] / 1e9:.0f}",
                "GB": f"{step['bytes'] / 1e9:.1f}",
                "time / FLOP floor": f"{step['time_over_flops_floor']:.2f}",
                "time / byte floor": f"{step['time_over_bytes_floor']:.2f}",
                "device": common.device_in_words(record),
            }
        )
    return rows


def main() -> None:
    args = parse_args()
    common.publish(args.output_dir, "training_steps", measure(args), rows_of)


if __name__ == "__main__":
    cli.run(main)
