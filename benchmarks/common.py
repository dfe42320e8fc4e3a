"""What the benchmarks share: lengths of real texts, models, timing, floors, records, tables."""

import argparse
import functools
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
# Every benchmark is a process that begins here; cli.run, which does the same for the other scripts,
# comes after the imports.
sys.path.insert(0, str(ROOT))
os.environ.setdefault("USE_TF", "0")

from training.batching import Encoded  # noqa: E402
from utils import files, process_state  # noqa: E402
from utils.cli import Parser, positive_int  # noqa: E402
from utils.progress import make_progress  # noqa: E402, F401
from utils.runs import environment  # noqa: E402

RESULTS = ROOT / "results" / "benchmarks"


# Tokens of a text in uncased BERT's vocabulary, [CLS] and [SEP] included, at 64 evenly spaced
# quantiles. sst2: the 6,920 whole sentences of SST-2's training part (mean 25.3, maximum 80).
# sst2_phrases: GLUE's 67,349 training phrases (mean 13.3). imdb: the 25,000 training reviews, cut
# at 256 tokens as in training (mean 207.8).
LENGTHS = {
    "sst2": (
        "5 7 8 9 10 11 11 12 12 13 14 14 15 15 16 16 17 17 18 18 19 19 20 20 21 21 22 22 22 23 "
        "23 24 24 25 25 26 26 27 27 28 28 29 29 30 30 31 32 32 33 34 34 35 36 37 38 38 40 41 42 "
        "44 45 47 51 56"
    ),
    "sst2_phrases": (
        "3 3 4 4 4 4 4 5 5 5 5 5 5 6 6 6 6 6 7 7 7 7 8 8 8 8 9 9 9 9 10 10 10 11 11 11 12 12 13 "
        "13 14 14 14 15 16 16 17 17 18 19 20 20 21 22 23 24 26 27 29 30 33 35 39 46"
    ),
    "imdb": (
        "54 68 78 89 101 112 125 136 142 147 151 154 157 160 163 166 169 172 175 179 182 186 "
        "189 193 197 201 206 210 215 220 225 230 236 242 248 255" + " 256" * 28
    ),
}
LENGTHS = {name: [int(length) for length in text.split()] for name, text in LENGTHS.items()}
WORD_IDS = (1000, 28000)  # whole words of uncased BERT's vocabulary: no special tokens among them


def draw_rows(lengths: str, count: int, seed: int) -> Encoded:
    """`count` rows of random words. `lengths`: the name of a distribution, or a fixed number."""
    draw = np.random.default_rng(seed)
    known = LENGTHS.get(lengths) or [int(lengths)]
    rows = [draw.integers(*WORD_IDS, n).astype(np.int32) for n in draw.choice(known, count)]
    return Encoded(rows, None, draw.integers(0, 2, count).tolist(), 0, 0)


def representative(batches: list[dict], count: int) -> list[dict]:
    """`count` of an epoch's batches at evenly spaced quantiles of their padded length."""
    ordered = sorted(batches, key=lambda batch: batch["input_ids"].shape[1])
    return [ordered[int((i + 0.5) / count * len(ordered))] for i in range(count)]


def load_model(encoder: str, device: str):
    """A classifier in fp32 and training mode.

    `encoder`: builtin/minilm or a folder, which get a fresh head; or a BERT with random weights:
    bert-base (which is bert-12x768) or bert-LAYERSxWIDTH, with heads of width 64.
    """
    from training import models

    config = bert_config(encoder)
    if config is None:
        return models.load_pretrained(encoder, ("0", "1"), 0, None, "sdpa").to(device).train()
    return random_classifier(config).to(device).train()


def bert_config(encoder: str):
    """The configuration of bert-base or bert-LAYERSxWIDTH; None for another name."""
    from transformers import BertConfig

    shape = re.fullmatch(r"bert-(\d+)x(\d+)", encoder.replace("bert-base", "bert-12x768"))
    if shape is None:
        return None
    layers, width = map(int, shape.groups())
    return BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=max(1, width // 64),
        attn_implementation="sdpa",
    )


