"""Seconds of a forward pass of several models in several runtimes, side by side in one process.

    python benchmarks/latency.py                               the shape of MiniLM, half the neurons
    python benchmarks/latency.py runs/dense runs/ticket        finished runs, the dense one first

Runtimes: torch in fp32 and bf16, torch.compile, ONNX Runtime in fp32 and int8; on a GPU torch, and
2:4 sparsity. The first model is the dense reference: the speed-up of each other model is that over
the reference in the same runtime and the same repeat. Also writes sizes on disk and peak memory.
"""

import argparse
import functools
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import common
import latency_runtimes
import shapes
import torch
from latency_runtimes import ON_GPU, RUNTIMES

from evaluation import checkpoints, schema
from evaluation.latency import LatencyRecord, Size, SizeRecord, Timed
from training import onnx_models
from utils import cli, devices, files, process_state

CALL_SECONDS = 0.02  # shorter passes are repeated to reach this time
MOST_CALLS = 50
LONGEST_START = 5.0  # seconds; a longer first pass compiled


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = common.make_parser(__doc__)
    parser.set_defaults(repeats=7)
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="run or checkpoint folders, the dense one first")
    shape = "without MODEL: the encoder whose shape the models have (see latency_table.py)"
    add("--encoder", default="builtin/minilm", help=shape)
    sizes = "without MODEL: neurons of the smaller models (default: half)"
    add("--intermediate_size", nargs="+", type=cli.positive_int, help=sizes)
    of = "timed; those that are not possible here are skipped"
    add("--runtimes", nargs="+", choices=RUNTIMES, default=[*RUNTIMES], help=f"runtimes {of}")
    add("--batches", nargs="+", type=cli.positive_int, default=[1, 32], help="rows per pass")
    add("--lengths", nargs="+", type=cli.positive_int, default=[16, 64, 128], help="tokens per row")
    add("--long", action="store_true", help="also time 256 tokens")
    counts = "CPU threads; torch.compile only with the largest number"
    add("--threads", nargs="+", type=cli.positive_int, default=[1, 2], help=counts)
    minutes = "minutes of all repeats after the first three; compilation comes on top"
    add("--minutes", type=cli.positive_float, default=3.0, help=minutes)
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Model:
    """A model in all formats. `folder`: see latency_runtimes.file_of."""

    name: str
    folder: Path
    vocabulary: int
    most_tokens: int


