"""Scores and tickets: drawing one from the other, checking, saving, loading.

Every kind of ticket is a score file (robust search writes log alpha; magnitude, random and IMP
write scores of their own), and drawing is one pure function for all of them.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from masking.layers import expand_blocks

Masks = dict[str, Tensor]
Shapes = dict[str, tuple[int, int]]


def check_sparsity(sparsity: float) -> None:
    """ValueError unless 0 <= sparsity < 1 (the fraction of the weights that is removed)."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the fraction removed, in [0, 1), got {sparsity}")


def draw(scores: dict[str, Tensor], shapes: Shapes, sparsity: float) -> Masks:
    """The ticket at `sparsity`: name -> mask, bool, of the weight's shape, True = kept.

    Section 3.3: all scores of all matrices are ranked together and the lowest are removed, in one
    shot. Of N weights exactly round(sparsity * N) go (Python's round). Ties: of equal scores the
    earlier go first, in the order of the matrices and then by rows. Where a score stands for a
    block of weights, whole blocks go; with blocks of unequal sizes the number of removed weights
    is the nearest to sparsity * N that the ranking admits. `shapes`: the weights' shapes.
    """
    return next(draw_each(scores, shapes, [sparsity]))


def draw_each(
    scores: dict[str, Tensor], shapes: Shapes, sparsities: list[float]
) -> Iterator[Masks]:
    """The tickets at several sparsities, one after the other, as draw() gives them.

    Ranks once: nine tickets of BERT-base take twice the time of one.
    """
    for sparsity in sparsities:
        check_sparsity(sparsity)
    if not scores or scores.keys() != shapes.keys():
        raise ValueError("scores and weight shapes must name the same, non-empty set of matrices")
    scores = {name: s.detach().float().cpu() for name, s in scores.items()}
    flat = np.concatenate([s.numpy().ravel() for s in scores.values()])
    if np.isnan(flat).any():
        raise ValueError("scores contain NaN, so they cannot be ranked")
    weights_per_block = [shapes[n][0] * shapes[n][1] // s.numel() for n, s in scores.items()]
    if len(set(weights_per_block)) == 1:
        drawn = _draw_equal_blocks(flat, scores, sparsities)
    else:
        drawn = _draw_unequal_blocks(flat, scores, weights_per_block, sparsities)
    del flat  # as large as all scores
    for kept in drawn:
        yield {n: expand_blocks(per_block, shapes[n]) for n, per_block in kept.items()}


def _draw_equal_blocks(
    flat: np.ndarray, scores: dict[str, Tensor], sparsities: list[float]
) -> Iterator[Masks]:
    """Per sparsity, which blocks stay. Reorders `flat`, all scores in one array."""
    counts = [round(sparsity * flat.size) for sparsity in sparsities]
    positions = [max(0, count - 1) for count in counts]
    flat.partition(sorted(set(positions)))
    thresholds = flat[positions].tolist()  # the last score that goes (or, of none, any)
    equals = [
        np.count_nonzero(flat[:count] == threshold)  # of the equal ones that go, how many
        for count, threshold in zip(counts, thresholds, strict=True)
    ]
    del flat
    for equal_to_remove, threshold in zip(equals, thresholds, strict=True):
        kept = {}
        for name, s in scores.items():
            kept[name] = s >= threshold
            equal = torch.nonzero((s == threshold).flatten())[:, 0][:equal_to_remove]
            kept[name].view(-1)[equal] = False
            equal_to_remove -= len(equal)
        yield kept


def _draw_unequal_blocks(
    flat: np.ndarray,
    scores: dict[str, Tensor],
    weights_per_block: list[int],
    sparsities: list[float],
) -> Iterator[Masks]:
    """As _draw_equal_blocks, where some scores stand for more weights than others."""
    blocks = [s.numel() for s in scores.values()]
    sizes = np.repeat(weights_per_block, blocks)
    for sparsity in sparsities:
        parts = torch.from_numpy(~_lowest_by_weight(flat, sizes, sparsity)).split(blocks)
        yield {n: p.reshape(s.shape) for (n, s), p in zip(scores.items(), parts, strict=True)}


def _lowest_by_weight(flat: np.ndarray, sizes: np.ndarray, sparsity: float) -> np.ndarray:
    """Bool array marking the lowest entries, each of which stands for `sizes` weights: as many as
    come nearest to the share asked; of equal ones the earlier go first."""
    order = np.argsort(flat, kind="stable")
    removed_after = np.concatenate([[0], np.cumsum(sizes[order])])
    count = int(np.abs(removed_after - sparsity * sizes.sum()).argmin())
    marked = np.zeros(flat.size, dtype=bool)
    marked[order[:count]] = True
    return marked


def scores_of_ranks(ranks: np.ndarray, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores (float32) that draw() ranks exactly as `ranks` says; matrices of `like`'s shapes.

    `ranks`: a permutation of 0 ... N-1 over all scores in order, 0 = removed first. float32 has no
    whole numbers beyond 2^24, so rank k becomes the k-th float32 above 1.0: consecutive bit
    patterns, whose order is that of the numbers. N may be up to 2^30.
    """
    one = np.float32(1.0).view(np.int32)
    flat = torch.from_numpy((ranks.astype(np.int32) + one).view(np.float32))
    parts = flat.split([s.numel() for s in like.values()])
    return {n: p.reshape(s.shape) for (n, s), p in zip(like.items(), parts, strict=True)}


def reversed_ranking(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """The ranking of `scores` upside down, ties included: what was removed first goes last."""
    flat = np.concatenate([s.detach().float().cpu().numpy().ravel() for s in scores.values()])
    ranks = np.empty(flat.size, np.int64)
    ranks[np.argsort(flat, kind="stable")] = np.arange(flat.size)
    return scores_of_ranks(flat.size - 1 - ranks, scores)


def survival_scores(
    removed_in: dict[str, Tensor], magnitudes: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Scores of iterative magnitude pruning: by the round of removal, within it by magnitude.

    `removed_in`: the round (from 1) in which each weight was removed, 0 for those that survived
    all; `magnitudes`: |weight| when it was removed, or after the last round. Drawn at the sparsity
    that round r reached, the ticket is that round's; between two rounds it is what the later one,
    removing fewer, would have left.
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
    """Name -> (out, in) of every mask."""
    return {name: (mask.shape[0], mask.shape[1]) for name, mask in masks.items()}


def sparsity_of(masks: Masks) -> float:
    """Fraction of all weights that the ticket removes."""
    total = sum(m.numel() for m in masks.values())
    return 1 - sum(int(torch.count_nonzero(m)) for m in masks.values()) / total


def density_by(masks: Masks, group_of: dict[str, str]) -> dict[str, float]:
    """Fraction of weights kept in each group; `group_of` maps a matrix to its layer, kind, ..."""
    kept: dict[str, int] = {}
    total: dict[str, int] = {}
    for name, mask in masks.items():
        group = group_of[name]
        kept[group] = kept.get(group, 0) + int(mask.sum())
        total[group] = total.get(group, 0) + mask.numel()
    return {group: kept[group] / total[group] for group in total}
