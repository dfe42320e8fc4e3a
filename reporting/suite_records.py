"""The records of suites, for comparisons of suites and for tables of attacks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import records
from evaluation.margins import Margins, equalizing_bias, letters_of
from evaluation.outcomes import decode_labels
from evaluation.protocol import fingerprint, protocol_versions
from evaluation.records import AttackRecord, NoRecords
from training.metrics import wilson_interval
from utils.cli import UserError, explain
from utils.files import read_jsonl

WRITTEN_BY = {"dev": "dev", "margins": "margin"}  # keys that a comparison needs -> their parts


@dataclass(frozen=True)
class SuiteRecord:
    """A record of attack.py --suite. `states`, `dev`: name -> margins (clean, margin, union...).

    `default_answer`: percent of the texts that each class is answered to, with all content words
    unknown, (classes,); None without the probe, or for a tokenizer without an unknown token.
    `raw`: the object as it stands in its file.
    """

    task: str
    seed: int | None
    rows: str  # fingerprint
    states: dict[str, Margins]
    dev: dict[str, Margins]
    default_answer: np.ndarray | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, record: dict, where: str) -> "SuiteRecord":
        """UserError for a record that is not of a suite with the parts dev and margin."""
        try:
            names = tuple(record["label_names"])
            dev = _states(record["dev"]["margins"], record["dev"]["row_labels"], names)
            states = _states(record["margins"], record["row_labels"], names)
            rows = record["rows"]["fingerprint"]
            shares = record.get("default_answer", {}).get("unknown")
            default = None if shares is None else np.array(shares[-1])
            return cls(record["task"], record["seed"], rows, states, dev, default, record)
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(
                f"{where} holds a damaged record of a suite ({type(e).__name__}: {e}); run "
                "attack.py --suite standard"
            ) from e

    @cached_property
    def bias(self) -> np.ndarray:
        """The bias at which all classes of the attacked dev rows survive alike."""
        return equalizing_bias(self.dev["margin"])


def _states(margins: dict, row_labels, names: tuple[str, ...]) -> dict[str, Margins]:
    labels = np.array(decode_labels(row_labels))
    others = np.arange(len(names)) != labels[:, None]

    def state(values: list[list[float]]) -> Margins:
        full = np.full(others.shape, np.inf)
        full[others] = np.ravel(values)
        return Margins(labels, full, names)

    return {name: state(values) for name, values in margins.items()}


def read(files: Iterable[str | Path]) -> list[SuiteRecord]:
    """A record per checkpoint in files suites.jsonl: the last one with the most parts.

    Records without the parts dev and margin are skipped if another one of the checkpoint has them.
    Raises UserError if none has.
    """
    lines = []
    for file in map(Path, files):
        if not file.is_file():
            raise UserError(f"there is no file {file}; give suites.jsonl of a run")
        of_file = read_jsonl(file)
        if not of_file:
            raise UserError(f"{file} holds no records; run attack.py --suite standard")
        lines += [(record, file) for record in of_file]
    chosen, incomplete = _one_per_checkpoint(lines)
    for checkpoint, why in incomplete.items():
        if checkpoint not in chosen:
            raise UserError(why)
    return list(chosen.values())


def read_attacks(paths: Iterable[str | Path]) -> list[AttackRecord]:
    """All attack records below the paths and, after them, each checkpoint's suite as an attack.

    Suites lie in files suites.jsonl, and among the records that a report was made from. Those
    without the parts dev and margin have no Aua at a bias, and no table shows them. Raises
    NoRecords if there is neither an attack nor a suite.
    """
    paths = list(paths)
    files = records.record_files(paths)
    for folder in map(Path, paths):
        files += sorted(folder.rglob("*suites.jsonl")) if folder.is_dir() else []
    lines = [(line, file) for file in files for line in read_jsonl(file)]
    suites, _ = _one_per_checkpoint([x for x in lines if x[0].get("kind") == "suite"])
    try:
        attacks = records.read_records(paths)
    except NoRecords:
        if not suites:
            raise
        attacks = []
    return attacks + [as_attack(suite) for suite in suites.values()]


def as_attack(suite: SuiteRecord) -> AttackRecord:
    """The union of a suite's constrained attacks as one attack, which a table can show.

    Its protocol is the rows, the dev rows and the parts that were run, since a suite with fewer
    parts is a weaker attack. `raw` keeps all that the suite's record holds, so that a report can
    read it again.
    """
    raw, clean, union = suite.raw, suite.states["clean"], suite.states["union"]
    recipe = raw.get("suite_recipe", raw["recipe"])
    protocol = {name: raw.get(name) for name in ("attack_seed", "max_seq_length", "rows")}
    protocol |= {"recipe": recipe, "parts": sorted(raw.get("rows_per_part", ()))}
    protocol |= {"dev_rows": raw["dev"].get("rows")}
    protocol |= {"versions": protocol_versions(raw.get("environment") or {})}
    right = {
        "clean_percent": clean.right(),
        "aua_percent": union.right(),
        "equalized_aua_percent": union.right(suite.bias),
    }
    percent = {name: 100 * float(rows.mean()) for name, rows in right.items()}
    survived = percent["aua_percent"] / percent["clean_percent"] if clean.right().any() else None
    further = {
        "attack_id": fingerprint([raw.get("checkpoint_sha256"), raw.get("seed"), protocol]),
        "suite_recipe": recipe,
        "recipe": f"suite, {recipe}",
        "score_with": "log_odds",
        "protocol_id": fingerprint(protocol)[:12],
        "suc_percent": None if survived is None else 100 * (1 - survived),
        "row_outcomes": letters_of(clean, union),
        "equalized_outcomes": letters_of(clean, union, suite.bias),
        "intervals_95": {n: wilson_interval(int(r.sum()), len(r)) for n, r in right.items()},
    }
    with explain(f"a suite of {raw.get('checkpoint')}: "):
        return AttackRecord.read(raw | percent | further)


def _one_per_checkpoint(
    lines: Sequence[tuple[dict, Path]],
) -> tuple[dict[tuple, SuiteRecord], dict[tuple, str]]:
    """Checkpoint -> its last record with the most parts, and -> why others cannot be compared."""
    chosen: dict[tuple, tuple[int, SuiteRecord]] = {}  # with the number of its parts
    incomplete: dict[tuple, str] = {}
    for record, file in lines:
        checkpoint = tuple(map(record.get, ("checkpoint_sha256", "task", "seed")))
        lacking = [part for key, part in WRITTEN_BY.items() if key not in record]
        if lacking:
            incomplete[checkpoint] = (
                f"{file} holds a record (task {record.get('task')}, seed {record.get('seed')}) "
                "that is not a suite with the parts dev and margin (it lacks "
                f"{' and '.join(lacking)}); run attack.py --suite standard"
            )
            continue
        parts = len(record.get("rows_per_part", ()))
        if parts >= chosen.get(checkpoint, (0, None))[0]:
            chosen[checkpoint] = parts, SuiteRecord.of(record, str(file))
    return {name: suite for name, (_, suite) in chosen.items()}, incomplete
