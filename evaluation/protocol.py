"""Which rows are attacked, how, and what is computed from their outcomes. No TextAttack."""

import hashlib
import json
from collections import Counter

import numpy as np

from evaluation.checks import flags_of
from training.metrics import wilson_interval
from training.splits import Rows, sample_balanced
from utils.runs import environment, seed_for

SUCCESS, FAILED, SKIPPED = "success", "failed", "skipped"
# A record keeps a letter for each attacked row, in the rows' order: right after the attack, fooled
# by it, wrong before. Intervals over seeds and paired comparisons are made from them.
LETTERS = {FAILED: "r", SUCCESS: "f", SKIPPED: "w"}


def choose_rows(rows: Rows, count: int, how: str, seed: int) -> Rows:
    """The rows to attack, in file order; all of them where there are no more than `count`.

    balanced: as equal per class as the classes' sizes admit, by seed (never by model); also of an
    intersection, for which `rows` are those that all models get right. random: by seed, whatever
    their classes. first: the file's first `count`, as the released code does (D6); IMDB's are one
    class.
    """
    count = min(count, len(rows))
    if how == "first":
        return rows.take(list(range(count)))
    if how == "random":
        generator = np.random.default_rng(seed_for(seed, "attacked rows of any class"))
        chosen = generator.choice(len(rows), count, replace=False)
        return rows.take(sorted(chosen.tolist()))
    return sample_balanced(rows, count, seed_for(seed, "attacked rows"))


def describe_data(split: Rows) -> dict:
    """For the record: the split that rows were chosen from."""
    return {"source": split.source, "rows": len(split), "fingerprint": split.fingerprint}


def describe_rows(chosen: Rows, how: str, seed: int) -> dict:
    """For the record: how many, of which classes, from where, and a fingerprint of their ids."""
    return {
        "chosen": how,
        "seed": None if how == "first" else seed,
        "rows": len(chosen),
        "rows_per_label": {str(k): n for k, n in sorted(Counter(chosen.labels).items())},
        "ids_fingerprint": fingerprint(chosen.ids),
        "fingerprint": chosen.fingerprint,
    }


