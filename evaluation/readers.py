"""Readers of the external resources of the recipes. No pickle is loaded."""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from evaluation.checkpoints import load_model
from training.tokenizers import load_tokenizer
from utils import process_state
from utils.cache import cached as cached_file
from utils.cli import UserError
from utils.files import sha256_of, write_atomically


def read_neighbours(path: Path) -> dict[str, list[str]]:
    """A JSON table: word -> list of words, nearest first. Raises UserError for anything else.

    A suite asks for its table in every part, so a file that has not changed is read once.
    """
    facts = path.stat()
    return _read_neighbours(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=2)  # the tables of a suite's two recipes
def _read_neighbours(path: Path, *_: int) -> dict[str, list[str]]:
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
    for number, line in enumerate(_lines(path), 1):
        word, _, numbers = line.rstrip().partition(" ")
        try:
            row = np.array(numbers.split(), dtype=np.float32)
        except ValueError:
            row = np.array([])
        if not row.size or (rows and row.size != rows[0].size) or not np.isfinite(row).all():
            raise UserError(
                f"{path}, line {number}, is not 'word v1 v2 ...' with finite numbers, as many as "
                "in the first line; delete the file and fetch it again"
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


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, or of the only file in a zip. The damage of a zip shows only here."""
    try:
        if path.suffix != ".zip":
            with open(path, encoding="utf-8", errors="replace") as f:
                yield from f
            return
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise UserError(f"{path} holds {len(names)} files; it must hold one")
            yield from io.TextIOWrapper(archive.open(names[0]), "utf-8", errors="replace")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, IsADirectoryError) as e:
        raise UserError(
            f"{path} is damaged, or neither a text file nor a zip of one ({type(e).__name__}); "
            "delete it and fetch it again"
        ) from e


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
    cached = cached_file("neighbours", f"{sha256_of(path)[:16]}-{count}.npy")
    try:
        nearest = np.load(cached, allow_pickle=False)
        if nearest.ndim == 2 and len(nearest) == len(vectors):
            return nearest
    except (OSError, ValueError, EOFError):
        pass  # missing or torn: compute it again
    nearest = nearest_words(vectors, count, device)
    content = io.BytesIO()
    np.save(content, nearest, allow_pickle=False)
    write_atomically(cached, lambda p: p.write_bytes(content.getvalue()))
    return nearest


def load_sentence_encoder(path: Path) -> Callable:
    """The Universal Sentence Encoder, a SavedModel: list of texts -> (texts, 512)."""
    # TensorFlow reports on the CPU at import, and sets variables of its own.
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")
    with process_state.environment(TF_CPP_MIN_LOG_LEVEL=level):
        import tensorflow as tf  # needed only here, and its import takes seconds

    tf.config.set_visible_devices([], "GPU")  # otherwise TensorFlow reserves all GPU memory
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as e:
        raise UserError(
            f"{path} is not a loadable TensorFlow SavedModel; delete it and fetch it again"
        ) from e


def load_masked_lm(path: Path) -> tuple:
    """(model, tokenizer) of a masked language model in a local folder."""
    model, _ = load_model(AutoModelForMaskedLM, path, "masked language model")
    return model, load_tokenizer(str(path))
