"""The evaluation protocol: everything that defines an attack except the model; and the record.

This module does not import TextAttack.
"""

import hashlib
import json
from collections import Counter

import numpy as np

from evaluation import by_class
from evaluation.checks import flags_of
from evaluation.outcomes import LETTERS, encode_labels, tally
from evaluation.settings import AttackSettings
from training.rows import Rows, sample_balanced
from utils.cli import UserError
from utils.environment import environment
from utils.runs import seed_for


def choose_rows(
    rows: Rows, count: int, how: str, seed: int, new_rows_after: int | None = None
) -> Rows:
    """Choose `count` rows to attack, or all rows if there are fewer. They stay in file order.

    `how` is one of:
    - balanced: draw the same number of rows per class, as far as the classes are large enough.
    - intersection: as balanced; `rows` must be those that all compared models classify correctly.
    - random: draw rows of any class.
    - first: take the first rows of the file, as the released code does (D6). In IMDB these all
      belong to one class.
    The draw depends on `seed`, never on the model. `new_rows_after`: choose among the rows that an
    attack on this number of rows leaves. Raises UserError if it leaves none.
    """
    if new_rows_after is not None:
        earlier = set(choose_rows(rows, new_rows_after, how, seed).ids)
        rows = rows.take([i for i, row_id in enumerate(rows.ids) if row_id not in earlier])
        if not len(rows):
            raise UserError(
                f"--new_rows_after {new_rows_after} leaves no rows to attack; give a smaller number"
            )
    count = min(count, len(rows))
    if how == "first":
        return rows.take(list(range(count)))
    if how == "random":
        generator = np.random.default_rng(seed_for(seed, "attacked rows of any class"))
        chosen = generator.choice(len(rows), count, replace=False)
        return rows.take(sorted(chosen.tolist()))
    return sample_balanced(rows, count, seed_for(seed, "attacked rows"))


def describe_data(split: Rows) -> dict:
    """Record entry for the split that the rows were chosen from."""
    return {"source": split.source, "rows": len(split), "fingerprint": split.fingerprint}


def describe_rows(chosen: Rows, how: str, seed: int) -> dict:
    """Record entry for the chosen rows: number, classes, choice, and fingerprints."""
    return {
        "chosen": how,
        "seed": None if how == "first" else seed,
        "rows": len(chosen),
        "rows_per_label": {str(k): n for k, n in sorted(Counter(chosen.labels).items())},
        "ids_fingerprint": fingerprint(chosen.ids),
        "fingerprint": chosen.fingerprint,
    }


def fingerprint(thing: object) -> str:
    """16 hex digits of the SHA-256 of a value's JSON form."""
    text = json.dumps(thing, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_name(args: AttackSettings, checkpoint: str, temperature: str) -> str:
    """Name of an attack's folder inside attacks/ of its run. `temperature` is a rule's name."""
    rows = f"{args.row_choice}{args.num_examples}"
    rows += f"after{args.new_rows_after}" if args.new_rows_after else ""
    parts = [args.recipe, checkpoint, rows, f"seed{args.seed}"]
    parts += ["softmax"] * (args.score_with == "softmax") + ["dev"] * (args.split == "dev")
    return "_".join(parts + [f"T{temperature}"] * (temperature != "1"))


# Settings that identify the attacked model and the device. They are not part of the protocol.
MODEL_SETTINGS = {"checkpoint", "checkpoint_sha256", "label_order", "device"}
VERSIONS = ("textattack", "transformers", "tokenizers", "nltk", "tensorflow")


def protocol_versions(environment_facts: dict) -> dict:
    """The library versions in `environment()` that an outcome can depend on."""
    versions = environment_facts.get("versions", {})
    return {name: versions[name] for name in VERSIONS if name in versions}


def describe_protocol(settings: dict, row_ids: list[str], parts: list[str]) -> dict:
    """Everything that defines an evaluation except the model. Equal `id`s are comparable.

    It holds the data, the rows and their classes, the length, the precision, the recipe with its
    `parts` (search, transformation and constraints as TextAttack describes them), the fingerprints
    of the resources, the score, the seed, and the library versions that an outcome can depend on.
    """
    described = {name: value for name, value in settings.items() if name not in MODEL_SETTINGS}
    described |= {"row_ids": fingerprint(row_ids), "parts": parts}
    described["versions"] = protocol_versions(environment())
    return {"id": fingerprint(described)[:12], **described}


def summary(
    facts: dict,
    settings: dict,
    outcomes: list[dict],
    attack_id: str,
    protocol: dict,
    skipped_percent: float,
) -> dict:
    """The record of a finished attack, with flags for whatever makes its numbers doubtful.

    `facts`: what the checkpoint states about itself and what was measured around the attack.
    `outcomes`: the lines of the attacked rows. `protocol`: from `describe_protocol`.
    `skipped_percent`: flag the attack if a larger share of rows was misclassified before it.
    """
    record = {
        "kind": "attack",
        **facts,
        "trained_max_seq_length": facts.get("max_seq_length"),
        **{name: value for name, value in settings.items() if name != "task"},
        **tally(outcomes),
        "row_outcomes": "".join(LETTERS[o["outcome"]] for o in outcomes),
        "row_labels": encode_labels([o["label"] for o in outcomes]),
        "rows_of_equal_importance": sum(bool(o.get("equal_importance")) for o in outcomes),
        "rows_out_of_budget": sum(bool(o.get("out_of_budget")) for o in outcomes),
        "attack_id": attack_id,
        "protocol_id": protocol["id"],
        "attack_parts": protocol["parts"],
        "seconds": round(sum(o["seconds"] for o in outcomes), 3),
        "environment": environment(),
    }
    return record | {"flags": flags_of(record, skipped_percent)}


def in_words(summary: dict) -> str:
    """The summary as one line for the terminal."""

    def percent(name: str) -> str:
        value, interval = summary[name], summary["intervals_95"].get(name)
        if value is None:
            return "-"
        return f"{value:.1f} %" + (f" ({interval[0]:.1f}-{interval[1]:.1f})" if interval else "")

    rule, queries = summary.get("temperature_rule"), summary["queries_per_row"]
    temperature = f" at temperature {summary['temperature']:.3g} ({rule})" if rule else ""
    by_name = by_class.rates_by_class([summary])
    classes = ", ".join(f"{name} {rate.percent:.1f} %" for name, rate in by_name.items())
    return (
        f"{summary['recipe']}{temperature}, {summary['rows_attacked']} rows, protocol "
        f"{summary['protocol_id']}: clean {percent('clean_percent')}, "
        f"aua {percent('aua_percent')} (by class: {classes}), suc {percent('suc_percent')}, "
        f"{'-' if queries is None else round(queries, 1)} queries per row, "
        f"{percent('words_changed_percent')} of the words changed"
    )
