"""Rows of a split: their texts, labels and ids, and how to draw a sample of them."""

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Rows:
    """The rows of a split.

    `texts`: a tuple of one or two strings per row. `labels`: positions in the task's labels, from
    0. `ids`: split and row number in the file, such as "test:17". `source`: where they come from.
    """

    texts: list[tuple[str, ...]]
    labels: list[int]
    ids: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: list[int]) -> "Rows":
        """The rows at `positions`, in this order."""

        def pick(values: list) -> list:
            return [values[i] for i in positions]

        return replace(self, texts=pick(self.texts), labels=pick(self.labels), ids=pick(self.ids))

    def for_tokenizer(self) -> list[str] | list[tuple[str, ...]]:
        """One string per row, or one pair of strings, as a tokenizer or victim expects them."""
        return [text[0] if len(text) == 1 else text for text in self.texts]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of the texts and labels, in order."""
        digest = hashlib.sha256(json.dumps([self.texts, self.labels]).encode())
        return digest.hexdigest()[:16]


def without(train: Rows, other: Rows) -> tuple[Rows, int]:
    """Remove the rows of `train` whose texts are in `other`, whatever their letter case and spaces.

    Returns the remaining rows and the number of removed rows.
    """

    def key(text: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(" ".join(part.lower().split()) for part in text)

    seen = {key(t) for t in other.texts}
    positions = [i for i, t in enumerate(train.texts) if key(t) not in seen]
    return train.take(positions), len(train) - len(positions)


def sample_balanced(rows: Rows, limit: int, seed: int) -> Rows:
    """Draw at most `limit` rows, in file order.

    The classes get equal numbers of rows as far as their sizes allow.
    """
    if limit >= len(rows):
        return rows
    generator = np.random.default_rng(seed)
    queues = {
        label: generator.permutation([i for i, y in enumerate(rows.labels) if y == label]).tolist()
        for label in sorted(set(rows.labels))
    }
    chosen: list[int] = []
    while len(chosen) < limit:
        for queue in queues.values():
            if queue and len(chosen) < limit:
                chosen.append(queue.pop())
    return rows.take(sorted(chosen))
