"""Tokenising and batching as a share of a training epoch; and what a step costs against its size.

    python benchmarks/data_pipeline.py share --task_name builtin/rotten_tomatoes
    python benchmarks/data_pipeline.py curves

share: seconds to tokenise the training rows (once per data set: the tokens are kept on disk), to
read them back, and to make one epoch's batches, beside an epoch of plain training steps, the
cheapest there are. Flags that this script does not know go to the data (--train_file ...).
curves: seconds of the search step and of the dense adversarial step against length, batch, width,
depth and K, the rest as MiniLM's shape has it; CSV and figure in results/benchmarks/.
"""

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

import common
import matplotlib
import training_steps

import finetune
from training import models
from training.batching import collate, encode, epoch_batches
from training.splits import load_splits
from training.tasks import resolve_task
from utils import devices

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import NullLocator  # noqa: E402

BASE = {"length": 32, "batch": 32, "width": 384, "depth": 6, "K": 3}
AXES = {
    "length": (16, 32, 64, 128, 256),
    "batch": (8, 16, 32, 64),
    "width": (192, 384, 768),
    "depth": (3, 6, 12),
    "K": (1, 2, 3, 5),
}
STEPS = ("search", "dense_adversarial")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("what", choices=["share", "curves"])
    add("--encoder", default="builtin/minilm", help="share: tokenizer and model")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of the steps")
    add("--axes", nargs="+", choices=list(AXES), default=list(AXES), help="curves: only these")
    common.add_common_flags(parser)
    args, args.further = parser.parse_known_args()
    args.device = common.pick_device(args.device)
    return args


