"""Hard-concrete gates (Louizos, Welling, Kingma, ICLR 2018), as pure functions of tensors.

`scores` is the paper's log alpha: float32, any shape. Noise is an argument, so the caller decides
when to draw it and from which generator. Equation numbers are those of the lottery ticket paper.
"""

import math

import torch
from torch import Tensor

# The paper's constants: the temperature BETA, and the interval (GAMMA, ZETA) to which Eq. 3
# stretches (0, 1). The clamp to [0, 1] then puts probability mass at both ends.
BETA = 2 / 3
GAMMA = -0.1
ZETA = 1.1

# sigmoid(score - SHIFT) is the probability that a gate is not zero (Eq. 4).
SHIFT = BETA * math.log(-GAMMA / ZETA)


def score_for_gate(gate: float) -> float:
    """The score whose test-time gate (Eq. 5) is `gate`; log 5 for 0.9.

    Raises ValueError unless 0 < gate < 1.
    """
    if not 0 < gate < 1:
        raise ValueError(f"an initial gate must be strictly between 0 and 1, got {gate}")
    opened = (gate - GAMMA) / (ZETA - GAMMA)
    return math.log(opened / (1 - opened))


def stretch_and_clamp(s: Tensor) -> Tensor:
    """Eq. 3: m = min(1, max(0, s (ZETA - GAMMA) + GAMMA)).

    `s`: float, any shape, in (0, 1). Returns the same shape and dtype, in [0, 1].
    """
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def sample_gate(scores: Tensor, uniform: Tensor) -> Tensor:
    """Eqs. 1-3: s = sigmoid((log u - log(1 - u) + scores) / BETA), stretched and clamped.

    `scores`: float32, any shape. `uniform`: draws u from U(0, 1), same shape.
    Returns gates in [0, 1], same shape and dtype. torch.rand draws exactly 0 about once in 2^24
    times. The gate is then 0 with a zero gradient, not NaN.
    """
    return stretch_and_clamp(torch.sigmoid((torch.logit(uniform) + scores) / BETA))


def uniform_of_bytes(noise: Tensor) -> Tensor:
    """Uniform draws from two random bytes per gate: (256 b0 + b1 + 1/2) / 2^16.

    `noise`: uint8, (2, ...). Returns float32, (...), in (0, 1): the middle of one of 65,536 equal
    intervals.
    """
    return (256 * noise[0].float() + noise[1].float() + 0.5) / 2**16


