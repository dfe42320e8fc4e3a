"""Seconds of an attack with our victim and with TextAttack's stock wrapper, on the same rows.

    python benchmarks/attack_speed.py --model_name RUN --num_examples 100
    python benchmarks/attack_speed.py --model_name bert-base --num_examples 10 --test_file dev.tsv

Both attack row by row with the same recipe, rows and model in fp32; only victim and batches differ.
Ours pads to the longest text of a batch of similar lengths and answers equal token rows once. Stock
is HuggingFaceModelWrapper, which pads every query to the tokenizer's length, in TextAttack's
batches of 32.

To be comparable, both rank candidates by the log-odds against the true label, rounded to three
decimals. The stock wrapper returns float32 logits, and sums over 512 padded positions differ from
sums over 30 in the seventh digit. TextAttack's own score (1 - p in float32) turns such differences,
and exact ties between candidates with the same tokens, into other choices. Rounded to three
decimals, both wrappers give the same number unless it lies within 1e-6 of a rounding boundary.
Unknown flags go to attack.py (--task_name, --test_file, --seed and so on).
"""

import argparse
import functools
import tempfile
from pathlib import Path

import common

import attack
from evaluation import attack_setup, checkpoints, protocol, resources
from training import tokenizers
from training.splits import load_splits
from utils import cli

COMPARED = ("outcome", "perturbed", "queries")


def parse_args() -> argparse.Namespace:
    parser = common.make_parser(__doc__)
    add = parser.add_argument
    of_shape = "bert-base: its shape with random weights, for the seconds per query"
    add("--model_name", required=True, help=f"run folder or checkpoint; {of_shape}")
    add("--recipe", default="textfooler-minilm", help="recipe of attack.py")
    add("--num_examples", type=int, default=100, help="rows")
    add("--stock_rows", type=int, help="rows that the stock wrapper attacks too (default: all)")
    args, args.attack_flags = parser.parse_known_args()
    return args


def build_attacks(setup: attack_setup.Setup) -> dict[str, tuple]:
    """Name -> (victim, attack) for ours and stock."""
    resources.import_textattack(setup.device)
    from textattack import Attack
    from textattack.models.wrappers import HuggingFaceModelWrapper

    from evaluation import recipes
    from evaluation.textattack_parts import LogOdds

    class RoundedLogOdds(LogOdds):
        def _get_score(self, model_output, attacked_text):
            return round(super()._get_score(model_output, attacked_text), 3)

    class Stock(HuggingFaceModelWrapper):
        def forget(self) -> None:
            """attack_row calls it; the stock wrapper has no cache."""

    loaded = recipes.load(setup.paths, setup.device)
    victim = setup.victim()
    stock = Stock(victim.model, victim.tokenizer)
    goals = {
        "ours": RoundedLogOdds(victim, model_batch_size=2**20),
        "stock": RoundedLogOdds(stock),  # TextAttack's own batch size
    }
    attacks = {}
    for name, goal in goals.items():  # built twice: a search is bound to its goal
        parts = setup.attack(victim, loaded)
        constraints = [*parts.pre_transformation_constraints, *parts.constraints]
        made_attack = Attack(goal, constraints, parts.transformation, parts.search_method)
        attacks[name] = (goal.model, made_attack)
    return attacks


