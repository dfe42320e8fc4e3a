"""Attack rows with our victim and with TextAttack's stock wrapper: seconds, and the same results.

    python benchmarks/attack_speed.py --model_name RUN --num_examples 100
    python benchmarks/attack_speed.py --model_name bert-base --num_examples 10 --test_file dev.tsv

Same recipe, rows, model, fp32; only victim and batches differ: ours pads to the longest of a batch
of like lengths and answers equal token rows once; stock is HuggingFaceModelWrapper, padding every
query to the tokenizer's length, in TextAttack's batches of 32. Row by row, one after the other.

What makes the two comparable: both rank candidates by the log-odds against the true label, rounded
to three decimals. The stock wrapper hands out float32 logits, and sums over 512 padded positions
round differently in the seventh digit than sums over 30. TextAttack's own score (1 - p in float32)
turns such differences, and exact ties (candidates that are the same tokens), into other choices; to
three decimals both wrappers see the same number but where it lies within 1e-6 of a half.
Flags that this script does not know go to attack.py (--task_name, --test_file, --recipe ...).
"""

import argparse
import tempfile
import time
from pathlib import Path

import common
import torch

import attack
from evaluation import checkpoints, protocol, resources
from evaluation.minilm import SIMILARITY_THRESHOLDS
from training import models
from training.splits import load_splits
from utils import cli

COMPARED = ("outcome", "perturbed", "queries")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--model_name",
        required=True,
        help="run folder or checkpoint; bert-base: its shape with "
        "random weights, for the seconds a query",
    )
    add("--recipe", default="textfooler-minilm", help="as attack.py's")
    add("--num_examples", type=int, default=100, help="rows")
    add("--stock_rows", type=int, help="rows that the stock wrapper attacks, too (default: all)")
    common.add_common_flags(parser)
    args, args.attack_flags = parser.parse_known_args()
    args.device = common.pick_device(args.device)
    return args


def random_bert_base(folder: Path) -> Path:
    """A checkpoint of BERT-base's shape with random weights, and uncased BERT's tokenizer."""
    common.load_model("bert-base", "cpu").save_pretrained(folder)
    models.load_tokenizer("builtin/minilm").save_pretrained(folder)
    return folder


def measure(args: argparse.Namespace, folder: Path) -> dict:
    a = attack.parse_args(
        [
            "--model_name",
            str(folder),
            "--recipe",
            args.recipe,
            "--num_examples",
            str(args.num_examples),
            *args.attack_flags,
        ]
    )
    target = checkpoints.find_targets(a.model_name, a.checkpoint, None)[0]
    task = attack.task_of(a, target)
    order = checkpoints.label_order(target, task)
    if order != sorted(order):
        raise cli.UserError("the stock wrapper cannot reorder labels: take another checkpoint")
    rows = load_splits(a, task, ("test",))["test"]
    rows = protocol.choose_rows(rows, a.num_examples, a.rows, a.seed)
    length = a.max_seq_length or target.facts.get("max_seq_length") or task.max_seq_length
    paths = resources.locate(
        a.recipe, {name: getattr(a, name) for name in attack.RESOURCES}, args.device
    )
    resources.import_textattack(args.device)
    from textattack import Attack
    from textattack.models.wrappers import HuggingFaceModelWrapper

    from evaluation import recipes
    from evaluation.attack_rows import attack_row
    from evaluation.textattack_parts import LogOdds
    from evaluation.victim import Victim

    class RoundedLogOdds(LogOdds):
        def _get_score(self, model_output, attacked_text):
            return round(super()._get_score(model_output, attacked_text), 3)

    class Stock(HuggingFaceModelWrapper):
        def forget(self) -> None:
            """attack_row calls it; the stock wrapper remembers nothing."""

    loaded = recipes.load(a.recipe, paths, args.device)
    model, tokenizer = checkpoints.load_classifier(target)
    victim = Victim(model, tokenizer, order, length, a.bsz, "fp32", args.device)
    threshold = a.similarity_threshold or SIMILARITY_THRESHOLDS.get(a.recipe)
    stock = Stock(model, tokenizer)
    wrappers = {
        "ours": (victim, RoundedLogOdds(victim, model_batch_size=2**20)),
        "stock": (stock, RoundedLogOdds(stock)),  # TextAttack's own batch size
    }
    attacks = {}
    for name, (_, goal) in wrappers.items():  # built twice: a search method is bound to its goal
        made = recipes.build(a.recipe, victim, task, loaded, "log_odds", threshold)
        constraints = [*made.pre_transformation_constraints, *made.constraints]
        attacks[name] = Attack(goal, constraints, made.transformation, made.search_method)
    both = len(rows) if args.stock_rows is None else args.stock_rows
    lines: dict[str, list[dict]] = {"ours": [], "stock": []}
    # Not counted: word tables and part-of-speech dictionaries are read on first use.
    attack_row(attacks["ours"], victim, task, rows, 0, a.seed)
    for position in range(len(rows)):
        names = ("ours", "stock") if position < both else ("ours",)
        for name in names[:: 1 if position % 2 else -1]:
            start = time.perf_counter()
            line = attack_row(attacks[name], wrappers[name][0], task, rows, position, a.seed)
            lines[name].append(line | {"seconds": time.perf_counter() - start})
    return facts(args, lines, rows, tokenizer)