def prepare(args: argparse.Namespace, runtimes: list[str], scratch: Path) -> list[Model]:
    """Write the models to `scratch` in the formats that the runtimes read."""
    if args.models:
        loaded = {}
        for path in args.models:
            [target] = checkpoints.find_targets(path, "last", None)
            model = checkpoints.load_classifier(target)[0]
            loaded[Path(path).resolve().name] = model
    else:
        config = shapes.config_of(args.encoder)
        own = shapes.neurons_of(config)
        numbers = [own, *(args.intermediate_size or [own // 2])]
        loaded = {f"{n} neurons": _random(config, n) for n in numbers}
    if len(loaded) < max(2, len(args.models)):
        raise cli.UserError("give at least two models with different names, the dense one first")
    models = []
    for i, (name, model) in enumerate(loaded.items()):
        print(f"preparing {name}", flush=True)
        folder = scratch / str(i)
        model.save_pretrained(folder)
        if any(runtime.startswith("onnx") for runtime in runtimes):
            example = latency_runtimes.batch_of(2, 16, model.config.vocab_size)
            tensors = {name: torch.from_numpy(values) for name, values in example.items()}
            onnx_models.write_onnx(model, tensors, folder / "model.onnx")
            onnx_models.quantize(folder / "model.onnx", folder / "int8.onnx")
        most = getattr(model.config, "max_position_embeddings", math.inf)
        models.append(Model(name, folder, model.config.vocab_size, most))
    return models


def _random(config, neurons: int):
    return common.random_classifier(shapes.with_neurons(config, neurons)).eval()


def possible(args: argparse.Namespace) -> list[str]:
    """The runtimes of --runtimes that this machine has. The dense int8 model is always timed."""
    wanted = [name for name in RUNTIMES if name in args.runtimes]
    if args.device == "cuda":
        return [name for name in wanted if name in ON_GPU]
    onnx_models.check_installed()
    wanted = [name for name in RUNTIMES if name in {*wanted, "onnx-int8"}]
    has_bf16 = devices.computes_in_bf16(cpu=True)
    missing = {"torch-2:4"} | (set() if has_bf16 else {"torch-bf16"})
    return [name for name in wanted if name not in missing]


class Bench:
    """All models in all runtimes, with one number of threads."""

    def __init__(self, args, models: list[Model], runtimes: list[str], threads: int):
        self.args, self.models, self.threads = args, models, threads
        pairs = [(model, runtime) for runtime in runtimes for model in models]
        if "onnx-int8" not in args.runtimes:  # only as the mark of what quantization gains
            pairs = [p for p in pairs if p[1] != "onnx-int8" or p[0] is models[0]]
        self.passes = {}
        for model, runtime in pairs:
            try:
                started = latency_runtimes.start(runtime, model.folder, threads, args.device)
            except (RuntimeError, NotImplementedError, ValueError) as e:  # 2:4 without kernels
                print(f"{RUNTIMES[runtime]}, {model.name}: {' '.join(str(e).split())[:150]}")
                continue
            self.passes[model.name, runtime] = started

    def time(self, rows: int, tokens: int, seconds: float) -> dict[tuple[str, str], list[float]]:
        """(model, runtime) -> seconds of a pass in each repeat."""
        vocabulary = min(model.vocabulary for model in self.models)
        batch = latency_runtimes.batch_of(rows, tokens, vocabulary)
        calls = {pair: self._calls(run, batch) for pair, run in self.passes.items()}

        def repeat(run, count: int, _batch: int) -> None:
            for _ in range(count):
                run(batch)

        steps = {p: functools.partial(repeat, r, calls[p]) for p, r in self.passes.items()}
        total = common.side_by_side_steps(len(steps), 1, self.args.repeats)
        what = f"{self.threads} threads, {rows} x {tokens} tokens"
        until = time.monotonic() + seconds
        with common.make_progress(total, 0, "step", what, False) as bar:
            how = (1, self.args.repeats, self.args.device, bar, until)
            spent = common.time_side_by_side(steps, *how)
        return {pair: [s / calls[pair] for s in of_pair] for pair, of_pair in spent.items()}

    def _calls(self, run, batch) -> int:
        """Passes per measurement. The first one compiles and allocates."""
        first = common.seconds_of(lambda: run(batch), self.args.device)
        if CALL_SECONDS < first < LONGEST_START:
            return 1  # it does not get slower
        seconds = common.seconds_of(lambda: run(batch), self.args.device)
        return max(1, min(MOST_CALLS, round(CALL_SECONDS / seconds)))

    def record(self, rows: int, tokens: int, spent: dict) -> LatencyRecord:
        facts = common.device_facts(self.args.device)
        names = [model.name for model in self.models]
        dense = {runtime: s for (name, runtime), s in spent.items() if name == names[0]}
        timed = [
            Timed(name, runtime, common.quartiles(s), common.ratio(dense[runtime], s))
            for (name, runtime), s in spent.items()
        ]
        about = {"threads": self.threads, "batch": rows, "length": tokens}
        row = {"device": facts["device"], "models": names} | about
        return LatencyRecord(
            row=row,
            models=names,
            timed=timed,
            repeats=len(next(iter(spent.values()))),
            **facts | about,
        )


def sizes(args: argparse.Namespace, models: list[Model], runtimes: list[str]) -> SizeRecord:
    """Bytes on disk and, on a CPU, the peak memory of the largest batch of the table."""
    rows, tokens, threads = max(args.batches), max(args.lengths), max(args.threads)
    found = []
    for runtime in runtimes:
        for model in models:
            print(f"memory: {RUNTIMES[runtime]}, {model.name}", flush=True)
            is_measured = args.device == "cpu" and runtime != "torch-compile"
            how = (runtime, model.folder, threads, rows, tokens)
            peak = latency_runtimes.peak_bytes(*how) if is_measured else None
            path = latency_runtimes.file_of(runtime, model.folder)
            disk = sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*"))
            found.append(Size(model.name, runtime, disk, peak))
    device = common.device_facts(args.device)["device"]
    row = {"device": device, "models": [model.name for model in models]}
    return SizeRecord(row, device, rows, tokens, found)


def rows_of_times(record: dict) -> list[dict[str, str]]:
    """A row per model: milliseconds and, of all but the first, the speed-up with its quartiles."""
    of = schema.read(LatencyRecord, record)
    rows = []
    for name in of.models:
        cells = {t.runtime: t for t in of.timed if t.model == name}
        about = {"threads": of.threads, "rows": of.batch, "tokens": of.length}
        row = {k: str(v) for k, v in about.items()} | {"model": name}
        for runtime, title in RUNTIMES.items():
            row[title] = _time_cell(cells.get(runtime), name == of.models[0])
        rows.append(row)
    return rows


def _time_cell(timed: Timed | None, is_dense: bool) -> str:
    if timed is None:
        return "-"
    milliseconds = f"{1e3 * timed.seconds['median']:.3g} ms"
    return milliseconds if is_dense else f"{milliseconds}, {common.spread(timed.speedup)}"


def rows_of_sizes(record: dict) -> list[dict[str, str]]:
    of = schema.read(SizeRecord, record)
    memory = f"peak MB, {of.batch} x {of.length} tokens"
    return [
        {
            "model": size.model,
            "runtime": RUNTIMES[size.runtime],
            "MB on disk": f"{size.disk_bytes / 1e6:.1f}",
            memory: "-" if size.peak_bytes is None else f"{size.peak_bytes / 1e6:.0f}",
        }
        for size in of.sizes
    ]


def main() -> None:
    args = parse_args()
    runtimes = possible(args)
    lengths = sorted({*args.lengths, *([256] if args.long else [])})
    threads = [torch.get_num_threads()] if args.device == "cuda" else sorted({*args.threads})
    with tempfile.TemporaryDirectory() as scratch:
        models = prepare(args, runtimes, Path(scratch))
        if max(lengths) > min(model.most_tokens for model in models):
            raise cli.UserError(f"--lengths {max(lengths)}: a model has fewer positions")
        settings = [(rows, tokens) for rows in args.batches for tokens in lengths]
        for count in threads:
            of_count = [r for r in runtimes if r != "torch-compile" or count == threads[-1]]
            with process_state.threads(count):
                bench = Bench(args, models, of_count, count)
                for rows, tokens in settings:
                    share = (rows * tokens + 100) / sum(r * t + 100 for r, t in settings)
                    spent = bench.time(rows, tokens, 60 * args.minutes * share / len(threads))
                    record = asdict(bench.record(rows, tokens, spent))
                    files.append_jsonl(args.output_dir / "latency.jsonl", record)
        files.append_jsonl(
            args.output_dir / "latency_sizes.jsonl", asdict(sizes(args, models, runtimes))
        )
    common.publish(args.output_dir, "latency", None, rows_of_times)
    common.publish(args.output_dir, "latency_sizes", None, rows_of_sizes)


if __name__ == "__main__":
    cli.run(main)
