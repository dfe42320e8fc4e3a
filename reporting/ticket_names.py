"""Names of tickets that are compared: what differs between them, never a path."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from training.settings import recipe_in
from utils.cli import UserError

FACTS = ("kind", "task", "seed", "epoch")
# Kinds that draw nothing at random: the seed in their manifest does not matter.
SEEDLESS = {"magnitude", "magnitude_finetuned", "complement"}
# Kinds whose seed is that of noise: it cannot be compared with the seed of a search.
NOISE = {"random", "random_matched"}
# Settings that repeat another fact, or that do not change the scores by intent.
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
MOST_SETTINGS = 2  # in one name; if more differ, a number distinguishes the tickets


@dataclass(frozen=True)
class Origin:
    """Where scores, or a ticket drawn from them, come from. None: does not apply."""

    kind: str
    task: str | None
    seed: int | None
    epoch: int | None  # of the search
    settings: tuple[tuple[str, str], ...]
    encoder: str
    fingerprint: str | None  # of the encoder's weights
    sha256: str  # of the file's contents

    @classmethod
    def read(cls, source: dict, sha256: str, where: str) -> "Origin":
        """From the manifest of a score file, or from `source` in a ticket's. UserError names it."""
        encoder, task, epoch = source.get("encoder"), source.get("task"), source.get("epoch")
        settings = source.get("recipe", source.get("settings", {}))
        expected = (
            (source.get("kind"), str),
            (source.get("seed"), int),
            (encoder, dict),
            (settings, dict),
            (task, str | None),
            (epoch, int | None),
        )
        if not all(isinstance(value, kind) for value, kind in expected):
            raise UserError(
                f"{where}: its manifest lacks the kind, seed or encoder of the scores: make the "
                "file again"
            )
        texts = {k: str(v) for k, v in recipe_in(source).items() if k not in NOT_SETTINGS}
        for name in ("of", "matched_to", "complement_of"):
            if name in source:
                digest = str(source.get(f"{name}_sha256", ""))[:6]
                texts[name] = f"{source[name]} {digest}".strip()
        return cls(
            kind=source["kind"],
            task=task,
            seed=None if source["kind"] in SEEDLESS else source["seed"],
            epoch=epoch,
            settings=tuple(sorted(texts.items())),
            encoder=str(encoder.get("name")),
            fingerprint=encoder.get("fingerprint"),
            sha256=sha256,
        )


def differ_in(a: Origin, b: Origin) -> tuple[str, ...]:
    """The facts that both have and that differ; "settings" too, if kind and task are the same."""
    both = [(fact, getattr(a, fact), getattr(b, fact)) for fact in FACTS]
    differing = [fact for fact, x, y in both if None not in (x, y) and x != y]
    if "kind" in differing and "seed" in differing and NOISE & {a.kind, b.kind}:
        differing.remove("seed")
    # Other kinds and tasks have other settings by design (Table 6).
    if "kind" not in differing and "task" not in differing and a.settings != b.settings:
        differing.append("settings")
    return tuple(differing)


def relation(facts: Sequence[str]) -> str:
    """The group of a pair: the one fact that differs, "several", or "nothing"."""
    return "several" if len(facts) > 1 else f"{facts[0]} only" if facts else "nothing"


def ticket_names(origins: Sequence[Origin]) -> list[str]:
    """A short name for each, of what differs between them; equal names get a number."""
    tasks = {o.task for o in origins if o.task}
    short = {task: task.split("/")[-1] for task in tasks}
    if len(set(short.values())) < len(tasks):  # builtin/imdb and imdb
        short = {task: task for task in tasks}
    shown = [f for f in FACTS if len({getattr(o, f) for o in origins} - {None}) > 1]
    names = []
    for origin in origins:
        words = {
            "kind": origin.kind,
            "task": short.get(origin.task),
            "seed": f"seed {origin.seed}",
            "epoch": f"epoch {origin.epoch}",
        }
        parts = [words[fact] for fact in shown if getattr(origin, fact) is not None]
        parts += _unusual_settings(origin, origins)
        names.append(", ".join(parts) or origin.kind)
    return _numbered(names)


def _unusual_settings(origin: Origin, origins: Sequence[Origin]) -> list[str]:
    """Settings in which it differs from most tickets of its kind and task, unless they are many.

    If no value is the most frequent one, each ticket shows its value.
    """
    alike = [dict(o.settings) for o in origins if (o.kind, o.task) == (origin.kind, origin.task)]
    mine, unusual = dict(origin.settings), []
    for key in sorted({key for settings in alike for key in settings}):
        (usual, most), *others = Counter(s.get(key) for s in alike).most_common()
        is_usual = mine.get(key) == usual and all(count < most for _, count in others)
        if others and not is_usual and key in mine:
            unusual.append(f"{key} {mine[key]}")
    return unusual if len(unusual) <= MOST_SETTINGS else []


def _numbered(names: list[str]) -> list[str]:
    count, seen, numbered = Counter(names), Counter(), []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} ({seen[name]})" if count[name] > 1 else name)
    return numbered
