"""Attack records: their keys and rules, what is derived from them, and reading them.

`AttackRecord` is the one description of a record's keys, in this and in earlier versions.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation import schema
from evaluation.exports import RUNTIME, RUNTIMES
from evaluation.outcomes import COUNTED, LETTERS, check_labels
from evaluation.protocol import protocol_versions
from evaluation.schema import (
    BINS,
    COUNT,
    ENCODER,
    INTERVALS,
    LABELS,
    PAIR_OF_TEXTS,
    PERCENT,
    SHARE,
    key,
)
from masking.kinds import GATE_KINDS
from training.settings import recipe_in
from utils.cli import UserError, explain
from utils.files import read_jsonl

# Records may share a table only if these are equal.
COMPARISON = (
    "task",
    "encoder",
    "recipe",
    "score_with",
    "similarity_threshold",
    "checkpoint_rule",
    "max_seq_length",
    "rows_fingerprint",
    "temperature_rule",
    "protocol_id",
)
# Next to the paper's numbers, rows are averaged over seeds, so these must be equal too.
STRICT_COMPARISON = (*COMPARISON, "training_rows", "deviations", "resource_digests")
# One row of a table is one model: these must be equal within it.
ROW_SETTINGS = (
    "reinit_law",
    "reinit_std",
    "reinit_scope",
    "early_scores_epoch",
    "search_settings",
    "training_settings",
    "stop_settings",
)
# Next to COMPARISON, what the id of an evaluation protocol stands for (evaluation/protocol.py).
_PROTOCOL = (
    "precision",
    "rows_at_once",
    "query_budget",
    "attack_seed",
    "data",
    "rows",
    "resources",
    "attack_parts",
)


class NoRecords(UserError):
    """There is no attack record where one is needed."""


def search_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How scores were searched, in today's names."""
    return recipe_in({"settings": settings})


