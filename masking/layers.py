"""Linear layers with learned gates (search), and with a fixed mask (retraining)."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from masking import hard_concrete


def expand_blocks(per_block: Tensor, weight_shape: tuple[int, int]) -> Tensor:
    """Repeat the value of each block for all of its weights.

    `per_block`: any dtype, (out/b_out, in/b_in). `weight_shape`: (out, in). Returns the same dtype,
    (out, in); `per_block` itself if a block is a single weight.
    """
    if tuple(per_block.shape) == tuple(weight_shape):
        return per_block
    out_blocks, in_blocks = per_block.shape
    out_size, in_size = weight_shape[0] // out_blocks, weight_shape[1] // in_blocks
    return per_block.repeat_interleave(out_size, 0).repeat_interleave(in_size, 1)


def block_grid(
    weight_shape: tuple[int, int], out_w_per_mask: int, in_w_per_mask: int
) -> tuple[int, int]:
    """Number of blocks along each side of a matrix, which is the shape of its scores.

    A block has out_w_per_mask x in_w_per_mask weights. 0 means the whole side of the matrix:
    (1, 0) gives one gate per row, (0, 1) one gate per column.
    Raises ValueError if the blocks do not divide the matrix.
    """
    sizes = (out_w_per_mask or weight_shape[0], in_w_per_mask or weight_shape[1])
    if weight_shape[0] % sizes[0] or weight_shape[1] % sizes[1]:
        raise ValueError(
            f"blocks of {sizes[0]} x {sizes[1]} weights do not divide a {weight_shape[0]} x "
            f"{weight_shape[1]} matrix; choose divisors of its sides"
        )
    return weight_shape[0] // sizes[0], weight_shape[1] // sizes[1]


class _GatedWeight(torch.autograd.Function):
    """gate * W in the given precision. Only the scores get a gradient.

    For the backward pass it stores only the derivative of the gated weight, in that precision.
    `noise`: two bytes per gate, or a key. `product`: what hard_concrete has for such noise.
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
        # Flat tensors: one compiled kernel then serves matrices of all shapes.
        noise = noise.flatten(1) if noise.dim() > 1 else noise
        gated, slope = product(scores.view(-1), noise, weight.reshape(-1), dtype)
        ctx.save_for_backward(slope.view_as(weight))
        return gated.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradient.float().mul_(slope.float()), None, None, None, None


class _Gated(nn.Module):
    """m * W with one hard-concrete gate per block of weights.

    `scores`: log alpha, float32, of the shape `grid`. All scores start at `initial_score`.
    `uniform`: the noise of the current pass, see surgery.draw_noise: U(0, 1) draws of the scores'
    shape, two random bytes per gate (uint8, (2, ...)), or a key (int32, (2,)). With bytes or a key,
    frozen weights and one gate per weight, the layer uses the fast path. With None, it uses the
    test-time gate (Eq. 5).
    `first`: the position of the first gate among those of all layers, for noise of a key: int32,
    scalar.
    `fixed_gate`: gates that replace the scores and the noise, one per weight or one per block, such
    as the mask of a ticket (True = kept). None: not fixed.
    """

    weight: Tensor  # (out, in)
    first: Tensor

    def __init__(self, initial_score: float, grid: tuple[int, int], device: torch.device):
        super().__init__()
        scores = torch.full(grid, initial_score, dtype=torch.float32, device=device)
        self.scores = nn.Parameter(scores)
        self.uniform: Tensor | None = None
        first = torch.zeros((), dtype=torch.int32, device=device)
        self.register_buffer("first", first, persistent=False)
        self.keyed_product = hard_concrete.keyed_weight_and_slope  # or compiled
        self.fixed_gate: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weights."""
        return self.weight.shape[0], self.weight.shape[1]

    def gate(self) -> Tensor:
        """The current gates, one per weight: float, (out, in), in [0, 1]."""
        if self.fixed_gate is not None:
            per_block = self.fixed_gate.to(self.weight.dtype)
        elif (uniform := self.uniform_draws()) is not None:
            per_block = hard_concrete.sample_gate(self.scores, uniform)
        else:
            per_block = hard_concrete.soft_gate(self.scores)
        return expand_blocks(per_block, self.weight.shape)

    def uniform_draws(self) -> Tensor | None:
        """The noise of the current pass as float32 draws from U(0, 1), of the scores' shape."""
        noise = self.uniform
        if noise is None or noise.is_floating_point():
            return noise
        if noise.dtype == torch.uint8:
            return hard_concrete.uniform_of_bytes(noise)
        return hard_concrete.uniform_of_key(noise, self.first, self.scores.shape)

    def gated_weight(self) -> Tensor:
        """m * W: (out, in), in the weight's dtype; on the fast path, in autocast's dtype."""
        noise = self.uniform if self.fixed_gate is None else None
        is_fast = noise is not None and not noise.is_floating_point()
        if not is_fast or self.weight.requires_grad or self.scores.shape != self.weight.shape:
            return self.gate() * self.weight
        return self.fast_weight(noise)

    def fast_weight(self, noise: Tensor) -> Tensor:
        """gated_weight on the fast path. `noise`: bytes or a key. Weights get no gradient."""
        if noise.dtype == torch.uint8:
            product: Callable = hard_concrete.gated_weight_and_slope
        else:
            product = functools.partial(self.keyed_product, self.first)
        device = self.weight.device.type
        low = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if low else self.weight.dtype
        return _GatedWeight.apply(self.scores, noise, self.weight.detach(), dtype, product)


