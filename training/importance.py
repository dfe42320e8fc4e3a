"""Values of the weights from a few training rows: Wanda's and a first-order Taylor expansion's.

Rows go through the model one at a time, in float32 and without dropout. No padding then enters a
norm or a loss, and the values depend neither on a batch size nor on the hardware's bf16.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from masking.encoders import Matrix, prunable_matrices
from masking.layers import RawMatrix, bias_of, parameter_of
from masking.parts import kinds_of
from training.batching import Encoded, collate
from training.prediction import inputs_of


def weights_times_inputs(model: PreTrainedModel, encoded: Encoded) -> dict[str, Tensor]:
    """Name -> |w_ij| ||x_j||: float32, (out, in), Eq. 1 of Wanda (Sun et al. 2024).

    ||x_j||: the L2 norm of input j of the matrix over all tokens of all rows, and over all uses of
    a layer that the encoder uses several times. Labels are not read. Raises ValueError if the
    encoder computes with a matrix in a way that does not show its inputs.
    """
    norms = input_norms(model, encoded)
    matrices = prunable_matrices(model)
    return {n: m.weight.detach().abs() * norms[n].float() for n, m in matrices.items()}


def weights_times_gradients(model: PreTrainedModel, encoded: Encoded) -> dict[str, Tensor]:
    """Name -> w * dL/dw: float32, (out, in), with its sign; L is the mean cross entropy.

    To first order, L falls by the sum of these values over any weights that are set to 0
    (Molchanov et al. 2017, 2019, for groups of weights).
    """
    return weights_and_biases_times_gradients(model, encoded)[0]


def weights_and_biases_times_gradients(
    model: PreTrainedModel, encoded: Encoded
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same, and name -> b * dL/db: float32, (out,), of the matrices that have a bias.

    A unit is removed with the biases of its rows, so they belong to what its removal changes.
    """
    matrices = prunable_matrices(model)
    biases = {name: b for name, m in matrices.items() if (b := bias_of(m)) is not None}
    parameters = [*(parameter_of(matrix) for matrix in matrices.values()), *biases.values()]
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for row in _each_row(model, encoded):
        # In float64, the loss of a row that the model is sure of still has a gradient.
        loss = F.cross_entropy(model(**inputs_of(row)).logits.double(), row["labels"])
        for total, gradient in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total.add_(gradient, alpha=1 / len(encoded))
    of_weights, of_biases = totals[: len(matrices)], totals[len(matrices) :]
    gradients = zip(matrices.items(), of_weights, strict=True)
    weights = {name: m.weight.detach() * _as_matrix(m, total) for (name, m), total in gradients}
    return weights, {
        name: bias.detach() * total
        for (name, bias), total in zip(biases.items(), of_biases, strict=True)
    }


def input_norms(model: PreTrainedModel, encoded: Encoded) -> dict[str, Tensor]:
    """Name -> L2 norm of each input of the matrix: float64, (in,). See weights_times_inputs."""
    matrices = prunable_matrices(model)
    squares: dict[str, Tensor] = {}

    def add(name: str, summed: Tensor) -> None:
        squares[name] = squares.get(name, 0.0) + summed

    def watch(name: str) -> Callable:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].double()  # (..., in)
            add(name, x.square().reshape(-1, x.shape[-1]).sum(0))

        return hook

    bare = {}
    with ExitStack() as watching, torch.no_grad():
        for name, matrix in matrices.items():
            module = matrix.module if isinstance(matrix, RawMatrix) else matrix
            if isinstance(matrix, RawMatrix) and not isinstance(module, Conv1D):
                bare[id(parameter_of(matrix))] = (name, matrix)
            else:
                watching.enter_context(module.register_forward_pre_hook(watch(name)))
        if bare:
            watching.enter_context(_EinsumInputs(bare, add))
        for row in _each_row(model, encoded):
            model(**inputs_of(row))
    if unseen := [name for name in matrices if name not in squares]:
        kinds = list(dict.fromkeys(kind for name in unseen for kind in kinds_of(name)))
        raise ValueError(
            f"the inputs of {len(unseen)} matrices of {type(model).__name__} cannot be measured, "
            f"such as {unseen[0]}: pass --exclude {','.join(kinds)}"
        )
    return {name: squares[name].sqrt() for name in matrices}


class _EinsumInputs(TorchFunctionMode):
    """Sees what torch.einsum multiplies with a bare parameter (XLNet, Funnel), its matrix' inputs.

    `bare`: id of the parameter -> name, matrix. `add(name, squares)`: takes the sum of squares of
    each input, (in,).
    """

    def __init__(self, bare: dict[int, tuple[str, RawMatrix]], add: Callable[[str, Tensor], None]):
        super().__init__()
        self.bare, self.add = bare, add

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is torch.einsum and len(args) == 3:
            for x, parameter in (args[1:], args[:0:-1]):
                if id(parameter) in self.bare:
                    is_first = parameter is args[1]
                    self._see(args[0], x, parameter, is_first)
        return function(*args, **(kwargs or {}))

    def _see(self, equation: str, x: Tensor, parameter: Tensor, is_first: bool) -> None:
        name, matrix = self.bare[id(parameter)]
        operands, _, output = equation.replace(" ", "").partition("->")
        of_first, _, of_second = operands.partition(",")
        of_parameter, of_x = (of_first, of_second) if is_first else (of_second, of_first)
        inputs = of_parameter[:1] if matrix.transposed else of_parameter[1:]
        # Otherwise it is another product, such as that with queries in Funnel's factorized form.
        if {*inputs} == {*of_parameter} - {*output} and {*inputs} <= {*of_x}:
            self.add(name, torch.einsum(f"{of_x}->{inputs}", x.double().square()).flatten())


def _each_row(model: PreTrainedModel, encoded: Encoded) -> Iterator[dict[str, Tensor]]:
    """Each row as a batch of its own, with the model in evaluation mode meanwhile."""
    was_training = model.training
    model.eval()
    try:
        for position in range(len(encoded)):
            arrays = collate(encoded, [position])
            yield {name: torch.from_numpy(values) for name, values in arrays.items()}
    finally:
        model.train(was_training)


def _as_matrix(matrix: Matrix, raw: Tensor) -> Tensor:
    return matrix.as_matrix(raw) if isinstance(matrix, RawMatrix) else raw