def training_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How weights were trained. Earlier versions wrote the gradient that the method implies."""
    return {name: value for name, value in settings.items() if name != "adv_gradient"}


@dataclass(frozen=True)
class TicketFacts:
    """How a ticket was made. `scores_epoch`: the search epoch that it is drawn from."""

    kind: str = key(convert=lambda kind: kind.replace(" ", "_"))  # once "random matched"
    sparsity_asked: float = key(SHARE)
    reinitialised: str = "nothing"
    reinit_law: str | None = None
    reinit_std: float | None = None
    reinit_scope: str | None = None
    scores_epoch: int | None = None
    scores_sha256: str | None = None
    expected_density_percent: float | None = None
    search: dict[str, Any] | None = key(default=None, convert=search_settings)
    structure: tuple[str, ...] = key(default=(), convert=tuple)  # removed whole; (): weights
    uniform: bool = False  # as many units in every layer

    @property
    def name(self) -> str:
        units = f" of {', '.join(self.structure)}" if self.structure else ""
        units += " (uniform)" if self.uniform else ""
        return f"{self.kind.replace('_', ' ')} ticket{units}".replace("_", " ")

    @property
    def early_scores_epoch(self) -> int | None:
        """The search epoch that a ticket of learned gates is drawn from, if not the last."""
        epoch, epochs = self.scores_epoch, (self.search or {}).get("epochs")
        return epoch if self.kind in GATE_KINDS and epochs and epoch != epochs else None


def _of_ticket(name: str) -> Any:
    """A property of an attack record: that of its ticket; None without a ticket."""
    return property(lambda record: record.ticket and getattr(record.ticket, name))


@dataclass(frozen=True)
class StopAtLoss:
    """Why a training ended before its epochs: at a loss, mostly that of a ticket."""

    loss: float
    ticket: TicketFacts | None = None
    epochs: int | None = None  # of the ticket's retraining
    seed: int | None = None  # of the ticket

    @property
    def description(self) -> str:
        if self.ticket is None:
            return f"until a loss of {self.loss:g}"
        percent = f"{100 * self.ticket.sparsity_asked:g} %"
        return f"until the loss of the {self.ticket.name} ({percent}, {self.epochs} epochs)"


@dataclass(frozen=True)
class RowsFacts:
    """Which rows were attacked."""

    ids_fingerprint: str
    fingerprint: str


@dataclass(frozen=True)
class Flag:
    """A reason to doubt a result."""

    flag: str
    why: str


@dataclass(frozen=True, eq=False)
class AttackRecord:
    """One attack on one model. `raw`: the object as it stands in its file."""

    raw: dict[str, Any] = field(repr=False)
    attack_id: str
    task: str
    recipe: str
    score_with: str
    rows: RowsFacts
    encoder: str = key(ENCODER, convert=lambda facts: facts.get("name") or "unknown encoder")
    rows_attacked: int = key(COUNT)
    clean_percent: float = key(PERCENT)
    aua_percent: float = key(PERCENT)
    intervals_95: dict[str, list[float] | None] = key(INTERVALS)
    # The rest may be null or, in records of earlier versions, absent.
    stage: str | None = None
    seed: int | None = None
    epochs: int | None = None
    epoch: int | None = None  # of the checkpoint
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    method: str = "plain"
    ticket: TicketFacts | None = None
    stop_at_loss: StopAtLoss | None = None
    runtime: str | None = key(RUNTIME, None)  # of an ONNX export; None: transformers
    deviations: str | None = key(default=None, earlier=("protocol",))
    preset: str | None = key(default=None, earlier=("attack_protocol",))
    protocol_id: str | None = None
    temperature_rule: str | None = None
    split: str | None = None
    row_outcomes: str | None = None
    row_labels: str | list[int] | None = key(LABELS, None)  # outcomes.decode_labels
    equalized_aua_percent: float | None = key(PERCENT, None)  # of a suite: class-equalized
    equalized_outcomes: str | None = None  # the row_outcomes at that bias
    label_names: list[str] | None = None
    training: dict[str, Any] | None = key(default=None, convert=training_settings)
    resources: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    made_in: list[str] | None = key(PAIR_OF_TEXTS, None)  # folders of the run and of the attack
    flags: list[Flag] | None = None
    label_passes: int | None = None
    training_rows: int | None = None
    max_seq_length: int | None = None
    suc_percent: float | None = None
    queries_per_row: float | None = None
    words_changed_percent: float | None = None
    similarity_threshold: float | None = None
    temperature: float | None = None
    ece_percent: float | None = None
    saturated_percent: float | None = None
    mean_top_probability_percent: float | None = None
    reliability: list[list[float]] | None = key(BINS, None)  # calibration.measures
    dev_accuracy_percent: float | None = None
    clean_full_test_percent: float | None = None
    mean_training_loss: float | None = None  # of the checkpoint's epoch
    last_training_loss: float | None = None  # of the run's last epoch

    @classmethod
    def read(cls, raw: dict[str, Any]) -> "AttackRecord":
        """Raises ValueError where the object is not an attack record."""
        record = schema.read(cls, raw, raw=raw)
        record._check()
        return record

    def _check(self) -> None:
        """Rules that involve more than one key."""
        if "ticket" not in self.raw:
            raise ValueError("ticket is missing")
        required = [] if self.is_foreign else ["seed", "epochs", "checkpoint"]
        for name in required + ["epoch"] * (self.stop_at_loss is not None):
            if getattr(self, name) is None:
                kind = "a text" if name == "checkpoint" else "a whole number"
                raise ValueError(f"{name} must be {kind}, but is 'None'")
        if self.row_outcomes is not None:
            self._check_outcomes(self.row_outcomes)
        check_labels(self.raw)

    def _check_outcomes(self, letters: str) -> None:
        known = LETTERS.values()
        if len(letters) != self.rows_attacked or set(letters) - set(known):
            raise ValueError(
                f"row_outcomes must hold one letter of {', '.join(sorted(known))} for each of "
                f"{self.rows_attacked} rows"
            )
        for measure, counted in COUNTED.items():
            share = 100 * sum(map(letters.count, counted)) / self.rows_attacked
            if abs(share - getattr(self, measure)) > 0.01:
                raise ValueError(
                    f"{measure} is {getattr(self, measure):g}, but its row_outcomes give {share:g}"
                )

    @property
    def is_foreign(self) -> bool:
        """Whether another program wrote the checkpoint: its training and seed are unknown."""
        return self.raw.get("stage", "ours") is None

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned: no ticket, or all that it removed starts from noise."""
        return self.ticket is None or self.ticket.reinitialised == "rest"

    @property
    def is_plain_dense(self) -> bool:
        """Whether it is an ordinary fine-tuned model, of whatever length."""
        return self.ticket is None and self.method == "plain"

    @property
    def sparsity(self) -> float:
        return 0.0 if self.is_dense or self.ticket is None else self.ticket.sparsity_asked

    @property
    def name(self) -> str:
        """Of the model, for tables that have no row names of their own."""
        runtime = f", {RUNTIMES[self.runtime]}" if self.runtime else ""
        return self._model_name + runtime + (", dev rows" if self.split == "dev" else "")

    @property
    def _model_name(self) -> str:
        if self.is_foreign:  # two folders of one name can be two models
            return f"{self.checkpoint} ({str(self.checkpoint_sha256)[:6]})"
        if self.ticket is None:
            name = "dense fine-tuned" if self.method == "plain" else f"dense {self.method}"
            return name + (f", {self.stop_at_loss.description}" if self.stop_at_loss else "")
        name = self.ticket.name + ("" if self.method == "plain" else f", {self.method}")
        reinitialised = self.ticket.reinitialised
        return name + ("" if reinitialised == "nothing" else f", {reinitialised} re-initialised")

    @property
    def checkpoint_rule(self) -> str | None:
        return "given" if self.is_foreign else self.checkpoint

    @property
    def last_loss(self) -> float | None:
        """Mean training loss of the run's last epoch."""
        last = self.last_training_loss
        return self.mean_training_loss if last is None else last

    @cached_property
    def identity(self) -> tuple:
        return identity(self.raw)

    # Keys of COMPARISON and ROW_SETTINGS. Settings are compared as JSON.

    @property
    def rows_fingerprint(self) -> str:
        return self.rows.ids_fingerprint + self.rows.fingerprint

    @cached_property
    def resource_digests(self) -> str:
        resources = (self.resources or {}).items()
        return _as_json({name: r.get("sha256", r.get("name")) for name, r in resources})

    reinit_law = _of_ticket("reinit_law")
    reinit_std = _of_ticket("reinit_std")
    reinit_scope = _of_ticket("reinit_scope")
    early_scores_epoch = _of_ticket("early_scores_epoch")
    expected_density_percent = _of_ticket("expected_density_percent")

    @cached_property
    def search_settings(self) -> str:
        return _as_json(self.ticket and self.ticket.search)

    @cached_property
    def training_settings(self) -> str:
        return _as_json(self.training)

    @cached_property
    def stop_settings(self) -> str | None:
        """How the ticket was made whose loss ended the training; the loss differs by seed."""
        ticket = self.stop_at_loss and self.stop_at_loss.ticket
        if not ticket:
            return None
        noise = [ticket.reinit_law, ticket.reinit_std, ticket.reinit_scope]
        return _as_json([*noise, ticket.reinitialised, ticket.search])

    @cached_property
    def protocol_but_temperature(self) -> str:
        """Equal for two attacks whose evaluation protocols differ in the temperature alone."""
        parts = {name: self.raw.get(name) for name in _PROTOCOL}
        return _as_json([parts, protocol_versions(self.environment or {})])


