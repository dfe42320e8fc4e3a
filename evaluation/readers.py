"""Readers of the external resources of the recipes. No pickle is loaded."""

import contextlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from evaluation.checkpoints import LOCAL
from training.batching import cache_folder
from utils import process_state
from utils.cli import UserError
from utils.files import sha256_of, write_atomically


def read_neighbours(path: Path) -> dict[str, list[str]]:
    """A JSON table: word -> list of words, nearest first. Raises UserError for anything else."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, IsADirectoryError) as e:
        raise UserError(f"{path} is not JSON ({type(e).__name__}); give another file") from e
    if isinstance(table, dict) and set(table) == {"settings", "neighbours"}:
        table = table["neighbours"]  # written by minilm.neighbour_table
    fits = isinstance(table, dict) and all(
        isinstance(words, list) and all(isinstance(w, str) for w in words)
        for words in table.values()
    )
    if not fits or not any(table.values()):
        raise UserError(f"{path} is not a neighbor table; it must map words to lists of words")
    # TextAttack fails on a candidate in which it finds no word.
    return {word: [w for w in words if any(map(str.isalnum, w))] for word, words in table.items()}


def read_word_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """Words and their unit vectors, float32 (words, dimensions), from lines 'word v1 v2 ...'.

    The file may also be a .zip of one such file. Raises UserError for a damaged file.
    """
    words: list[str] = []
    rows: list[np.ndarray] = []
    with _text_of(path) as lines, _damage_reported(path):
        for number, line in enumerate(lines, 1):
            word, _, numbers = line.rstrip().partition(" ")
            try:
                row = np.array(numbers.split(), dtype=np.float32)
            except ValueError as e:
                raise UserError(
                    f"{path}, line {number}, is not 'word v1 v2 ...'; fetch the file again"
                ) from e
            if not row.size or (rows and row.size != rows[0].size) or not np.isfinite(row).all():
                raise UserError(
                    f"{path}, line {number}, has {row.size} numbers, or some that are not finite; "
                    "fetch the file again"
                )
            words.append(word)
            rows.append(row)
    if len(set(words)) < 2 or len(set(words)) != len(words):
        raise UserError(
            f"{path} has {len(words)} words, {len(set(words))} of them distinct; it needs two or "
            "more, each once"
        )
    vectors = np.stack(rows)
    return words, vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@contextlib.contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged zip, which appear only while it is read, into a UserError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as e:
        raise UserError(f"{path} is damaged ({type(e).__name__}); fetch it again") from e


def _text_of(path: Path):
    try:
        if path.suffix != ".zip":
            return open(path, encoding="utf-8", errors="replace")
        archive = zipfile.ZipFile(path)
        if len(archive.namelist()) != 1:
            raise UserError(f"{path} holds {len(archive.namelist())} files; it must hold one")
        return io.TextIOWrapper(archive.open(archive.namelist()[0]), "utf-8", errors="replace")
    except (zipfile.BadZipFile, IsADirectoryError) as e:
        raise UserError(f"{path} is neither a text file nor a zip of one; fetch it again") from e


def nearest_words(vectors: np.ndarray, count: int, device: str, chunk: int = 1024) -> np.ndarray:
    """Exact nearest neighbors: int64 (words, 1 + count), by falling cosine; column 0 is the word.

    `vectors`: float32 unit vectors (words, dimensions). The layout is TextAttack's nn_matrix.
    """
    matrix = torch.from_numpy(vectors).to(device)
    count = min(count, len(matrix) - 1)
    nearest = []
    for start in range(0, len(matrix), chunk):
        cosines = matrix[start : start + chunk] @ matrix.T
        # The word itself comes first, also before words with the same vector.
        cosines.diagonal(offset=start).fill_(2.0)
        nearest.append(cosines.topk(1 + count).indices.cpu())
    return torch.cat(nearest).numpy()


def cached_nearest_words(path: Path, vectors: np.ndarray, count: int, device: str) -> np.ndarray:
    """`nearest_words` of the vectors in the file `path`, computed once and stored in the cache."""
    cached = cache_folder() / "neighbours" / f"{sha256_of(path)[:16]}-{count}.npy"
    try:
        nearest = np.load(cached, allow_pickle=False)
        if nearest.ndim == 2 and len(nearest) == len(vectors):
            return nearest
    except (OSError, ValueError, EOFError):
        pass  # missing or torn: compute it again
    nearest = nearest_words(vectors, count, device)
    write_atomically(cached, lambda p: _save(p, nearest))
    return nearest


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as f:  # np.save appends .npy to a name without it
        np.save(f, array, allow_pickle=False)


def load_sentence_encoder(path: Path) -> Callable:
    """The Universal Sentence Encoder, a TensorFlow SavedModel: list of texts -> (texts, 512).

    Raises UserError if the folder cannot be loaded.
    """
    # TensorFlow reports on the CPU at import, and sets variables of its own.
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")
    with process_state.environment(TF_CPP_MIN_LOG_LEVEL=level):
        import tensorflow as tf  # needed only here, and its import takes seconds

    tf.config.set_visible_devices([], "GPU")  # otherwise TensorFlow reserves all GPU memory
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as e:
        raise UserError(f"{path} is not a loadable TensorFlow SavedModel; fetch it again") from e


def load_masked_lm(path: Path) -> tuple:
    """(model, tokenizer) of a masked language model in a local folder.

    Raises UserError if the folder cannot be loaded.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    try:
        model = AutoModelForMaskedLM.from_pretrained(path, **LOCAL)
        return model, AutoTokenizer.from_pretrained(path, **LOCAL)
    except (OSError, ValueError, KeyError) as e:
        reason = " ".join(str(e).split())[:150]
        raise UserError(f"{path} is not a loadable masked language model: {reason}") from e
