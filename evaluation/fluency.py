"""Fluency: how probable a text is to trigrams of the task's texts or to a causal language model."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from nltk.lm import AbsoluteDiscountingInterpolated, Vocabulary
from nltk.tokenize import wordpunct_tokenize
from nltk.util import everygrams, ngrams
from transformers import AutoModelForCausalLM

from evaluation import checkpoints
from training import tokenizers
from utils.cli import UserError


class NgramModel:
    """Trigrams of training texts in lower case, interpolated by absolute discounting (nltk.lm).

    nltk.lm's Kneser-Ney model reads all contexts for each word. With 6,716 training sentences, it
    takes 0.9 s per sentence (this model: 0.002 s), and its perplexity of held-out sentences is
    higher.

    A word seen at most once in training is nltk's unknown word. Its probability is divided by the
    number of words seen once. Undivided, it would make a misspelling more probable than most
    words. A rare word is thus as probable as its misspelling.
    """

    ORDER = 3

    def __init__(self, texts: list[str]):
        padded = [self._padded(text) for text in texts]
        vocabulary = Vocabulary((word for text in padded for word in text), unk_cutoff=2)
        self.seen_once = max(1, sum(n == 1 for n in vocabulary.counts.values()))
        self.model = AbsoluteDiscountingInterpolated(self.ORDER, vocabulary=vocabulary)
        # The beginning of a text is context only; the model does not predict it.
        self.model.fit(
            [gram for gram in everygrams(text, max_len=self.ORDER) if gram[-1] != "<s>"]
            for text in padded
        )
        self.model.fit([[(vocabulary.unk_label,)]])  # give it a probability
        self.log_probability = lru_cache(maxsize=None)(self._log_probability)
        self.facts = {
            "kind": "trigrams, interpolated absolute discounting (nltk.lm)",
            "training_texts": len(texts),
            "known_words": len(vocabulary),
            "unit": "word and end of text",
        }

    def _padded(self, text: str) -> list[str]:
        return ["<s>"] * (self.ORDER - 1) + wordpunct_tokenize(text.lower()) + ["</s>"]

    def _log_probability(self, word: str, context: tuple[str, ...]) -> float:
        shared_by = 1 if word in self.model.vocab else self.seen_once
        return math.log(self.model.score(word, context) / shared_by)

    def log_perplexities(self, texts: list[str]) -> np.ndarray:
        """Mean of -ln p over the words and the end of each text, float, (texts,)."""
        means = []
        for text in texts:
            grams = list(ngrams(self._padded(text), self.ORDER))
            means.append(-sum(self.log_probability(g[-1], g[:-1]) for g in grams) / len(grams))
        return np.array(means)


class CausalModel:
    """A causal language model from a local folder. UserError if the folder does not hold one."""

    def __init__(self, folder: str, device: str):
        target = checkpoints.Target(Path(folder), Path(folder).resolve().name)
        self.tokenizer = tokenizers.load_tokenizer(folder)
        self.model, missing = checkpoints.load_model(
            AutoModelForCausalLM, target.folder, "language model"
        )
        self.model.to(device)
        starts = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id]
        self.start = next((i for i in starts if i is not None), None)
        if missing or self.start is None or self._sees_ahead():
            raise UserError(
                f"{folder} is not a causal language model: it lacks weights, or it sees the next "
                "token, or it has no token that begins a text; choose another --language_model"
            )
        self.facts = {
            "kind": type(self.model).__name__,
            "name": target.name,
            "sha256": checkpoints.weights_digest(target),
            "unit": "token",
        }

    @torch.inference_mode()
    def _logits(self, ids: list[int]) -> torch.Tensor:
        """Scores of the next token, float32 on the CPU, (len(ids), vocabulary)."""
        inputs = torch.tensor([ids], device=self.model.device)
        scores = self.model(input_ids=inputs, attention_mask=torch.ones_like(inputs))
        return scores.logits[0].float().cpu()

    def _sees_ahead(self) -> bool:
        """Whether scores depend on a later token, as in a masked language model."""
        a, b = (self._logits([self.start, following])[0] for following in (0, 1))
        return not torch.allclose(a, b, atol=1e-4)

    def log_perplexities(self, texts: list[str]) -> np.ndarray:
        """Mean of -ln p over the tokens of each text (at most the model's length), (texts,)."""
        longest = getattr(self.model.config, "max_position_embeddings", 1024)
        means = []
        for text in texts:  # one at a time: padding could change a model's scores
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = [self.start, *ids][:longest]
            scores = self._logits(ids)[:-1].log_softmax(-1)
            chosen = scores[range(len(ids) - 1), ids[1:]]
            means.append(-float(chosen.sum()) / max(1, len(chosen)))
        return np.array(means)
