"""Parts that our attacks add to TextAttack: scores, searches, a neighbor table, similarities.

TextAttack maximizes a score; its own is 1 - p of the true label.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator

import torch
from textattack.constraints.semantics.sentence_encoders import SentenceEncoder
from textattack.goal_functions import UntargetedClassification
from textattack.search_methods import GreedyWordSwapWIR
from textattack.shared import AttackedText, WordEmbedding
from textattack.shared.utils import device, is_one_word
from textattack.transformations import WordSwapMaskedLM
from torch import Tensor

from evaluation.minilm import MiniLM
from evaluation.use3 import Use3


class Softmax(UntargetedClassification):
    """TextAttack's own score, 1 - p in float32: always 0 if the victim is certain to 7 digits."""

    def _process_model_outputs(self, inputs: list, scores: Tensor) -> Tensor:
        return super()._process_model_outputs(inputs, scores.float())


class LogOdds(UntargetedClassification):
    """log((1 - p) / p) of the true label, from float64 logits: orders as 1 - p, never saturates."""

    def _process_model_outputs(self, inputs: list, scores: Tensor) -> Tensor:
        return scores  # the logits; their argmax is the predicted label

    def _get_score(self, model_output: Tensor, _) -> float:
        return log_odds_against(model_output, self.ground_truth_output)


def log_odds_against(logits: Tensor, label: int) -> float:
    """log((1 - p) / p) of `label`, from logits (labels,): logsumexp of the others minus its own."""
    others = torch.cat([logits[:label], logits[label + 1 :]])
    return float(others.logsumexp(0) - logits[label])


class WeightedSaliency(GreedyWordSwapWIR):
    """PWWS's search with log-odds as scores.

    All other searches depend only on the order of scores. PWWS ranks words by a product of
    probabilities: a softmax over saliencies times the largest 1 - p. For this ranking a float64
    sigmoid turns the log-odds back into 1 - p; the swaps are then chosen by log-odds.
    """

    def __init__(self):
        super().__init__("weighted-saliency")

    def _get_index_order(self, initial_text, max_len: int = -1):
        def to_probabilities(results: list) -> None:
            for result in results:
                result.score = float(torch.tensor(result.score, dtype=torch.float64).sigmoid())

        with _every_query(self, to_probabilities):
            return super()._get_index_order(initial_text, max_len)


def watch_ranking(search: GreedyWordSwapWIR) -> None:
    """Make the search store the scores that it ranks a row's words by, as `first_scores`.

    Each search here first queries one text per word, with that word masked or deleted, and ranks
    the words by the scores. If all scores are equal, the search does not know where to start.
    """
    rank = search._get_index_order

    def store(results: list) -> None:
        if not search.first_scores:
            search.first_scores = [result.score for result in results]

    def watched(*arguments):
        search.first_scores = []
        with _every_query(search, store):
            return rank(*arguments)

    search.first_scores = []
    search._get_index_order = watched


@contextlib.contextmanager
def _every_query(search: GreedyWordSwapWIR, act: Callable[[list], None]) -> Iterator[None]:
    """Call `act` with the results of every query of a search."""
    query = search.get_goal_results

    def query_and_act(texts: list):
        results, search_over = query(texts)
        act(results)
        return results, search_over

    search.get_goal_results = query_and_act
    try:
        yield
    finally:
        search.get_goal_results = query


class NeighbourTable(WordEmbedding):
    """A table word -> nearest words in place of TextAttack's word vectors, without distances."""

    def __init__(self, table: dict[str, list[str]]):
        words = sorted(table.keys() | {w for nearest in table.values() for w in nearest})
        super().__init__(None, {word: i for i, word in enumerate(words)}, words)
        self.table = table

    def nearest_neighbours(self, index: int, topn: int) -> list[int]:
        """At most `topn` indices, and no more than the table has for this word."""
        return [self.word2index(w) for w in self.table.get(self.index2word(index), ())[:topn]]


class MiniLMSimilarity(SentenceEncoder):
    """Cosine of MiniLM encodings, in the place of the Universal Sentence Encoder."""

    def __init__(
        self, threshold: float, encoder: MiniLM | Use3, metric: str = "cosine", **settings
    ):
        super().__init__(threshold=threshold, metric=metric, **settings)
        self.encoder = encoder

    def encode(self, sentences: list[str]) -> torch.Tensor:
        return self.encoder.encode(sentences)

    def clear_cache(self) -> None:
        """Forget all encodings; TextAttack calls this after each row."""
        self.encoder.forget()


class Use3Similarity(MiniLMSimilarity):
    """Angular similarity, 1 - angle / pi, of encodings by the multilingual USE v3."""

    def __init__(self, threshold: float, encoder: Use3, **settings):
        super().__init__(threshold, encoder, metric="angular", **settings)
        # TextAttack's own is not a number where rounding makes the cosine of equal texts exceed 1.
        self.sim_metric = angular_similarity


def angular_similarity(a: Tensor, b: Tensor) -> Tensor:
    """1 - angle / pi of vectors (n, dimensions): 1 for the same direction, 0 for opposite ones."""
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1)
    return 1 - cosine.clamp(-1, 1).acos() / math.pi


class MaskedLMSwap(WordSwapMaskedLM):
    """TextAttack's masked-LM swap with the same candidates in a fraction of the time.

    Texts are padded to the longest text, not to 512 tokens. A word of n pieces has 48^n
    combinations of candidates; TextAttack scores them all by perplexity, discards that order (the
    sorted list is not assigned) and returns the first 48. This class enumerates only those.
    """

    def _encode_text(self, text):
        batch = self._lm_tokenizer(
            text, max_length=self.max_length, truncation=True, padding=True, return_tensors="pt"
        )
        return batch.to(device)

    def _bert_attack_replacement_words(
        self, current_text: AttackedText, index: int, id_preds, masked_lm_logits
    ) -> list[str]:
        tokenizer = self._lm_tokenizer
        masked = current_text.replace_word_at_index(index, tokenizer.mask_token).text
        ids = self._encode_text(masked)["input_ids"][0].tolist()
        if tokenizer.mask_token_id not in ids:  # truncated
            return []
        first = ids.index(tokenizer.mask_token_id)
        pieces = len(tokenizer.encode(current_text.words[index], add_special_tokens=False))
        if pieces < 2:
            return super()._bert_attack_replacement_words(
                current_text, index, id_preds, masked_lm_logits
            )
        best = [
            tokenizer.convert_ids_to_tokens(id_preds[position].tolist())
            for position in range(first, min(first + pieces, len(id_preds)))
        ]
        words = ("".join(tokens).replace("##", "") for tokens in itertools.product(*best))
        return list(itertools.islice(filter(is_one_word, words), self.max_candidates))
