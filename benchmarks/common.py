"""Shared by the benchmarks: lengths of real texts, models, timing side by side, floors, records."""

import argparse
import json
import math
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
sys.path.insert(0, str(ROOT))
from training.batching import Encoded  # noqa: E402
from utils import files  # noqa: E402
from utils.runs import environment  # noqa: E402

RESULTS = ROOT / "results" / "benchmarks"

# Tokens a text, [CLS] and [SEP] included, of uncased BERT's vocabulary, at 64 evenly spaced
# quantiles. sst2: the 6,920 whole sentences of SST-2's training part (mean 25.3, longest 80);
# sst2_phrases: GLUE's 67,349 training phrases (mean 13.3); imdb: the 25,000 training reviews, cut
# at 256 as in training (mean 207.8). A fixed length is given as a number.
LENGTHS = {
    "sst2": [
        5,
        7,
        8,
        9,
        10,
        11,
        11,
        12,
        12,
        13,
        14,
        14,
        15,
        15,
        16,
        16,
        17,
        17,
        18,
        18,
        19,
        19,
        20,
        20,
        21,
        21,
        22,
        22,
        22,
        23,
        23,
        24,
        24,
        25,
        25,
        26,
        26,
        27,
        27,
        28,
        28,
        29,
        29,
        30,
        30,
        31,
        32,
        32,
        33,
        34,
        34,
        35,
        36,
        37,
        38,
        38,
        40,
        41,
        42,
        44,
        45,
        47,
        51,
        56,
    ],
    "sst2_phrases": [
        3,
        3,
        4,
        4,
        4,
        4,
        4,
        5,
        5,
        5,
        5,
        5,
        5,
        6,
        6,
        6,
        6,
        6,
        7,
        7,
        7,
        7,
        8,
        8,
        8,
        8,
        9,
        9,
        9,
        9,
        10,
        10,
        10,
        11,
        11,
        11,
        12,
        12,
        13,
        13,
        14,
        14,
        14,
        15,
        16,
        16,
        17,
        17,
        18,
        19,
        20,
        20,
        21,
        22,
        23,
        24,
        26,
        27,
        29,
        30,
        33,
        35,
        39,
        46,
    ],
    "imdb": [
        54,
        68,
        78,
        89,
        101,
        112,
        125,
        136,
        142,
        147,
        151,
        154,
        157,
        160,
        163,
        166,
        169,
        172,
        175,
        179,
        182,
        186,
        189,
        193,
        197,
        201,
        206,
        210,
        215,
        220,
        225,
        230,
        236,
        242,
        248,
        255,
    ]
    + [256] * 28,
}
WORD_IDS = (1000, 28000)  # whole words of uncased BERT's vocabulary: no special tokens among them


def draw_rows(lengths: str, count: int, seed: int) -> Encoded:
    """`count` rows of random words; `lengths`: a distribution's name, or a number for all."""
    draw = np.random.default_rng(seed)
    known = LENGTHS.get(lengths) or [int(lengths)]
    rows = [draw.integers(*WORD_IDS, n).astype(np.int32) for n in draw.choice(known, count)]
    return Encoded(rows, None, draw.integers(0, 2, count).tolist(), 0, 0)


def representative(batches: list, width_of: Callable, count: int) -> list:
    """`count` of an epoch's batches at evenly spaced quantiles of their padded length."""
    ordered = sorted(batches, key=width_of)
    return [ordered[int((i + 0.5) / count * len(ordered))] for i in range(count)]