def measure(args: argparse.Namespace, folder: Path) -> dict:
    known = common.flags(model_name=folder, recipe=args.recipe, num_examples=args.num_examples)
    known += common.flags(precision="fp32", score_with="log_odds")
    a = attack.parse_args([*args.attack_flags, *known])
    target = checkpoints.find_targets(a.model_name, a.checkpoint, None)[0]
    task = checkpoints.task_of(a, target)
    order = checkpoints.label_order(target, task)
    if order != sorted(order):
        raise cli.UserError("the stock wrapper cannot reorder labels: use another checkpoint")
    length = a.max_seq_length or target.facts.get("max_seq_length") or task.max_seq_length
    rows = load_splits(a, task, ("test",))["test"]
    rows = protocol.choose_rows(rows, a.num_examples, a.row_choice, a.seed)
    paths = attack_setup.locate_resources(a, args.device)
    setup = attack_setup.Setup(a, target, order, task, rows, paths, length, args.device)
    attacks = build_attacks(setup)
    from evaluation.attack_rows import attack_row

    lines: dict[str, list[dict]] = {"ours": [], "stock": []}

    def attack_one(name: str, position: int) -> None:
        victim, made_attack = attacks[name]
        lines[name].append(attack_row(made_attack, victim, task, rows, position, a.seed))

    # Not timed: word tables and part-of-speech dictionaries are read at first use.
    attack_one("ours", 0)
    lines["ours"].clear()
    both = len(rows) if args.stock_rows is None else min(args.stock_rows, len(rows))
    with common.make_progress(len(rows) + both, 0, "attack", "attack_speed") as progress:
        for position in range(len(rows)):
            names = ("ours", "stock") if position < both else ("ours",)
            for name in names[:: 1 if position % 2 else -1]:
                seconds = common.seconds_of(functools.partial(attack_one, name, position))
                lines[name][-1]["seconds"] = seconds
                progress.update()
    return record_of(args, lines, attacks["stock"][0].tokenizer.model_max_length)


def record_of(args: argparse.Namespace, lines: dict[str, list[dict]], pads_to: int) -> dict:
    ours, stock = lines["ours"], lines["stock"]
    shared = list(zip(ours, stock, strict=False))  # the first rows, which both attacked
    differing = [
        {"row_id": a["row_id"]} | {k: [a[k], b[k]] for k in COMPARED if a[k] != b[k]}
        for a, b in shared
    ]

    def total(of: list[dict], key: str) -> float:
        return sum(line[key] for line in of)

    seconds = {
        "ours": total(ours, "seconds"),
        "ours_on_stock_rows": total(ours[: len(stock)], "seconds"),
        "stock": total(stock, "seconds"),
    }
    by_row = [(b["seconds"], a["seconds"]) for a, b in shared if a["queries"] > 1]
    return {
        "row": {
            "model": Path(args.model_name).name,
            "recipe": args.recipe,
            "rows": len(ours),
            "device": args.device,
            "precision": "fp32",
        },
        "stock_rows": len(stock),
        "stock_pads_to": pads_to,
        "seconds": seconds,
        "seconds_a_query": {
            name: total(of_name, "seconds") / max(1, total(of_name, "queries"))
            for name, of_name in lines.items()
        },
        "ratio": seconds["stock"] / seconds["ours_on_stock_rows"] if stock else None,
        "ratio_by_row": common.ratio(*zip(*by_row, strict=True)) if by_row else None,
        "rows_that_differ": [line for line in differing if len(line) > 1],
        **common.device_facts(args.device),
    }


def rows_of(record: dict) -> list[dict[str, str]]:
    row, seconds, query = record["row"], record["seconds"], record["seconds_a_query"]
    by_row = record["ratio_by_row"]
    return [
        {
            "model, recipe": f"{row['model']}, {row['recipe']}",
            "rows": str(row["rows"]),
            "seconds, ours": f"{seconds['ours']:.1f}",
            "seconds, stock": f"{seconds['stock']:.1f} ({record['stock_rows']} rows)",
            "ratio": f"{record['ratio']:.1f}" if record["ratio"] else "-",
            "ratio by row": common.spread(by_row, 1) if by_row else "-",
            "seconds per query, ours / stock": f"{query['ours']:.4f} / {query['stock']:.4f}",
            "rows that differ": f"{len(record['rows_that_differ'])} of {record['stock_rows']}",
            "device": common.device_in_words(record),
        }
    ]


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(args.model_name)
        if args.model_name == "bert-base":  # random weights, and uncased BERT's tokenizer
            chosen = Path(folder)
            common.load_model("bert-base", "cpu").save_pretrained(folder)
            tokenizers.load_tokenizer("builtin/minilm").save_pretrained(folder)
        record = measure(args, chosen)
    common.publish(args.output_dir, "attack_speed", record, rows_of)


if __name__ == "__main__":
    cli.run(main)
