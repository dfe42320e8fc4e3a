"""The agreement of two tickets: Jaccard indices, and their values for random tickets.

Ticket A removes a of n weights, ticket B removes b, and both remove c. The Jaccard index of the
removed weights is c / (a + b - c): 1 for equal tickets, 0 if no weight is removed by both.

Random tickets agree to some degree as well. Two values measure this. Each is a ratio of
expectations, E[c] / (a + b - E[c]), with the exact counts a and b. The mean of the ratio differs
from it by a term of order 1/n.

- `chance`: each ticket has a fixed density over all weights, so E[c] = a b / n. If both have the
  sparsity s, this is s / (2 - s): .176 for s = .3.
- `chance_by_matrix`: each ticket has a fixed density in each matrix i, so E[c] is the sum of
  a_i b_i / n_i. Tickets above `chance` but not above `chance_by_matrix` agree on the density of
  each matrix, but not on its weights.

The same formulas apply to the kept weights, with n - a, n - b and n - a - b + c.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from masking.tickets import Masks, Shapes


@dataclass(frozen=True)
class Packed:
    """A ticket with one bit per weight, so that many fit in memory.

    `removed`: name -> uint8, (ceil(out * in / 8),), one bit per weight by rows, 1 = removed.
    `shapes`: name -> (out, in). `counts`: name -> number of removed weights.
    """

    removed: dict[str, np.ndarray]
    shapes: Shapes
    counts: dict[str, int]


@dataclass(frozen=True)
class Overlap:
    """Numbers of weights: all, in set A, in set B, in both (an expectation can be a fraction)."""

    weights: int
    a: int
    b: int
    both: float

    def of_the_rest(self) -> "Overlap":
        """The overlap of the complements of A and B."""
        n = self.weights
        return Overlap(n, n - self.a, n - self.b, n - self.a - self.b + self.both)

    def by_chance(self) -> "Overlap":
        """The expected overlap of random sets of the sizes of A and B."""
        return Overlap(self.weights, self.a, self.b, self.a * self.b / self.weights)

    def jaccard(self) -> float:
        """|A and B| / |A or B|, in [0, 1]; 1 if both are empty."""
        either = self.a + self.b - self.both
        return self.both / either if either else 1.0


def pack(masks: Masks) -> Packed:
    """Pack a ticket. `masks`: name -> bool, (out, in), True = kept."""
    removed = {n: np.packbits(~m.cpu().numpy()) for n, m in masks.items()}
    shapes = {n: (m.shape[0], m.shape[1]) for n, m in masks.items()}
    return Packed(removed, shapes, {n: m.numel() - int(m.sum()) for n, m in masks.items()})


def check_same_matrices(a: Packed, b: Packed) -> None:
    """Raise ValueError if two tickets differ in the name or shape of a matrix."""
    for name in [*a.shapes, *b.shapes]:
        shapes = [t.shapes.get(name, "missing") for t in (a, b)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name} is {shapes[0]} in one and {shapes[1]} in the other")


def overlaps(a: Packed, b: Packed) -> dict[str, Overlap]:
    """Name -> overlap of the weights that two tickets remove.

    Raises ValueError if the tickets differ in the name or shape of a matrix.
    """
    check_same_matrices(a, b)
    return {
        name: Overlap(
            out * into,
            a.counts[name],
            b.counts[name],
            int(np.bitwise_count(bits & b.removed[name]).sum(dtype=np.int64)),
        )
        for (name, bits), (out, into) in zip(a.removed.items(), a.shapes.values(), strict=True)
    }


def _total(parts: Iterable[Overlap]) -> Overlap:
    parts = list(parts)
    return Overlap(*(sum(getattr(p, f) for p in parts) for f in ("weights", "a", "b", "both")))


def beyond_chance(jaccard: float, chance: float) -> float:
    """(J - chance) / (1 - chance): 0 at chance, 1 for equal tickets; NaN if chance is 1."""
    return (jaccard - chance) / (1 - chance) if chance < 1 else math.nan


def measures(by_name: dict[str, Overlap]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Measures over all weights, and name -> measures of that matrix.

    `by_name`: the result of overlaps. The keys are `removed_` or `kept_`, followed by jaccard,
    chance, chance_by_matrix, beyond_chance or beyond_chance_by_matrix. The `chance` of a matrix is
    that of all weights, because a random mask has the same expectation in each matrix.
    """
    over_all: dict[str, float] = {}
    by_matrix: dict[str, dict[str, float]] = {name: {} for name in by_name}
    for which in ("removed", "kept"):
        parts = by_name if which == "removed" else {n: o.of_the_rest() for n, o in by_name.items()}
        total = _total(parts.values())
        chance = total.by_chance().jaccard()
        fixed = _total(part.by_chance() for part in parts.values()).jaccard()
        over_all |= _named(which, total.jaccard(), chance, fixed)
        for name, part in parts.items():
            by_matrix[name] |= _named(which, part.jaccard(), chance, part.by_chance().jaccard())
    return over_all, by_matrix


def _named(which: str, jaccard: float, chance: float, by_matrix: float) -> dict[str, float]:
    return {
        f"{which}_jaccard": jaccard,
        f"{which}_chance": chance,
        f"{which}_chance_by_matrix": by_matrix,
        f"{which}_beyond_chance": beyond_chance(jaccard, chance),
        f"{which}_beyond_chance_by_matrix": beyond_chance(jaccard, by_matrix),
    }