def load_model(encoder: str, device: str):
    """A classifier in fp32, in training mode: builtin/minilm or a folder with a fresh head, or a
    BERT with random weights: bert-base (bert-12x768), bert-LAYERSxWIDTH, 64 wide heads."""
    from transformers import BertConfig, BertForSequenceClassification

    from training import models

    shape = re.fullmatch(r"bert-(\d+)x(\d+)", encoder.replace("bert-base", "bert-12x768"))
    if shape is None:
        return models.load_pretrained(encoder, ("0", "1"), 0, None, "sdpa").to(device).train()
    layers, width = map(int, shape.groups())
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=max(1, width // 64),
        attn_implementation="sdpa",
    )
    return BertForSequenceClassification(config).to(device).train()


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_side_by_side(
    variants: dict[str, Callable[[int], object]], batches: int, repeats: int, device: str
) -> dict[str, list[float]]:
    """Variant -> seconds a step in each repeat (the mean over the batches).

    In each repeat every variant runs batch 0, then every variant batch 1 and so on, in an order
    that turns from repeat to repeat: what else the machine does falls on all alike. One repeat
    beforehand is not counted (memory pools, kernels for each shape).
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for repeat in range(-1, repeats):
        spent = dict.fromkeys(names, 0.0)
        for j in range(batches):
            turn = (repeat + j) % len(names)
            for name in names[turn:] + names[:turn]:
                synchronise(device)
                start = time.perf_counter()
                variants[name](j)
                synchronise(device)
                spent[name] += time.perf_counter() - start
        for name in names if repeat >= 0 else ():
            seconds[name].append(spent[name] / batches)
    return seconds


def quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "quartile_1": float(low), "quartile_3": float(high)}


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Quartiles of the ratios of the same repeats."""
    return quartiles([a / b for a, b in zip(numerator, denominator, strict=True)])


class _ByteCounter(TorchDispatchMode):
    """Sums the bytes of the tensors that each operation reads and writes; views cost nothing."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            found = torch.utils._pytree.tree_leaves((args, kwargs, out))
            # An expanded tensor holds fewer numbers than it shows.
            self.total += sum(
                min(t.numel() * t.element_size(), t.untyped_storage().nbytes())
                for t in found
                if isinstance(t, Tensor)
            )
        return out


def work(step: Callable[[], object]) -> dict[str, int]:
    """Floating-point operations (of matrix products and attention) and bytes of one step.

    Bytes: of what each operation reads and writes, as if none found its data in a cache.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    bytes_counter = _ByteCounter()
    with bytes_counter:
        step()
    return {"flops": counter.get_total_flops(), "bytes": bytes_counter.total}


def machine_rates(device: str, precision: str) -> dict[str, float]:
    """What the machine does at best: matrix products (FLOP/s) and copies (bytes read and written
    a second), each the best of several."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    n = 8192 if device == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    source = torch.ones(2**26, device=device)  # 256 MiB: beyond any cache
    target = torch.empty_like(source)

    def best(run: Callable[[], object]) -> float:
        found = []
        for _ in range(6):
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            found.append(time.perf_counter() - start)
        return min(found)

    return {
        "flops_per_second": 2 * n**3 / best(lambda: a @ b),
        "bytes_per_second": 2 * source.numel() * 4 / best(lambda: target.copy_(source)),
    }


class PeakMemory:
    """GPU memory that a variant needs by itself, beside others that live on the same device."""

    def __init__(self, device: str):
        self.on = device == "cuda"
        self.before = torch.cuda.memory_allocated() if self.on else 0

    def of(self, step: Callable[[], object]) -> int | None:
        """Bytes: what is held since this object was made, and the peak of `step` above it."""
        if not self.on:
            return None
        step()  # optimizer state exists from the first step on
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - self.before if held else None


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", choices=["cpu", "cuda"], help="default: CUDA where there is one")
    add("--repeats", type=int, default=5, help="counted repeats")
    add("--output_dir", type=Path, default=RESULTS, help="folder of the records and the table")


def pick_device(wanted: str | None) -> str:
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def device_facts(device: str) -> dict:
    """Device, threads and versions for the record."""
    known = environment()
    name = known["device"] if device == "cuda" else _cpu_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "versions": known["versions"],
        "commit": known["commit"],
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "CPU"
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "CPU")


def write_record(folder: Path, name: str, record: dict) -> list[dict]:
    """Append to NAME.jsonl; all records in it, of those with the same `row` the newest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    files.append_jsonl(path, record)
    newest = {json.dumps(r["row"]): r for r in files.read_jsonl(path)}
    return list(newest.values())


def write_table(folder: Path, name: str, header: list[str], lines: list[list[str]]) -> None:
    """NAME.md, and the same on the screen."""
    rows = [header, ["---"] * len(header), *lines]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
    files.write_atomically(folder / f"{name}.md", lambda path: Path(path).write_text(text))
    print(text, end="")


def spread(found: dict[str, float], digits: int = 2) -> str:
    """median [quartiles]."""
    if math.isnan(found["median"]):
        return "-"
    return (
        f"{found['median']:.{digits}f} [{found['quartile_1']:.{digits}f}, "
        f"{found['quartile_3']:.{digits}f}]"
    )
