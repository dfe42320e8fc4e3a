"""Seconds of the parts of an encoder's forward pass on this device, by neurons of its FFN.

    python benchmarks/latency_table.py --encoder builtin/minilm --batch 32 --length 64

Times whole models and the parts inside them (random weights, fp32, eager), one model per number of
neurons, side by side. Writes latency_table.json, which a search for a given speed reads
(training/latency.py), with the difference between each measured model and the sum of its parts.
"""

import argparse
import functools
import time
from collections import defaultdict
from dataclasses import asdict

import common
import numpy as np
import shapes
import torch
from torch import nn

from evaluation.latency import FeedForward, TableRecord
from masking import encoders
from masking.families import role_of
from utils import cli, files, process_state

LARGEST_DIFFERENCE = 10.0  # percent, of the sum of the parts from the measured whole
OF_FFN = {"ffn_in", "ffn_gate", "ffn_out"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = common.make_parser(__doc__)
    parser.set_defaults(repeats=15)
    add = parser.add_argument
    models = "builtin/minilm, a folder, or bert-base and bert-LAYERSxWIDTH; only its shape counts"
    add("--encoder", default="builtin/minilm", help=models)
    add("--batch", type=cli.positive_int, default=32, help="rows per forward pass")
    add("--length", type=cli.positive_int, default=64, help="tokens per row")
    add("--threads", type=cli.positive_int, default=None, help="CPU threads (default: torch's)")
    add("--points", type=cli.positive_int, default=8, help="numbers of neurons on the grid")
    minutes = "minutes after which no further repeat begins"
    add("--minutes", type=cli.positive_float, default=2.0, help=minutes)
    return parser.parse_args(argv)


class Parts:
    """Seconds of the parts of one model's forward passes, taken by hooks."""

    def __init__(self, model: nn.Module, device: str):
        self.device = device
        self.total: dict[str, float] = defaultdict(float)
        self.calls = 0  # of layers
        self._since: dict[str, float] = {}
        modules = dict(model.named_modules())
        matrices = [n for n in encoders.prunable_matrices(model, of_all_kinds=True) if n in modules]
        roles = {name: role for name in matrices if (role := role_of(name)) and role.layer}
        for name, role in roles.items():
            if OF_FFN & {*role.kinds}:
                modules[name].register_forward_pre_hook(functools.partial(self._start, "ffn"))
            if "ffn_out" in role.kinds:
                modules[name].register_forward_hook(functools.partial(self._end, "ffn"))
        for layer in dict.fromkeys(role.layer for role in roles.values()):
            modules[layer].register_forward_pre_hook(functools.partial(self._start, "layer"))
            modules[layer].register_forward_hook(functools.partial(self._end, "layer"))

    def _now(self) -> float:
        common.synchronize(self.device)
        return time.perf_counter()

    def _start(self, part: str, *_) -> None:
        self._since.setdefault(part, self._now())  # the first of ffn_gate, ffn_in, ffn_out

    def _end(self, part: str, *_) -> None:
        self.total[part] += self._now() - self._since.pop(part)
        self.calls += part == "layer"

    def take(self, whole: float) -> dict[str, float]:
        """Seconds of one layer's parts and of the rest, since the last call; `whole`: of all."""
        total, calls = dict(self.total), self.calls
        self.total.clear()
        self.calls = 0
        return {
            "ffn": total["ffn"] / calls,
            "attention": (total["layer"] - total["ffn"]) / calls,
            "rest": whole - total["layer"],
            "whole": whole,
            "layers": calls,
        }


def grid(neurons: int, points: int) -> list[int]:
    return sorted({max(1, round(neurons * (i + 1) / points)) for i in range(points)})


def models_of(encoder: str, numbers: list[int], device: str) -> dict[int, nn.Module]:
    """Neurons -> a model with random weights."""
    config = shapes.config_of(encoder)
    configs = {number: shapes.with_neurons(config, number) for number in numbers}
    return {n: common.random_classifier(c).to(device).eval() for n, c in configs.items()}


def measure(args: argparse.Namespace, progress) -> dict[int, list[dict[str, float]]]:
    """Neurons -> the parts' seconds in each repeat; the models take turns in rotating order."""
    numbers = grid(shapes.neurons_of(shapes.config_of(args.encoder)), args.points)
    models = models_of(args.encoder, numbers, args.device)
    parts = {number: Parts(model, args.device) for number, model in models.items()}
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(*common.WORD_IDS, (args.batch, args.length), generator=draw)
    ids = (ids % models[numbers[0]].config.vocab_size).to(args.device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found: dict[int, list[dict[str, float]]] = {number: [] for number in numbers}
    until = time.monotonic() + 60 * args.minutes
    with torch.inference_mode():
        for repeat in range(-1, args.repeats):
            if repeat >= 3 and time.monotonic() > until:
                break
            turn = repeat % len(numbers)
            for number in numbers[turn:] + numbers[:turn]:
                model = models[number]
                whole = common.seconds_of(lambda m=model: m(**batch), args.device)
                of_parts = parts[number].take(whole)
                if repeat >= 0:  # the first one warms up
                    found[number].append(of_parts)
            progress.update()
    return found


def table_of(args: argparse.Namespace, found: dict[int, list[dict[str, float]]]) -> TableRecord:
    """Medians over the repeats; attention and rest are the same for all models."""

    def median(part: str, of: list[dict[str, float]]) -> float:
        return float(np.median([parts[part] for parts in of]))

    every = [parts for of_number in found.values() for parts in of_number]
    layers = int(every[0]["layers"])
    ffn = {number: median("ffn", of) for number, of in found.items()}
    whole = {number: median("whole", of) for number, of in found.items()}
    attention, rest = median("attention", every), max(1e-9, median("rest", every))
    sums = {number: rest + layers * (attention + seconds) for number, seconds in ffn.items()}
    return TableRecord(
        model=files.public_name(args.encoder),
        batch=args.batch,
        length=args.length,
        layers=layers,
        ffn=FeedForward([0, *ffn], [0.0, *ffn.values()]),
        attention_seconds=attention,
        rest_seconds=rest,
        measured_seconds={str(n): seconds for n, seconds in whole.items()},
        difference_percent={str(n): 100 * (sums[n] / whole[n] - 1) for n in whole},
        repeats=len(every) // len(found),
        **common.device_facts(args.device),
    )


def report(record: TableRecord) -> None:
    *_, dense = record.ffn.seconds
    for neurons, seconds in zip(record.ffn.neurons, record.ffn.seconds, strict=True):
        total, full = (
            record.rest_seconds + record.layers * (record.attention_seconds + of_ffn)
            for of_ffn in (seconds, dense)
        )
        print(
            f"{neurons:6d} neurons: {1e3 * seconds:8.2f} ms per FFN, {1e3 * total:8.1f} ms in all, "
            f"{full / total:.2f} times as fast"
        )
    print(
        f"attention {1e3 * record.attention_seconds:.2f} ms per layer, rest "
        f"{1e3 * record.rest_seconds:.2f} ms; {common.device_in_words(asdict(record))}"
    )
    worst = max(map(abs, record.difference_percent.values()))
    print(f"the sum of the parts differs from the measured whole models by at most {worst:.1f} %")
    if worst > LARGEST_DIFFERENCE:
        cli.warn(f"that is above {LARGEST_DIFFERENCE:g} %: the machine is busy; measure again")


def main() -> None:
    args = parse_args()
    bar = common.make_progress(args.repeats + 1, 0, "repeat", "latency table", False)
    with process_state.threads(args.threads or torch.get_num_threads()), bar:
        record = table_of(args, measure(args, bar))
    path = args.output_dir / "latency_table.json"
    files.write_json(path, asdict(record))
    report(record)
    print(f"written to {path}")


if __name__ == "__main__":
    cli.run(main)
