"""Tokenizing and batching as a share of a training epoch; the cost of a step against its size.

    python benchmarks/data_pipeline.py share --task_name builtin/rotten_tomatoes
    python benchmarks/data_pipeline.py curves

share: seconds to tokenize the training rows (once per data set; the tokens stay on disk), to read
the tokens back and to make the batches of one epoch, compared with an epoch of plain training
steps, the cheapest steps there are. Unknown flags go to finetune.py (--train_file and so on).
curves: seconds of the search step and of the dense adversarial step against length, batch, width,
depth and K; all else is MiniLM's shape. Unknown flags go to search_ticket.py. Writes a CSV file and
a figure to results/benchmarks/.
"""

import argparse
import functools
import tempfile
from pathlib import Path

import common
import pandas
import training_steps
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import finetune
from training import tokenizers
from training.batching import collate, encode, epoch_batches
from training.splits import load_splits
from training.tasks import resolve_task
from utils import cli, devices, process_state

BASE = {"length": 32, "batch": 32, "width": 384, "depth": 6, "K": 3}
AXES = {
    "length": (16, 32, 64, 128, 256),
    "batch": (8, 16, 32, 64),
    "width": (192, 384, 768),
    "depth": (3, 6, 12),
    "K": (1, 2, 3, 5),
}
STEPS = ("search", "dense_adversarial")
BATCHES_OF_AN_EPOCH = 4  # timed, at quantiles of the lengths


def parse_args() -> argparse.Namespace:
    parser = common.make_parser(__doc__)
    add = parser.add_argument
    add("what", choices=["share", "curves"])
    add("--encoder", default="builtin/minilm", help="share: tokenizer and model")
    common.add_precision(parser, "of the steps")
    add("--axes", nargs="+", choices=list(AXES), default=list(AXES), help="curves: these only")
    args, args.further = parser.parse_known_args()
    return args


