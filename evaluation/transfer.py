"""Adversarial texts against one model replayed on others, row by row. No TextAttack."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from evaluation import checkpoints
from evaluation.finished_attacks import FinishedAttack
from evaluation.outcomes import FAILED
from training.metrics import wilson_interval
from training.rows import Rows
from training.tasks import TASKS
from utils.cli import UserError, warn
from utils.files import append_jsonl, read_jsonl

ByAttack = dict[str, np.ndarray]  # attack_id -> bool, (rows,)


@dataclass(frozen=True)
class Victim:
    """A checkpoint on which all texts are replayed, and the attacks on it (their texts too)."""

    target: checkpoints.Target
    attacks: list[FinishedAttack] = field(default_factory=list)


@dataclass(frozen=True)
class Share:
    """Percent of all rows, with Wilson's 95 % interval."""

    percent: float
    interval_95: tuple[float, float]

    @classmethod
    def of(cls, counted: np.ndarray) -> "Share":
        count = int(counted.sum())
        return cls(100 * float(counted.mean()), wilson_interval(count, len(counted)))


@dataclass(frozen=True)
class Replay:
    """Rows on which one model is right before and after, for the texts of each source and of all.

    `fooled_by_others`: see carried_over; None if no attack on the model was given.
    """

    model: str
    clean: Share
    by_source: dict[str, Share]
    worst_of_all: Share
    fooled_by_others: int | None = None

    def as_json(self) -> dict:
        facts = {
            "model": self.model,
            "clean_percent": self.clean.percent,
            "by_source": {name: asdict(share) for name, share in self.by_source.items()},
            "worst_of_all_percent": self.worst_of_all.percent,
            "worst_of_all_interval_95": self.worst_of_all.interval_95,
        }
        if self.fooled_by_others is not None:
            facts["fooled_by_carried_over_texts_alone"] = self.fooled_by_others
        return facts


def find_victims(
    attacks: Sequence[FinishedAttack], model_names: Sequence[str], checkpoint: str
) -> list[Victim]:
    """The attacked checkpoints, then `model_names` (see checkpoints.find_targets), each once."""
    further = [checkpoints.find_targets(name, checkpoint, None)[0] for name in model_names]
    victims: dict[Path, Victim] = {}
    for attack in attacks:
        target = _attacked_checkpoint(attack, further)
        victims.setdefault(target.folder.resolve(), Victim(target)).attacks.append(attack)
    for target in further:
        victims.setdefault(target.folder.resolve(), Victim(target))
    return list(victims.values())


def _attacked_checkpoint(
    attack: FinishedAttack, further: list[checkpoints.Target]
) -> checkpoints.Target:
    """The checkpoint in the run above the attack's folder, else one of `further`."""
    run = attack.run_folder
    folder = run / attack.settings["checkpoint"]
    folder = folder if folder.is_dir() else run
    is_there = (folder / "config.json").is_file()
    above = checkpoints.find_targets(str(folder), "last", None) if is_there else []
    for target in (*above, *further):
        if checkpoints.weights_digest(target) == attack.settings["checkpoint_sha256"]:
            return target
    if is_there:
        raise UserError(
            f"{folder} is no longer the checkpoint that {attack.folder} attacked: attack it again"
        )
    raise UserError(f"{attack.folder} is not in a run: give the model that it attacked by --models")


def short_names(folders: Sequence[Path], of_attacks: Sequence[str] = ()) -> list[str]:
    """The last parts of each checkpoint's folder, at least two, until different ones differ.

    `of_attacks`: a name for each attack on it, which is appended if it was attacked twice.
    """
    paths = [folder.resolve().parts for folder in folders]
    depth = 2
    while len({path[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    suffixes = [f", {name}" for name in of_attacks] or [""] * len(paths)
    return [
        "/".join(path[-depth:]) + (suffix if paths.count(path) > 1 else "")
        for path, suffix in zip(paths, suffixes, strict=True)
    ]


def answers(
    victim: Victim, attacks: Sequence[FinishedAttack], batch_size: int, accelerator: Accelerator
) -> tuple[np.ndarray, ByAttack]:
    """Where the victim is right: on the originals, and on each attack's texts; bool, (rows,).

    Texts are cut where the attack on the victim cut them, else where its training did.
    """
    target, first = victim.target, (victim.attacks or attacks)[0]
    length = None if victim.attacks else target.facts.get("max_seq_length")
    length = length or first.settings["max_seq_length"]
    task = TASKS.get(first.task or "") or replace(TASKS["custom"], name=str(first.task))
    if not task.label_names:  # a custom task or an open data set
        task = replace(task, label_names=attacks[0].label_names)
    labels_of = checkpoints.labeler(target, task, length, batch_size, accelerator)

    def right_on(rows: Rows) -> np.ndarray:
        return labels_of(rows) == np.array(rows.labels)

    return right_on(first.originals), {a.attack_id: right_on(a.adversarial) for a in attacks}


def replay(
    model: str, before: np.ndarray, after: ByAttack, fooled_by_others: int | None = None
) -> Replay:
    """Shares of one model. `before`, `after` (here by the name of a source): see answers."""
    worst = np.logical_and.reduce([before, *after.values()])
    by_source = {source: Share.of(before & right) for source, right in after.items()}
    return Replay(model, Share.of(before), by_source, Share.of(worst), fooled_by_others)


def carried_over(attack: FinishedAttack, before: np.ndarray, after: ByAttack) -> int:
    """Rows on which the attack failed, but a text of another attack fools the model.

    `after`: of the attacks on other models. A row that is wrong `before` any replay does not count.
    Many such rows indicate that the direct attack was hindered, for example by a saturated softmax,
    not that the model is robust (Athalye, Carlini and Wagner, ICML 2018).
    """
    failed = np.array([row.outcome == FAILED for row in attack.rows])
    never_fooled = np.logical_and.reduce([before, *after.values()])
    return int((failed & before & ~never_fooled).sum())


def check_carried_over(
    victim: Victim,
    name: str,
    attacks: Sequence[FinishedAttack],
    before: np.ndarray,
    after: ByAttack,
    flag_percent: float,
    result_file: str | None,
) -> int | None:
    """The largest carried_over of the attacks on the victim; None if there is none.

    Where it is at least `flag_percent` of the rows, warn and add a doubt to the attack's record,
    in `result_file` or the run's records.jsonl.
    """
    digests = {attack.settings["checkpoint_sha256"] for attack in victim.attacks}
    others = [a for a in attacks if a.settings["checkpoint_sha256"] not in digests]
    counts = []
    for attack in victim.attacks:
        count = carried_over(attack, before, {a.attack_id: after[a.attack_id] for a in others})
        counts.append(count)
        if count and 100 * count >= flag_percent * len(before):
            why = (
                f"texts carried over from other models fool it on {count} of {len(before)} rows "
                "where its own attack failed"
            )
            warn(f"suspicious (carried_over_texts): {name}: {why}")
            doubt = {"kind": "doubt", "attack_id": attack.summary.get("attack_id")}
            doubt |= {"flag": "carried_over_texts", "why": why}
            records = Path(result_file or victim.target.home / "records.jsonl")
            if doubt not in (read_jsonl(records) if records.is_file() else []):
                append_jsonl(records, doubt)
    return max(counts, default=None)
