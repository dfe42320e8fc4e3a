"""Seconds and memory of an epoch of each way of training, for the study's table of costs.

    python benchmarks/costs.py --output_dir results/study

Runs the scripts on a part of the built-in film reviews, each in a new process, --repeats times in
turn: fine-tuning (plain, FreeLB, InfoBERT), retraining a ticket, the search with K passes and
without an adversary. Seconds are those of the training loop with its dev evaluation and its
checkpoints, for 1,000 rows; the table shows medians over the repeats.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common

from utils import cli

DATA = ("--task_name", "builtin/rotten_tomatoes", "--max_eval_rows", "100")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = common.make_parser(__doc__)
    add = parser.add_argument
    add("--encoder", default="builtin/minilm", help="--model_name of the stages")
    add("--rows", type=cli.positive_int, default=960, help="training rows of an epoch")
    add("--adv_steps", type=cli.positive_int, default=3, help="K of the search")
    common.add_precision(parser, "of the stages")
    return parser.parse_args(argv)


def commands(args: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Name -> script and flags. A dense run and a search come before the runs that need them."""
    fresh = ("--model_name", args.encoder, "--lr", "5e-5", *DATA)
    # A search as long as the study's is compiled; only the first repeat waits for the compiler.
    search = ["search_ticket.py", "--model_name", str(folder / "plain"), "--compile", *DATA]
    ticket = ("--scores", str(folder / "search"), "--sparsity", "0.3")
    return {
        "plain": ["finetune.py", *fresh],
        "freelb": ["finetune.py", *fresh, "--method", "freelb"],
        "infobert": ["finetune.py", *fresh, "--method", "infobert"],
        "search": [*search, "--adv_steps", str(args.adv_steps)],
        "search_without_adversary": [*search, "--adv_steps", "0"],
        "retrain": ["retrain_ticket.py", *fresh, *ticket],
    }


def run(args: argparse.Namespace, command: list[str], output_dir: Path) -> tuple[float, int]:
    """Run one script: seconds per 1,000 rows, and peak bytes."""
    script, *flags = command
    flags += common.flags(max_train_rows=args.rows, epochs=1, output_dir=output_dir)
    flags += common.flags(device=args.device, precision=args.precision)
    words = [sys.executable, str(common.ROOT / script), *flags, "--quiet", "--overwrite"]
    passive = os.environ | {"OMP_WAIT_POLICY": "passive"}  # as in the stage scripts
    if subprocess.run(words, env=passive, stdout=sys.stderr).returncode:
        raise cli.UserError(f"{script} {' '.join(flags)} failed; see its message above")
    result = json.loads((output_dir / "result.json").read_text())
    seconds = result.get("seconds_of_training") or result["seconds_of_search"]
    return 1000 * seconds / args.rows, result["peak_memory_bytes"]


def measure(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        scripts = commands(args, Path(folder))
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in scripts}
        count = args.repeats * len(scripts)
        with common.make_progress(count, 0, "run", "costs") as progress:
            for _ in range(args.repeats):
                for name, command in scripts.items():
                    runs[name].append(run(args, command, Path(folder) / name))
                    progress.update()
    ways = {}
    for name, of_name in runs.items():
        seconds, memory = zip(*of_name, strict=True)
        ways[name] = {
            "seconds_per_1000_rows": statistics.median(seconds),
            "seconds_of_each_repeat": list(seconds),
            "peak_memory_bytes": statistics.median(memory),
        }
    settings = ("encoder", "rows", "adv_steps", "precision", "device")
    row = {name: getattr(args, name) for name in settings}
    facts = common.device_facts(args.device)
    return {"row": row, "ways": ways, "repeats": args.repeats, **facts}


def rows_of(record: dict) -> list[dict[str, str]]:
    row = record["row"]
    plain = record["ways"]["plain"]["seconds_per_1000_rows"]
    return [
        {
            "what": f"{row['encoder']}, K = {row['adv_steps']}, {row['precision']}",
            "an epoch of": name,
            "seconds per 1,000 rows": f"{way['seconds_per_1000_rows']:.1f}",
            "ratio to plain": f"{way['seconds_per_1000_rows'] / plain:.2f}",
            "peak GiB": f"{way['peak_memory_bytes'] / 2**30:.2f}",
            "device": common.device_in_words(record),
        }
        for name, way in record["ways"].items()
    ]


def main() -> None:
    args = parse_args()
    common.publish(args.output_dir, "costs", measure(args), rows_of)


if __name__ == "__main__":
    cli.run(main)
