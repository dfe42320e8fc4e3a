"""Accuracy under attack at any decision bias, from the margins that an attack leaves.

The margin of a row against a class is the log-odds of the row's own label against that class, the
difference of the two logits. An attack that keeps the lowest margin it has seen against each class
answers for every bias at once: with a bias b added to the logits, the row of label y falls if and
only if margin[j] + b[y] - b[j] <= 0 for some class j, whichever text brought that margin. This is
exact for the texts that the attack queried. With two classes their order does not depend on b.

This module is pure: arrays in, numbers out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from evaluation.outcomes import FAILED, LETTERS, SKIPPED, SUCCESS

SWEEPS = 50  # over the classes, at most
NARROWEST = 1e-6  # step of a bias: records keep 5 decimals of a margin
DECIMALS = 6  # with which percentages and biases are compared


@dataclass(frozen=True)
class Margins:
    """Margins of attacked rows.

    `labels`: int, (rows,). `margins`: float64, (rows, classes), in log-odds, where the entry of the
    row's own class is +inf. `label_names`: one per class.
    """

    labels: np.ndarray
    margins: np.ndarray
    label_names: tuple[str, ...]

    def __post_init__(self):
        rows, classes = self.margins.shape
        if self.labels.shape != (rows,) or classes != len(self.label_names) or classes < 2:
            raise ValueError("labels, margins and label names do not fit each other")
        if not np.isposinf(self.margins[np.arange(rows), self.labels]).all():
            raise ValueError("a row's margin against its own class must be +inf")
        if np.isnan(self.margins).any():
            raise ValueError("margins contain NaN")

    @classmethod
    def of_logits(
        cls, logits: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]
    ) -> "Margins":
        """Margins of unattacked rows. `logits`: float, (rows, classes)."""
        labels = np.asarray(labels)
        rows = np.arange(len(labels))
        margins = logits[rows, labels][:, None] - np.asarray(logits, dtype=np.float64)
        margins[rows, labels] = np.inf
        return cls(labels, margins, label_names)

    def lowest(self, *others: "Margins") -> "Margins":
        """The union of attacks: each row's lowest margin against each class."""
        margins = np.minimum.reduce([self.margins, *(other.margins for other in others)])
        return Margins(self.labels, margins, self.label_names)

    def biased(self, bias: np.ndarray) -> "Margins":
        """Margins with `bias`, (classes,), added to the logits, without rounding errors."""
        margins = self.margins + bias[self.labels][:, None] - bias[None, :]
        return Margins(self.labels, margins.round(9), self.label_names)

    def right(self, bias: np.ndarray | None = None) -> np.ndarray:
        """Whether each row is right with `bias`, (classes,), added to the logits; bool, (rows,).

        A margin of 0 is a row that falls; rounding errors of a bias must not decide.
        """
        margins = self.margins if bias is None else self.biased(bias).margins
        return np.asarray((margins > 0).all(axis=1))

    def accuracy(self, bias: np.ndarray | None = None) -> float:
        """Percent of the rows that are right: Clean of unattacked rows, Aua of attacked ones."""
        return 100 * float(self.right(bias).mean())

    def by_class(self, bias: np.ndarray | None = None) -> np.ndarray:
        """Percent of the rows of each class that are right, (classes,); NaN without rows."""
        right = self.right(bias)
        chosen = (right[self.labels == c] for c in range(len(self.label_names)))
        return np.array([100 * rows.mean() if len(rows) else np.nan for rows in chosen])


def equalizing_bias(attacked: Margins) -> np.ndarray:
    """The bias, (classes,), with mean 0, at which all classes survive the attack alike.

    A larger bias of a class raises its Aua and lowers that of the others. The search starts where
    any shift of the logits is taken back, so that a model with shifted logits gets the same bias
    less the shift. It sets the bias of each class in turn so that the class survives as often as
    the others on average, until nothing changes. Then it takes any single step that makes the
    classes more alike. With finitely many rows they may differ by about one row. They differ by
    much if a model only has default answers, which no bias makes alike. Raises ValueError if a
    class has no rows.
    """
    if np.isnan(attacked.by_class()).any():
        raise ValueError("a class has no attacked rows, so no bias can be chosen")

    start = _pairwise_bias(attacked)
    centered = attacked.biased(start)

    def inequality_at(bias: np.ndarray) -> tuple:
        return _inequality(centered.by_class(bias))

    bias, visited = np.zeros(len(start)), []
    moved = range(len(bias) if len(bias) > 2 else 1)  # of two classes, only the difference counts
    for _ in range(SWEEPS):
        before = bias
        for c in moved:
            bias = _step(centered, bias, c, partial(_imbalance, c=c))
        visited.append(bias)
        if np.ptp(bias - before) < NARROWEST:
            break
    best = min(visited, key=inequality_at)
    for _ in range(SWEEPS):
        before = best
        for c in moved:
            best = min(best, _step(centered, best, c, _inequality), key=inequality_at)
        if best is before:
            break
    return start + best - best.mean()


