"""Seconds and memory of drawing nine tickets of BERT-base from one score file; a ticket's size.

    python benchmarks/tickets.py

First writes the score file, which is not timed: 85,524,480 random scores for the 73 matrices of
BERT-base. In each repeat, a new process reads it and writes the tickets of sparsity 0.1 to 0.9. Its
seconds run from the read to the last written file; its memory is the peak of the process, Python
and torch included. Writes results/benchmarks/tickets.jsonl and tickets.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import torch
from transformers import BertConfig, BertForSequenceClassification

from masking import encoders, ticket_files, tickets
from utils import cli

SPARSITIES = [i / 10 for i in range(1, 10)]
TARGET_SECONDS, TARGET_MEMORY_BYTES, TARGET_TICKET_BYTES = 5.0, 2e9, 10.8e6


def write_scores(path: Path, layers: int) -> int:
    """Write a score file of BERT-base's matrices, with `layers` layers; the number of scores."""
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(num_hidden_layers=layers))
    shapes = encoders.weight_shapes(model)
    noise = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
    ticket_files.save_scores(path, scores, shapes, {"kind": "random", "seed": 0})
    return sum(s.numel() for s in scores.values())


def draw_all(folder: Path) -> dict:
    """Read the scores and write a ticket for each sparsity: seconds, peak memory, size."""
    start = time.perf_counter()
    scores, shapes, _ = ticket_files.load_scores(folder / "scores.safetensors")
    read = time.perf_counter()
    sizes = []
    drawn = tickets.draw_each(scores, shapes, SPARSITIES)
    for sparsity, masks in zip(SPARSITIES, drawn, strict=True):
        path = folder / f"ticket-{sparsity}.safetensors"
        ticket_files.save_ticket(path, masks, {"sparsity_asked": sparsity})
        sizes.append(path.stat().st_size)
    return {
        "seconds": time.perf_counter() - start,
        "seconds_to_read": read - start,
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "largest_ticket_bytes": max(sizes),
    }


def measure(args: argparse.Namespace) -> dict:
    with (
        tempfile.TemporaryDirectory() as folder,
        common.make_progress(args.repeats, 0, "repeat", "tickets") as progress,
    ):
        count = write_scores(Path(folder) / "scores.safetensors", args.layers)
        command = [sys.executable, __file__, "--draw_in", folder]
        runs = []
        for _ in range(args.repeats):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout))
            progress.update()
    return {
        "row": {"layers": args.layers, "gates": count, "tickets": len(SPARSITIES)},
        "runs": runs,
        **common.device_facts("cpu"),
    }


def rows_of(record: dict) -> list[dict[str, str]]:
    runs = record["runs"]
    seconds, reading = (
        common.spread(common.quartiles([run[name] for run in runs]))
        for name in ("seconds", "seconds_to_read")
    )
    memory = max(run["peak_memory_bytes"] for run in runs)
    size = max(run["largest_ticket_bytes"] for run in runs)
    return [
        {
            "gates": f"{record['row']['gates']:,}",
            f"seconds, 9 tickets (target {TARGET_SECONDS:g})": seconds,
            "reading included": reading,
            f"peak GB (target {TARGET_MEMORY_BYTES / 1e9:g})": f"{memory / 1e9:.2f}",
            f"MB per ticket (target {TARGET_TICKET_BYTES / 1e6:g})": f"{size / 1e6:.2f}",
            "device": common.device_in_words(record),
        }
    ]


def main() -> None:
    parser = common.make_parser(__doc__, with_device=False)
    parser.add_argument("--layers", type=int, default=12, help="layers of the BERT-base shape")
    parser.add_argument("--draw_in", type=Path, help=argparse.SUPPRESS)  # of the new process
    args = parser.parse_args()
    if args.draw_in is not None:
        print(json.dumps(draw_all(args.draw_in)))
        return
    common.publish(args.output_dir, "tickets", measure(args), rows_of)


if __name__ == "__main__":
    cli.run(main)
