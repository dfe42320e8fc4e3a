"""How sure a classifier is, and one temperature that makes it as sure as it is right."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

ECE_BINS = 15  # equally wide; Guo et al., ICML 2017
TEMPERATURE_BOUNDS = (1e-3, 1e4)
MOST_DEV_ROWS = 2000  # that a temperature is fitted on; one number needs no more


def temperature_of(rule: str, fitted: float | None) -> float:
    """The number that a rule stands for; `fitted`: the temperature that was fitted on dev."""
    if not rule.endswith("fitted"):
        return float(rule)
    return float(rule.removesuffix("fitted").removesuffix("x") or 1) * fitted


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """T that minimises the mean loss of softmax(logits / T) (Guo et al. 2017, temperature scaling).

    `logits`: (rows, labels), `labels`: (rows,). As in Platt (1999) the label counts 1 - 1 / (rows +
    2) and the others share the rest, so that there is a T where all rows are right, too. Within
    TEMPERATURE_BOUNDS; at one of them where no T fits.
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
    # The loss is convex in 1 / T, so it has one valley in log T, too.
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def at_bound(temperature: float) -> bool:
    low, high = TEMPERATURE_BOUNDS
    return temperature < 1.1 * low or temperature > high / 1.1


def measures(logits: np.ndarray, labels: np.ndarray) -> dict:
    """Of (rows, labels) float64 logits: expected calibration error, mean top probability, and the
    share of rows whose top probability is 1.0 to the last digit in float32; all in percent.

    ECE: rows in ECE_BINS bins of their top probability; mean over rows of |accuracy - mean top
    probability| of their bin.
    """
    probabilities = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((top * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [abs((right[bins == b] - top[bins == b]).sum()) for b in range(ECE_BINS)]
    return {
        "ece_percent": 100 * float(sum(gaps)) / len(labels),
        "mean_top_probability_percent": 100 * float(top.mean()),
        "saturated_percent": 100 * float((_softmax_float32(logits).max(axis=1) == 1).mean()),
    }


def _softmax_float32(logits: np.ndarray) -> np.ndarray:
    """As an attack by probabilities sees it: TextAttack's softmax over float32 logits."""
    z = logits.astype(np.float32)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
