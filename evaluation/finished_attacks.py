"""Finished attacks, read back from their folders: rows, texts and outcomes. No TextAttack."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import schema
from evaluation.attack_folder import is_altered
from evaluation.outcomes import SUCCESS
from evaluation.protocol import fingerprint
from evaluation.schema import TEXTS_BY_NAME, key
from training.rows import Rows
from utils.cli import UserError
from utils.files import read_json, read_jsonl


@dataclass(frozen=True)
class AttackedRow:
    """A line of rows.jsonl. Texts are by column; None: the line does not have it."""

    row_id: str
    label: int
    outcome: str
    original: dict[str, str] = key(TEXTS_BY_NAME)
    perturbed: dict[str, str] | None = key(TEXTS_BY_NAME, None)
    predicted_before: int | None = None
    predicted_after: int | None = None
    queries: int | None = None
    words_changed: int | None = None
    words_total: int | None = None

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
        return self._rows([row.original for row in self.rows])

    @property
    def adversarial(self) -> Rows:
        """The adversarial text where the attack succeeded, else the original."""
        return self._rows([row.perturbed if row.is_success else row.original for row in self.rows])

    def _rows(self, texts: list[dict[str, str]]) -> Rows:
        labels = [row.label for row in self.rows]
        return Rows([tuple(text.values()) for text in texts], labels, self.ids, self.folder.name)


def read_attack(folder: str | Path) -> FinishedAttack:
    """UserError if the folder does not hold a finished attack as attack.py left it."""
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise UserError(f"{folder} holds no finished attack (no summary.json): run attack.py first")
    about, summary = read_json(folder / "attack.json"), read_json(folder / "summary.json")
    try:
        by_id = {line["row_id"]: line for line in read_jsonl(folder / "rows.jsonl")}
        lines = [by_id[row_id] for row_id in about["row_ids"]]
        rows = [schema.read(AttackedRow, line, f"{line['row_id']}.") for line in lines]
        attack = FinishedAttack(folder, about["settings"], rows, summary)
        lacking = [row.row_id for row in rows if row.is_success and row.perturbed is None]
        altered = [line["row_id"] for line in lines if is_altered(line)]
        is_same = summary.get("attack_id", attack.attack_id) == attack.attack_id
    except (KeyError, ValueError, AttributeError, TypeError) as e:
        why = f"{type(e).__name__}: {e}"
        raise UserError(f"{folder} is damaged ({why}): run attack.py again") from e
    if lacking:
        raise UserError(f"{folder} is damaged: {lacking[0]} lacks its text: run attack.py again")
    if altered:
        raise UserError(f"{folder}/rows.jsonl was altered: {altered[0]}: run attack.py again")
    if not is_same:
        raise UserError(f"{folder} is damaged: attack.json and summary.json are of two attacks")
    return attack


def read_attacks(folders: Sequence[str | Path], same_rows: bool = False) -> list[FinishedAttack]:
    """Different attacks on one task, or on the same rows. UserError if they are not."""
    attacks = [read_attack(folder) for folder in folders]
    first, known = attacks[0], {}
    for attack in attacks:
        if attack.attack_id in known:
            raise UserError(
                f"{known[attack.attack_id]} and {attack.folder} are one attack: give one of them"
            )
        known[attack.attack_id] = attack.folder
        has_rows = attack.ids == first.ids and attack.originals.texts == first.originals.texts
        if same_rows and not has_rows:
            raise UserError(
                f"{first.folder} and {attack.folder} attacked other rows: give attacks with the "
                "same data, --row_choice, --num_examples and --seed"
            )
        if not same_rows and attack.task != first.task:
            raise UserError(
                f"{first.folder} is on the task {first.task}, {attack.folder} on {attack.task}: "
                "give attacks on one task at a time"
            )
    return attacks
