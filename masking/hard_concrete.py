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


def uniform_of_bytes(noise: Tensor) -> Tensor:
    """Two random bytes a gate (uint8, (2, ...)) -> the middle of one of 65,536 equal parts of
    (0, 1), float32, (...)."""
    return (256 * noise[0].float() + noise[1].float() + 0.5) / 2**16


def gated_weight_and_slope(
    scores: Tensor, noise: Tensor, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """sample_gate(scores, uniform_of_bytes(noise)) * weight and its derivative in the scores.

    Both in `dtype`, of the scores' shape, which is the weight's. Written for speed: without a
    logarithm, as 1/BETA is 3/2 (Eqs. 1-2: s = 1 / (1 + exp(-score / BETA) r^(3/2)) with
    r = (1 - u) / u), and in place, since fresh memory costs a CPU more than the arithmetic does.
    """
    u = noise[0].float().mul_(256).add_(noise[1].float()).add_(0.5)  # times 2^16, as is 1 - u
    r = torch.rsub(u, 2**16).div_(u)
    s = r.sqrt().mul_(r).mul_((scores * (-1 / BETA)).exp_()).add_(1).reciprocal_()
    slope = torch.addcmul(s, s, s, value=-1)  # of the sigmoid
    gate = s.mul_(ZETA - GAMMA).add_(GAMMA)
    # The clamp's derivative as one operation on floats: booleans cost ten times as much on a CPU.
    slope = torch.ops.aten.hardtanh_backward(slope, gate, 0.0, 1.0)
    slope = slope.mul_(weight).mul_((ZETA - GAMMA) / BETA)
    return gate.clamp_(0, 1).mul_(weight).to(dtype), slope.to(dtype)


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
    return _mean([open_probability(s) for s in scores], mean_over)


@torch.no_grad()
def penalty_and_gradients(
    scores: list[Tensor], mean_over: str, weight: float
) -> tuple[Tensor, list[Tensor]]:
    """R(m), and the gradient of weight * R(m) in each of the scores.

    From the derivative p (1 - p) of p = P(gate > 0): the bits that autograd gives, without what
    it keeps.
    """
    opened = [open_probability(s) for s in scores]
    value = _mean(opened, mean_over)
    factor = torch.full_like(value, weight)
    if mean_over == "matrices":
        factors = [factor / len(opened) / p.numel() for p in opened]
    else:
        factors = [factor / sum(p.numel() for p in opened)] * len(opened)
    backward = torch.ops.aten.sigmoid_backward
    return value, [backward(f.expand_as(p), p) for f, p in zip(factors, opened, strict=True)]


def _mean(opened: list[Tensor], mean_over: str) -> Tensor:
    if mean_over == "matrices":
        return torch.stack([p.mean() for p in opened]).mean()
    if mean_over != "entries":
        raise ValueError(f"mean_over must be 'entries' or 'matrices', got {mean_over!r}")
    return torch.stack([p.sum() for p in opened]).sum() / sum(p.numel() for p in opened)


def gate_shares(scores: list[Tensor]) -> dict[str, float]:
    """Shares of all gates that at test time (Eq. 5) are exactly 0, exactly 1, or in between."""
    gates = sum(s.numel() for s in scores)
    # The clamp of Eq. 3 closes a gate at sigmoid(score) <= 1/12 and opens it at >= 11/12.
    closed = sum((torch.sigmoid(s) <= -GAMMA / (ZETA - GAMMA)).sum() for s in scores)
    opened = sum((torch.sigmoid(s) >= (1 - GAMMA) / (ZETA - GAMMA)).sum() for s in scores)
    at_zero, at_one = float(closed) / gates, float(opened) / gates
    return {"at_zero": at_zero, "at_one": at_one, "undecided": 1 - at_zero - at_one}


def collapsed(shares: dict[str, float]) -> str | None:
    """closed or open where at least 99.9 % of the gates are; None otherwise.

    `shares`: of gate_shares.
    """
    for word, share in (("closed", shares["at_zero"]), ("open", shares["at_one"])):
        if share >= 0.999:
            return word
    return None