def share(args: argparse.Namespace) -> dict:
    flags = [
        "--model_name",
        args.encoder,
        "--output_dir",
        "-",
        "--precision",
        args.precision,
        "--device",
        args.device,
        *args.further,
    ]
    training = finetune.parse_args(flags)
    task = resolve_task(training)
    length = training.max_seq_length or task.max_seq_length
    rows = load_splits(training, task, ("train",))["train"]
    tokenizer = models.load_tokenizer(args.encoder)
    accelerator = devices.make_accelerator(training)

    def seconds_of(run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def all_batches() -> None:
        for positions in epoch_batches(train.lengths, training.bsz, 0):
            devices.to_device(collate(train, positions), accelerator)
        common.synchronise(args.device)

    tokenising, reading, batching = [], [], []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["ROBUST_TICKETS_CACHE"] = folder
            tokenising.append(seconds_of(lambda: encode(rows, tokenizer, length)))
            reading.append(seconds_of(lambda: encode(rows, tokenizer, length)))
            train = encode(rows, tokenizer, length)
        batching.append(seconds_of(all_batches))

    steps = -(-len(train) // training.bsz)
    bench_args = training_steps.parse_args(
        [
            "--encoder",
            args.encoder,
            "--bsz",
            str(training.bsz),
            "--precision",
            args.precision,
            "--device",
            args.device,
            "--batches",
            "4",
        ]
    )
    bench = training_steps.Bench(bench_args, train)
    timed = common.time_side_by_side({"dense": bench.dense()}, 4, args.repeats, args.device)
    epoch = [steps * s for s in timed["dense"]]
    first = [a + b for a, b in zip(tokenising, batching, strict=True)]
    return {
        "row": {
            "task": task.name,
            "encoder": Path(args.encoder).name,
            "rows": len(train),
            "bsz": training.bsz,
            "device": args.device,
            "precision": bench.precision,
        },
        "seconds_to_tokenise": common.quartiles(tokenising),
        "seconds_to_read_tokens": common.quartiles(reading),
        "seconds_to_batch": common.quartiles(batching),
        "seconds_of_an_epoch": common.quartiles(epoch),
        "share_first_epoch": common.ratio(first, epoch),
        "share_later_epochs": common.ratio(batching, epoch),
        **common.device_facts(args.device),
    }


def write_share(args: argparse.Namespace) -> None:
    lines = []
    for r in common.write_record(args.output_dir, "data_pipeline", share(args)):
        percent = [
            common.spread({k: 100 * v for k, v in r[name].items()})
            for name in ("share_first_epoch", "share_later_epochs")
        ]
        seconds = [
            common.spread(r[f"seconds_{name}"], 3)
            for name in ("to_tokenise", "to_read_tokens", "to_batch", "of_an_epoch")
        ]
        row = r["row"]
        lines.append(
            [
                f"{row['task']}, {row['encoder']}, {row['rows']} rows, {row['precision']}",
                *seconds,
                *percent,
                f"{r['device']}, {r['threads']} threads",
            ]
        )
    header = [
        "what",
        "tokenising, s",
        "reading tokens, s",
        "batching, s",
        "epoch of plain steps, s",
        "share, first epoch, %",
        "share, later epochs, % (target < 2)",
        "device",
    ]
    common.write_table(args.output_dir, "data_pipeline", header, lines)


def curves(args: argparse.Namespace) -> list[dict]:
    """A line per axis, value and step: seconds and floating-point operations."""
    lines = []
    for axis in args.axes:
        for value in AXES[axis]:
            at = BASE | {axis: value}
            bench = training_steps.Bench(
                training_steps.parse_args(
                    [
                        "--encoder",
                        f"bert-{at['depth']}x{at['width']}",
                        "--lengths",
                        str(at["length"]),
                        "--bsz",
                        str(at["batch"]),
                        "--adv_steps",
                        str(at["K"]),
                        "--precision",
                        args.precision,
                        "--device",
                        args.device,
                        "--batches",
                        "1",
                        *args.further,
                    ]
                )
            )
            steps = {name: getattr(bench, name)() for name in STEPS}
            seconds = common.time_side_by_side(steps, 1, args.repeats, args.device)
            for name, step in steps.items():
                flops = common.work(lambda step=step: step(0))["flops"]
                lines.append(
                    {
                        "axis": axis,
                        "value": value,
                        "step": name,
                        "flops": flops,
                        **common.quartiles(seconds[name]),
                    }
                )
    return lines


def draw_curves(lines: list[dict], axes: list[str], path: Path) -> None:
    """A panel per axis, both scales logarithmic, ticks where it was measured."""
    figure, panels = plt.subplots(1, len(axes), figsize=(3 * len(axes), 3), squeeze=False)
    for axis, panel in zip(axes, panels[0], strict=True):
        for name, look in zip(STEPS, ("o-", "s--"), strict=True):
            points = [p for p in lines if (p["axis"], p["step"]) == (axis, name)]
            medians = [p["median"] for p in points]
            around = [
                [p["median"] - p["quartile_1"] for p in points],
                [p["quartile_3"] - p["median"] for p in points],
            ]
            panel.errorbar(
                [p["value"] for p in points],
                medians,
                around,
                fmt=look,
                label=name.replace("_", " "),
            )
        panel.set(xlabel=axis, xscale="log", yscale="log")
        panel.set_xticks(AXES[axis], map(str, AXES[axis]))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.tick_params(axis="y", which="minor", labelsize=7)
        panel.xaxis.set_minor_locator(NullLocator())
    panels[0][0].set_ylabel("seconds a step")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def write_curves(args: argparse.Namespace) -> None:
    lines = curves(args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with open(args.output_dir / "curves.csv", "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    draw_curves(lines, args.axes, args.output_dir / "curves.png")
    for p in lines:
        print(
            f"{p['axis']:7} {p['value']:4} {p['step']:18} {common.spread(p, 3)} s, "
            f"{p['flops'] / 1e9:.0f} GFLOP"
        )


def main() -> None:
    args = parse_args()
    write_share(args) if args.what == "share" else write_curves(args)


if __name__ == "__main__":
    main()
