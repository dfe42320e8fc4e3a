"""Our parts of TextAttack's attacks: neighbour table, MiniLM's similarity, a quicker masked LM."""

import itertools

import torch
from textattack.constraints.semantics.sentence_encoders import SentenceEncoder
from textattack.shared import AttackedText, WordEmbedding
from textattack.shared.utils import device, is_one_word
from textattack.transformations import WordSwapMaskedLM

from evaluation.minilm import MiniLM


class NeighbourTable(WordEmbedding):
    """A table word -> words, nearest first, where TextAttack expects word vectors.

    It gives neighbours only; distances it does not know.
    """

    def __init__(self, table: dict[str, list[str]]):
        words = sorted(table.keys() | {w for nearest in table.values() for w in nearest})
        super().__init__(None, {word: i for i, word in enumerate(words)}, words)
        self.table = table

    def nearest_neighbours(self, index: int, topn: int) -> list[int]:
        """Up to `topn` indices; fewer, or none, where the table has no more."""
        return [self.word2index(w) for w in self.table.get(self.index2word(index), ())[:topn]]


class MiniLMSimilarity(SentenceEncoder):
    """Cosine of MiniLM encodings, in place of the Universal Sentence Encoder."""

    def __init__(self, threshold: float, encoder: MiniLM, **settings):
        super().__init__(threshold=threshold, metric="cosine", **settings)
        self.encoder = encoder

    def encode(self, sentences: list[str]) -> torch.Tensor:
        return self.encoder.encode(sentences)

    def clear_cache(self) -> None:
        """Called by TextAttack after each row."""
        self.encoder.forget()


class MaskedLMSwap(WordSwapMaskedLM):
    """TextAttack's masked-LM swap with the same candidates at a fraction of the time.

    Texts are padded to the longest instead of to 512 tokens. A word of several pieces has 48^n
    combinations of candidates; TextAttack scores all of them by perplexity, drops that order (its
    sort is not assigned) and returns the first 48. Here the enumeration stops there.
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
        if tokenizer.mask_token_id not in ids:  # cut off
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
