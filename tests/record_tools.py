"""Invented attack records, and the reports that report.py makes of them."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

from conftest import call

from evaluation.outcomes import COUNTED
from evaluation.presets import SUITE_CONSTRAINED
from experiments.models import DENSE, ROBUST, Model
from training import deviations

TASK = "builtin/rotten_tomatoes"

ROBUST_30 = replace(ROBUST, sparsity=0.3)

LTH = Model(kind="imp", sparsity=0.3)

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


def suite_record(
    seed: int, negative: list[float], positive: list[float], task: str = "sst2", **more
):
    """A suite in which an attack lowers each margin by 1, and dev is like test."""
    after = [[margin] for margin in (*negative, *positive)]
    before = [[margin + 1] for [margin] in after]
    labels = "0" * len(negative) + "1" * len(positive)
    margins = {"clean": before, "margin": after, "union": after}
    return {
        "kind": "suite",
        "task": task,
        "seed": seed,
        "label_names": ["negative", "positive"],
        "checkpoint_sha256": f"{seed}{negative}",
        "rows": {"fingerprint": "r"},
        "row_labels": labels,
        "margins": margins,
        "dev": {"row_labels": labels, "margins": margins},
        "rows_per_part": dict.fromkeys(("dev", *SUITE_CONSTRAINED), len(labels)),
    } | more


def write(folder: Path, lines: list[dict], name: str = "records.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def rows_of(path: Path, **wanted: str) -> list[dict]:
    with open(path, newline="") as f:
        return [r for r in csv.DictReader(f) if all(r[k] == v for k, v in wanted.items())]


def row_of(path: Path, **wanted: str) -> dict:
    found = rows_of(path, **wanted)
    assert len(found) == 1
    return found[0]


def aua_of(out: Path, method: str, table: str = "table1") -> dict:
    """The row of a CSV file of the mini scale with a method's Aua."""
    wanted = {"method": method, "metric": "aua", "recipe": "textfooler-minilm"}
    return row_of(out / f"{table}.csv", **wanted)


def controlled(seed: int = 42, aua: float = 60.0, **changes) -> dict:
    """A robust ticket whose mask has 9 label passes, retrained to a loss of 0.05."""
    record = attack(
        ROBUST_30, seed, aua, mean_training_loss=0.05, epoch=3, label_passes=12, **changes
    )
    record["ticket"]["scores_sha256"] = f"scores of seed {seed}"
    return record


def report(
    tmp_path: Path, *targets: str, scale: str = "mini", further: tuple = (), lines: tuple = ()
) -> Path:
    """Make the targets from tmp_path/runs, with `lines` if any; the folder they were written to."""
    if lines:
        write(tmp_path / "runs", lines)
    folders = ("--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    call("report", "--make", *targets, "--scale", scale, *folders, *further)
    return tmp_path / "out"


def general(tmp_path: Path, out: str = "out", lines: tuple = ()) -> Path:
    """Make the general table from tmp_path/runs, with `lines` if any; its folder."""
    if lines:
        write(tmp_path / "runs", lines)
    call("report", "--records", tmp_path / "runs", "--output_dir", tmp_path / out)
    return tmp_path / out


def study_flags(
    tmp_path: Path, records: str = "runs", out: str = "out", make: str = "study"
) -> list[str]:
    folders = ["--records", str(tmp_path / records), "--output_dir", str(tmp_path / out)]
    return ["--make", make, "--scale", "study", *folders]


def study(tmp_path: Path, *further, **folders: str) -> None:
    """Make the study from tmp_path/runs in tmp_path/out, or from and in other `folders`."""
    call("report", *study_flags(tmp_path, **folders), *further)
