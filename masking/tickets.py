"""Draw tickets from scores, and describe tickets.

Each kind of ticket comes from a score file. The robust search writes log alpha as scores. Magnitude
pruning, random pruning and IMP write other scores. One pure function draws tickets from all kinds.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from masking.layers import expand_blocks

Masks = dict[str, Tensor]
Shapes = dict[str, tuple[int, int]]


def check_sparsity(sparsity: float) -> None:
    """Raise ValueError unless 0 <= sparsity < 1 (the fraction of the weights that is removed)."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the fraction removed and must be in [0, 1), got {sparsity}")


def draw(scores: dict[str, Tensor], shapes: Shapes, sparsity: float) -> Masks:
    """Draw the ticket at `sparsity`: name -> mask, bool, (out, in), True = kept.

    Section 3.3: rank all scores of all matrices together, and remove the lowest in one shot.
    `scores`: name -> float, (out/b_out, in/b_in), one per block of weights. `shapes`: name ->
    (out, in) of the weights. `sparsity`: fraction of the weights to remove, in [0, 1).

    Exactly round(sparsity * N) of N weights are removed (Python's round). If scores are equal, the
    earlier ones are removed first, in the order of the matrices and then by rows. If a score is
    that of a block, the whole block is removed. If blocks have unequal sizes, the number of removed
    weights is the number nearest to sparsity * N that the ranking allows.

    Raises ValueError for a sparsity outside [0, 1), for NaN among the scores, or if `scores` and
    `shapes` do not have the same names.
    """
    return next(draw_each(scores, shapes, [sparsity]))


