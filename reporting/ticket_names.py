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
NOT_SETTINGS = {"seed", "task_name", "dataset_name", "keep_scores", "sparsity"}
NOT_SETTINGS |= {"precision", "deterministic", "compile"}
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
        kind, seed, task = source.get("kind"), source.get("seed"), source.get("task")
        epoch, encoder = source.get("epoch"), source.get("encoder")
        settings = source.get("recipe", source.get("settings", {}))
        values = (kind, seed, encoder, settings, task, epoch)
        kinds = (str, int, dict, dict, str | None, int | None)
        if not all(map(isinstance, values, kinds)):
            raise UserError(
                f"{where}: its manifest lacks the kind, seed or encoder of the scores: make the "
                "file again"
            )
        texts = {k: str(v) for k, v in recipe_in(source).items() if k not in NOT_SETTINGS}
        for name in ("of", "matched_to", "complement_of"):
            if name in source:
                digest = str(source.get(f"{name}_sha256", ""))[:6]
                texts[name] = f"{source[name]} {digest}".strip()
        seed, settings = None if kind in SEEDLESS else seed, tuple(sorted(texts.items()))
        name, fingerprint = str(encoder.get("name")), encoder.get("fingerprint")
        return cls(kind, task, seed, epoch, settings, name, fingerprint, sha256)


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
        words = {"kind": origin.kind, "task": short.get(origin.task)}
        words |= {"seed": f"seed {origin.seed}", "epoch": f"epoch {origin.epoch}"}
        parts = [words[fact] for fact in shown if getattr(origin, fact) is not None]
        parts += _unusual_settings(origin, origins)
        names.append(", ".join(parts) or origin.kind)
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def _unusual_settings(origin: Origin, origins: Sequence[Origin]) -> list[str]:
    """Settings in which it differs from most tickets of its kind and task, unless they are many.

    If no value is the most frequent one, each ticket shows its value.
    """
    alike = [dict(o.settings) for o in origins if (o.kind, o.task) == (origin.kind, origin.task)]
    unusual = []
    for key, mine in origin.settings:
        (usual, most), *others = Counter(s.get(key) for s in alike).most_common()
        is_usual = mine == usual and all(count < most for _, count in others)
        unusual += [f"{key} {mine}"] if others and not is_usual else []
    return unusual if len(unusual) <= MOST_SETTINGS else []
