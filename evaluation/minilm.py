"""Word neighbours and sentence encodings from packages alone: the MiniLM encoder, lemminflect's
dictionary, vaderSentiment's word polarities. No TextAttack here.
"""

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from training.batching import cache_folder
from training.models import MINILM_SHA256, resolve_model_name
from utils.files import write_json

# TextFooler takes the 50 nearest words with a cosine of at least 0.7 (paper) or 0.5 (code), of
# counter-fitted vectors, in which antonyms are far apart. Seen with MiniLM on the words of SST-2's
# training sentences: above 0.6 nearly all are synonyms or other forms of the word; from 0.5 to 0.6
# good ones (boring: dull .59, stale .54; compelling: appealing .56) stand among loose ones (script:
# code .57; director: role .58), many of which fail the sentence check; below 0.5 few fit.
MINIMUM_COSINE = 0.5
# About 7 a word pass all checks at 0.5; the cap bounds the cost of words with dozens.
MOST_NEIGHBOURS = 15
# Of VADER's scale from -4 to 4, words that it does not know being 0. Opposite signs are barred at
# any distance. Without this bound, attacked training sentences had badly -> extremely (2 apart)
# and decent -> terrible (2.1) in them; at 1 the attack loses terrible -> bad and the like.
MOST_POLARITY_CHANGE = 1.5

# Cosine of the encodings of the 15 words around a swap, before and after it, at least. Seen on 400
# single swaps in training sentences: below 0.8 most are wrong (loneliness -> suicide, movie ->
# tragedy), at 0.80-0.85 about half (dull -> boring, but downhill -> upward), above 0.85 a minority
# (uneven -> vertical), above 0.95 few. On 40 attacked training sentences, 35 of them right before,
# TextFooler had 27, 25 and 24 successes at 0.8, 0.85 and 0.9; on the counter-fitted table, which
# needs the check less, 23, 23 and 21. TextBugger's paper has 0.8 (of another encoder); its
# misspellings mostly pass that, 33 successes of 35.
SIMILARITY_THRESHOLDS = {
    "textfooler-minilm": 0.85,
    "textbugger-minilm": 0.8,
    "textfooler-neighbours": 0.85,
}

_NEGATIONS = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "anti")


class MiniLM:
    """Mean-pooled encodings of texts, each of length 1, remembered until `forget`."""

    def __init__(self, device: str = "cpu", batch_size: int = 64):
        folder = resolve_model_name("builtin/minilm")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.model = AutoModel.from_pretrained(folder, trust_remote_code=False).to(device).eval()
        self.device = device
        self.batch_size = batch_size
        self._known: dict[str, torch.Tensor] = {}

    def forget(self) -> None:
        self._known.clear()

    def encode(self, texts: list[str]) -> torch.Tensor:
        """(len(texts), 384) float32 on the CPU."""
        new = sorted(set(texts) - self._known.keys(), key=lambda t: (len(t), t))
        for start in range(0, len(new), self.batch_size):  # like lengths: little padding
            part = new[start : start + self.batch_size]
            batch = self.tokenizer(
                part, padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            vectors = self._pooled(batch["input_ids"], batch["attention_mask"])
            self._known.update(zip(part, vectors, strict=True))
        return torch.stack([self._known[text] for text in texts])

    def encode_words(self, words: list[str]) -> torch.Tensor:
        """As `encode`, for words of the tokenizer's vocabulary: [CLS] word [SEP], no padding."""
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
        """Whole words of the tokenizer's vocabulary that lemminflect's dictionary knows, less
        scikit-learn's stop words; sorted."""
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        whole = (w for w in self.tokenizer.get_vocab() if re.fullmatch("[a-z]{2,}", w))
        return sorted(w for w in whole if w not in ENGLISH_STOP_WORDS and penn_tags(w))


def penn_tags(word: str) -> frozenset[str]:
    """Penn tags that lemminflect's dictionary admits for a lower-case word; may be none."""
    import lemminflect

    return frozenset(
        tag
        for part_of_speech, lemmas in lemminflect.getAllLemmas(word).items()
        for lemma in lemmas
        for tag, forms in lemminflect.getAllInflections(lemma, upos=part_of_speech).items()
        if word in forms
    )


def differ_in_polarity(a: str, b: str, valence: dict[str, float]) -> bool:
    """Whether two words say opposite things, as far as their form and polarity tell.

    `valence`: word -> polarity from -4 to 4. Apart from that: like and dislike, pointless and any
    word that does not end so.
    """
    x, y = valence.get(a, 0.0), valence.get(b, 0.0)
    if x * y < 0 or abs(x - y) > MOST_POLARITY_CHANGE:
        return True
    shorter, longer = sorted((a, b), key=len)
    if longer in {prefix + shorter for prefix in _NEGATIONS}:
        return True
    return bool(re.search("...less$", a)) != bool(re.search("...less$", b))


def neighbour_table(device: str = "cpu") -> tuple[dict[str, list[str]], Path]:
    """Word -> nearest words, best first, and the file that keeps the table (some 12 s, once).

    Neighbours are within `MiniLM.words`, share a Penn tag ("film" is not replaced by "filming",
    nor "tells" by "told"), and do not differ in polarity.
    """
    settings = {
        "encoder": MINILM_SHA256,
        "minimum_cosine": MINIMUM_COSINE,
        "most_neighbours": MOST_NEIGHBOURS,
        "most_polarity_change": MOST_POLARITY_CHANGE,
        "checks": "penn tags, vader polarity, negation affixes",
        "versions": {p: version(p) for p in ("lemminflect", "vaderSentiment", "scikit-learn")},
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "neighbours" / f"minilm-{key}.json"
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
