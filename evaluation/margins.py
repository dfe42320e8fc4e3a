"""Accuracy under attack at any decision bias, from the margins that an attack leaves.

The margin of a row against a class is the log-odds of the row's own label against that class, the
difference of the two logits. An attack that keeps the lowest margin it has seen against each class
answers for every bias at once: with a bias b added to the logits, the row of label y falls if and
only if margin[j] + b[y] - b[j] <= 0 for some class j, whichever text brought that margin. This is
exact for the texts that the attack queried. With two classes their order does not depend on b.

This module is pure: arrays in, numbers out.
"""

from dataclasses import dataclass

import numpy as np

HALVINGS = 50  # of the interval in which a bias is searched
SWEEPS = 20


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

    def right(self, bias: np.ndarray | None = None) -> np.ndarray:
        """Whether each row is right with `bias`, (classes,), added to the logits; bool, (rows,)."""
        margins = self.margins
        if bias is not None:
            margins = margins + bias[self.labels][:, None] - bias[None, :]
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

    A larger bias of a class raises its Aua and lowers that of the others. For each class in turn,
    bisection finds the bias at which its Aua equals the mean of the others, until nothing changes.
    With finitely many rows the classes may differ by about one row. They differ by much if a model
    only has default answers, which no bias makes alike. With two classes, the bias of a model with
    shifted logits takes the shift back. Raises ValueError if a class has no rows.
    """
    if np.isnan(attacked.by_class()).any():
        raise ValueError("a class has no attacked rows, so no bias can be chosen")
    best = bias = np.zeros(len(attacked.label_names))
    smallest_spread = np.inf
    for _ in range(SWEEPS):
        before = bias
        for c in range(1, len(bias)):  # only differences count, so class 0 stays
            bias = _balance(attacked, bias, c)
        spread = np.ptp(attacked.by_class(bias))
        if spread < smallest_spread - 1e-9:
            best, smallest_spread = bias, spread
        if np.abs(bias - before).max() < 1e-6:
            break
    return best - best.mean()


def _balance(attacked: Margins, bias: np.ndarray, c: int) -> np.ndarray:
    """The bias with its entry `c` set so that class c survives as often as the others on average.

    The advantage of class c is a step function that rises with its bias. The result is the middle
    of the step at zero advantage, or the jump over zero.
    """
    finite = attacked.margins[np.isfinite(attacked.margins)]
    bound = 1 + np.abs(finite).max() + np.abs(bias).max()  # beyond it, class c is every answer

    def with_entry(value: float) -> np.ndarray:
        return np.concatenate([bias[:c], [value], bias[c + 1 :]])

    def advantage(value: float) -> float:
        rates = attacked.by_class(with_entry(value))
        return float(rates[c] - np.delete(rates, c).mean())

    def edge(at_least_zero: bool) -> float:
        """The bias above which the advantage is at least zero (or, with False, above zero)."""
        low, high = -bound, bound
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            value = advantage(middle)
            below = value < -1e-9 if at_least_zero else value <= 1e-9
            low, high = (middle, high) if below else (low, middle)
        return (low + high) / 2

    return with_entry((edge(True) + edge(False)) / 2)


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


def aua_by_threshold(attacked: Margins, thresholds: np.ndarray) -> np.ndarray:
    """Aua by class at each threshold, (thresholds, classes), percent. Two classes only.

    A threshold t adds t to the logit of the second class.
    """
    if len(attacked.label_names) != 2:
        raise ValueError("a curve over one threshold needs two classes")
    return np.array([attacked.by_class(np.array([0.0, t])) for t in thresholds])
