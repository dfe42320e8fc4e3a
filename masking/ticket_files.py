"""Score files and ticket files: safetensors with a manifest, checked when they are read."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from masking.tickets import Masks, Shapes, sparsity_of


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
        raise ValueError(f"there is no {what.removesuffix('s')} file at {path}")
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
