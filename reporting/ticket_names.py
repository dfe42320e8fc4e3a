"""What tickets are called beside each other: by what differs between them, never by a path."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from training.settings import recipe_in
from utils.cli import UserError

FACTS = ("kind", "task", "seed", "epoch")
# Kinds that take no random draw of their own: the seed in their manifest says nothing.
SEEDLESS = {"magnitude", "magnitude_finetuned", "complement"}
# Kinds whose seed is that of noise: beside another kind's it is neither the same nor another.
NOISE = {"random", "random_matched"}
# Settings that name the item's other facts, or do not change the scores by intent.
NOT_SETTINGS = {
    "seed",
    "task_name",
    "dataset_name",
    "keep_scores",
    "sparsity",
    "precision",
    "deterministic",
    "compile",
}
MOST_SETTINGS = 2  # that a label spells out; beyond it, a number tells the items apart


@dataclass(frozen=True)
class Item:
    """Scores, or a ticket drawn from them, as the manifest tells them; None: does not apply."""

    kind: str
    task: str | None
    seed: int | None
    epoch: int | None  # of the search
    settings: tuple[tuple[str, str], ...]
    encoder: str
    fingerprint: str | None
    sha256: str  # of the file's contents


def read_item(source: dict, sha256: str, where: str) -> Item:
    """From the manifest of a score file, or from `source` of a ticket's. UserError if not whole."""
    encoder, task, epoch = source.get("encoder"), source.get("task"), source.get("epoch")
    settings = recipe_in(source)
    wanted = (
        (source.get("kind"), str),
        (source.get("seed"), int),
        (encoder, dict),
        (settings, dict),
        (task, str | None),
        (epoch, int | None),
    )
    if not all(isinstance(value, kind) for value, kind in wanted):
        raise UserError(f"{where}: its manifest does not say of which kind, seed and encoder it is")
    told = {k: str(v) for k, v in settings.items() if k not in NOT_SETTINGS}
    for relation in ("of", "matched_to", "complement_of"):
        if relation in source:
            digest = str(source.get(f"{relation}_sha256", ""))[:6]
            told[relation] = f"{source[relation]} {digest}".strip()
    return Item(
        kind=source["kind"],
        task=task,
        seed=None if source["kind"] in SEEDLESS else source["seed"],
        epoch=epoch,
        settings=tuple(sorted(told.items())),
        encoder=str(encoder.get("name")),
        fingerprint=encoder.get("fingerprint"),
        sha256=sha256,
    )


def differ_in(a: Item, b: Item) -> tuple[str, ...]:
    """The facts that both have and that differ; of one kind and task, "settings" may, too."""
    both = [(fact, getattr(a, fact), getattr(b, fact)) for fact in FACTS]
    found = [fact for fact, x, y in both if None not in (x, y) and x != y]
    if "kind" in found and "seed" in found and NOISE & {a.kind, b.kind}:
        found.remove("seed")
    # Other kinds and tasks have other settings by design (Table 6), so there they tell nothing.
    if "kind" not in found and "task" not in found and a.settings != b.settings:
        found.append("settings")
    return tuple(found)


def relation(facts: Sequence[str]) -> str:
    """How a pair is counted: by the one fact that differs, as "several", or as "nothing"."""
    return "several" if len(facts) > 1 else f"{facts[0]} only" if facts else "nothing"


def labels(items: Sequence[Item]) -> list[str]:
    """A short name for each item, of what differs between them; a number behind equal ones."""
    tasks = {item.task for item in items if item.task}
    short = {task: task.split("/")[-1] for task in tasks}
    if len(set(short.values())) < len(tasks):  # builtin/imdb beside imdb
        short = {task: task for task in tasks}
    shown = [f for f in FACTS if len({getattr(i, f) for i in items} - {None}) > 1]
    names = []
    for item in items:
        words = {
            "kind": item.kind,
            "task": short.get(item.task),
            "seed": f"seed {item.seed}",
            "epoch": f"epoch {item.epoch}",
        }
        told = [words[fact] for fact in shown if getattr(item, fact) is not None]
        told += _settings_that_differ(item, items)
        names.append(", ".join(told) or item.kind)
    return _numbered(names)


def _settings_that_differ(item: Item, items: Sequence[Item]) -> list[str]:
    """Settings in which an item is not like most of its kind and task, unless they are many.

    Where no value is the most frequent one, each item is told by its own.
    """
    alike = [dict(i.settings) for i in items if (i.kind, i.task) == (item.kind, item.task)]
    own, found = dict(item.settings), []
    for key in sorted({key for settings in alike for key in settings}):
        (usual, most), *others = Counter(s.get(key) for s in alike).most_common()
        is_usual = own.get(key) == usual and all(count < most for _, count in others)
        if others and not is_usual and key in own:
            found.append(f"{key} {own[key]}")
    return found if len(found) <= MOST_SETTINGS else []


def _numbered(names: list[str]) -> list[str]:
    count, seen, found = Counter(names), Counter(), []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if count[name] > 1 else name)
    return found
