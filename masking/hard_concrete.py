"""Hard-concrete gates (Louizos, Welling, Kingma, ICLR 2018), as pure functions of tensors.

Each takes `scores` (the paper's log alpha, any shape, float32); noise is an argument, so that
who draws it, how often and from which generator is the caller's visible decision.
"""

import math

import torch
from torch import Tensor

# The paper's constants, and their only home: temperature, and the stretch of (0, 1) to
# (GAMMA, ZETA) that gives the clamp to [0, 1] mass at both ends.
BETA = 2 / 3
GAMMA = -0.1
ZETA = 1.1

# sigmoid(score - SHIFT) is the probability that a gate is not zero (Eq. 4).
SHIFT = BETA * math.log(-GAMMA / ZETA)


def score_for_gate(gate: float) -> float:
    """The score whose test-time gate (Eq. 5) is `gate`, in (0, 1): log 5 for 0.9."""
    if not 0 < gate < 1:
        raise ValueError(f"a gate can only be initialised strictly between 0 and 1, got {gate}")
    opened = (gate - GAMMA) / (ZETA - GAMMA)
    return math.log(opened / (1 - opened))


def stretch_and_clamp(s: Tensor) -> Tensor:
    """Eq. 3: (0, 1) stretched to (GAMMA, ZETA), then clamped to [0, 1]."""
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def sample_gate(scores: Tensor, uniform: Tensor) -> Tensor:
    """Eqs. 1-3: a gate in [0, 1] per score, same shape.

    `uniform`: U(0, 1) draws of the scores' shape. A draw of exactly 0, which torch.rand gives
    about once in 2^24, makes the gate 0 with a zero gradient, not a NaN.
    """
    return stretch_and_clamp(torch.sigmoid((torch.logit(uniform) + scores) / BETA))


def soft_gate(scores: Tensor) -> Tensor:
    """Eq. 5: the gate without noise, in [0, 1], same shape as `scores`."""
    return stretch_and_clamp(torch.sigmoid(scores))


def open_probability(scores: Tensor) -> Tensor:
    """Eq. 4 before the mean: P(gate > 0) per score, in (0, 1), same shape."""
    return torch.sigmoid(scores - SHIFT)


def penalty(scores: list[Tensor], mean_over: str = "entries") -> Tensor:
    """R(m), Eq. 4: the mean probability that a gate is not zero; a scalar.

    `mean_over` (D9): "entries" weighs every gate alike, as the paper writes it; "matrices" is the
    released code's unweighted mean of the matrices' means, in which an entry of a large matrix
    counts for less (an FFN entry a quarter of an attention entry).
    """
    if mean_over == "matrices":
        return torch.stack([open_probability(s).mean() for s in scores]).mean()
    if mean_over != "entries":
        raise ValueError(f"mean_over must be 'entries' or 'matrices', got {mean_over!r}")
    gates = sum(s.numel() for s in scores)
    return torch.stack([open_probability(s).sum() for s in scores]).sum() / gates


def gate_shares(scores: list[Tensor]) -> dict[str, float]:
    """Shares of all gates that at test time (Eq. 5) are exactly 0, exactly 1, or in between."""
    gates = sum(s.numel() for s in scores)
    # The clamp of Eq. 3 closes a gate at sigmoid(score) <= 1/12 and opens it at >= 11/12.
    closed = sum((torch.sigmoid(s) <= -GAMMA / (ZETA - GAMMA)).sum() for s in scores)
    opened = sum((torch.sigmoid(s) >= (1 - GAMMA) / (ZETA - GAMMA)).sum() for s in scores)
    at_zero, at_one = float(closed) / gates, float(opened) / gates
    return {"at_zero": at_zero, "at_one": at_one, "undecided": 1 - at_zero - at_one}
