"""Scores and tickets: drawing one from the other, checking, saving, loading.

Every kind of ticket is a score file (robust search writes log alpha; magnitude, random and IMP
write scores of their own), and drawing is one pure function for all of them.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from masking.layers import expand_blocks

Masks = dict[str, Tensor]
Shapes = dict[str, tuple[int, int]]

# Kinds of score files whose scores are learned hard-concrete gates (log alpha).
GATE_KINDS = ("robust", "no_adversary")


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
    flat: np.ndarray, scores: dict[str, Tensor], weights_per_block: list[int], sparsities
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


def _save(path: Path, tensors: dict[str, Tensor], manifest: dict) -> None:
    # One metadata key: safetensors writes several in an order that changes from run to run.
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, beside, {"manifest": json.dumps(manifest, sort_keys=True)})
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _load(path: Path, what: str) -> tuple[dict[str, Tensor], dict]:
    """Tensors and manifest of a file of ours. ValueError names the file and what is wrong."""
    if not path.is_file():
        raise ValueError(f"no {what} file at {path}")
    try:
        with safe_open(path, framework="pt") as f:
            manifest = json.loads((f.metadata() or {})["manifest"])
            tensors = {name: f.get_tensor(name) for name in list(f.keys())}
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as e:
        raise ValueError(f"{path} is not a {what} file or is damaged ({type(e).__name__})") from e
    if not isinstance(manifest, dict) or manifest.get("what") != what:
        raise ValueError(f"{path} is not a {what} file")
    return tensors, manifest


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _in_order(tensors: dict[str, Tensor], manifest: dict, path: Path) -> Shapes:
    """Check tensors against the manifest; their weights' shapes, in the model's order."""
    try:
        shapes = {n: (int(s[0]), int(s[1])) for n, s in manifest["shapes"].items()}
        order, checksum = manifest["order"], manifest["sha256"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as e:
        raise ValueError(f"{path}: its manifest is incomplete ({type(e).__name__}: {e})") from e
    if sorted(order) != sorted(shapes) or shapes.keys() != tensors.keys():
        raise ValueError(f"{path}: its manifest does not name the matrices that it holds")
    if _checksum(tensors) != checksum:
        raise ValueError(f"{path} is damaged: its checksum does not match its contents")
    return {name: shapes[name] for name in order}


def score_file(path: str | Path) -> Path:
    """The score file that a path names: itself, or scores.safetensors (last epoch) in a folder."""
    path = Path(path)
    return path / "scores.safetensors" if path.is_dir() else path


def save_scores(path: Path, scores: dict[str, Tensor], shapes: Shapes, manifest: dict) -> None:
    """Write a score file (float32). `manifest` says of which kind and from where they are."""
    tensors = {n: s.detach().to("cpu", torch.float32).contiguous() for n, s in scores.items()}
    facts = {
        "what": "scores",
        "shapes": {n: list(s) for n, s in shapes.items()},
        "order": list(scores),
        "sha256": _checksum(tensors),
    }
    _save(path, tensors, manifest | facts)


def load_scores(path: Path) -> tuple[dict[str, Tensor], Shapes, dict]:
    """Scores (float32), their weights' shapes, and the manifest. ValueError on a bad file."""
    tensors, manifest = _load(path, "scores")
    shapes = _in_order(tensors, manifest, path)
    for name, shape in shapes.items():
        s = tensors[name]
        fits = s.ndim == 2 and s.numel() and not (shape[0] % s.shape[0] or shape[1] % s.shape[1])
        if not fits or not s.is_floating_point() or not torch.isfinite(s).all():
            raise ValueError(
                f"{path}: the scores of {name} do not fit a {shape} matrix or hold "
                "values that are not finite"
            )
    return {name: tensors[name].float() for name in shapes}, shapes, manifest


def check_origin(manifest: dict, path: Path) -> None:
    """ValueError where a score file's manifest does not say of which encoder and kind it is."""
    wanted = {"encoder": dict, "kind": str, "seed": int}
    if not all(isinstance(manifest.get(key), kind) for key, kind in wanted.items()):
        raise ValueError(f"{path}: its manifest does not say of which encoder, kind and seed it is")


def check_order(manifest: dict, sparsity: float, path: Path) -> None:
    """ValueError where a score file of pruned rounds has no order at `sparsity`."""
    if sparsity > manifest.get("up_to_sparsity", 1.0) + 1e-9:
        raise ValueError(
            f"{path} was pruned iteratively up to sparsity {manifest['up_to_sparsity']} only: "
            f"beyond it there is no order; run prune_iteratively.py with --to_sparsity {sparsity:g}"
        )
    if sparsity < manifest.get("from_sparsity", 0.0) - 1e-9:
        raise ValueError(
            f"{path} is the complement of a ticket that was pruned iteratively: below sparsity "
            f"{manifest['from_sparsity']:g} it has no order"
        )


def save_ticket(path: Path, masks: Masks, manifest: dict) -> dict:
    """Write a ticket, one bit per weight (row-major, most significant bit first, 1 = kept).

    Returns the whole manifest that stands in the file.
    """
    packed = {}
    for name, mask in masks.items():
        if mask.dtype != torch.bool or mask.ndim != 2:
            raise ValueError(f"the mask of {name} is not a boolean matrix")
        packed[name] = torch.from_numpy(np.packbits(mask.cpu().numpy()))
    facts = {
        "what": "ticket",
        "shapes": {n: list(m.shape) for n, m in masks.items()},
        "order": list(masks),
        "sparsity": sparsity_of(masks),
        "sha256": _checksum(packed),
    }
    _save(path, packed, manifest | facts)
    return manifest | facts


def load_ticket(path: Path) -> tuple[Masks, dict]:
    """Masks (bool, True = kept) and manifest of a ticket file. ValueError on a bad file."""
    packed, manifest = _load(path, "ticket")
    masks = {}
    for name, shape in _in_order(packed, manifest, path).items():
        bits, count = packed[name], shape[0] * shape[1]
        if bits.dtype != torch.uint8 or bits.numel() != -(-count // 8):
            raise ValueError(f"{path}: {name} does not hold the {count} bits of its shape {shape}")
        mask = np.unpackbits(bits.numpy(), count=count).astype(bool).reshape(shape)
        masks[name] = torch.from_numpy(mask)
    return masks, manifest
