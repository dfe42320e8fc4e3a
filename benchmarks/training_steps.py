"""Seconds, work and memory of a search step and a retraining step beside dense steps.

    python benchmarks/training_steps.py --encoder builtin/minilm --lengths sst2
    python benchmarks/training_steps.py --encoder bert-base --lengths imdb --device cuda

search: ours, default protocol. released: benchmarks/released_step.py. dense_adversarial: FreeLB on
the ungated model, the same passes, weight gradients of the same matrices, one fused AdamW step.
retrain and dense: a plain training step of all weights, with a ticket of sparsity 0.3 and without.
Ours and the dense steps take the same batches, grouped by length; the released step has batches of
the same rows, shuffled. Appends to results/benchmarks/training_steps.jsonl and writes the table.
"""

import argparse
import functools
from collections.abc import Callable

import common
import released_step
import torch
import torch.nn.functional as F

import retrain_ticket
import search_ticket
from masking import encoders, surgery, tickets
from training import adversary, optim
from training.batching import Encoded, collate, epoch_batches
from training.methods import AdversarySettings
from training.prediction import inputs_of
from utils import devices
from utils.settings import Role, names_of

# (name, over which, target): the ratios of seconds that the table shows.
RATIOS = (("search", "dense_adversarial"), ("released", "search"), ("retrain", "dense"))
VARIANTS = ("search", "released", "dense_adversarial", "retrain", "dense")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--encoder",
        default="builtin/minilm",
        help="builtin/minilm, a folder, or with random weights bert-base and bert-LAYERSxWIDTH",
    )
    add("--lengths", default="sst2", help=f"{', '.join(common.LENGTHS)}, or a number of tokens")
    add("--bsz", type=int, default=32, help="sentences a step")
    add("--adv_steps", type=int, default=5, help="K, passes of the adversarial steps")
    add(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of ours and the dense steps; the released step is fp32",
    )
    add("--batches", type=int, default=3, help="batches a repeat, at quantiles of the lengths")
    add("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="only these")
    common.add_common_flags(parser)
    args, args.search_flags = parser.parse_known_args(argv)
    args.device = common.pick_device(args.device)
    return args


class Bench:
    """The variants, each a callable of the number of a batch, with a model of its own.

    `rows`: instead of rows drawn from the lengths' distribution.
    """

    def __init__(self, args: argparse.Namespace, rows: Encoded | None = None):
        self.args = args
        flags = [
            "--model_name",
            "-",
            "--output_dir",
            "-",
            "--task_name",
            "sst2",
            "--precision",
            args.precision,
            "--device",
            args.device,
        ]
        self.search_args = search_ticket.parse_args(
            [*flags, "--adv_steps", str(args.adv_steps), *args.search_flags]
        )
        self.train_args = retrain_ticket.parse_args([*flags, "--scores", "-", "--sparsity", "0.3"])
        self.adversarial_args = retrain_ticket.parse_args(
            [*flags, "--scores", "-", "--sparsity", "0.3", "--method", "freelb"]
        )
        for name in names_of(AdversarySettings, Role.RECIPE):  # the search's passes
            setattr(self.adversarial_args, name, getattr(self.search_args, name))
        self.accelerator = devices.make_accelerator(self.search_args)
        self.precision = "bf16" if self.accelerator.mixed_precision == "bf16" else "fp32"
        rows = rows or common.draw_rows(args.lengths, 50 * args.bsz, seed=0)
        grouped = [collate(rows, b) for b in epoch_batches(rows.lengths, args.bsz, 0)]
        # ids and mask are held on the device: batching has a benchmark of its own.
        chosen = common.representative(grouped, lambda b: b["input_ids"].shape[1], args.batches)
        self.shapes = [b["input_ids"].shape for b in chosen]
        self.batches = [devices.to_device(b, self.accelerator) for b in chosen]
        shuffled = list(
            released_step.shuffled_batches(rows.input_ids, rows.labels, args.bsz, seed=0)
        )
        self.shuffled = [
            {k: v.to(args.device) for k, v in b.items()}
            for b in common.representative(
                shuffled, lambda b: b["input_ids"].shape[1], args.batches
            )
        ]
        self.rows = len(rows)

    def _draws(self, model, args, draw_gates=None) -> adversary.Draws:
        hidden = model.get_input_embeddings().embedding_dim
        return adversary.Draws(hidden, args, args.seed, self.accelerator, draw_gates)

    def search(self) -> Callable[[int], object]:
        model = common.load_model(self.args.encoder, self.args.device)
        args = self.search_args
        gated = surgery.install_gates(model, args.mask_p)
        in_bytes = search_ticket.prepare_fast_gates(gated, args, self.accelerator, passes=10**6)
        draws = self._draws(model, args, lambda g: surgery.draw_noise(gated, g, in_bytes))
        search = search_ticket.Search(model, gated, args, self.accelerator, draws)
        skips, steps = optim.Skips(), iter(range(1, 10**9))

        def step(j: int):
            number = next(steps)
            draws.start_step(number, self.batches[j], self.shapes[j])
            admits = functools.partial(skips.admits, number)
            return search.step(self.batches[j], args.lr, args.lambda_amp, admits)

        return step

    def released(self) -> Callable[[int], object]:
        model = common.load_model(self.args.encoder, self.args.device)
        settings = released_step.Settings(
            adv_steps=self.args.adv_steps, batch_size=self.args.bsz, epochs=10**6
        )  # so many that neither rate ends while it is timed
        search = released_step.ReleasedSearch(
            model, settings, self.rows, lambda shape: torch.rand(shape, device=self.args.device)
        )

        def step(j: int):
            # Ours switches deterministic kernels on for the process, the released code does not.
            on = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(False)
            try:
                return search.step(self.shuffled[j])
            finally:
                torch.use_deterministic_algorithms(on, warn_only=True)

        return step

    def dense_adversarial(self) -> Callable[[int], object]:
        model = common.load_model(self.args.encoder, self.args.device)
        model.requires_grad_(False)
        weights = [m.weight.requires_grad_() for m in encoders.prunable_linears(model).values()]
        optimizer = optim.make_adamw("torch", weights, 2e-5, 0.01)
        return self._dense_step(model, weights, optimizer, self.adversarial_args)

    def dense(self) -> Callable[[int], object]:
        return self._plain(common.load_model(self.args.encoder, self.args.device))

    def retrain(self) -> Callable[[int], object]:
        model = common.load_model(self.args.encoder, self.args.device)
        linears = encoders.prunable_linears(model)
        scores = {n: m.weight.detach().abs() for n, m in linears.items()}
        masks = tickets.draw(scores, encoders.weight_shapes(model), self.train_args.sparsity)
        surgery.apply_ticket(model, masks)
        return self._plain(model)

    def _plain(self, model) -> Callable[[int], object]:
        groups = optim.decay_groups(model, self.train_args.weight_decay)
        optimizer = optim.make_adamw("torch", groups, self.train_args.lr, 0.0)
        return self._dense_step(model, list(model.parameters()), optimizer, self.train_args)

    def _dense_step(self, model, weights, optimizer, args) -> Callable[[int], object]:
        draws = self._draws(model, args)
        skips, steps = optim.Skips(), iter(range(1, 10**9))

        def step(j: int):
            number = next(steps)
            draws.start_step(number, self.batches[j], self.shapes[j])
            batch = self.batches[j]
            if args.method == "plain":
                draws.redraw(0)
                with self.accelerator.autocast():
                    logits = model(**inputs_of(batch)).logits
                loss = F.cross_entropy(logits.float(), batch["labels"])
                loss.backward()
                losses = loss.detach()[None]
            else:
                losses, _ = adversary.backward(model, batch, args, draws, self.accelerator, None)
            norm = optim.clip(weights, args.max_grad_norm)
            if skips.admits(number, losses, norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return losses

        return step


def measure(args: argparse.Namespace) -> dict:
    bench = Bench(args)
    steps, memory = {}, {}
    middle = args.batches // 2
    for name in args.variants:
        peak = common.PeakMemory(args.device)
        steps[name] = step = getattr(bench, name)()
        memory[name] = peak.of(lambda step=step: step(args.batches - 1))
    seconds = common.time_side_by_side(steps, args.batches, args.repeats, args.device)
    rates = {p: common.machine_rates(args.device, p) for p in {bench.precision, "fp32"}}
    found = {}
    for name, step in steps.items():
        done = common.work(lambda step=step: step(middle))
        rate = rates["fp32" if name == "released" else bench.precision]
        # The work is that of the middle batch; so is the time it is compared with.
        alone = common.time_side_by_side(
            {name: lambda _, step=step: step(middle)}, 1, 3, args.device
        )[name]
        found[name] = {
            "seconds_a_step": common.quartiles(seconds[name]),
            "seconds_of_each_repeat": seconds[name],
            "peak_memory_bytes": memory[name],
            **done,
            "time_over_flops_floor": min(alone) / (done["flops"] / rate["flops_per_second"]),
            "time_over_bytes_floor": min(alone) / (done["bytes"] / rate["bytes_per_second"]),
        }
    ratios = {
        f"{a} : {b}": common.ratio(seconds[a], seconds[b])
        for a, b in RATIOS
        if a in seconds and b in seconds
    }
    if memory.get("search") and memory.get("released"):
        ratios["peak memory, search : released"] = memory["search"] / memory["released"]
    return {
        "row": {
            "encoder": args.encoder.rstrip("/").split("/")[-1],
            "lengths": args.lengths,
            "bsz": args.bsz,
            "adv_steps": args.adv_steps,
            "precision": bench.precision,
            "device": args.device,
            "flags": args.search_flags,
        },
        "tokens_a_row": {
            "ours": [s[1] for s in bench.shapes],
            "released": [b["input_ids"].shape[1] for b in bench.shuffled],
        },
        "repeats": args.repeats,
        "steps": found,
        "ratios": ratios,
        "machine_rates": rates,
        **common.device_facts(args.device),
    }


def table(records: list[dict]) -> list[list[str]]:
    lines = []
    for r in records:
        row, device = r["row"], f"{r['device']}, {r['threads']} threads, torch {r['torch']}"
        what = f"{row['encoder']}, {row['lengths']}, batch {row['bsz']}, K = {row['adv_steps']}"
        what += f", {row['precision']}{', ' if row['flags'] else ''}{' '.join(row['flags'])}"
        for name, f in r["steps"].items():
            peak = f"{f['peak_memory_bytes'] / 2**30:.2f}" if f["peak_memory_bytes"] else "-"
            ratios = [
                f"{pair.split(' : ')[1]}: {common.spread(q)}"
                for pair, q in r["ratios"].items()
                if pair.startswith(f"{name} : ")
            ]
            lines.append(
                [
                    what,
                    name,
                    common.spread(f["seconds_a_step"], 3),
                    "; ".join(ratios) or "-",
                    peak,
                    f"{f['flops'] / 1e9:.0f}",
                    f"{f['bytes'] / 1e9:.1f}",
                    f"{f['time_over_flops_floor']:.2f}",
                    f"{f['time_over_bytes_floor']:.2f}",
                    device,
                ]
            )
    return lines


HEADER = [
    "what",
    "step",
    "seconds",
    "ratio to",
    "peak GiB",
    "GFLOP",
    "GB",
    "time / FLOP floor",
    "time / byte floor",
    "device",
]


def main() -> None:
    args = parse_args()
    records = common.write_record(args.output_dir, "training_steps", measure(args))
    common.write_table(args.output_dir, "training_steps", HEADER, table(records))


if __name__ == "__main__":
    main()
