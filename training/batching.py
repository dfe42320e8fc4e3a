"""Tokens and batches: tokenised once and cached on disk, grouped by length, padded to the batch."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from training.splits import Rows
from utils.files import sha256_of, write_atomically


@dataclass(frozen=True)
class Encoded:
    """Tokenised rows: per row its ids (int32, cut at the maximum length), and its label."""

    input_ids: list[np.ndarray]
    token_type_ids: list[np.ndarray] | None
    labels: list[int]
    truncated_rows: int
    pad_token_id: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.input_ids]


def cache_folder() -> Path:
    """ROBUST_TICKETS_CACHE, or ~/.cache/robust_tickets; without a home in the temporary folder."""
    chosen = os.environ.get("ROBUST_TICKETS_CACHE")
    if chosen:
        return Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:  # a container's user who is in no table
        home = Path(tempfile.gettempdir())
    return home / ".cache" / "robust_tickets"


def encode(rows: Rows, tokenizer, max_seq_length: int, token_types: bool = True) -> Encoded:
    """Tokenise once per (texts, tokenizer, length); padding is left to the batch.

    `token_types=False` leaves token type ids out, as the released search does (D12).
    """
    described = [
        rows.fingerprint,
        _description(tokenizer),
        tokenizer.model_input_names,
        max_seq_length,
    ]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
    path = cache_folder() / "tokens" / f"{key}.safetensors"
    arrays = _cached(path)
    if arrays is None:
        arrays = _tokenize(rows, tokenizer, max_seq_length)
        # A full or read-only cache costs time, not the run.
        with contextlib.suppress(OSError, SafetensorError):
            write_atomically(path, lambda p: save_file(arrays, p, {"sha256": _digest(arrays)}))
    ends = np.cumsum(arrays["lengths"])[:-1]
    has_types = token_types and "token_type_ids" in arrays
    return Encoded(
        input_ids=np.split(arrays["input_ids"], ends),
        token_type_ids=np.split(arrays["token_type_ids"], ends) if has_types else None,
        labels=rows.labels,
        truncated_rows=int(arrays["truncated_rows"][0]),
        pad_token_id=tokenizer.pad_token_id,
    )


def _description(tokenizer) -> dict:
    """All that decides what a tokenizer gives, for the cache's key."""
    if tokenizer.is_fast:
        # Calls with padding or truncation leave traces in these two.
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        return backend | {"truncation": 0, "padding": 0}
    with tempfile.TemporaryDirectory() as folder:  # vocabulary, merges, settings
        tokenizer.save_pretrained(folder)
        files = {p.name: sha256_of(p) for p in sorted(Path(folder).iterdir())}
    return {"class": type(tokenizer).__name__, "files": files}


def _cached(path: Path) -> dict[str, np.ndarray] | None:
    """What is kept there; None where nothing is, or not what was written."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as f:
            arrays = {name: f.get_tensor(name) for name in list(f.keys())}
            written = (f.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, ValueError):
        return None
    return arrays if written == _digest(arrays) else None


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def _tokenize(rows: Rows, tokenizer, max_seq_length: int) -> dict[str, np.ndarray]:
    columns = [list(column) for column in zip(*rows.texts, strict=True)]
    out = tokenizer(*columns, truncation=True, max_length=max_seq_length, padding=False)
    if tokenizer.is_fast:
        truncated = sum(bool(e.overflowing) for e in out.encodings)
    else:  # reports no overflow of pairs
        whole = tokenizer(*columns, padding=False, verbose=False)["input_ids"]
        truncated = sum(len(ids) > max_seq_length for ids in whole)
    arrays = {
        "lengths": np.array([len(ids) for ids in out["input_ids"]], np.int32),
        "input_ids": np.concatenate(out["input_ids"]).astype(np.int32),
        "truncated_rows": np.array([truncated], np.int64),
    }
    if "token_type_ids" in out:
        arrays["token_type_ids"] = np.concatenate(out["token_type_ids"]).astype(np.int32)
    return arrays


def epoch_batches(
    lengths: list[int], batch_size: int, seed: int, by_length: bool = True
) -> list[list[int]]:
    """Row positions of each batch of one epoch, shuffled by `seed`; the last may be smaller.

    `by_length` sorts within stretches of 50 batches, so that a batch holds texts of like length
    and little padding, and shuffles the batches again.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    if not by_length:
        return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    batches = []
    for start in range(0, len(order), 50 * batch_size):
        stretch = order[start : start + 50 * batch_size]
        stretch = stretch[np.argsort([-lengths[i] for i in stretch], kind="stable")]
        batches += [
            stretch[i : i + batch_size].tolist() for i in range(0, len(stretch), batch_size)
        ]
    return [batches[i] for i in generator.permutation(len(batches))]


def collate(encoded: Encoded, positions: list[int]) -> dict[str, np.ndarray]:
    """Padded to the longest of the batch: input_ids, attention_mask (and token_type_ids), labels,
    all int64, (rows, tokens) and (rows,)."""
    longest = max(len(encoded.input_ids[i]) for i in positions)
    shape = (len(positions), longest)
    batch = {
        "input_ids": np.full(shape, encoded.pad_token_id),
        "attention_mask": np.zeros(shape, int),
    }
    if encoded.token_type_ids is not None:
        batch["token_type_ids"] = np.zeros(shape, int)
    for row, i in enumerate(positions):
        n = len(encoded.input_ids[i])
        batch["input_ids"][row, :n] = encoded.input_ids[i]
        batch["attention_mask"][row, :n] = 1
        if encoded.token_type_ids is not None:
            batch["token_type_ids"][row, :n] = encoded.token_type_ids[i]
    batch["labels"] = np.array([encoded.labels[i] for i in positions])
    return batch


def batches_in_order(encoded: Encoded, batch_size: int) -> Iterator[list[int]]:
    """Positions for an evaluation: longest first, so that memory fails at once if it fails."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded.input_ids[i]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
