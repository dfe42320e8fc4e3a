"""Seconds and memory of drawing nine tickets of BERT-base from one score file, and a ticket's size.

    python benchmarks/tickets.py

The score file (85,524,480 scores of BERT-base's 73 matrices, drawn at random) is written first and
not timed. A process of its own then reads it and writes the tickets of sparsity 0.1 ... 0.9; its
seconds are those from the read to the last written file, its memory the most it ever held, Python
and torch included. Results go to results/benchmarks/tickets.jsonl and tickets.md.
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

SPARSITIES = [i / 10 for i in range(1, 10)]
# Of issue 5: seconds, bytes of memory, bytes of a ticket.
TARGETS = (5.0, 2e9, 10.8e6)


def write_scores(path: Path, layers: int) -> int:
    """A score file of BERT-base's matrices (or of fewer layers); how many scores."""
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(num_hidden_layers=layers))
    shapes = encoders.weight_shapes(model)
    noise = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
    ticket_files.save_scores(path, scores, shapes, {"kind": "random", "seed": 0})
    return sum(s.numel() for s in scores.values())


def draw_all(folder: Path) -> dict:
    """Read the scores, write a ticket for each sparsity; seconds, peak memory, sizes in bytes."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=12, help="of the BERT-base shape")
    parser.add_argument("--draw_in", type=Path, help=argparse.SUPPRESS)  # the process of its own
    common.add_common_flags(parser)
    args = parser.parse_args()
    if args.draw_in is not None:
        print(json.dumps(draw_all(args.draw_in)))
        return
    with tempfile.TemporaryDirectory() as folder:
        count = write_scores(Path(folder) / "scores.safetensors", args.layers)
        command = [sys.executable, __file__, "--draw_in", folder]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(args.repeats)
        ]
    record = {
        "row": {"layers": args.layers, "gates": count, "tickets": len(SPARSITIES)},
        "runs": runs,
        **common.device_facts("cpu"),
    }
    lines = []
    for r in common.write_record(args.output_dir, "tickets", record):
        seconds = common.quartiles([run["seconds"] for run in r["runs"]])
        read = common.quartiles([run["seconds_to_read"] for run in r["runs"]])
        memory = max(run["peak_memory_bytes"] for run in r["runs"])
        size = max(run["largest_ticket_bytes"] for run in r["runs"])
        lines.append(
            [
                f"{r['row']['gates']:,}",
                common.spread(seconds),
                common.spread(read),
                f"{memory / 1e9:.2f}",
                f"{size / 1e6:.2f}",
                f"{r['device']}, {r['threads']} threads",
            ]
        )
    header = [
        "gates",
        f"seconds, 9 tickets (target {TARGETS[0]:g})",
        "of them reading",
        f"peak GB (target {TARGETS[1] / 1e9:g})",
        f"MB a ticket (target {TARGETS[2] / 1e6:g})",
        "device",
    ]
    common.write_table(args.output_dir, "tickets", header, lines)


if __name__ == "__main__":
    main()
