"""The texts of a page: attacked rows of several models, from the folders of their attacks."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, product
from pathlib import Path
from typing import Any

from evaluation.finished_attacks import AttackedRow, FinishedAttack, read_attack
from evaluation.outcomes import LETTERS
from evaluation.records import AttackRecord
from reporting.cells import grouped
from reporting.page.blocks import ROBUST, Block, kind_of
from reporting.render import TOKEN
from training.tasks import TASKS
from utils.cli import UserError
from utils.files import read_json

MOST_BYTES = 2_000_000  # of all texts; a page that is sent stays below 5 MB
# A word or sign with the space after it: the pieces of a text, one after the other, are the text.
_PIECE = re.compile(rf"(?:{TOKEN.pattern})\s*|\s+")

Attacks = list[tuple[str, FinishedAttack]]  # with the models' names, on the same rows
Pair = tuple[str, str]  # original and adversarial text
Edit = tuple[int, int, str]  # start and end of what is replaced, and what by


@dataclass(frozen=True)
class Texts:
    """`sets`: for page.js, one per set of attacked rows. `notes`: what is not shown, and why."""

    sets: list[dict[str, Any]]
    notes: list[str]


def read(blocks: Sequence[Block], paths: Iterable[str | Path]) -> Texts:
    """The texts of the blocks' models that lie below the folders."""
    names, notes, known = _names(blocks), [], {}
    for folder in _attack_folders(paths):
        try:
            attack_id = read_json(folder / "summary.json").get("attack_id")
            if attack_id in names:
                known[attack_id] = read_attack(folder)
        except UserError as e:
            notes.append(f"{e}.")
    named = [(name, known[attack_id]) for attack_id, name in names.items() if attack_id in known]
    alike = grouped(named, lambda n: json.dumps([n[1].task, n[1].settings.get("rows"), n[1].ids]))
    groups, share = list(alike.values()), 1
    while _size(sets := [_set(attacks, share, {}) for attacks in groups]) > MOST_BYTES:
        share *= 2
    for of_set, attacks in zip(sets, groups, strict=True):
        of_set["pair"] = _pair(blocks, [attack.attack_id for _, attack in attacks])
    if share > 1:
        notes.append(
            f"One row in {share} is shown, evenly chosen, so that the page stays small enough to "
            "send; the folders of the attacks hold all rows."
        )
    if sets:
        try:
            similarity = _similarities({p for attacks in groups for p in _pairs(attacks, share)})
            for of_set, attacks in zip(sets, groups, strict=True):
                of_set.update(_set(attacks, share, similarity))
        except UserError as e:  # the built-in encoder is not installed
            notes.append(f"Similarity is not shown: {e}.")
    return Texts(sets, notes)


def _names(blocks: Iterable[Block]) -> dict[str, str]:
    """Attack id -> name of the model, in the order of the page; controls that are no rows last."""
    rows, controls = {}, {}
    for block in blocks:
        for result in block.results:
            rows |= {r.attack_id: f"{result.label}{_which(r)}" for r in result.records}
            for control in result.controls:
                name = f"dense, {control.name} as {result.label}"
                controls |= {r.attack_id: f"{name}{_which(r)}" for r in control.records}
    return rows | {attack_id: name for attack_id, name in controls.items() if attack_id not in rows}


def _which(record: AttackRecord) -> str:
    seed = "" if record.seed is None else f", seed {record.seed}"
    return f"{seed}, {record.recipe}"


def _pair(blocks: Sequence[Block], ids: list[str]) -> list[int]:
    """The models to show first: a ticket, a robust one if there is any, and its dense control."""
    results = [result for block in blocks for result in block.results if result.controls]
    for result in sorted(results, key=lambda result: kind_of(result) != ROBUST):
        for control in result.controls:
            for pair in product(result.records, control.records):
                attacked = [record.attack_id for record in pair]
                if pair[0].seed == pair[1].seed and set(attacked) <= set(ids):
                    return [ids.index(attack_id) for attack_id in attacked]
    return [0, 1] if len(ids) > 1 else [0]


