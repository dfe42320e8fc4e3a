"""Perplexities of an n-gram model."""

import math
import random

import numpy as np
import pytest
from conftest import sentences

from evaluation import fluency

TRAIN = sentences(240, 1)


def test_ngram_probabilities_are_a_distribution():
    """Over the known words and as many unknown ones as were seen once, after any words."""
    usual = fluency.NgramModel([text for text, _ in TRAIN])
    rare = fluency.NgramModel(["a b a b c d", "b a e", "a a b"])
    assert rare.seen_once == 3 and "c" not in rare.model.vocab
    for model in (usual, rare):
        known = set(model.model.vocab) - {"<s>", "<UNK>"}
        for context in (("<s>", "<s>"), ("a", "b"), ("never", "seen")):
            total = sum(math.exp(model.log_probability(word, context)) for word in known)
            total += model.seen_once * math.exp(model.log_probability("misspellt", context))
            assert total == pytest.approx(1)


def test_a_misspelling_is_no_likelier_than_a_word_seen_once():
    model = fluency.NgramModel(["a b a b c d", "b a e", "a a b"])
    once, never, twice = (model.log_perplexities([f"a {w}"])[0] for w in ("c", "cc", "b"))
    assert once == never > twice


def test_a_scrambled_text_is_less_fluent():
    text = "the film was very good and the actor was quite bad"
    model = fluency.NgramModel([text, *(t for t, _ in TRAIN), text])
    words = text.split()
    random.Random(0).shuffle(words)
    same, scrambled = model.log_perplexities([text.upper(), " ".join(words)])
    assert same == model.log_perplexities([text])[0] < scrambled - 0.5
    assert np.isfinite(model.log_perplexities(["", "\u0430 \u200b"])).all()
