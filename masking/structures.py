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
from masking.hard_concrete import open_probability
from masking.parts import split_fused
from masking.tickets import Masks, Shapes, check_sparsity

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


def find(model: PreTrainedModel, structures: list[str]) -> list[Units]:
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


def sums_over_units(units: list[Units], values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name -> sum of the values of a unit's weights: float64, (units, 1).

    `values`: name -> float, (out, in), for all covered matrices.
    """
    sums = {}
    for unit in units:
        total = torch.zeros(unit.count + 1, dtype=torch.float64)  # the last: of no unit
        for side, axis in ((unit.rows, 1), (unit.columns, 0)):
            for name, of_index in side.items():
                total.index_add_(0, of_index % (unit.count + 1), values[name].double().sum(axis))
        sums[unit.name] = total[:-1, None]
    return sums


def weights_alone(units: list[Units]) -> dict[str, int]:
    """Name -> weights of one unit that belong to no other unit of the list.

    A layer next to the heads and neurons inside it has only what they leave.
    """
    alone = {unit.name: unit.weights_each for unit in units}
    for layer in (unit for unit in units if unit.structure == "layers"):
        inside = (u for u in units if u.layer == layer.layer and u is not layer)
        alone[layer.name] -= sum(u.count * u.weights_each for u in inside)
    return alone


def density(units: list[Units], opened: dict[str, Tensor]) -> Tensor:
    """The expected share of the units' weights that is kept: R(m) of tied gates (Eq. 4).

    A weight counts once, whatever the number of its gates: it is kept where all of them are open.
    `opened`: name -> P(gate > 0), float, (units, 1); 0 and 1 for a drawn ticket. Returns a scalar
    in [0, 1].
    """
    layers = {u.layer: opened[u.name].sum() for u in units if u.structure == "layers"}
    alone = weights_alone(units)
    kept, total = [], 0
    for unit in units:
        within = layers.get(unit.layer, 1.0) if unit.structure != "layers" else 1.0
        kept.append(alone[unit.name] * opened[unit.name].sum() * within)
        total += alone[unit.name] * unit.count
    return torch.stack(kept).sum() / total


def opened_by(units: list[Units], scores: list[Tensor]) -> dict[str, Tensor]:
    """Name -> P(gate > 0), (units, 1). `scores`: float32, (units, 1), in the order of `units`."""
    return {unit.name: open_probability(s) for unit, s in zip(units, scores, strict=True)}


def draw(
    units: list[Units], scores: dict[str, Tensor], sparsity: float, uniform: bool = False
) -> dict[str, Tensor]:
    """Remove the units of the lowest scores: name -> bool, (units, 1), True = kept.

    As tickets.draw, but whole units: the removed share of the units' weights is the one nearest to
    `sparsity` that the ranking allows (the first of two that are as near).
    `scores`: name -> float, (units, 1). `uniform`: remove the same number of units from each layer
    that is kept, those of the lowest scores within it. Layers are then ranked among layers.
    Raises ValueError for a sparsity outside [0, 1), or for NaN among the scores.
    """
    check_sparsity(sparsity)
    if any(torch.isnan(scores[unit.name]).any() for unit in units):
        raise ValueError("scores contain NaN and cannot be ranked; write the score file again")
    alone = weights_alone(units)
    total = sum(alone[unit.name] * unit.count for unit in units)
    of_gate = [(unit, i) for unit in units for i in range(unit.count)]
    flat = torch.cat([scores[unit.name].detach().float().flatten().cpu() for unit in units])
    order = [of_gate[i] for i in torch.argsort(flat, stable=True).tolist()]
    removed_after = _removed_after(order, alone)
    # The ticket keeps something, whatever the ranking.
    reachable = [removed for removed in removed_after if removed < total]
    count = min(range(len(reachable)), key=lambda n: abs(reachable[n] - sparsity * total))
    kept = {unit.name: torch.ones(unit.count, 1, dtype=torch.bool) for unit in units}
    for unit, i in order[:count]:
        kept[unit.name][i] = False
    return _evened_out(units, scores, kept, sparsity * total) if uniform else kept


def _removed_after(order: list[tuple[Units, int]], alone: dict[str, int]) -> list[int]:
    """Number of weights that the first 0, 1, 2, ... units of the order remove together."""
    left: dict[str, int] = {}  # in each layer
    for unit, _ in order:
        left[unit.layer] = left.get(unit.layer, 0) + alone[unit.name]
    removed = [0]
    for unit, _ in order:
        of_unit = left[unit.layer]  # a layer takes what is left of it
        if unit.structure != "layers":
            of_unit = min(of_unit, alone[unit.name])  # nothing, if its layer is gone
        left[unit.layer] -= of_unit
        removed.append(removed[-1] + of_unit)
    return removed


def _evened_out(
    units: list[Units], scores: dict[str, Tensor], kept: dict[str, Tensor], wanted: float
) -> dict[str, Tensor]:
    """The same layers, and in each as many units of a kind: the mean number, rounded.

    The kind of the smallest units, at last, is removed in the number that brings the removed
    weights nearest to `wanted`. One unit of each kind stays in each layer.
    """
    alone = weights_alone(units)
    gone = removed_layers(units, kept)
    layers = {u.name: kept[u.name] for u in units if u.structure == "layers"}
    rest = [u for u in units if u.structure != "layers"]
    removed = sum(alone[u.name] for u in units if u.structure == "layers" and u.layer in gone)
    removed += sum(alone[u.name] * u.count for u in rest if u.layer in gone)
    by_kind: dict[str, list[Units]] = {}
    for unit in (u for u in rest if u.layer not in gone):
        by_kind.setdefault(unit.structure, []).append(unit)
    evened = layers | {u.name: kept[u.name] for u in rest if u.layer in gone}
    kinds = sorted(by_kind.values(), key=lambda members: -members[0].weights_each)
    for members in kinds:
        first = members[0]
        each = sum(int((~kept[u.name]).sum()) for u in members) / len(members)
        if members is kinds[-1]:
            each = (wanted - removed) / (first.weights_each * len(members))
        number = min(max(round(each), 0), first.count - 1)
        removed += number * first.weights_each * len(members)
        for unit in members:
            lowest = torch.argsort(scores[unit.name].detach().float().flatten().cpu(), stable=True)
            evened[unit.name] = torch.ones(unit.count, 1, dtype=torch.bool)
            evened[unit.name][lowest[:number]] = False
    return {unit.name: evened[unit.name] for unit in units}


def removed_share(units: list[Units], kept: dict[str, Tensor]) -> float:
    """Fraction of the units' weights that is removed, in [0, 1]. `kept`: as draw() returns it."""
    return 1 - float(density(units, {name: k.double() for name, k in kept.items()}))


def removed_layers(units: list[Units], kept: dict[str, Tensor]) -> list[str]:
    """Module paths of the layers that are removed whole. `kept`: as draw() returns it."""
    return [u.layer for u in units if u.structure == "layers" and not bool(kept[u.name].any())]


def masks_of(units: list[Units], kept: dict[str, Tensor], shapes: Shapes) -> Masks:
    """The masks of all covered matrices: name -> bool, (out, in), True = kept.

    `kept`: as draw() returns it. `shapes`: name -> (out, in) of the covered matrices.
    """
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    for unit in units:
        for name, of_row in unit.rows.items():
            masks[name] &= expand_units(kept[unit.name], of_row)[:, None]
        for name, of_column in unit.columns.items():
            masks[name] &= expand_units(kept[unit.name], of_column)
    return masks


def expand_units(per_unit: Tensor, of_index: Tensor) -> Tensor:
    """The value of each row's (column's) unit, and 1 where it has none.

    `per_unit`: any dtype, (units, 1). `of_index`: int64, (rows,), -1 for none. Returns the dtype of
    `per_unit`, (rows,).
    """
    with_none = torch.cat([per_unit.flatten(), per_unit.new_ones(1)])
    return with_none[of_index]


def kept_in(units: list[Units], masks: Masks) -> dict[str, Tensor]:
    """What masks of whole units keep, the inverse of masks_of: name -> bool, (units, 1).

    A unit is kept if one of its weights is. Raises ValueError if another weight of it is not: the
    ticket does not consist of whole units.
    """
    kept = {}
    for unit in units:
        kept[unit.name] = torch.zeros(unit.count, 1, dtype=torch.bool)
        for side, axis in ((unit.rows, 1), (unit.columns, 0)):
            for name, of_index in side.items():
                any_kept = masks[name].any(axis)
                inside = of_index >= 0
                kept[unit.name][of_index[inside & any_kept], 0] = True
    shapes = {name: (mask.shape[0], mask.shape[1]) for name, mask in masks.items()}
    again = masks_of(units, kept, shapes)
    if any(not torch.equal(again[name], mask) for name, mask in masks.items()):
        raise ValueError("the ticket does not remove whole units")
    return kept