def share(args: argparse.Namespace) -> dict:
    hardware = common.flags(precision=args.precision, device=args.device)
    flags = common.flags(model_name=args.encoder, output_dir="-")
    training = finetune.parse_args([*flags, *hardware, *args.further])
    task = resolve_task(training)
    length = training.max_seq_length or task.max_seq_length
    rows = load_splits(training, task, ("train",))["train"]
    tokenizer = tokenizers.load_tokenizer(args.encoder)
    accelerator = devices.make_accelerator(training)

    def all_batches() -> None:
        for positions in epoch_batches(train.lengths, training.bsz, 0):
            devices.to_device(collate(train, positions), accelerator)

    count = args.repeats + common.side_by_side_steps(1, BATCHES_OF_AN_EPOCH, args.repeats)
    with common.make_progress(count, 0, "measurement", "share") as progress:
        tokenize = functools.partial(encode, rows, tokenizer, length)
        tokenizing, reading, batching = [], [], []
        for _ in range(args.repeats):
            with (
                tempfile.TemporaryDirectory() as folder,
                process_state.environment(ROBUST_TICKETS_CACHE=folder),
            ):
                tokenizing.append(common.seconds_of(tokenize))
                reading.append(common.seconds_of(tokenize))
                train = tokenize()
            batching.append(common.seconds_of(all_batches, args.device))
            progress.update()
        flags = common.flags(encoder=args.encoder, bsz=training.bsz, batches=BATCHES_OF_AN_EPOCH)
        bench = training_steps.Bench(training_steps.parse_args([*flags, *hardware]), train)
        timed = common.time_side_by_side(
            {"dense": bench.dense()}, BATCHES_OF_AN_EPOCH, args.repeats, args.device, progress
        )
    steps = -(-len(train) // training.bsz)
    epoch = [steps * s for s in timed["dense"]]
    first = [a + b for a, b in zip(tokenizing, batching, strict=True)]
    return {
        "row": {
            "task": task.name,
            "encoder": Path(args.encoder).name,
            "rows": len(train),
            "bsz": training.bsz,
            "device": args.device,
            "precision": bench.precision,
        },
        "seconds_to_tokenise": common.quartiles(tokenizing),
        "seconds_to_read_tokens": common.quartiles(reading),
        "seconds_to_batch": common.quartiles(batching),
        "seconds_of_an_epoch": common.quartiles(epoch),
        "share_first_epoch": common.ratio(first, epoch),
        "share_later_epochs": common.ratio(batching, epoch),
        **common.device_facts(args.device),
    }


def rows_of(record: dict) -> list[dict[str, str]]:
    row = record["row"]
    first, later = (
        common.spread({k: 100 * v for k, v in record[f"share_{which}"].items()})
        for which in ("first_epoch", "later_epochs")
    )
    return [
        {
            "what": f"{row['task']}, {row['encoder']}, {row['rows']} rows, {row['precision']}",
            "tokenizing, s": common.spread(record["seconds_to_tokenise"], 3),
            "reading tokens, s": common.spread(record["seconds_to_read_tokens"], 3),
            "batching, s": common.spread(record["seconds_to_batch"], 3),
            "epoch of plain steps, s": common.spread(record["seconds_of_an_epoch"], 3),
            "share, first epoch, %": first,
            "share, later epochs, % (target < 2)": later,
            "device": common.device_in_words(record),
        }
    ]


def curves(args: argparse.Namespace) -> pandas.DataFrame:
    """A row per axis, value and step: seconds and floating-point operations."""
    lines = []
    points = [(axis, value) for axis in args.axes for value in AXES[axis]]
    count = len(points) * common.side_by_side_steps(len(STEPS), 1, args.repeats)
    with common.make_progress(count, 0, "step", "curves") as progress:
        for axis, value in points:
            at = BASE | {axis: value}
            flags = common.flags(encoder=f"bert-{at['depth']}x{at['width']}", lengths=at["length"])
            flags += common.flags(bsz=at["batch"], adv_steps=at["K"], batches=1)
            flags += common.flags(precision=args.precision, device=args.device)
            bench = training_steps.Bench(training_steps.parse_args([*flags, *args.further]))
            steps = {name: getattr(bench, name)() for name in STEPS}
            seconds = common.time_side_by_side(steps, 1, args.repeats, args.device, progress)
            for name, step in steps.items():
                flops = common.work(functools.partial(step, 0))["flops"]
                line = {"axis": axis, "value": value, "step": name, "flops": flops}
                lines.append(line | common.quartiles(seconds[name]))
    return pandas.DataFrame(lines)


def draw_curves(lines: pandas.DataFrame, axes: list[str], path: Path) -> None:
    """One panel per axis; both scales logarithmic, with ticks at the measured values."""
    figure = Figure(figsize=(3 * len(axes), 3), layout="tight")
    panels = figure.subplots(1, len(axes), squeeze=False)
    for axis, panel in zip(axes, panels[0], strict=True):
        for name, style in zip(STEPS, ("o-", "s--"), strict=True):
            at = lines[(lines["axis"] == axis) & (lines["step"] == name)]
            spread = [at["median"] - at["quartile_1"], at["quartile_3"] - at["median"]]
            label = name.replace("_", " ")
            panel.errorbar(at["value"], at["median"], spread, fmt=style, label=label)
        panel.set(xlabel=axis, xscale="log", yscale="log")
        panel.set_xticks(AXES[axis], map(str, AXES[axis]))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.tick_params(axis="y", which="minor", labelsize=7)
        panel.xaxis.set_minor_locator(NullLocator())
    panels[0][0].set_ylabel("seconds per step")
    panels[0][0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    args = parse_args()
    if args.what == "share":
        common.publish(args.output_dir, "data_pipeline", share(args), rows_of)
        return
    lines = curves(args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    lines.to_csv(args.output_dir / "curves.csv", index=False)
    draw_curves(lines, args.axes, args.output_dir / "curves.png")
    print(lines.to_string(index=False))


if __name__ == "__main__":
    cli.run(main)
