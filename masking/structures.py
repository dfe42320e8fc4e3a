"""Units of an encoder that a ticket can remove whole: FFN neurons, attention heads, layers.

A unit ties weights together: they share one gate, and are kept or removed together. The units of
one kind in one layer are the rows of a virtual matrix, (units, weights per unit), so score files
and rankings of units have the same form as those of weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from masking import encoders
from masking.families import KINDS, Role, role_of
from masking.parts import split_fused
from masking.tickets import Shapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STRUCTURES = ("weights", "ffn_neurons", "heads", "layers")

_OF_NEURONS = ("ffn_in", "ffn_gate", "ffn_out")
_OF_HEADS = ("query", "key", "value", "position_query", "position_key", "attention_output")
_OF_CROSS_HEADS = ("cross_query", "cross_key", "cross_value", "cross_attention_output")
_BY_COLUMNS = ("ffn_out", "attention_output", "cross_attention_output")


@dataclass
class Units:
    """The units of one kind in one layer.

    `name`: layer and kind, such as "bert.encoder.layer.0[ffn_neurons]". `rows`: matrix -> unit of
    each of its rows, int64, (out,), -1 for a row of no unit. `columns`: the same for columns.
    `weights_each`: prunable weights of a unit; biases of its rows are not counted.
    """

    structure: str
    layer: str
    count: int
    name: str
    rows: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)
    weights_each: int = 0


def find_units(model: PreTrainedModel, structures: list[str]) -> list[Units]:
    """The units of these kinds, layer by layer, in the order of the model.

    FFN neuron i: row i of FFN-in (and of its gate), with its bias, and column i of FFN-out. Head:
    its rows of query, key, value and their biases (and of positions' projections), and its columns
    of attention output; heads that share keys and values are one unit. Layer: all of its matrices.

    Raises ValueError for an unknown kind, or one that the encoder does not have.
    """
    if not structures or set(structures) - set(STRUCTURES[1:]):
        raise ValueError(
            f"the structure {','.join(structures)} is unknown: choose weights, or one or more of "
            + ", ".join(STRUCTURES[1:])
        )
    sides = _sides(model)
    units = []
    for layer, of_kind in sides.items():
        if "ffn_neurons" in structures:
            count = len(of_kind["ffn_out"][1])
            units.append(_tie("ffn_neurons", layer, count, of_kind, _OF_NEURONS))
        if "heads" in structures:
            count = encoders.key_value_heads(model)
            units.append(_tie("heads", layer, count, of_kind, _OF_HEADS))
            if "cross_query" in of_kind:
                units.append(_tie("heads", layer, count, of_kind, _OF_CROSS_HEADS, "cross_heads"))
        if "layers" in structures:
            units.append(_whole_layer(model, layer))
    shapes = _all_shapes(model)
    for unit in units:
        rows = sum(int((r >= 0).sum()) * shapes[name][1] for name, r in unit.rows.items())
        columns = sum(int((c >= 0).sum()) * shapes[name][0] for name, c in unit.columns.items())
        unit.weights_each = (rows + columns) // unit.count
    return units


# Matrix, and the indices of its rows or columns that belong to a kind.
_Side = tuple[str, Tensor]


def _sides(model: PreTrainedModel) -> dict[str, dict[str, _Side]]:
    """Layer -> kind -> the matrix and those of its rows (columns) that are of this kind."""
    shapes = _all_shapes(model)
    rows = split_fused(
        {name: torch.arange(out) for name, (out, _) in shapes.items()},
        model.config.num_attention_heads,
    )
    sides: dict[str, dict[str, _Side]] = {}
    for part, indices in rows.items():
        name, _, kind = part.partition("[")
        role = _role(name)
        if role.layer:
            kind = kind.removesuffix("]") or role.kinds[0]
            if kind in _BY_COLUMNS:
                indices = torch.arange(shapes[name][1])
            sides.setdefault(role.layer, {})[kind] = (name, indices)
    return sides


def _all_shapes(model: PreTrainedModel) -> Shapes:
    matrices = encoders.prunable_matrices(model, of_all_kinds=True)
    return {name: (m.weight.shape[0], m.weight.shape[1]) for name, m in matrices.items()}


def _role(name: str) -> Role:
    role = role_of(name)
    assert role is not None, name  # prunable_matrices has checked it
    return role


def _tie(
    structure: str,
    layer: str,
    count: int,
    of_kind: dict[str, _Side],
    kinds: tuple[str, ...],
    label: str = "",
) -> Units:
    """Units of equal numbers of consecutive rows (columns) of each of these kinds."""
    units = Units(structure, layer, count, f"{layer}[{label or structure}]")
    for kind in (k for k in kinds if k in of_kind):
        name, indices = of_kind[kind]
        if len(indices) % count:
            raise ValueError(f"{name} does not divide into {count} {structure}")
        of_unit = torch.arange(count).repeat_interleave(len(indices) // count)
        side = units.columns if kind in _BY_COLUMNS else units.rows
        size = max(int(indices.max()) + 1, len(side.get(name, ())))
        of_index = torch.full((size,), -1)
        of_index[: len(side.get(name, ()))] = side.get(name, torch.tensor([], dtype=torch.int64))
        of_index[indices] = of_unit
        side[name] = of_index
    return units


def _whole_layer(model: PreTrainedModel, layer: str) -> Units:
    config = model.config
    if hasattr(config, "num_hidden_groups"):
        raise ValueError(
            f"{type(model).__name__} uses the same layer several times, so it has no layers to "
            "remove: choose ffn_neurons or heads"
        )
    if config.is_encoder_decoder or hasattr(config, "block_sizes"):
        raise ValueError(
            f"no layer of {type(model).__name__} can be removed alone: choose ffn_neurons or heads"
        )
    units = Units("layers", layer, 1, f"{layer}[layers]")
    for name, (out, _) in _all_shapes(model).items():
        if _role(name).layer == layer:
            units.rows[name] = torch.zeros(out, dtype=torch.int64)
    return units


def covered_kinds(units: list[Units]) -> list[str]:
    """Kinds of the matrices whose weights belong to a unit: those that the ticket can prune."""
    names = [name for unit in units for name in (*unit.rows, *unit.columns)]
    present = {kind for name in names for kind in _role(name).kinds}
    return [kind for kind in KINDS if kind in present]


def virtual_shapes(units: list[Units]) -> Shapes:
    """Name -> (units, weights per unit): the shapes of the virtual matrices."""
    return {unit.name: (unit.count, unit.weights_each) for unit in units}
