"""Seconds and memory of an epoch of every way of training, for the study's table of costs.

    python benchmarks/costs.py --output_dir results/study

Runs the scripts themselves on a part of the built-in film reviews, each in a process of its own,
--repeats times in turn: fine-tuning (plain, FreeLB, InfoBERT), retraining a ticket, the search with
K passes and without an adversary. Seconds are of the training loop with its evaluation on dev and
its checkpoints, medians over the repeats, for 1,000 rows.
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

ROOT = Path(__file__).resolve().parent.parent
DATA = ("--task_name", "builtin/rotten_tomatoes", "--max_eval_rows", "100")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--encoder", default="builtin/minilm", help="as --model_name of the stages")
    add("--rows", type=int, default=960, help="training rows of an epoch")
    add("--adv_steps", type=int, default=3, help="K of the search")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    common.add_common_flags(parser)
    args = parser.parse_args(argv)
    if min(args.repeats, args.rows, args.adv_steps) < 1:
        parser.error("--repeats, --rows and --adv_steps are at least 1")
    args.device = common.pick_device(args.device)
    return args


def commands(args: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Name -> script and flags; a dense run and a search come before what needs them."""
    fresh = ("--model_name", args.encoder, "--lr", "5e-5", *DATA)
    # Compiled as a search of the study's length is; the first repeat alone waits for the compiler.
    start = ("--model_name", str(folder / "plain"), "--compile", *DATA)
    scores = str(folder / "search")
    methods = {"plain": (), "freelb": ("--method", "freelb"), "infobert": ("--method", "infobert")}
    found = {name: ["finetune.py", *fresh, *flags] for name, flags in methods.items()}
    found["search"] = ["search_ticket.py", *start, "--adv_steps", str(args.adv_steps)]
    found["search_without_adversary"] = ["search_ticket.py", *start, "--adv_steps", "0"]
    found["retrain"] = ["retrain_ticket.py", *fresh, "--scores", scores, "--sparsity", "0.3"]
    return found


def run(args: argparse.Namespace, name: str, command: list[str], folder: Path) -> dict:
    script, *flags = command
    flags = [
        *flags,
        "--max_train_rows",
        str(args.rows),
        "--epochs",
        "1",
        "--quiet",
        "--overwrite",
        "--device",
        args.device,
        "--precision",
        args.precision,
    ]
    place = folder / name
    words = [sys.executable, str(ROOT / script), *flags, "--output_dir", str(place)]
    passive = os.environ | {"OMP_WAIT_POLICY": "passive"}  # as in the stage scripts
    done = subprocess.run(words, env=passive, stdout=sys.stderr)
    if done.returncode:
        sys.exit(f"{script} {' '.join(flags)} failed")
    result = json.loads((place / "result.json").read_text())
    seconds = result.get("seconds_of_training") or result["seconds_of_search"]
    return {"seconds": 1000 * seconds / args.rows, "bytes": result["peak_memory_bytes"]}


def measure(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        runs = commands(args, Path(folder))
        found: dict[str, list[dict]] = {name: [] for name in runs}
        for _ in range(args.repeats):
            for name, command in runs.items():
                found[name].append(run(args, name, command, Path(folder)))
    ways = {
        name: {
            "seconds_per_1000_rows": statistics.median(x["seconds"] for x in runs),
            "seconds_of_each_repeat": [x["seconds"] for x in runs],
            "peak_memory_bytes": statistics.median(x["bytes"] for x in runs),
        }
        for name, runs in found.items()
    }
    return {
        "row": {
            "encoder": args.encoder,
            "rows": args.rows,
            "adv_steps": args.adv_steps,
            "precision": args.precision,
            "device": args.device,
        },
        "ways": ways,
        "repeats": args.repeats,
        **common.device_facts(args.device),
    }


def table(records: list[dict]) -> list[list[str]]:
    lines = []
    for r in records:
        what = f"{r['row']['encoder']}, K = {r['row']['adv_steps']}, {r['row']['precision']}"
        plain = r["ways"]["plain"]["seconds_per_1000_rows"]
        for name, way in r["ways"].items():
            seconds, device = way["seconds_per_1000_rows"], f"{r['device']}, {r['threads']} threads"
            lines.append(
                [
                    what,
                    name,
                    f"{seconds:.1f}",
                    f"{seconds / plain:.2f}",
                    f"{way['peak_memory_bytes'] / 2**30:.2f}",
                    f"{device}, torch {r['torch']}",
                ]
            )
    return lines


HEADER = ["what", "an epoch of", "seconds per 1,000 rows", "ratio to plain", "peak GiB", "device"]


def main() -> None:
    args = parse_args()
    records = common.write_record(args.output_dir, "costs", measure(args))
    common.write_table(args.output_dir, "costs", HEADER, table(records))


if __name__ == "__main__":
    main()
