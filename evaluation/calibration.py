"""Calibration of a classifier: its confidence, and the temperature that matches it to accuracy."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

ECE_BINS = 15  # of equal width (Guo et al., ICML 2017)
TEMPERATURE_BOUNDS = (1e-3, 1e4)
MOST_DEV_ROWS = 2000  # rows that a temperature is fitted on; one parameter needs no more


def temperature_of(rule: str, fitted: float | None) -> float:
    """The temperature of a rule such as 2, fitted or 4xfitted; `fitted`: the one fitted on dev."""
    if not rule.endswith("fitted"):
        return float(rule)
    return float(rule.removesuffix("fitted").removesuffix("x") or 1) * fitted


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T that minimizes the mean cross entropy of softmax(logits / T) (Guo et al., ICML 2017).

    `logits`: (rows, labels); `labels`: (rows,). As in Platt (1999), the target of the label is
    1 - 1 / (rows + 2) and the other labels share the rest, so that a minimum exists even if every
    row is right. T stays within TEMPERATURE_BOUNDS, and is at a bound if no T fits.
    """
    logits = np.asarray(logits, np.float64)
    rows, classes = logits.shape
    rest = 1 / (rows + 2)
    targets = np.full(logits.shape, rest / (classes - 1))
    targets[np.arange(rows), labels] = 1 - rest

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float((logsumexp(scaled, axis=1) - (targets * scaled).sum(axis=1)).mean())

    bounds = tuple(np.log(TEMPERATURE_BOUNDS))
    # The loss is convex in 1 / T, so it has one minimum in log T.
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def at_bound(temperature: float) -> bool:
    """Whether a fitted temperature is within 10 % of a bound, which means that none fits."""
    low, high = TEMPERATURE_BOUNDS
    return temperature < 1.1 * low or temperature > high / 1.1


def measures(logits: np.ndarray, labels: np.ndarray) -> dict:
    """Expected calibration error, mean top probability and share of saturated rows, in percent.

    `logits`: float64 (rows, labels); `labels`: (rows,). ECE sorts rows into ECE_BINS bins by their
    top probability and averages |accuracy - mean top probability| of the bins over rows. A row is
    saturated if its top probability is exactly 1.0 in float32. `reliability`: for each bin that has
    rows, [rows, mean top probability in percent, accuracy in percent].
    """
    probabilities = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    ranked_by = softmax(logits.astype(np.float32), axis=1)  # by an attack with TextAttack's score
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((top * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [abs((right[bins == b] - top[bins == b]).sum()) for b in range(ECE_BINS)]
    reliability = [
        [int(rows.sum()), 100 * float(top[rows].mean()), 100 * float(right[rows].mean())]
        for b in range(ECE_BINS)
        if (rows := bins == b).any()
    ]
    return {
        "ece_percent": 100 * float(sum(gaps)) / len(labels),
        "reliability": reliability,
        "mean_top_probability_percent": 100 * float(top.mean()),
        "saturated_percent": 100 * float((ranked_by.max(axis=1) == 1).mean()),
    }