def draw_each(
    scores: dict[str, Tensor], shapes: Shapes, sparsities: list[float]
) -> Iterator[Masks]:
    """Yield the ticket at each of several sparsities, as draw() returns it.

    The scores are ranked once: nine tickets of BERT-base take twice the time of one.
    """
    for sparsity in sparsities:
        check_sparsity(sparsity)
    if not scores or scores.keys() != shapes.keys():
        raise ValueError("scores and weight shapes must name the same, non-empty set of matrices")
    scores = {name: s.detach().float().cpu() for name, s in scores.items()}
    flat = np.concatenate([s.numpy().ravel() for s in scores.values()])
    if np.isnan(flat).any():
        raise ValueError("scores contain NaN and cannot be ranked; write the score file again")
    weights_per_block = [shapes[n][0] * shapes[n][1] // s.numel() for n, s in scores.items()]
    if len(set(weights_per_block)) == 1:
        drawn = _draw_equal_blocks(flat, scores, sparsities)
    else:
        drawn = _draw_unequal_blocks(flat, scores, weights_per_block, sparsities)
    del flat  # as large as all scores together
    for block_masks in drawn:
        yield {n: expand_blocks(per_block, shapes[n]) for n, per_block in block_masks.items()}


def _draw_equal_blocks(
    flat: np.ndarray, scores: dict[str, Tensor], sparsities: list[float]
) -> Iterator[Masks]:
    """For each sparsity, the mask of the blocks (True = kept). Reorders `flat`, all the scores."""
    counts = [round(sparsity * flat.size) for sparsity in sparsities]
    positions = [max(0, count - 1) for count in counts]
    flat.partition(sorted(set(positions)))
    thresholds = flat[positions].tolist()  # highest removed score (any, if none is)
    equals = [
        np.count_nonzero(flat[:count] == threshold)  # removed scores equal to it
        for count, threshold in zip(counts, thresholds, strict=True)
    ]
    del flat
    for equal_to_remove, threshold in zip(equals, thresholds, strict=True):
        block_masks = {}
        for name, s in scores.items():
            block_masks[name] = s >= threshold
            equal = torch.nonzero((s == threshold).flatten())[:, 0][:equal_to_remove]
            block_masks[name].view(-1)[equal] = False
            equal_to_remove -= len(equal)
        yield block_masks


def _draw_unequal_blocks(
    flat: np.ndarray,
    scores: dict[str, Tensor],
    weights_per_block: list[int],
    sparsities: list[float],
) -> Iterator[Masks]:
    """As _draw_equal_blocks, for blocks with different numbers of weights."""
    blocks = [s.numel() for s in scores.values()]
    sizes = np.repeat(weights_per_block, blocks)
    for sparsity in sparsities:
        parts = torch.from_numpy(~_lowest_by_weight(flat, sizes, sparsity)).split(blocks)
        yield {n: p.reshape(s.shape) for (n, s), p in zip(scores.items(), parts, strict=True)}


def _lowest_by_weight(flat: np.ndarray, sizes: np.ndarray, sparsity: float) -> np.ndarray:
    """Mask (bool) of the lowest scores that together have nearest to `sparsity` of the weights.

    `sizes`: number of weights of each score. Of equal scores, the earlier ones are marked first.
    """
    order = np.argsort(flat, kind="stable")
    removed_after = np.concatenate([[0], np.cumsum(sizes[order])])
    count = int(np.abs(removed_after - sparsity * sizes.sum()).argmin())
    marked = np.zeros(flat.size, dtype=bool)
    marked[order[:count]] = True
    return marked


def scores_of_ranks(ranks: np.ndarray, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores whose ranking in draw() equals `ranks`.

    `ranks`: a permutation of 0 ... N-1 for all scores in order; rank 0 is removed first. N <= 2^30.
    `like`: name -> tensor of the shape that the scores get. Returns name -> float32.

    float32 cannot represent all whole numbers above 2^24. Rank k therefore becomes the k-th float32
    above 1.0. These numbers have consecutive bit patterns in the same order.
    """
    one = np.float32(1.0).view(np.int32)
    flat = torch.from_numpy((ranks.astype(np.int32) + one).view(np.float32))
    parts = flat.split([s.numel() for s in like.values()])
    return {n: p.reshape(s.shape) for (n, s), p in zip(like.items(), parts, strict=True)}


def reversed_ranking(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores with the reversed ranking of `scores`, ties included. Returns name -> float32."""
    flat = np.concatenate([s.detach().float().cpu().numpy().ravel() for s in scores.values()])
    ranks = np.empty(flat.size, np.int64)
    ranks[np.argsort(flat, kind="stable")] = np.arange(flat.size)
    return scores_of_ranks(flat.size - 1 - ranks, scores)


def quantiles_in_rows(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rank of each score in its row, as (rank + 0.5) / columns: float32, in (0, 1).

    `scores`: name -> float, (out, in), without NaN. Equal scores rank by column.

    draw() then removes the lowest scores of each row, and of each row the same share: at sparsity
    s, s * in weights up to rounding, which is at most 1/2 + longest row / (2 * mean row length).
    """
    ranks = {n: s.argsort(dim=1, stable=True).argsort(dim=1) for n, s in scores.items()}
    return {name: (rank + 0.5) / rank.shape[1] for name, rank in ranks.items()}


def survival_scores(
    removed_in: dict[str, Tensor], magnitudes: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Scores of iterative magnitude pruning: by the round of removal, then by magnitude.

    `removed_in`: name -> int, (out, in), the round (from 1) that removed the weight, 0 if no round
    did. `magnitudes`: name -> float, (out, in), |weight| at its removal or after the last round.
    Returns name -> float32, (out, in).

    At the sparsity that round r reached, draw() returns the ticket of that round. Between two
    rounds, it returns the ticket of the later round if that round had removed fewer weights.
    """
    rounds = np.concatenate([r.cpu().numpy().ravel() for r in removed_in.values()]).astype(np.int16)
    rounds[rounds == 0] = rounds.max(initial=0) + 1
    sizes = np.concatenate([m.float().cpu().numpy().ravel() for m in magnitudes.values()])
    ranks, start = np.empty(sizes.size, np.int64), 0
    for r in np.unique(rounds):
        members = np.flatnonzero(rounds == r)
        order = members[np.argsort(sizes[members], kind="stable")]
        ranks[order] = np.arange(start, start + members.size)
        start += members.size
    return scores_of_ranks(ranks, removed_in)


def shapes_of(masks: Masks) -> Shapes:
    """Name -> (out, in) of each mask."""
    return {name: (mask.shape[0], mask.shape[1]) for name, mask in masks.items()}


def sparsity_of(masks: Masks) -> float:
    """Fraction of all weights that the ticket removes, in [0, 1]."""
    total = sum(m.numel() for m in masks.values())
    return 1 - sum(int(torch.count_nonzero(m)) for m in masks.values()) / total


def density_by(masks: Masks, group_of: dict[str, str]) -> dict[str, float]:
    """Group -> fraction of its weights that are kept. `group_of`: name -> group, such as a kind."""
    kept: dict[str, int] = {}
    total: dict[str, int] = {}
    for name, mask in masks.items():
        group = group_of[name]
        kept[group] = kept.get(group, 0) + int(mask.sum())
        total[group] = total.get(group, 0) + mask.numel()
    return {group: kept[group] / total[group] for group in total}