class GatedLinear(_Gated):
    """y = x (m * W)^T + b, see _Gated.

    `weight`, (out, in), and `bias`, (out,) or None: the parameters of the wrapped linear.
    """

    def __init__(
        self, linear: "nn.Linear | GatedLinear", initial_score: float, grid: tuple[int, int]
    ):
        super().__init__(initial_score, grid, linear.weight.device)
        self.weight = linear.weight
        self.bias: nn.Parameter | None = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.gated_weight(), self.bias)


class RawMatrix:
    """A matrix that is not the weight of a linear: the weight of GPT-2's Conv1D, a bare parameter.

    `parameter` of `module` has the shape (in, ...) if `transposed`, else (out, ...); the other
    dimensions together are the other side of the matrix.
    """

    def __init__(self, module: nn.Module, parameter: str, transposed: bool):
        self.module, self.parameter, self.transposed = module, parameter, transposed

    @property
    def weight(self) -> Tensor:
        """A view of the parameter: (out, in). Changes in place change the parameter."""
        return self.as_matrix(getattr(self.module, self.parameter))

    @property
    def original(self) -> Tensor:
        """As `weight`, of a parameter that has a parametrization."""
        return self.as_matrix(
            self.module.get_parameter(f"parametrizations.{self.parameter}.original")
        )

    def as_matrix(self, raw: Tensor) -> Tensor:
        """(out, in) from the parameter's shape."""
        matrix = raw.flatten(1)
        return matrix.t() if self.transposed else matrix

    def as_parameter(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """The parameter's shape from (out, in)."""
        return (matrix.t() if self.transposed else matrix).reshape(shape)


class GatedParameter(_Gated):
    """m * W in the place of a parameter, see _Gated. The module that holds it stays as it is."""

    def __init__(self, matrix: RawMatrix, initial_score: float, grid: tuple[int, int]):
        raw = getattr(matrix.module, matrix.parameter)
        super().__init__(initial_score, grid, raw.device)
        self.matrix = matrix
        parametrize.register_parametrization(matrix.module, matrix.parameter, self, unsafe=True)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.matrix.original

    def forward(self, raw: Tensor) -> Tensor:
        return self.matrix.as_parameter(self.gated_weight(), raw.shape)


def parameter_of(matrix: "nn.Linear | _Gated | RawMatrix") -> Tensor:
    """The parameter that holds the weights of an ungated matrix, in its own shape."""
    if isinstance(matrix, RawMatrix):
        return getattr(matrix.module, matrix.parameter)
    return matrix.weight


def bias_of(matrix: "nn.Linear | _Gated | RawMatrix") -> nn.Parameter | None:
    """The bias that an ungated matrix adds to its outputs, (out,), if it has one."""
    bias = getattr(getattr(matrix, "module", matrix), "bias", None)
    return bias if isinstance(bias, nn.Parameter) else None


def fix_mask(matrix: "nn.Linear | _Gated | RawMatrix", mask: Tensor) -> Callable[[], None]:
    """Set the pruned weights of a matrix to 0.0 and keep them at 0.0 during training.

    `mask`: bool, (out, in), True = kept. A hook zeroes the .grad of pruned entries whenever a
    gradient is accumulated. The clip's norm then ignores them, their moments in AdamW stay 0, and
    the decay of a zero is zero. Training W from m * W is therefore the same as training W under
    y = x (m * W)^T, at the cost of a dense step.

    Returns a function that removes the hook. Raises ValueError if the mask is not boolean or has
    another shape.
    """
    if mask.dtype != torch.bool or mask.shape != matrix.weight.shape:
        raise ValueError(
            f"a mask must be boolean and have the weight's shape {tuple(matrix.weight.shape)}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    mask = mask.to(matrix.weight.device)
    with torch.no_grad():
        matrix.weight.masked_fill_(~mask, 0.0)
    # A product in place: on a CPU, masked_fill_ takes ten times as long.
    parameter = parameter_of(matrix)
    factor = mask.to(torch.uint8)
    if isinstance(matrix, RawMatrix):
        factor = matrix.as_parameter(factor, parameter.shape)

    def zero_pruned(weight: nn.Parameter) -> None:
        nonlocal factor
        if weight.grad is not None:
            factor = factor.to(weight.grad.device)  # the model may have moved since
            weight.grad.mul_(factor.to(weight.grad.dtype))

    return parameter.register_post_accumulate_grad_hook(zero_pruned).remove
