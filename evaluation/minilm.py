"""Word neighbors and sentence encodings from installed packages only.

They use the MiniLM encoder, lemminflect's dictionary and vaderSentiment's word polarities. This
module does not import TextAttack.
"""

import json
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from evaluation.protocol import fingerprint
from training.loading import MINILM_SHA256, resolve_model_name
from utils.cache import cached
from utils.files import write_json

# TextFooler uses the 50 nearest words with a cosine of at least 0.7 (paper) or 0.5 (code) between
# counter-fitted vectors, in which antonyms are far apart. With MiniLM, on the words of SST-2's
# training sentences, nearly all words above 0.6 are synonyms or other forms of the word. From 0.5
# to 0.6 good neighbors (boring: dull .59, stale .54; compelling: appealing .56) mix with loose ones
# (script: code .57; director: role .58), many of which fail the sentence check. Below 0.5 few fit.
MINIMUM_COSINE = 0.5
# About 7 neighbors per word pass all checks at 0.5. This bounds the cost of words with dozens.
MOST_NEIGHBOURS = 15
# On VADER's scale from -4 to 4, where unknown words are 0. Opposite signs are excluded at any
# distance. Without this bound, attacked training sentences contained badly -> extremely (2 apart)
# and decent -> terrible (2.1). At 1 the attack loses swaps such as terrible -> bad.
MOST_POLARITY_CHANGE = 1.5

# Minimum cosine between the encodings of the 15 words around a swap, before and after it. Among 400
# single swaps in training sentences, most below 0.8 are wrong (loneliness -> suicide, movie ->
# tragedy), about half at 0.80-0.85 (dull -> boring, but downhill -> upward), a minority above 0.85
# (uneven -> vertical), and few above 0.95. On 40 attacked training sentences, 35 of which were
# right before, TextFooler succeeded on 27, 25 and 24 at 0.8, 0.85 and 0.9; with the counter-fitted
# table, which needs the check less, on 23, 23 and 21. TextBugger's paper uses 0.8 (with another
# encoder); its misspellings mostly pass that, with 33 successes of 35.
SIMILARITY_THRESHOLDS = {
    "textfooler-minilm": 0.85,
    "textbugger-minilm": 0.8,
    "textfooler-neighbours": 0.85,
}

_NEGATIONS = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "anti")


class MiniLM:
    """Mean-pooled encodings of texts, as unit vectors, cached until `forget`."""

    def __init__(self, device: str = "cpu", batch_size: int = 64):
        folder = resolve_model_name("builtin/minilm")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.model = AutoModel.from_pretrained(folder, trust_remote_code=False).to(device).eval()
        self.device = device
        self.batch_size = batch_size
        self.known: dict[str, torch.Tensor] = {}

    def forget(self) -> None:
        self.known.clear()

    def encode(self, texts: list[str]) -> torch.Tensor:
        """Encodings as float32 (texts, 384) on the CPU."""
        new = sorted(set(texts) - self.known.keys(), key=lambda t: (len(t), t))
        self.known.update(zip(new, self.compute(new), strict=True))
        return torch.stack([self.known[text] for text in texts])

    def compute(self, texts: list[str]) -> list[torch.Tensor]:
        """The encoding of each text, whatever the cache holds."""
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
        vectors: dict[int, torch.Tensor] = {}
        for start in range(0, len(order), self.batch_size):  # similar lengths need little padding
            part = order[start : start + self.batch_size]
            batch = self.tokenizer(
                [texts[i] for i in part],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            )
            pooled = self._pooled(batch["input_ids"], batch["attention_mask"])
            vectors.update(zip(part, pooled, strict=True))
        return [vectors[i] for i in range(len(texts))]

    def encode_words(self, words: list[str]) -> torch.Tensor:
        """Encodings of words of the vocabulary, as [CLS] word [SEP]: float32 (words, 384)."""
        start, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        ids = [[start, i, end] for i in self.tokenizer.convert_tokens_to_ids(words)]
        parts = torch.tensor(ids).split(512)
        return torch.cat([self._pooled(part, torch.ones_like(part)) for part in parts])

    @torch.inference_mode()
    def _pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ids, mask = ids.to(self.device), mask.to(self.device)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean).cpu()

    def words(self) -> list[str]:
        """Sorted whole words of the vocabulary that lemminflect knows, without stop words.

        The stop words are scikit-learn's.
        """
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        whole = (w for w in self.tokenizer.get_vocab() if re.fullmatch("[a-z]{2,}", w))
        return sorted(w for w in whole if w not in ENGLISH_STOP_WORDS and penn_tags(w))