def facts(args: argparse.Namespace, lines: dict[str, list[dict]], rows, tokenizer) -> dict:
    ours, stock = lines["ours"], lines["stock"]
    apart = [
        {"row_id": a["row_id"]} | {k: [a[k], b[k]] for k in COMPARED if a[k] != b[k]}
        for a, b in zip(ours, stock, strict=False)
        if any(a[k] != b[k] for k in COMPARED)
    ]
    shared = ours[: len(stock)]
    attacked = [(a, b) for a, b in zip(shared, stock, strict=True) if a["queries"] > 1]

    def total(found: list[dict], key: str) -> float:
        return sum(line[key] for line in found)

    return {
        "row": {
            "model": Path(args.model_name).name,
            "recipe": args.recipe,
            "rows": len(rows),
            "device": args.device,
            "precision": "fp32",
        },
        "stock_rows": len(stock),
        "stock_pads_to": tokenizer.model_max_length,
        "seconds": {
            "ours": total(ours, "seconds"),
            "ours_on_stock_rows": total(shared, "seconds"),
            "stock": total(stock, "seconds"),
        },
        "seconds_a_query": {
            n: total(found, "seconds") / max(1, total(found, "queries"))
            for n, found in lines.items()
        },
        "ratio": total(stock, "seconds") / total(shared, "seconds") if stock else None,
        "ratio_by_row": common.ratio(
            [b["seconds"] for _, b in attacked], [a["seconds"] for a, _ in attacked]
        )
        if attacked
        else None,
        "rows_that_differ": apart,
        **common.device_facts(args.device),
    }


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        bert_base = args.model_name == "bert-base"
        chosen = random_bert_base(Path(folder)) if bert_base else Path(args.model_name)
        record = measure(args, chosen)
    lines = []
    for r in common.write_record(args.output_dir, "attack_speed", record):
        row, seconds, query = r["row"], r["seconds"], r["seconds_a_query"]
        by_row = common.spread(r["ratio_by_row"], 1) if r["ratio_by_row"] else "-"
        lines.append(
            [
                f"{row['model']}, {row['recipe']}",
                str(row["rows"]),
                f"{seconds['ours']:.1f}",
                f"{seconds['stock']:.1f} ({r['stock_rows']} rows)",
                f"{r['ratio']:.1f}" if r["ratio"] else "-",
                by_row,
                f"{query['ours']:.4f} / {query['stock']:.4f}",
                f"{len(r['rows_that_differ'])} of {r['stock_rows']}",
                f"{r['device']}, {r['threads']} threads",
            ]
        )
    header = [
        "model, recipe",
        "rows",
        "seconds, ours",
        "seconds, stock",
        "ratio",
        "ratio by row",
        "seconds a query, ours / stock",
        "rows that differ",
        "device",
    ]
    common.write_table(args.output_dir, "attack_speed", header, lines)


if __name__ == "__main__":
    cli.run(main)
