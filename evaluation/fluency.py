"""How probable a text is: to n-grams of the task's own texts, or to a causal language model."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from nltk.lm import AbsoluteDiscountingInterpolated, Vocabulary
from nltk.tokenize import wordpunct_tokenize
from nltk.util import everygrams, ngrams
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from evaluation import checkpoints
from training import models
from utils.cli import UserError


class NgramModel:
    """Trigrams of training texts in lower case, interpolated by absolute discounting (nltk.lm).

    nltk.lm's Kneser-Ney goes through all contexts for each word: 0.9 s a sentence after 6,716
    training sentences (this: 0.002 s), and its perplexity of held-out sentences is higher.

    A word seen once in training, or never, is nltk's unknown word. Its probability is shared by as
    many words as were seen once: whole, it would make a misspelling likelier than most words. So a
    rare word costs as much misspelt as it did before.
    """

    ORDER = 3
    unit = "word and end of text"

    def __init__(self, texts: list[str]):
        padded = [self._padded(text) for text in texts]
        vocabulary = Vocabulary((word for text in padded for word in text), unk_cutoff=2)
        self.seen_once = max(1, sum(n == 1 for n in vocabulary.counts.values()))
        self.model = AbsoluteDiscountingInterpolated(self.ORDER, vocabulary=vocabulary)
        # The beginning of a text is never predicted: it is context alone.
        self.model.fit(
            [gram for gram in everygrams(text, max_len=self.ORDER) if gram[-1] != "<s>"]
            for text in padded
        )
        self.model.fit([[(vocabulary.unk_label,)]])  # so that it has a probability in any case
        self.log_probability = lru_cache(maxsize=None)(self._log_probability)
        self.facts = {
            "kind": "trigrams, interpolated absolute discounting (nltk.lm)",
            "training_texts": len(texts),
            "known_words": len(vocabulary),
        }

    def _padded(self, text: str) -> list[str]:
        return ["<s>"] * (self.ORDER - 1) + wordpunct_tokenize(text.lower()) + ["</s>"]

    def _log_probability(self, word: str, context: tuple[str, ...]) -> float:
        shared_by = 1 if word in self.model.vocab else self.seen_once
        return math.log(self.model.score(word, context) / shared_by)

    def log_perplexities(self, texts: list[str]) -> np.ndarray:
        """(len(texts),): mean of -ln p over a text's words and its end."""
        found = []
        for text in texts:
            grams = list(ngrams(self._padded(text), self.ORDER))
            found.append(-sum(self.log_probability(g[-1], g[:-1]) for g in grams) / len(grams))
        return np.array(found)


class CausalModel:
    """A causal language model of transformers, from a local folder."""

    unit = "token"

    def __init__(self, folder: str, device: str):
        target = checkpoints.Target(Path(folder), Path(folder).resolve().name)
        self.tokenizer = models.load_tokenizer(folder)
        try:
            self.model, report = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, **checkpoints.LOCAL
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as e:
            reason = " ".join(str(e).split())[:200]
            raise UserError(f"{folder} holds no language model that can be loaded: {reason}") from e
        self.model.to(device).eval()
        starts = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id]
        self.start = next((i for i in starts if i is not None), None)
        if report["missing_keys"] or self.start is None or self._sees_ahead():
            raise UserError(
                f"{folder} is no causal language model: it lacks weights, or sees the "
                "words to come, or has no token that begins a text"
            )
        self.facts = {
            "kind": type(self.model).__name__,
            "name": target.name,
            "sha256": checkpoints.weights_digest(target),
        }

    @torch.inference_mode()
    def _logits(self, ids: list[int]) -> torch.Tensor:
        """(len(ids), vocabulary)."""
        inputs = torch.tensor([ids], device=self.model.device)
        scores = self.model(input_ids=inputs, attention_mask=torch.ones_like(inputs))
        return scores.logits[0].float().cpu()

    def _sees_ahead(self) -> bool:
        """Whether a token's scores depend on the next one, as a masked language model's do."""
        one, other = (self._logits([self.start, following])[0] for following in (0, 1))
        return not torch.allclose(one, other, atol=1e-4)

    def log_perplexities(self, texts: list[str]) -> np.ndarray:
        """(len(texts),): mean of -ln p over a text's tokens, as many as the model has places."""
        longest = getattr(self.model.config, "max_position_embeddings", 1024)
        found = []
        for text in texts:  # one at a time: no padding that a model could mind
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = [self.start, *ids][:longest]
            scores = self._logits(ids)[:-1].log_softmax(-1)
            chosen = scores[range(len(ids) - 1), ids[1:]]
            found.append(-float(chosen.sum()) / max(1, len(chosen)))
        return np.array(found)
