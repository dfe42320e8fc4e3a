"""Do tickets agree? Jaccard indices of two of them, and what two random ones would give.

Of n weights let ticket A remove a, ticket B remove b, and both remove c. The Jaccard index of what
they remove is c / (a + b - c): 1 for the same ticket, 0 where no weight is removed by both.

Two tickets that were drawn at random agree as well, and how far they do depends on what is held
fixed. Both of these are ratios of expectations, E[c] / (a + b - E[c]), with the exact numbers of
removed weights; the mean of the ratio itself differs from it by a term of the order of 1/n.

- `chance`: only the densities over all weights are held fixed, so E[c] = a b / n. At the same
  sparsity s of both it is s / (2 - s): .176 at s = .3.
- `chance_by_matrix`: each ticket keeps its own density in every matrix i, and which weights of a
  matrix these are is random: E[c] = sum of a_i b_i / n_i. Tickets above the first and not above the
  second agree on how many weights of each matrix matter, but not on which.

The same holds for the weights that are kept, with n - a, n - b and n - a - b + c.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from masking.tickets import Masks, Shapes


@dataclass(frozen=True)
class Packed:
    """A ticket, one bit per weight, so that many fit into memory. `removed`: 1 = removed."""

    removed: dict[str, np.ndarray]
    shapes: Shapes
    counts: dict[str, int]  # removed weights of each matrix


@dataclass(frozen=True)
class Overlap:
    """Numbers of weights: all, those in A, in B, in both (expected ones may be fractions)."""

    weights: int
    a: int
    b: int
    both: float

    def of_the_rest(self) -> "Overlap":
        """The same of the weights that are not in A, not in B."""
        n = self.weights
        return Overlap(n, n - self.a, n - self.b, n - self.a - self.b + self.both)

    def by_chance(self) -> "Overlap":
        """With as many in A and in B, but drawn at random from all weights."""
        return Overlap(self.weights, self.a, self.b, self.a * self.b / self.weights)

    def jaccard(self) -> float:
        """|A and B| / |A or B|; 1 where both are empty."""
        either = self.a + self.b - self.both
        return self.both / either if either else 1.0


def pack(masks: Masks) -> Packed:
    """A ticket (bool, True = kept) as bits of what it removes."""
    removed = {n: np.packbits(~m.cpu().numpy()) for n, m in masks.items()}
    shapes = {n: (m.shape[0], m.shape[1]) for n, m in masks.items()}
    return Packed(removed, shapes, {n: m.numel() - int(m.sum()) for n, m in masks.items()})


def check_same_matrices(a: Packed, b: Packed) -> None:
    """ValueError where two tickets are not of the same matrices; it names one that differs."""
    for name in [*a.shapes, *b.shapes]:
        shapes = [t.shapes.get(name, "missing") for t in (a, b)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name} is {shapes[0]} in one and {shapes[1]} in the other")


def overlaps(a: Packed, b: Packed) -> dict[str, Overlap]:
    """What two tickets remove, by matrix. ValueError where these are not the same matrices."""
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
    """(J - chance) / (1 - chance): 0 as by chance, 1 for the same ticket; NaN where chance is 1."""
    return (jaccard - chance) / (1 - chance) if chance < 1 else math.nan


def measures(found: dict[str, Overlap]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Of all weights, and by matrix: `removed_` and `kept_`, each followed by

    jaccard, chance, chance_by_matrix, beyond_chance, beyond_chance_by_matrix. A matrix's `chance`
    is that of all weights, since expectations of random masks are the same in every matrix.
    """
    over_all: dict[str, float] = {}
    by_matrix: dict[str, dict[str, float]] = {name: {} for name in found}
    for which in ("removed", "kept"):
        parts = found if which == "removed" else {n: o.of_the_rest() for n, o in found.items()}
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