def gated_weight_and_slope(
    scores: Tensor, noise: Tensor, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """sample_gate(scores, uniform_of_bytes(noise)) * weight, and its derivative by the scores.

    `scores`, `weight`: float32, the same shape (...). `noise`: uint8, (2, ...). Returns two tensors
    of `dtype`, (...).
    """
    u = noise[0].float().mul_(256).add_(noise[1].float()).add_(0.5)  # 2^16 u
    return _gated_weight_and_slope(scores, u, 2**16, weight, dtype)


def _mixed(x: Tensor) -> Tensor:
    """A one-to-one map of the 32-bit integers that scatters neighbors (C. Wellons, lowbias32)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        x = (x ^ ((x >> shift) & (2 ** (32 - shift) - 1))) * factor  # modulo 2^32
    return x ^ ((x >> 16) & 0xFFFF)


def _draws_of_key(key: Tensor, first: Tensor, gates: int) -> Tensor:
    """2^23 u of `uniform_of_key`: float32, (gates,)."""
    position = torch.arange(gates, dtype=torch.int32, device=key.device) + first
    mixed = _mixed(_mixed(position + key[0]) ^ key[1])
    return ((mixed >> 9) & (2**23 - 1)).float().add(0.5)


def uniform_of_key(key: Tensor, first: Tensor, shape: torch.Size) -> Tensor:
    """Uniform draws of a counter-based generator: a function of the key and the gate's position.

    `key`: int32, (2,), random words. `first`: int32 scalar, the position of the first gate among
    all gates. Returns float32, `shape`, in (0, 1): the middle of one of 2^23 equal intervals.
    """
    return (_draws_of_key(key, first, shape.numel()) / 2**23).view(shape)


def keyed_weight_and_slope(
    first: Tensor, scores: Tensor, key: Tensor, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """gated_weight_and_slope with uniform_of_key. When compiled, it is one kernel.

    `first`, `key`: see uniform_of_key. `scores`, `weight`: float32, (gates,). Returns two tensors
    of `dtype`, (gates,). No noise is stored, and it does not depend on the number of threads.
    """
    u = _draws_of_key(key, first, scores.numel())
    return _gated_weight_and_slope(scores, u, 2**23, weight, dtype)


def _gated_weight_and_slope(
    scores: Tensor, u: Tensor, levels: int, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """sample_gate(scores, u / levels) * weight, and its derivative by the scores.

    Written for speed. Because 1/BETA is 3/2, Eqs. 1-2 need no logarithm:
    s = 1 / (1 + exp(-score / BETA) r^(3/2)) with r = (1 - u) / u. The operations run in place
    because on a CPU fresh memory costs more than the arithmetic.
    """
    r = torch.rsub(u, levels).div_(u)
    s = r.sqrt().mul_(r).mul_((scores * (-1 / BETA)).exp_()).add_(1).reciprocal_()
    slope = torch.addcmul(s, s, s, value=-1)  # of the sigmoid
    gate = s.mul_(ZETA - GAMMA).add_(GAMMA)
    # The clamp's derivative as one operation on floats: booleans cost ten times as much on a CPU.
    slope = torch.ops.aten.hardtanh_backward(slope, gate, 0.0, 1.0)
    slope = slope.mul_(weight).mul_((ZETA - GAMMA) / BETA)
    return gate.clamp_(0, 1).mul_(weight).to(dtype), slope.to(dtype)


def soft_gate(scores: Tensor) -> Tensor:
    """Eq. 5, the test-time gate without noise: sigmoid(scores), stretched and clamped (Eq. 3).

    `scores`: float32, any shape. Returns the same shape and dtype, in [0, 1].
    """
    return stretch_and_clamp(torch.sigmoid(scores))


def open_probability(scores: Tensor) -> Tensor:
    """Eq. 4 before the mean: P(gate > 0) = sigmoid(scores - BETA log(-GAMMA / ZETA)).

    `scores`: float32, any shape. Returns the same shape and dtype, in (0, 1).
    """
    return torch.sigmoid(scores - SHIFT)


def penalty(scores: list[Tensor], mean_over: str = "entries") -> Tensor:
    """R(m), Eq. 4: the mean probability that a gate is not zero.

    `scores`: one float32 tensor of any shape per matrix. Returns a float32 scalar in (0, 1).
    `mean_over` (D9): "entries" gives each gate the same weight, as the paper does. "matrices" is
    the unweighted mean of the matrices' means, as in the released code. There an entry of a large
    matrix weighs less (an FFN entry weighs a quarter of an attention entry).
    Raises ValueError for any other `mean_over`.
    """
    return _mean([open_probability(s) for s in scores], mean_over)


@torch.no_grad()
def penalty_and_gradients(
    scores: list[Tensor], mean_over: str, weight: float
) -> tuple[Tensor, list[Tensor]]:
    """R(m) (Eq. 4), and the gradients of weight * R(m) with respect to the scores.

    `scores`, `mean_over`, errors: as in `penalty`. Returns a float32 scalar and one float32 tensor
    per matrix, of the shape of its scores. The gradients use the derivative p (1 - p) of
    p = P(gate > 0). They equal autograd's to the last bit, but no graph is stored.
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
    """Shares of test-time gates (Eq. 5) that are exactly 0, exactly 1, or in between.

    `scores`: one float32 tensor of any shape per matrix. Returns "at_zero", "at_one" and
    "undecided", fractions of all gates that sum to 1.
    """
    gates = sum(s.numel() for s in scores)
    # The clamp of Eq. 3 closes a gate if sigmoid(score) <= 1/12 and opens it if >= 11/12.
    closed = sum((torch.sigmoid(s) <= -GAMMA / (ZETA - GAMMA)).sum() for s in scores)
    opened = sum((torch.sigmoid(s) >= (1 - GAMMA) / (ZETA - GAMMA)).sum() for s in scores)
    at_zero, at_one = float(closed) / gates, float(opened) / gates
    return {"at_zero": at_zero, "at_one": at_one, "undecided": 1 - at_zero - at_one}


def collapsed(shares: dict[str, float]) -> str | None:
    """Return "closed" or "open" if at least 99.9 % of the gates are 0 or 1; None otherwise.

    `shares`: the result of gate_shares.
    """
    for word, share in (("closed", shares["at_zero"]), ("open", shares["at_one"])):
        if share >= 0.999:
            return word
    return None