@cache
def penn_tags(word: str) -> frozenset[str]:
    """Penn tags of a lower-case word in lemminflect's dictionary; empty for an unknown word."""
    import lemminflect

    return frozenset(
        tag
        for part_of_speech, lemmas in lemminflect.getAllLemmas(word).items()
        for lemma in lemmas
        for tag, forms in lemminflect.getAllInflections(lemma, upos=part_of_speech).items()
        if word in forms
    )


def differ_in_polarity(a: str, b: str, valence: dict[str, float]) -> bool:
    """Whether two words differ in polarity, by their valence or by their form.

    `valence`: word -> polarity from -4 to 4. By form, a word differs from its negation (like,
    dislike), and a word in -less (pointless) from any word without this ending.
    """
    x, y = valence.get(a, 0.0), valence.get(b, 0.0)
    if x * y < 0 or abs(x - y) > MOST_POLARITY_CHANGE:
        return True
    shorter, longer = sorted((a, b), key=len)
    if longer in {prefix + shorter for prefix in _NEGATIONS}:
        return True
    return bool(re.search("...less$", a)) != bool(re.search("...less$", b))


def neighbour_table(device: str = "cpu") -> tuple[dict[str, list[str]], Path]:
    """The table word -> nearest words, best first, and its file, which is written once (12 s).

    Neighbors are in `MiniLM.words`, share a Penn tag ("filming" is not a neighbor of "film", nor
    "told" of "tells"), and do not differ in polarity.
    """
    settings = {
        "encoder": MINILM_SHA256,
        "minimum_cosine": MINIMUM_COSINE,
        "most_neighbours": MOST_NEIGHBOURS,
        "most_polarity_change": MOST_POLARITY_CHANGE,
        "checks": "penn tags, vader polarity, negation affixes",
        "versions": {p: version(p) for p in ("lemminflect", "vaderSentiment", "scikit-learn")},
    }
    path = cached("neighbours", f"minilm-{fingerprint(settings)}.json")
    if not path.is_file():
        write_json(path, {"settings": settings, "neighbours": _compute_table(MiniLM(device))})
    return json.loads(path.read_text(encoding="utf-8"))["neighbours"], path


def _compute_table(encoder: MiniLM) -> dict[str, list[str]]:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    valence = SentimentIntensityAnalyzer().lexicon
    words = encoder.words()
    tags = [penn_tags(word) for word in words]
    vectors = encoder.encode_words(words)
    table: dict[str, list[str]] = {word: [] for word in words}
    for start in range(0, len(words), 1024):
        cosines = vectors[start : start + 1024] @ vectors.T
        rows, columns = (cosines >= MINIMUM_COSINE).nonzero(as_tuple=True)
        best_first = cosines[rows, columns].argsort(descending=True, stable=True)
        rows, columns = (rows[best_first] + start).tolist(), columns[best_first].tolist()
        for i, j in zip(rows, columns, strict=True):
            fits = (
                i != j and tags[i] & tags[j] and not differ_in_polarity(words[i], words[j], valence)
            )
            if fits and len(table[words[i]]) < MOST_NEIGHBOURS:
                table[words[i]].append(words[j])
    return table
