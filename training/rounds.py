"""Rounds of iterative pruning, and the passes over the labels that a mask has seen."""

from typing import Any

from training.settings import recipe_in
from utils.cli import UserError

MOST_ROUNDS = 1000


def sparsities_of_rounds(to_sparsity: float, share: float, share_of: str) -> list[float]:
    """Sparsity after each round; the last round removes what is missing to `to_sparsity`."""
    reached = 0.0
    after: list[float] = []
    while not after or reached < to_sparsity - 1e-9:
        reached += share if share_of == "all" else share * (1 - reached)
        after.append(min(round(reached, 12), to_sparsity))
        if len(after) > MOST_ROUNDS:
            raise UserError(
                f"--share_per_round {share} takes more than {MOST_ROUNDS} rounds to --to_sparsity "
                f"{to_sparsity}: remove more in each"
            )
    return after


def label_passes_of(source: dict[str, Any], sparsity: float = 1.0) -> int:
    """Passes over the labels that a mask of this sparsity has seen. `source`: its scores' manifest.

    Iterative pruning has seen as many rounds as the sparsity took; noise has seen no label.
    """
    after_round = source.get("sparsity_after_round")
    if not after_round:
        return source.get("label_passes") or 0
    rounds = sum(reached < sparsity - 1e-9 for reached in after_round) + 1
    return min(rounds, len(after_round)) * recipe_in(source)["epochs"]
