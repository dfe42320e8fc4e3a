"""Adversarial texts of one model replayed on others, row by row. No TextAttack."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.attack_folder import line_digest
from evaluation.outcomes import FAILED, SUCCESS
from evaluation.protocol import fingerprint
from training.metrics import wilson_interval
from training.splits import Rows
from utils.cli import UserError
from utils.files import append_jsonl, read_json, read_jsonl


@dataclass(frozen=True)
class Finished:
    """A finished attack: its rows' labels, originals and the texts that it ended with.

    `found` holds the adversarial text where the attack succeeded, elsewhere the original: the
    attack gives up on a row, it does not show a text that it had tried. `lines` are those of
    rows.jsonl in the rows' order.
    """

    folder: Path
    settings: dict
    ids: list[str]
    labels: list[int]
    originals: list[tuple[str, ...]]
    found: list[tuple[str, ...]]
    outcomes: list[str]
    lines: list[dict]
    summary: dict

    @property
    def attack_id(self) -> str:
        """As AttackFolder's: the same attack anywhere has the same."""
        return fingerprint([self.settings, self.ids])

    def rows(self, texts: list[tuple[str, ...]]) -> Rows:
        return Rows(texts, self.labels, self.ids, self.folder.name)


def read_attack(folder: str | Path) -> Finished:
    """UserError where the folder holds no finished attack, or not as attack.py left it."""
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise UserError(f"{folder} holds no finished attack (no summary.json): run attack.py first")
    about, summary = read_json(folder / "attack.json"), read_json(folder / "summary.json")
    try:
        lines = {line["row_id"]: line for line in read_jsonl(folder / "rows.jsonl")}
        ids, settings = about["row_ids"], about["settings"]
        rows = [lines[i] for i in ids]
        attack = Finished(
            folder,
            settings,
            ids,
            [r["label"] for r in rows],
            [tuple(r["original"].values()) for r in rows],
            [
                tuple(r["perturbed" if r["outcome"] == SUCCESS else "original"].values())
                for r in rows
            ],
            [r["outcome"] for r in rows],
            rows,
            summary,
        )
        altered = [r["row_id"] for r in rows if r.get("digest", line_digest(r)) != line_digest(r)]
        same = summary.get("attack_id", attack.attack_id) == attack.attack_id
    except (KeyError, AttributeError, TypeError, UnicodeEncodeError) as e:
        raise UserError(f"{folder} is damaged: its rows lack {e}") from e
    if altered:
        raise UserError(f"{folder}/rows.jsonl was altered: {altered[0]}")
    if not same:
        raise UserError(f"{folder} is damaged: attack.json and summary.json are of two attacks")
    return attack


def add_doubt(attack: Finished, path: Path, flag: str, why: str) -> None:
    """Put a flag found after an attack beside its record, into the record file `path`; once."""
    attack_id = read_json(attack.folder / "summary.json").get("attack_id")
    doubt = {"kind": "doubt", "attack_id": attack_id, "flag": flag, "why": why}
    if doubt not in (read_jsonl(path) if path.is_file() else []):
        append_jsonl(path, doubt)


def check_same_rows(attacks: list[Finished]) -> None:
    """UserError where two attacks are on other rows or texts, or are the same."""
    first, seen = attacks[0], {attacks[0].attack_id: attacks[0].folder}
    for other in attacks[1:]:
        if other.attack_id in seen:
            raise UserError(f"{seen[other.attack_id]} and {other.folder} are one attack")
        seen[other.attack_id] = other.folder
        if other.ids != first.ids or other.originals != first.originals:
            raise UserError(
                f"{first.folder} and {other.folder} attacked other rows: replay needs attacks "
                "with the same data, --rows, --num_examples and --seed"
            )


def short_names(folders: list[Path], of_attacks: list[str] | None = None) -> list[str]:
    """The last parts of each checkpoint's folder, two or as many as tell all apart.

    `of_attacks`: a name for each attack on it, which is added where one was attacked twice.
    """
    paths = [folder.resolve().parts for folder in folders]
    several = {path: paths.count(path) > 1 for path in paths}
    depth = 2
    while len({path[-depth:] for path in paths}) < len(several):
        depth += 1
    names = ["/".join(path[-depth:]) for path in paths]
    further = [f", {name}" for name in of_attacks or ()] or [""] * len(names)
    return [n + f * several[p] for n, f, p in zip(names, further, paths, strict=True)]


def replayed(right_before: np.ndarray, right_after: dict[str, np.ndarray]) -> dict:
    """What is left of one model's accuracy under texts from several sources.

    `right_before`: bool, (rows,), on the originals; `right_after`: by source, on its texts. A row
    counts where the model is right on both. Percentages of all rows, Wilson's intervals.
    """
    rows = len(right_before)
    cells, worst = {}, right_before.copy()
    for source, right in right_after.items():
        kept = right_before & right
        worst &= right
        cells[source] = {
            "percent": 100 * float(kept.mean()),
            "interval_95": wilson_interval(int(kept.sum()), rows),
        }
    return {
        "clean_percent": 100 * float(right_before.mean()),
        "by_source": cells,
        "worst_of_all_percent": 100 * float(worst.mean()),
        "worst_of_all_interval_95": wilson_interval(int(worst.sum()), rows),
    }


def carried_over(own: Finished, right_after: dict[str, np.ndarray]) -> int:
    """Rows on which the model's own attack failed and another model's text fools it.

    Many of them say that the direct attack was hindered (a saturated softmax, say) rather than
    that the model is robust (Athalye, Carlini and Wagner, ICML 2018).
    """
    failed = np.array([outcome == FAILED for outcome in own.outcomes])
    others = [right for source, right in right_after.items() if source != str(own.folder)]
    fooled = np.zeros(len(failed), bool)
    for right in others:
        fooled |= ~right
    return int((failed & fooled).sum())
