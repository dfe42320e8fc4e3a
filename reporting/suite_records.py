"""The records of suites, as a comparison reads them from files suites.jsonl."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation.margins import Margins, equalizing_bias
from evaluation.outcomes import decode_labels
from utils.cli import UserError
from utils.files import read_jsonl

WRITTEN_BY = {"dev": "dev", "margins": "margin"}  # keys that a comparison needs -> their parts


@dataclass(frozen=True)
class SuiteRecord:
    """A record of attack.py --suite. `states`, `dev`: name -> margins (clean, margin, union...).

    `default_answer`: percent of the texts that each class is answered to, with all content words
    unknown, (classes,); None without the probe, or for a tokenizer without an unknown token.
    """

    task: str
    seed: int | None
    rows: str  # fingerprint
    states: dict[str, Margins]
    dev: dict[str, Margins]
    default_answer: np.ndarray | None = None

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
            return cls(record["task"], record["seed"], rows, states, dev, default)
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


def read(files: Sequence[str]) -> list[SuiteRecord]:
    """A record per checkpoint in files suites.jsonl: the last one with the most parts.

    Records without the parts dev and margin are skipped if another one of the checkpoint has them.
    Raises UserError if none has.
    """
    chosen: dict[tuple, tuple[int, SuiteRecord]] = {}  # with the number of its parts
    incomplete: dict[tuple, str] = {}
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"there is no file {file}; give suites.jsonl of a run")
        records = read_jsonl(Path(file))
        if not records:
            raise UserError(f"{file} holds no records; run attack.py --suite standard")
        for record in records:
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
                chosen[checkpoint] = parts, SuiteRecord.of(record, file)
    for checkpoint, why in incomplete.items():
        if checkpoint not in chosen:
            raise UserError(why)
    return [suite for _, suite in chosen.values()]
