"""Invented attack records for the tests of reports and plans."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

from evaluation.outcomes import COUNTED
from experiments.models import DENSE, ROBUST, Model
from training import deviations

TASK = "builtin/rotten_tomatoes"

ROBUST_30 = replace(ROBUST, sparsity=0.3)

SEARCH = deviations.SEARCH["paper"] | {"epochs": 6}

ROOT = Path(__file__).resolve().parents[1]


def attack(model: Model = DENSE, seed: int = 42, aua: float = 20.0, **changes) -> dict:
    """A record of a model of the mini scale. Clean is 80, and the id contains the facts."""
    ticket = None
    if model.kind is not None:
        ticket = {
            "kind": model.kind,
            "sparsity_asked": model.sparsity,
            "sparsity": model.sparsity,
            "reinitialised": model.reinitialise,
        }
        if model.structure:
            ticket |= {"structure": list(model.structure), "uniform": True}
    record = {
        "kind": "attack",
        "task": TASK,
        "encoder": {"name": "builtin/minilm"},
        "ticket": ticket,
        "method": model.method,
        "seed": seed,
        "epochs": model.epochs or 3,
        "protocol": "paper",
        "checkpoint": "last",
        "recipe": "textfooler-minilm",
        "score_with": "log_odds",
        "similarity_threshold": 0.85,
        "max_seq_length": 64,
        "training_rows": 1800,
        "rows": {"ids_fingerprint": "a", "fingerprint": "b"},
        "rows_attacked": 100,
        "clean_percent": 80.0,
        "aua_percent": aua,
        "suc_percent": 100 * (1 - aua / 80),
        "queries_per_row": 50.0,
        "intervals_95": {"clean_percent": [70.0, 88.0]},
    }
    record |= changes
    letters = changes.get("row_outcomes")
    if isinstance(letters, str) and letters:  # compute the rates from the rows
        share = {
            name: 100 * sum(map(letters.count, counted)) / len(letters)
            for name, counted in COUNTED.items()
        }
        record |= {"rows_attacked": len(letters)} | share
    facts = [model.folder, seed, aua, *changes.values()]
    return {"attack_id": "id" + re.sub(r"\W+", "-", str(facts))} | record


def write(folder: Path, lines: list[dict], name: str = "records.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def rows_of(path: Path, **wanted: str) -> list[dict]:
    with open(path, newline="") as f:
        return [r for r in csv.DictReader(f) if all(r[k] == v for k, v in wanted.items())]


def controlled(seed: int = 42, aua: float = 60.0, **changes) -> dict:
    """A robust ticket whose mask has 9 label passes, retrained to a loss of 0.05."""
    record = attack(
        ROBUST_30, seed, aua, mean_training_loss=0.05, epoch=3, label_passes=12, **changes
    )
    record["ticket"]["scores_sha256"] = f"scores of seed {seed}"
    return record
