"""The default-answer probe: what a model says when the content words of a text are gone.

A model that answers one class to texts without evidence survives attacks on that class: an attack
only removes evidence. Its mean accuracy under attack then measures the default, not robustness.
"""

import re
from collections.abc import Callable

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from training.rows import Rows

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the content words that are replaced
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def content_words(text: str) -> list[re.Match]:
    """Matches of the words that are not stop words (scikit-learn's list), in order."""
    return [m for m in WORD.finditer(text) if m.group().lower() not in ENGLISH_STOP_WORDS]


def replace_words(text: str, words: list[re.Match], by: list[str]) -> str:
    """The text with the words at these matches, in any order, replaced by those of `by`."""
    pairs = sorted(zip(words, by, strict=True), key=lambda pair: pair[0].start(), reverse=True)
    for match, new in pairs:
        text = text[: match.start()] + new + text[match.end() :]
    return text


def probe(
    predict: Callable[[list], np.ndarray], rows: Rows, classes: int, unknown: str | None, seed: int
) -> dict[str, list[list[float]]]:
    """Percent of the texts that each class is answered to, for each of SHARES: (shares, classes).

    Keys: "unknown" (words replaced by the token `unknown`, such as [UNK]; absent if `unknown` is
    None) and "random" (words replaced by content words drawn from all rows). A larger share
    replaces the words of a smaller one and more. `predict`: texts as a tokenizer takes them ->
    label indices, int, (texts,). `rows`: balanced over the classes, so that a model without a
    default answers each class equally often. `seed`: of the draws.
    """
    generator = np.random.default_rng(seed)
    matches = [[content_words(column) for column in text] for text in rows.texts]
    everything = [m.group() for text in matches for column in text for m in column]
    orders = [[generator.permutation(len(column)) for column in text] for text in matches]
    drawn = [
        [generator.choice(everything, len(column)).tolist() for column in text] for text in matches
    ]

    def answers(share: float, by_unknown: bool) -> list[float]:
        texts = []
        for text, words, order, new in zip(rows.texts, matches, orders, drawn, strict=True):
            columns = []
            for i, column in enumerate(text):
                chosen = order[i][: round(share * len(order[i]))]
                by = [unknown if by_unknown else new[i][k] for k in chosen]
                columns.append(replace_words(column, [words[i][k] for k in chosen], by))
            texts.append(columns[0] if len(columns) == 1 else tuple(columns))
        counts = np.bincount(predict(texts), minlength=classes)
        return [round(float(percent), 2) for percent in 100 * counts / len(rows)]

    kinds = {"random": False} | ({} if unknown is None else {"unknown": True})
    return {kind: [answers(share, flag) for share in SHARES] for kind, flag in kinds.items()}


def default_class(answers: dict[str, list[list[float]]]) -> tuple[int, float] | None:
    """The class that is answered to empty texts, and its percentage; None without a default.

    Empty: all content words replaced by the unknown token, else by random words. A class is the
    default if its share is at least halfway from an equal share to all texts: 75 % of two classes,
    62.5 % of four.
    """
    shares = np.array(answers.get("unknown", answers["random"])[-1])
    leader = int(shares.argmax())
    halfway = 50 + 50 / len(shares)
    return (leader, float(shares[leader])) if shares[leader] >= halfway else None