def _attack_folders(paths: Iterable[str | Path]) -> list[Path]:
    folders = (path for path in map(Path, paths) if path.is_dir())
    return [file.parent for f in folders for file in sorted(f.rglob("attacks/*/summary.json"))]


def _size(sets: list[dict[str, Any]]) -> int:
    return len(json.dumps(sets, ensure_ascii=False).encode("utf-8", "replace"))


def _set(attacks: Attacks, share: int, similarity: Mapping[Pair, float]) -> dict[str, Any]:
    """What page.js shows of attacks on the same rows: every `share`-th row."""
    first, column = attacks[0][1], _attacked_column(attacks[0][1])
    models = [
        {"name": name, "rows": [_of_model(r, column, similarity) for r in attack.rows[::share]]}
        for name, attack in attacks
    ]
    return {
        "name": f"{first.task}, {len(first.rows):,} rows",
        "labels": list(first.label_names),
        "rows": [_of_row(row, column) for row in first.rows[::share]],
        "models": models,
    }


def _attacked_column(attack: FinishedAttack) -> str:
    columns = list(attack.rows[0].original)
    known = [TASKS[attack.task].attack_column] if attack.task in TASKS else []
    changed = [c for c in columns for r in attack.rows if _text(r, c) != r.original[c]]
    return next(c for c in (*known, *changed, *columns) if c in columns)


def _text(row: AttackedRow, column: str) -> str:
    """The adversarial text: of a failed attack, the one that came closest."""
    return (row.perturbed or row.original)[column]


def _of_row(row: AttackedRow, column: str) -> dict[str, Any]:
    others = [f"{name}: {text}" for name, text in row.original.items() if name != column]
    context = "\n".join(others)
    return {"id": row.row_id, "label": row.label, "text": row.original[column], "context": context}


def _of_model(row: AttackedRow, column: str, similarity: Mapping[Pair, float]) -> list[Any]:
    """[outcome letter, answer before, answer after, queries, edits, similarity]."""
    pair = row.original[column], _text(row, column)
    before, after = row.predicted_before, row.predicted_after
    similar = similarity.get(pair)
    return [LETTERS[row.outcome], before, after, row.queries, edits_of(*pair), similar]


def _pairs(attacks: Attacks, share: int) -> Iterator[Pair]:
    column = _attacked_column(attacks[0][1])
    for _, attack in attacks:
        pairs = ((row.original[column], _text(row, column)) for row in attack.rows[::share])
        yield from (pair for pair in pairs if pair[0] != pair[1])


def _similarities(pairs: set[Pair]) -> dict[Pair, float]:
    """Cosine of MiniLM's encodings of both texts, as analysis/text_quality.py has it."""
    if not pairs:
        return {}
    from evaluation.minilm import MiniLM  # here: transformers takes seconds

    ordered, encoder = sorted(pairs), MiniLM()
    originals, adversarial = (
        # Tokenizers refuse half a surrogate pair.
        encoder.encode([text.encode("utf-8", "replace").decode() for text in texts])
        for texts in zip(*ordered, strict=True)
    )
    cosines = (originals * adversarial).sum(1).tolist()
    return {pair: round(cosine, 3) for pair, cosine in zip(ordered, cosines, strict=True)}


@lru_cache(maxsize=100_000)
def edits_of(original: str, adversarial: str) -> list[Edit]:
    """What turns one text into the other, word by word; places count UTF-16 units, as page.js."""
    pieces, others = _PIECE.findall(original), _PIECE.findall(adversarial)
    steps = difflib.SequenceMatcher(None, pieces, others, autojunk=False).get_opcodes()
    starts = list(accumulate(map(_units, pieces), initial=0))
    edits = []
    for kind, i, j, k, m in steps:
        if kind != "equal":
            old, new = "".join(pieces[i:j]), "".join(others[k:m])
            space = len(old) - len(old.rstrip())
            if space and new.endswith(old[-space:]):  # the space after both is no change
                edits.append((starts[i], starts[j] - space, new[:-space]))
            else:
                edits.append((starts[i], starts[j], new))
    return edits


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)
