"""Gates of whole units, for the search; units held at zero, for retraining."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from masking import encoders, hard_concrete, unit_tickets
from masking.layers import GatedLinear, GatedParameter, RawMatrix
from masking.structures import Units
from masking.tickets import Masks
from masking.unit_tickets import expand_units

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class GatedUnits(nn.Module):
    """One hard-concrete gate per unit: m * W, in which all weights of a unit have the same m.

    `scores`, `uniform`, `fixed_gate`: as in layers.GatedLinear, of the shape (units, 1).
    """

    def __init__(self, units: Units, initial_score: float, device: torch.device):
        super().__init__()
        self.shape = (units.count, units.weights_each)
        scores = torch.full((units.count, 1), initial_score, dtype=torch.float32, device=device)
        self.scores = nn.Parameter(scores)
        self.uniform: Tensor | None = None
        self.fixed_gate: Tensor | None = None

    def gate(self) -> Tensor:
        """The current gates: float32, (units, 1), in [0, 1]."""
        if self.fixed_gate is not None:
            return self.fixed_gate.float()
        if self.uniform is not None:
            return hard_concrete.sample_gate(self.scores, self.uniform)
        return hard_concrete.soft_gate(self.scores)


def install_unit_gates(
    model: PreTrainedModel, units: list[Units], gate: float
) -> dict[str, GatedUnits]:
    """Give each unit a gate whose test-time value (Eq. 5) is `gate`.

    The gate of a row multiplies what the row computes, bias included; that of a column multiplies
    what the column reads: the same as multiplying the weights. The gate of a layer weighs what the
    layer changes: x + m (layer(x) - x). Where the norm comes after the sum (BERT), gates on the two
    branches could not take a layer away, because its norms would stay.

    Returns name -> gates, in the order of `units`. Raises ValueError unless 0 < gate < 1.
    """
    score = hard_concrete.score_for_gate(gate)
    matrices = encoders.prunable_matrices(model, of_all_kinds=True)
    gated: dict[str, GatedUnits] = {}
    for of_layer in units:
        layer = GatedUnits(of_layer, score, model.device)
        gated[of_layer.name] = layer
        if of_layer.structure == "layers":
            _skip_by(model.get_submodule(of_layer.layer), layer.gate)
            continue
        for name, of_row in of_layer.rows.items():
            _multiply(model, name, matrices[name], _expanded(layer, of_row), by_row=True)
        for name, of_column in of_layer.columns.items():
            _multiply(model, name, matrices[name], _expanded(layer, of_column), by_row=False)
    model.add_module("unit_gates", nn.ModuleList(gated.values()))  # moves with the model
    return gated


def _expanded(layer: GatedUnits, of_index: Tensor) -> Callable[[], Tensor]:
    """The current gates of the rows (columns) of a matrix, float32, (rows,)."""

    def gates() -> Tensor:
        nonlocal of_index
        of_index = of_index.to(layer.scores.device)  # once: the model may have moved
        return expand_units(layer.gate(), of_index)

    return gates


class _GatedRaw(nn.Module):
    """m * W in the place of a bare parameter."""

    def __init__(self, matrix: RawMatrix, gates: Callable[[], Tensor], by_row: bool):
        super().__init__()
        self.matrix, self.gates, self.by_row = matrix, gates, by_row

    @property
    def weight(self) -> Tensor:
        return self.matrix.original

    def forward(self, raw: Tensor) -> Tensor:
        gates = self.gates().to(raw.dtype)
        weight = self.matrix.as_matrix(raw) * (gates[:, None] if self.by_row else gates)
        return self.matrix.as_parameter(weight, raw.shape)


def _multiply(
    model: PreTrainedModel,
    name: str,
    matrix: encoders.Matrix,
    gates: Callable[[], Tensor],
    by_row: bool,
) -> None:
    assert not isinstance(matrix, GatedLinear | GatedParameter)
    module = matrix.module if isinstance(matrix, RawMatrix) else matrix
    if not encoders.multiplies(module):
        assert isinstance(matrix, RawMatrix)
        gated = _GatedRaw(matrix, gates, by_row)
        parametrize.register_parametrization(module, matrix.parameter, gated, unsafe=True)
    elif by_row:
        module.register_forward_hook(lambda _, inputs, y: y * gates().to(y.dtype))
    else:
        module.register_forward_pre_hook(lambda _, x: (x[0] * gates().to(x[0].dtype), *x[1:]))


def _skip_by(layer: nn.Module, gate: Callable[[], Tensor]) -> Callable[[], None]:
    """x + m (layer(x) - x). `gate`: m, float, of one element. Returns a function that undoes it."""

    def mix(_: nn.Module, inputs: tuple, keywords: dict[str, Any], output: Any) -> Any:
        x = inputs[0] if inputs else keywords["hidden_states"]
        is_single = isinstance(output, Tensor)
        y = output if is_single else output[0]
        # lerp is exact at both ends
        y = torch.lerp(x.to(y.dtype), y, gate().to(y.dtype).reshape(()))
        return y if is_single else type(output)((y, *output[1:]))  # a tuple or a list

    return layer.register_forward_hook(mix, with_kwargs=True).remove


@contextlib.contextmanager
def skipped(model: PreTrainedModel, layers: list[str]) -> Iterator[None]:
    """Compute without these layers. `layers`: module paths."""
    closed = functools.partial(torch.zeros, (), device=model.device)
    undo = [_skip_by(model.get_submodule(layer), closed) for layer in layers]
    try:
        yield
    finally:
        for remove in undo:
            remove()


def hold_at_zero(model: PreTrainedModel, units: list[Units], masks: Masks) -> None:
    """Take the removed units out of a model whose masks are already applied.

    Sets the biases of their rows to 0.0 and keeps them there during training, as
    surgery.apply_ticket does with the weights. Skips the layers that are removed.
    """
    if not units:
        return
    kept = unit_tickets.kept_in(units, masks)
    matrices = encoders.prunable_matrices(model, of_all_kinds=True)
    gone = unit_tickets.removed_layers(units, kept)
    for layer in gone:
        _skip_by(
            model.get_submodule(layer), functools.partial(torch.zeros, (), device=model.device)
        )
    for of_layer in units:
        for name, of_row in of_layer.rows.items():
            matrix = matrices[name]
            module = matrix.module if isinstance(matrix, RawMatrix) else matrix
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter) and of_layer.layer not in gone:
                _hold_bias(bias, expand_units(kept[of_layer.name], of_row))


def _hold_bias(bias: nn.Parameter, kept: Tensor) -> None:
    with torch.no_grad():
        bias.mul_(kept.to(bias))

    def zero_removed(parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            parameter.grad.mul_(kept.to(parameter.grad))

    bias.register_post_accumulate_grad_hook(zero_removed)