def _as_json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def identity(raw: Mapping[str, Any]) -> tuple:
    """Equal for two copies of one record.

    Two controls may be the same epoch of one training and so the same attack: `stop_at_loss`
    distinguishes them.
    """
    return raw["attack_id"], raw.get("seed"), _as_json(raw.get("stop_at_loss"))


def read_records(paths: Iterable[str | Path]) -> list[AttackRecord]:
    """All attack records below the paths, each once; of two copies the later one."""
    paths = list(paths)
    attacks: dict[tuple, AttackRecord] = {}
    doubts = []
    for file in record_files(paths):
        lines = read_jsonl(file)
        training_rows = _training_rows(lines)
        for number, raw in enumerate(lines, 1):
            if raw.get("kind") == "doubt":
                doubts.append(raw)
            if raw.get("kind") != "attack":
                continue
            if training_rows is not None:
                raw.setdefault("training_rows", training_rows)
            with explain(f"{file}, record {number}: "):
                record = AttackRecord.read(raw)
            attacks[record.identity] = record
    if not attacks:
        where = ", ".join(map(str, paths))
        suites = "a report shows suites only without --make"
        raise NoRecords(f"no attack records in {where}: run attack.py first ({suites})")
    for doubt in doubts:  # added after the attack, by analysis/transfer.py
        flag = {name: str(doubt.get(name)) for name in ("flag", "why")}
        for name, record in attacks.items():
            if record.attack_id == doubt.get("attack_id"):
                others = [f for f in record.raw.get("flags") or [] if f["flag"] != flag["flag"]]
                attacks[name] = AttackRecord.read(record.raw | {"flags": [*others, flag]})
    return list(attacks.values())


def record_files(paths: Iterable[str | Path]) -> list[Path]:
    """Runs keep records.jsonl, reports keep theirs as table1-records.jsonl and the like."""
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"--records {path} does not exist")
        files += sorted(path.rglob("*records.jsonl")) if path.is_dir() else [path]
    return files


def _training_rows(lines: list[dict[str, Any]]) -> int | None:
    """Rows that the models of a record file were trained on, if its evaluations agree."""
    counts = {line.get("training_rows") for line in lines if line.get("kind") == "evaluation"}
    return counts.pop() if len(counts) == 1 else None
