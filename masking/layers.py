"""A linear layer with gates (search), and a linear layer with a fixed mask (retraining)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masking import hard_concrete


def expand_blocks(per_block: Tensor, weight_shape: tuple[int, int]) -> Tensor:
    """One value per block -> one per weight: (out/b_out, in/b_in) to (out, in).

    The block's size follows from the two shapes. A plain view where each weight has its own gate.
    """
    if tuple(per_block.shape) == tuple(weight_shape):
        return per_block
    out_blocks, in_blocks = per_block.shape
    out_size, in_size = weight_shape[0] // out_blocks, weight_shape[1] // in_blocks
    return per_block.repeat_interleave(out_size, 0).repeat_interleave(in_size, 1)


def block_grid(
    weight_shape: tuple[int, int], out_w_per_mask: int, in_w_per_mask: int
) -> tuple[int, int]:
    """Shape of the scores of a matrix: how many blocks of out_w x in_w weights it has.

    0 stands for the matrix's whole side: (1, 0) gives one gate per row, (0, 1) per column.
    Raises ValueError where a block does not divide the matrix.
    """
    sizes = (out_w_per_mask or weight_shape[0], in_w_per_mask or weight_shape[1])
    if weight_shape[0] % sizes[0] or weight_shape[1] % sizes[1]:
        raise ValueError(
            f"blocks of {sizes[0]} x {sizes[1]} weights do not divide "
            f"a {weight_shape[0]} x {weight_shape[1]} matrix"
        )
    return weight_shape[0] // sizes[0], weight_shape[1] // sizes[1]


class _GatedWeight(torch.autograd.Function):
    """gate * W in the precision of the product that it is for, with a gradient in the scores alone.

    Keeps the derivative of the gated weight in that precision, and nothing else. `product` is
    hard_concrete.gated_weight_and_slope, as it is or compiled.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        noise: Tensor,
        weight: Tensor,
        dtype: torch.dtype,
        product: Callable,
    ) -> Tensor:
        # Flat: one kernel then serves matrices of all shapes.
        gated, slope = product(scores.view(-1), noise.flatten(1), weight.view(-1), dtype)
        ctx.save_for_backward(slope.view_as(weight))
        return gated.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradient.float().mul_(slope.float()), None, None, None, None


class GatedLinear(nn.Module):
    """y = x (m * W)^T + b, with one hard-concrete gate per block of weights.

    `weight` and `bias` are the wrapped linear's own parameters. `scores` (float32) is log alpha.
    `uniform` holds the noise of the current pass: U(0, 1), or two random bytes a gate (uint8), with
    which the gates of frozen weights, one per weight, take the fast path: `product`. Without noise
    the test-time gate is used.
    `fixed_gate`, where set (a ticket's mask, True = kept, or gates computed once for an
    evaluation; per weight or per block), takes the place of both.
    """

    def __init__(
        self, linear: "nn.Linear | GatedLinear", initial_score: float, grid: tuple[int, int]
    ):
        super().__init__()
        self.weight: Tensor = linear.weight
        self.bias: nn.Parameter = linear.bias
        self.scores = nn.Parameter(
            torch.full(grid, initial_score, dtype=torch.float32, device=linear.weight.device)
        )
        self.uniform: Tensor | None = None
        self.product = hard_concrete.gated_weight_and_slope
        self.fixed_gate: Tensor | None = None

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    def gate(self) -> Tensor:
        """The gate in use, one per weight: (out, in), in [0, 1]."""
        if self.fixed_gate is not None:
            per_block = self.fixed_gate.to(self.weight.dtype)
        elif self.uniform is not None:
            in_bytes = self.uniform.dtype == torch.uint8
            uniform = hard_concrete.uniform_of_bytes(self.uniform) if in_bytes else self.uniform
            per_block = hard_concrete.sample_gate(self.scores, uniform)
        else:
            per_block = hard_concrete.soft_gate(self.scores)
        return expand_blocks(per_block, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.gated_weight(), self.bias)

    def gated_weight(self) -> Tensor:
        """m * W: (out, in), in the weight's precision, or on the fast path in autocast's."""
        noise = self.uniform if self.fixed_gate is None else None
        in_bytes = noise is not None and noise.dtype == torch.uint8
        if not in_bytes or self.weight.requires_grad or self.scores.shape != self.weight.shape:
            return self.gate() * self.weight
        device = self.weight.device.type
        low = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if low else self.weight.dtype
        return _GatedWeight.apply(self.scores, noise, self.weight, dtype, self.product)


def fix_mask(linear: nn.Linear | GatedLinear, mask: Tensor) -> Callable[[], None]:
    """Turn a linear into its ticket: pruned weights are set to 0.0 and stay there.

    `mask`: bool, (out, in), True = kept. The pruned entries' .grad is zeroed as it is added to, so
    the clip's norm does not see it, AdamW's moments for them stay 0, and the decay of a zero is
    zero: training W at W*m and training W under y = x (m * W)^T are the same, and the first costs
    what a dense step costs. Returns a function that releases the mask. Raises ValueError on a
    mask that is not boolean or has another shape.
    """
    if mask.dtype != torch.bool or mask.shape != linear.weight.shape:
        raise ValueError(
            f"a mask is boolean and of the weight's shape {tuple(linear.weight.shape)}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    mask = mask.to(linear.weight.device)
    with torch.no_grad():
        linear.weight.masked_fill_(~mask, 0.0)
    # In place and as a product: filling by a boolean costs a CPU ten times as much.
    kept = mask.to(torch.uint8)

    def zero_pruned(weight: nn.Parameter) -> None:
        if weight.grad is not None:
            weight.grad.mul_(kept.to(weight.grad.dtype))

    return linear.weight.register_post_accumulate_grad_hook(zero_pruned).remove
