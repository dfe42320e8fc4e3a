"""Tokens and batches: tokenize once, cache on disk, group by length, pad to the batch."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from training.rows import Rows
from utils.cache import cached
from utils.files import sha256_of, write_atomically


@dataclass(frozen=True)
class Encoded:
    """Tokenized rows.

    `input_ids`, `token_type_ids`: one int32 array (tokens,) per row, cut at the maximum length.
    `token_type_ids` is None if the model has none. `labels`: positions in the task's labels.
    `truncated_rows`: number of rows that were cut. `padding_side`: left or right.
    """

    input_ids: list[np.ndarray]
    token_type_ids: list[np.ndarray] | None
    labels: list[int]
    truncated_rows: int
    pad_token_id: int
    padding_side: str = "right"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.input_ids]


def encode(rows: Rows, tokenizer, max_seq_length: int, token_types: bool = True) -> Encoded:
    """Tokenize rows without padding. The cache on disk holds the result for the next call.

    `max_seq_length`: maximum number of tokens per row, special tokens included.
    `token_types=False` drops the token type ids, as the released search does (D12).
    """
    described = [
        rows.fingerprint,
        _description(tokenizer),
        tokenizer.model_input_names,
        max_seq_length,
    ]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
    path = cached("tokens", f"{key}.safetensors")
    arrays = _cached(path)
    if arrays is None:
        arrays = _tokenize(rows, tokenizer, max_seq_length)
        # A full or read-only cache costs time but does not end the run.
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
        padding_side=tokenizer.padding_side,
    )


def _description(tokenizer) -> dict:
    """All settings and files that determine a tokenizer's output, for the key of the cache."""
    if tokenizer.is_fast:
        # Calls with padding or truncation change these two.
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        return backend | {"truncation": 0, "padding": 0}
    with tempfile.TemporaryDirectory() as folder:  # vocabulary, merges, settings
        tokenizer.save_pretrained(folder)
        files = {p.name: sha256_of(p) for p in sorted(Path(folder).iterdir())}
    return {"class": type(tokenizer).__name__, "files": files}


def _cached(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays in a cache file; None if the file is missing or damaged."""
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
    """Row positions of each batch of an epoch, shuffled with `seed`. One batch can be smaller.

    `lengths`: tokens of each row. `by_length`: sort the rows within groups of 50 batches, then
    shuffle the batches. A batch then holds texts of similar length and little padding.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    if not by_length:
        return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    batches = []
    for start in range(0, len(order), 50 * batch_size):
        group = order[start : start + 50 * batch_size]
        group = group[np.argsort([-lengths[i] for i in group], kind="stable")]
        batches += [group[i : i + batch_size].tolist() for i in range(0, len(group), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def collate(encoded: Encoded, positions: list[int]) -> dict[str, np.ndarray]:
    """Pad the rows at `positions` to the longest of them.

    Returns int64 arrays: input_ids, attention_mask (1 = token, 0 = padding) and, if the model has
    them, token_type_ids, each (rows, tokens); and labels, (rows,).
    """
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
        text = slice(longest - n, None) if encoded.padding_side == "left" else slice(n)
        batch["input_ids"][row, text] = encoded.input_ids[i]
        batch["attention_mask"][row, text] = 1
        if encoded.token_type_ids is not None:
            batch["token_type_ids"][row, text] = encoded.token_type_ids[i]
    batch["labels"] = np.array([encoded.labels[i] for i in positions])
    return batch


def batches_in_order(encoded: Encoded, batch_size: int) -> Iterator[list[int]]:
    """Row positions of each evaluation batch, longest rows first.

    If the memory is too small, the first batch already fails.
    """
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded.input_ids[i]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
