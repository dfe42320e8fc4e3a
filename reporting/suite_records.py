"""The records of suites, for comparisons of suites and for tables of attacks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
STATES = {"dev": ("clean", "margin"), "margins": ("clean", "margin", "union")}  # in them
FIRST_CHARACTERS = '{"kind": "suite"'  # of a line that attack.py --suite writes


@dataclass(frozen=True)
class SuiteRecord:
    """A record of attack.py --suite. `states`, `dev`: name -> margins (clean, margin, union...).

    `bias`: at which all classes of the attacked dev rows survive alike. `default_answer`: percent
    of the texts that each class is answered to, with all content words unknown, (classes,); None
    without the probe, or for a tokenizer without an unknown token. `raw`: the object as it stands
    in its file.
    """

    task: str
    seed: int | None
    checkpoint: str | None  # sha256
    rows: str  # fingerprint
    parts: frozenset[str]  # that attacked rows
    states: dict[str, Margins]
    dev: dict[str, Margins]
    bias: np.ndarray
    default_answer: np.ndarray | None
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, record: dict, where: str) -> "SuiteRecord":
        """UserError for a record that is not of a suite with the parts dev and margin."""
        try:
            return cls._read(record)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
            raise UserError(
                f"{where} holds a damaged record of a suite ({type(e).__name__}: {e}); run "
                "attack.py --suite standard"
            ) from e

    @classmethod
    def _read(cls, record: dict) -> "SuiteRecord":
        names = tuple(record["label_names"])
        for name, kinds in {
            "task": str,
            "seed": int | None,
            "checkpoint_sha256": str | None,
        }.items():
            if not isinstance(record[name], kinds):
                raise ValueError(f"{name} is {record[name]!r}")
        states = _states(record["margins"], record["row_labels"], names, STATES["margins"])
        dev = record["dev"]
        dev_states = _states(dev["margins"], dev["row_labels"], names, STATES["dev"])
        return cls(
            record["task"],
            record["seed"],
            record["checkpoint_sha256"],
            record["rows"]["fingerprint"],
            frozenset(record.get("rows_per_part") or {}),
            states,
            dev_states,
            equalizing_bias(dev_states["margin"]),
            _default_answer(record.get("default_answer"), len(names)),
            record,
        )


def _states(
    margins: dict, row_labels, names: tuple[str, ...], needed: Sequence[str] = ()
) -> dict[str, Margins]:
    labels = np.array(decode_labels(row_labels))
    others = np.arange(len(names)) != labels[:, None]

    def state(name: str, values: list[list[float]]) -> Margins:
        given = np.array(values, dtype=float)
        if given.shape != (len(labels), len(names) - 1):
            raise ValueError(f"margins of {name} do not fit {len(labels)} rows")
        full = np.full(others.shape, np.inf)
        full[others] = given.ravel()
        return Margins(labels, full, names)

    states = {name: state(name, values) for name, values in margins.items()}
    for name in needed:
        if name not in states:
            raise ValueError(f"margins of {name} are missing")
    return states


def _default_answer(answers: dict | None, classes: int) -> np.ndarray | None:
    shares = (answers or {}).get("unknown")
    if shares is None:
        return None
    last = np.array(shares[-1], dtype=float)
    if last.shape != (classes,) or not np.isfinite(last).all():
        raise ValueError("default_answer needs a number for each class")
    return last


def read(files: Iterable[str | Path], newest: bool = True) -> list[SuiteRecord]:
    """A record per checkpoint, rows and recipe in files suites.jsonl: of those with the most parts,
    the newest (or the first).

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
    chosen, incomplete = _one_per_checkpoint(lines, newest)
    known = {suite.checkpoint for suite in chosen}
    for checkpoint, why in incomplete.items():
        if checkpoint not in known:
            raise UserError(why)
    return chosen


def read_attacks(paths: Iterable[str | Path]) -> list[AttackRecord]:
    """All attack records below the paths and, after them, each checkpoint's suite as an attack.

    Suites lie in files suites.jsonl, and among the records that a report was made from. Those
    without the parts dev and margin have no Aua at a bias, and no table shows them. Raises
    NoRecords if there is neither an attack nor a suite.
    """
    paths = list(paths)
    files = dict.fromkeys(records.record_files(paths))
    for folder in map(Path, paths):
        found = sorted(folder.rglob("*.jsonl")) if folder.is_dir() else []
        files |= dict.fromkeys(file for file in found if _starts_with_suite(file))
    lines = [(line, file) for file in files for line in read_jsonl(file)]
    suites, _ = _one_per_checkpoint([x for x in lines if x[0].get("kind") == "suite"])
    try:
        attacks = records.read_records(paths)
    except NoRecords:
        if not suites:
            raise
        attacks = []
    return attacks + [as_attack(suite) for suite in suites]


def _starts_with_suite(file: Path) -> bool:
    with file.open(encoding="utf-8", errors="replace") as f:
        return f.read(len(FIRST_CHARACTERS)) == FIRST_CHARACTERS


def as_attack(suite: SuiteRecord) -> AttackRecord:
    """The union of a suite's constrained attacks as one attack, which a table can show.

    Its protocol is the rows, the dev rows and the parts that were run, since a suite with fewer
    parts is a weaker attack. `raw` keeps all that the suite's record holds, so that a report can
    read it again.
    """
    raw, clean, union = suite.raw, suite.states["clean"], suite.states["union"]
    recipe = raw.get("suite_recipe", raw["recipe"])
    protocol = {name: raw.get(name) for name in ("attack_seed", "max_seq_length", "rows")}
    protocol |= {"recipe": recipe, "parts": sorted(suite.parts)}
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
    lines: Sequence[tuple[dict, Path]], newest: bool = True
) -> tuple[list[SuiteRecord], dict[str | None, str]]:
    """A record per checkpoint, rows and recipe; and checkpoint -> why others cannot be compared."""
    chosen: dict[tuple, SuiteRecord] = {}
    incomplete: dict[str | None, str] = {}
    for record, file in lines:
        lacking = [part for key, part in WRITTEN_BY.items() if key not in record]
        if lacking:
            incomplete[str(record.get("checkpoint_sha256"))] = (
                f"{file} holds a record (task {record.get('task')}, seed {record.get('seed')}) "
                "that is not a suite with the parts dev and margin (it lacks "
                f"{' and '.join(lacking)}); run attack.py --suite standard"
            )
            continue
        suite = SuiteRecord.of(record, str(file))
        recipe = str(record.get("suite_recipe", record.get("recipe")))
        key = suite.checkpoint, suite.task, suite.seed, suite.rows, recipe
        least = len(chosen[key].parts) + (not newest) if key in chosen else 0
        if len(suite.parts) >= least:
            chosen[key] = suite
    return list(chosen.values()), incomplete
