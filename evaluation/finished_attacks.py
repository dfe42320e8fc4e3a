"""Finished attacks, read back from their folders: rows, texts and outcomes. No TextAttack."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.attack_folder import line_digest
from evaluation.outcomes import SUCCESS
from evaluation.protocol import fingerprint
from training.rows import Rows
from utils.cli import UserError
from utils.files import append_jsonl, read_json, read_jsonl


@dataclass(frozen=True)
class AttackedRow:
    """A line of rows.jsonl. Texts are by column; None: the line does not have it."""

    row_id: str
    label: int
    outcome: str
    original: dict[str, str]
    perturbed: dict[str, str]  # where the attack failed, the original
    predicted_before: int | None = None
    predicted_after: int | None = None
    words_changed: int | None = None
    words_total: int | None = None

    @classmethod
    def read(cls, line: dict) -> "AttackedRow":
        """KeyError or ValueError if it lacks the label, the outcome or the texts."""
        success = line["outcome"] == SUCCESS
        original, perturbed = line["original"], line["perturbed" if success else "original"]
        for texts in (original, perturbed):
            if not isinstance(texts, dict) or not all(isinstance(t, str) for t in texts.values()):
                raise ValueError(f"texts in {line['row_id']}")
        optional = ("predicted_before", "predicted_after", "words_changed", "words_total")
        facts = {name: line.get(name) for name in optional}
        return cls(line["row_id"], line["label"], line["outcome"], original, perturbed, **facts)

    @property
    def is_success(self) -> bool:
        return self.outcome == SUCCESS


@dataclass(frozen=True)
class FinishedAttack:
    """A finished attack; `rows` in the order in which they were chosen."""

    folder: Path
    settings: dict
    rows: list[AttackedRow]
    summary: dict

    @property
    def ids(self) -> list[str]:
        return [row.row_id for row in self.rows]

    @property
    def attack_id(self) -> str:
        """Equal for the same attack in any folder, as AttackFolder's."""
        return fingerprint([self.settings, self.ids])

    @property
    def run_folder(self) -> Path:
        """The folder of the run whose model was attacked, if the attack is in its place."""
        return self.folder.resolve().parent.parent

    @property
    def task(self) -> str | None:
        return self.settings.get("task")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Those of the attacked checkpoint."""
        return tuple(self.summary.get("label_names") or ())

    @property
    def originals(self) -> Rows:
        return self._rows([tuple(row.original.values()) for row in self.rows])

    @property
    def adversarial(self) -> Rows:
        """The adversarial text where the attack succeeded, else the original.

        A failed attack shows none of the texts that it tried.
        """
        return self._rows([tuple(row.perturbed.values()) for row in self.rows])

    def _rows(self, texts: list[tuple[str, ...]]) -> Rows:
        return Rows(texts, [row.label for row in self.rows], self.ids, self.folder.name)


def read_attack(folder: str | Path) -> FinishedAttack:
    """UserError if the folder does not hold a finished attack as attack.py left it."""
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise UserError(f"{folder} holds no finished attack (no summary.json): run attack.py first")
    about, summary = read_json(folder / "attack.json"), read_json(folder / "summary.json")
    try:
        by_id = {line["row_id"]: line for line in read_jsonl(folder / "rows.jsonl")}
        lines = [by_id[row_id] for row_id in about["row_ids"]]
        rows = [AttackedRow.read(line) for line in lines]
        attack = FinishedAttack(folder, about["settings"], rows, summary)
        altered = [x["row_id"] for x in lines if x.get("digest", line_digest(x)) != line_digest(x)]
        is_same = summary.get("attack_id", attack.attack_id) == attack.attack_id
    except (KeyError, ValueError, AttributeError, TypeError) as e:
        raise UserError(f"{folder} is damaged: its rows lack {e}: run attack.py again") from e
    if altered:
        raise UserError(f"{folder}/rows.jsonl was altered: {altered[0]}: run attack.py again")
    if not is_same:
        raise UserError(f"{folder} is damaged: attack.json and summary.json are of two attacks")
    return attack


def add_doubt(attack: FinishedAttack, path: Path, flag: str, why: str) -> None:
    """Append a flag on an attack to the record file `path`, once; report.py shows it."""
    attack_id = attack.summary.get("attack_id")
    doubt = {"kind": "doubt", "attack_id": attack_id, "flag": flag, "why": why}
    if doubt not in (read_jsonl(path) if path.is_file() else []):
        append_jsonl(path, doubt)


def check_distinct(attacks: Sequence[FinishedAttack]) -> None:
    """UserError if two folders hold the same attack."""
    folders: dict[str, Path] = {}
    for attack in attacks:
        if attack.attack_id in folders:
            raise UserError(
                f"{folders[attack.attack_id]} and {attack.folder} are one attack: give one of them"
            )
        folders[attack.attack_id] = attack.folder


def check_same_task(attacks: Sequence[FinishedAttack]) -> None:
    """UserError if two attacks are on different tasks, or the same attack."""
    first = attacks[0]
    for other in attacks[1:]:
        if other.task != first.task:
            raise UserError(
                f"{first.folder} is on the task {first.task}, {other.folder} on {other.task}: give "
                "attacks on one task at a time"
            )
    check_distinct(attacks)


def check_same_rows(attacks: Sequence[FinishedAttack]) -> None:
    """UserError if two attacks are on other rows or texts, or the same attack."""
    check_distinct(attacks)
    first = attacks[0]
    for other in attacks[1:]:
        if other.ids != first.ids or other.originals.texts != first.originals.texts:
            raise UserError(
                f"{first.folder} and {other.folder} attacked other rows: give attacks with the "
                "same data, --row_choice, --num_examples and --seed"
            )
