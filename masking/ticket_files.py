"""Score files and ticket files: safetensors with a manifest. Reading a file checks it."""

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
    # A single metadata key: safetensors writes several keys in an order that changes between runs.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, temporary, {"manifest": json.dumps(manifest, sort_keys=True)})
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path, what: str) -> tuple[dict[str, Tensor], dict]:
    """Tensors and manifest of a file that _save wrote. Raises ValueError for any other file."""
    kind = what.removesuffix("s")
    if not path.is_file():
        raise ValueError(f"there is no {kind} file at {path}; check the path")
    try:
        with safe_open(path, framework="pt") as f:
            manifest = json.loads((f.metadata() or {})["manifest"])
            tensors = {name: f.get_tensor(name) for name in list(f.keys())}
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as e:
        raise ValueError(
            f"{path} is not a {kind} file or is damaged ({type(e).__name__}); check the path"
        ) from e
    if not isinstance(manifest, dict) or manifest.get("what") != what:
        raise ValueError(f"{path} is not a {kind} file; check the path")
    return tensors, manifest


def read_manifest(path: Path) -> dict | None:
    """The manifest of a score or ticket file, without its tensors; None for any other file."""
    try:
        with safe_open(path, framework="pt") as f:
            manifest = json.loads((f.metadata() or {})["manifest"])
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _in_order(tensors: dict[str, Tensor], manifest: dict, path: Path) -> Shapes:
    """Check the tensors against the manifest. Returns the weights' shapes, in the model's order."""
    try:
        shapes = {n: (int(s[0]), int(s[1])) for n, s in manifest["shapes"].items()}
        order, checksum = manifest["order"], manifest["sha256"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as e:
        raise ValueError(f"{path}: its manifest is incomplete ({type(e).__name__}: {e})") from e
    if sorted(order) != sorted(shapes) or shapes.keys() != tensors.keys():
        raise ValueError(f"{path}: its manifest names other matrices than it holds; write it again")
    if _checksum(tensors) != checksum:
        raise ValueError(f"{path} is damaged: its checksum does not match; write it again")
    return {name: shapes[name] for name in order}


def score_file(path: str | Path) -> Path:
    """The path itself, or scores.safetensors (of the last epoch) if the path is a folder."""
    return _in_folder(path, "scores.safetensors")


def ticket_file(path: str | Path) -> Path:
    """The path itself, or ticket.safetensors if the path is a folder."""
    return _in_folder(path, "ticket.safetensors")


def _in_folder(path: str | Path, name: str) -> Path:
    return Path(path) / name if Path(path).is_dir() else Path(path)


def save_scores(path: Path, scores: dict[str, Tensor], shapes: Shapes, manifest: dict) -> None:
    """Write a score file.

    `scores`: name -> float, (out/b_out, in/b_in), stored as float32. `shapes`: name -> (out, in) of
    the weights. `manifest`: kind, seed and origin of the scores.
    """
    tensors = {n: s.detach().to("cpu", torch.float32).contiguous() for n, s in scores.items()}
    facts = {
        "what": "scores",
        "shapes": {n: list(s) for n, s in shapes.items()},
        "order": list(scores),
        "sha256": _checksum(tensors),
    }
    _save(path, tensors, manifest | facts)


def load_scores(path: Path) -> tuple[dict[str, Tensor], Shapes, dict]:
    """Read a score file.

    Returns name -> scores (float32, (out/b_out, in/b_in), finite), name -> (out, in) of the
    weights, and the manifest. Raises ValueError if the file is missing, damaged or of another kind.
    """
    tensors, manifest = _load(path, "scores")
    shapes = _in_order(tensors, manifest, path)
    for name, shape in shapes.items():
        s = tensors[name]
        fits = s.ndim == 2 and s.numel() and not (shape[0] % s.shape[0] or shape[1] % s.shape[1])
        if not fits or not s.is_floating_point() or not torch.isfinite(s).all():
            raise ValueError(
                f"{path}: the scores of {name} do not fit a {shape} matrix, or are not finite; "
                "write the file again"
            )
    return {name: tensors[name].float() for name in shapes}, shapes, manifest


def check_origin(manifest: dict, path: Path) -> None:
    """Raise ValueError unless the manifest of a score file names an encoder, a kind and a seed."""
    required = {"encoder": dict, "kind": str, "seed": int}
    if not all(isinstance(manifest.get(key), kind) for key, kind in required.items()):
        raise ValueError(f"{path}: its manifest does not name its encoder, kind and seed")


def check_order(manifest: dict, sparsity: float, path: Path) -> None:
    """Raise ValueError if the scores of iterative pruning define no ticket at `sparsity`.

    `sparsity`: fraction of the weights that is removed, in [0, 1).
    """
    if sparsity > manifest.get("up_to_sparsity", 1.0) + 1e-9:
        raise ValueError(
            f"{path} ranks weights only up to sparsity {manifest['up_to_sparsity']}, where its "
            f"iterative pruning ended; run prune_iteratively.py with --to_sparsity {sparsity:g}"
        )
    if sparsity < manifest.get("from_sparsity", 0.0) - 1e-9:
        raise ValueError(
            f"{path} ranks weights only from sparsity {manifest['from_sparsity']:g} on, because it "
            "is the complement of an iteratively pruned ticket; choose a higher sparsity"
        )


def save_ticket(path: Path, masks: Masks, manifest: dict) -> dict:
    """Write a ticket with one bit per weight (by rows, most significant bit first, 1 = kept).

    `masks`: name -> bool, (out, in), True = kept. Returns the complete manifest of the file. Raises
    ValueError if a mask is not a boolean matrix.
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
    """Read a ticket file.

    Returns name -> mask (bool, (out, in), True = kept) and the manifest. Raises ValueError if the
    file is missing, damaged or of another kind.
    """
    packed, manifest = _load(path, "ticket")
    masks = {}
    for name, shape in _in_order(packed, manifest, path).items():
        bits, count = packed[name], shape[0] * shape[1]
        if bits.dtype != torch.uint8 or bits.numel() != -(-count // 8):
            raise ValueError(f"{path}: {name} does not hold the {count} bits of its shape {shape}")
        mask = np.unpackbits(bits.numpy(), count=count).astype(bool).reshape(shape)
        masks[name] = torch.from_numpy(mask)
    return masks, manifest