def random_classifier(config):
    """A classifier of this configuration with random weights, the same at each call."""
    from transformers import AutoModelForSequenceClassification

    with process_state.seeded(0):
        return AutoModelForSequenceClassification.from_config(config)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], object], device: str = "cpu") -> float:
    """Wall-clock seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def time_side_by_side(
    variants: dict[str, Callable[[int], object]],
    batches: int,
    repeats: int,
    device: str,
    progress,
    until: float = math.inf,
) -> dict[str, list[float]]:
    """Variant -> seconds per step in each repeat (the mean over the batches).

    In each repeat, every variant runs batch 0, then every variant runs batch 1, and so on, in an
    order that rotates: other load on the machine affects all variants alike. One repeat before the
    others does not count (memory pools, kernels for each shape). `progress` counts
    `side_by_side_steps` units. `until`: time.monotonic() after which no further repeat begins; one
    always counts.
    """
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(-1, repeats):
        if repeat >= 1 and time.monotonic() > until:
            break
        spent = dict.fromkeys(names, 0.0)
        for j in range(batches):
            turn = (repeat + j) % len(names)
            for name in names[turn:] + names[:turn]:
                spent[name] += seconds_of(functools.partial(variants[name], j), device)
                progress.update()
        for name in names if repeat >= 0 else ():
            seconds[name].append(spent[name] / batches)
    return seconds


def side_by_side_steps(variants: int, batches: int, repeats: int) -> int:
    return variants * batches * (repeats + 1)


def quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "quartile_1": float(low), "quartile_3": float(high)}


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Quartiles of the ratios, each of two numbers of the same repeat."""
    return quartiles([a / b for a, b in zip(numerator, denominator, strict=True)])


class _ByteCounter(TorchDispatchMode):
    """Sums the bytes that each operation reads and writes; views cost nothing."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            leaves = torch.utils._pytree.tree_leaves((args, kwargs, out))
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            # An expanded tensor stores fewer numbers than it has entries.
            self.total += sum(
                min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors
            )
        return out


def work(step: Callable[[], object]) -> dict[str, int]:
    """Floating-point operations and bytes of one step, which is run twice.

    Operations: those of matrix products and attention. Bytes: what each operation reads and writes,
    as if no cache held any of it.
    """
    with FlopCounterMode(display=False) as operations:
        step()
    with _ByteCounter() as moved:
        step()
    return {"flops": operations.get_total_flops(), "bytes": moved.total}


def machine_rates(device: str, precision: str) -> dict[str, float]:
    """The machine's best: FLOP/s of matrix products, and bytes/s read and written by copies."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    n = 8192 if device == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    source = torch.ones(2**26, device=device)  # 256 MiB: larger than any cache
    target = torch.empty_like(source)

    def best(run: Callable[[], object]) -> float:
        return min(seconds_of(run, device) for _ in range(6))

    return {
        "flops_per_second": 2 * n**3 / best(lambda: a @ b),
        "bytes_per_second": 2 * source.numel() * 4 / best(lambda: target.copy_(source)),
    }


def peak_memory(step: Callable[[], object], device: str, before: int) -> int | None:
    """Peak bytes of `step` on a GPU, without the `before` that others hold there."""
    if device != "cuda":
        return None
    step()  # the first step creates the optimizer's state
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def make_parser(doc: str, *, with_device: bool = True) -> argparse.ArgumentParser:
    """A parser with the first line of a script's docstring and the flags of most benchmarks."""
    parser = Parser(doc.split("\n")[0])
    add = parser.add_argument
    if with_device:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        add(
            "--device",
            choices=["cpu", "cuda"],
            default=default,
            help="where the models run (default: cuda where torch sees a GPU)",
        )
    add("--repeats", type=positive_int, default=5, help="repeats that count")
    add("--output_dir", type=Path, default=RESULTS, help="folder of the records and the table")
    return parser


def add_precision(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help=help)


def flags(**values: object) -> list[str]:
    """bsz=8 -> ["--bsz", "8"]."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def device_facts(device: str) -> dict:
    """Device, threads and versions for the record."""
    known = environment()
    return {
        "device": known["device"] if device == "cuda" else _cpu_name(),
        "threads": known["threads"],
        "torch": torch.__version__,
        "versions": known["versions"],
        "commit": known["commit"],
    }


def device_in_words(record: dict) -> str:
    return f"{record['device']}, {record['threads']} threads, torch {record['torch']}"


def _cpu_name() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "CPU")


def newest(records: list[dict]) -> list[dict]:
    """Of all records with the same `row`, the newest."""
    return list({json.dumps(r["row"]): r for r in records}.values())


def publish(
    folder: Path,
    name: str,
    record: dict | None,
    rows_of: Callable[[dict], list[dict[str, str]]],
    shown: Callable[[list[dict]], list[dict]] = newest,
) -> None:
    """Append `record` to NAME.jsonl (None: nothing); write NAME.md and print it.

    `rows_of(record)`: the table's rows, each a dict from column to cell. `shown(records)`: the
    records of the table.
    """
    path = folder / f"{name}.jsonl"
    if record is not None:
        files.append_jsonl(path, record)
    rows = [row for r in shown(files.read_jsonl(path)) for row in rows_of(r)]
    lines = [rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    files.write_atomically(folder / f"{name}.md", lambda p: p.write_text(text, encoding="utf-8"))
    print(text, end="")


def spread(numbers: dict[str, float], digits: int = 2) -> str:
    """median [quartile 1, quartile 3]."""
    median, low, high = (f"{numbers[k]:.{digits}f}" for k in ("median", "quartile_1", "quartile_3"))
    return f"{median} [{low}, {high}]"