def fingerprint(thing: object) -> str:
    """16 hex digits over anything that JSON can hold."""
    text = json.dumps(thing, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tally(outcomes: list[dict]) -> dict:
    """Measures of an attack from its rows' lines (keys outcome, queries, words_changed,
    words_total). Percentages; intervals are Wilson's, at 95 %.

    clean: rows that were right before the attack; aua: rows that are right after it; both of all
    attacked rows. suc = 100 * (1 - aua / clean), None where no row was right. queries_per_row is
    the mean over rows that were not skipped, words_changed_percent the mean share of words
    changed over rows where the attack succeeded.
    """
    rows = len(outcomes)
    failed = sum(o["outcome"] == FAILED for o in outcomes)
    won = [o for o in outcomes if o["outcome"] == SUCCESS]
    right = failed + len(won)
    queries = [o["queries"] for o in outcomes if o["outcome"] != SKIPPED]
    shares = [100 * o["words_changed"] / o["words_total"] for o in won]
    return {
        "rows_attacked": rows,
        "rows_skipped": rows - right,
        "rows_failed": failed,
        "rows_successful": len(won),
        "clean_percent": 100 * right / rows,
        "aua_percent": 100 * failed / rows,
        "suc_percent": 100 * (1 - failed / right) if right else None,
        "queries_per_row": _mean(queries),
        "words_changed_percent": _mean(shares),
        "intervals_95": {
            "clean_percent": wilson_interval(right, rows),
            "aua_percent": wilson_interval(failed, rows),
            "suc_percent": wilson_interval(len(won), right),
        },
    }


def _mean(values: list) -> float | None:
    return sum(values) / len(values) if values else None


def folder_name(
    recipe: str,
    checkpoint: str,
    rows: str,
    num_examples: int,
    seed: int,
    score_with: str,
    temperature: str = "1",
    split: str = "test",
) -> str:
    """Name of an attack's folder inside its run's attacks/. `temperature`: its rule."""
    parts = [recipe, checkpoint, f"{rows}{num_examples}", f"seed{seed}"]
    parts += ["softmax"] * (score_with == "softmax") + ["dev"] * (split == "dev")
    return "_".join(parts + [f"T{temperature}"] * (temperature != "1"))


# Settings that say which model was attacked and where, not how.
OF_THE_VICTIM = {"checkpoint", "checkpoint_sha256", "label_order", "device"}
VERSIONS = ("textattack", "transformers", "tokenizers", "nltk", "tensorflow")


def protocol_versions(environment_facts: dict) -> dict:
    """Of runs.environment() the versions that an outcome can depend on."""
    versions = environment_facts.get("versions", {})
    return {name: versions[name] for name in VERSIONS if name in versions}


def describe_protocol(settings: dict, row_ids: list[str], parts: list[str]) -> dict:
    """All that defines an evaluation but the model: two with one `id` may stand in one comparison.

    Data, rows and their classes, length, precision, recipe with each of its `parts` (search,
    transformation, constraints, as TextAttack describes them), resources by fingerprint, scores,
    seed, and the versions of the libraries that an outcome can depend on.
    """
    described = {name: value for name, value in settings.items() if name not in OF_THE_VICTIM}
    described |= {
        "row_ids": fingerprint(row_ids),
        "parts": parts,
        "versions": protocol_versions(environment()),
    }
    return {"id": fingerprint(described)[:12], **described}


def so_far(outcomes: list[dict]) -> str:
    """For the progress line."""
    t = tally(outcomes)
    suc = "-" if t["suc_percent"] is None else f"{t['suc_percent']:.1f} %"
    return f"clean {t['clean_percent']:.1f} %, aua {t['aua_percent']:.1f} %, suc {suc}"


def summary(
    facts: dict,
    settings: dict,
    outcomes: list[dict],
    attack_id: str,
    protocol: dict,
    skipped_percent: float,
) -> dict:
    """The self-describing record of a finished attack, and what in it is suspicious.

    `facts`: what is known of the checkpoint, and what was measured around the attack; `protocol`:
    of describe_protocol; `skipped_percent`: share of skipped rows above which it is flagged.
    """
    found = {
        "kind": "attack",
        **facts,
        "trained_max_seq_length": facts.get("max_seq_length"),
        **{name: value for name, value in settings.items() if name != "task"},
        **tally(outcomes),
        "row_outcomes": "".join(LETTERS[o["outcome"]] for o in outcomes),
        "rows_of_equal_importance": sum(bool(o.get("equal_importance")) for o in outcomes),
        "rows_out_of_budget": sum(bool(o.get("out_of_budget")) for o in outcomes),
        "attack_id": attack_id,
        "protocol_id": protocol["id"],
        "attack_parts": protocol["parts"],
        "seconds": round(sum(o["seconds"] for o in outcomes), 3),
        "environment": environment(),
    }
    return found | {"flags": flags_of(found, skipped_percent)}


def in_words(summary: dict) -> str:
    """One line for the terminal."""

    def percent(name: str) -> str:
        value, interval = summary[name], summary["intervals_95"].get(name)
        if value is None:
            return "-"
        return f"{value:.1f} %" + (f" ({interval[0]:.1f}-{interval[1]:.1f})" if interval else "")

    queries = summary["queries_per_row"]
    return (
        f"{summary['recipe']}{_at(summary)}, {summary['rows_attacked']} rows, protocol "
        f"{summary['protocol_id']}: clean {percent('clean_percent')}, "
        f"aua {percent('aua_percent')}, suc {percent('suc_percent')}, "
        f"{'-' if queries is None else round(queries, 1)} queries a row, "
        f"{percent('words_changed_percent')} of the words changed"
    )


def _at(summary: dict) -> str:
    if "temperature_rule" not in summary:
        return ""
    return f" at temperature {summary['temperature']:.3g} ({summary['temperature_rule']})"