def _pairwise_bias(attacked: Margins) -> np.ndarray:
    """The bias, with mean 0, that the median margins of each pair of classes ask for.

    A shift of the logits changes what a pair asks for by the shift of one class less that of the
    other, and so the mean over the pairs of a class by its own shift, less the mean shift.
    """
    classes = range(len(attacked.label_names))
    medians = np.stack([np.median(attacked.margins[attacked.labels == c], axis=0) for c in classes])
    np.fill_diagonal(medians, 0)
    return np.asarray((medians.T - medians).mean(axis=1) / 2)


def _step(
    attacked: Margins, bias: np.ndarray, c: int, cost: Callable[[np.ndarray], tuple]
) -> np.ndarray:
    """`bias` with entry `c` in the middle of the step with the lowest cost, and nearest of those.

    As the bias of class c grows, its rows survive one after the other and those of the others fall;
    in between, Aua by class does not change. `cost`: Aua by class, (steps, classes) -> arrays
    (steps,), compared in this order.
    """
    labels = attacked.labels
    margins = attacked.margins + bias[labels][:, None] - bias[None, :]
    own = labels == c
    others = np.delete(margins, c, axis=1).min(axis=1)  # of rows of c: against all other classes
    turns = bias[c] + np.where(own, -others, margins[:, c])
    edges = np.unique(turns[own | (others > 0)])
    edges = edges[np.diff(edges, prepend=-np.inf) > NARROWEST]
    edges = np.concatenate([[edges[0] - 1], edges, [edges[-1] + 1]])
    middles = (edges[1:] + edges[:-1]) / 2
    right = np.where(own, middles[:, None] > turns, (middles[:, None] < turns) & (others > 0))
    classes = range(len(attacked.label_names))
    rates = 100 * np.stack([right[:, labels == k].mean(axis=1) for k in classes], axis=1)
    distances = np.abs(middles - bias[c]).round(DECIMALS)
    chosen = np.lexsort((distances, *cost(rates)[::-1]))[0]
    return np.concatenate([bias[:c], [middles[chosen]], bias[c + 1 :]])


def _imbalance(rates: np.ndarray, c: int) -> tuple[np.ndarray]:
    """How far Aua of class c is from the mean of the others."""
    return (np.abs(rates[:, c] - np.delete(rates, c, axis=1).mean(axis=1)).round(DECIMALS),)


def _inequality(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How unlike the classes are; of equal spreads, the higher mean Aua is better."""
    return np.ptp(rates, axis=-1).round(DECIMALS), -rates.mean(axis=-1).round(DECIMALS)


def bias_of_highest_accuracy(clean: Margins, attacked: Margins, lowest_clean: float) -> np.ndarray:
    """The bias with the highest mean Aua among those whose Clean is at least `lowest_clean`.

    It shows what a model's mean Aua gains from a default answer alone. `lowest_clean`: percent, of
    the model that it is compared with. A bias of one class against all others is tried between any
    two values at which a row changes. Of equally good ones the smallest is taken: no bias, if
    Clean is too low at every bias.
    """
    classes = len(clean.label_names)
    candidates = [np.zeros(classes)]
    for c in range(classes if classes > 2 else 1):
        changes = np.unique(np.concatenate([_changes(state, c) for state in (clean, attacked)]))
        for value in (changes[1:] + changes[:-1]) / 2:
            bias = np.zeros(classes)
            bias[c] = value
            candidates.append(bias)
    candidates.sort(key=lambda bias: np.abs(bias).max())
    allowed = [b for b in candidates if clean.accuracy(b) >= lowest_clean - 1e-9]
    best = max(allowed, key=attacked.accuracy, default=candidates[0])  # the first of equal ones
    return best - best.mean()


def _changes(state: Margins, c: int) -> np.ndarray:
    """The biases of class c at which a row changes between right and wrong, and two beyond."""
    is_of_class = state.labels == c
    changes = np.concatenate(
        [-state.margins[is_of_class].min(axis=1), state.margins[~is_of_class, c]]
    )
    return np.concatenate([changes, [changes.min() - 1, changes.max() + 1]])


def letters_of(clean: Margins, attacked: Margins, bias: np.ndarray | None = None) -> str:
    """A letter per row at a bias, (classes,), as in the record of an attack."""
    right, survived = clean.right(bias), attacked.right(bias)
    outcomes = np.where(~right, SKIPPED, np.where(survived, FAILED, SUCCESS))
    return "".join(LETTERS[outcome] for outcome in outcomes.tolist())


def aua_by_threshold(attacked: Margins, thresholds: np.ndarray) -> np.ndarray:
    """Aua by class at each threshold, (thresholds, classes), percent. Two classes only.

    A threshold t adds t to the logit of the second class.
    """
    if len(attacked.label_names) != 2:
        raise ValueError("a curve over one threshold needs two classes")
    return np.array([attacked.by_class(np.array([0.0, t])) for t in thresholds])
