"""Tickets of whole units: drawing, the masks of their weights, and what they keep.

The scores of the units of one kind in one layer have the shape (units, 1). A ticket keeps each unit
or removes it.
"""

import itertools
from collections import Counter
from functools import partial

import torch
from torch import Tensor

from masking.hard_concrete import open_probability
from masking.structures import Units
from masking.tickets import Masks, Shapes, check_sparsity


def sums_over_units(
    units: list[Units], values: dict[str, Tensor], of_biases: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Name -> sum of the values of a unit's weights: float64, (units, 1).

    `values`: name -> float, (out, in), for all covered matrices. `of_biases`: name -> float,
    (out,), values of biases, which count to the units of their rows.
    """
    of_biases = of_biases or {}
    sums = {}
    for unit in units:
        total = torch.zeros(unit.count + 1, dtype=torch.float64)  # the last: of no unit
        for side, axis in ((unit.rows, 1), (unit.columns, 0)):
            for name, of_index in side.items():
                total.index_add_(0, of_index % (unit.count + 1), values[name].double().sum(axis))
                if side is unit.rows and name in of_biases:
                    total.index_add_(0, of_index % (unit.count + 1), of_biases[name].double())
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
    `sparsity` that the ranking allows (the first of two that are as near). A unit that is larger
    than what is left to remove, such as a layer among neurons, is passed over if that comes nearer.
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
    wanted = sparsity * total
    count = min(range(len(reachable)), key=lambda n: abs(reachable[n] - wanted))
    chosen, removed = _that_fit(order, alone, wanted)
    if abs(reachable[count] - wanted) <= abs(removed - wanted):
        chosen = order[:count]
    kept = {unit.name: torch.ones(unit.count, 1, dtype=torch.bool) for unit in units}
    for unit, i in chosen:
        kept[unit.name][i] = False
    return _evened_out(units, scores, kept, wanted) if uniform else kept


def nearest_sparsity(units: list[Units], sparsity: float) -> float:
    """The removed share of the units' weights, nearest to `sparsity`, that some ranking reaches.

    Such a ticket removes the first 0, 1, 2, ... layers, and any number of the units in the others.
    """
    alone = weights_alone(units)
    total = sum(alone[unit.name] * unit.count for unit in units)
    wanted = round(sparsity * total)
    paths = list(dict.fromkeys(unit.layer for unit in units))
    has_layers = any(unit.structure == "layers" for unit in units)
    removed = []
    for gone in range(len(paths) if has_layers else 1):
        left = [unit for unit in units if unit.layer in paths[gone:]]
        of_size: Counter[int] = Counter()
        for unit in (u for u in left if u.structure != "layers"):
            of_size[alone[unit.name]] += unit.count
        # A ticket keeps something. Bit i: i weights can be removed.
        sums = _subset_sums(of_size) << (total - sum(alone[u.name] * u.count for u in left))
        sums &= (1 << total) - 1
        below, above = sums & ((1 << (wanted + 1)) - 1), sums >> wanted
        removed += [below.bit_length() - 1] if below else []
        removed += [wanted + (above & -above).bit_length() - 1] if above else []
    return min(removed, key=lambda weights: abs(weights - sparsity * total)) / total


def _subset_sums(of_size: Counter[int]) -> int:
    """Bit i is set if i is a sum of some of these numbers. `of_size`: number -> how many."""
    sums = 1
    for size, number in of_size.items():
        batch = 1
        while number:  # any count of equal numbers is a sum of batches of 1, 2, 4, ...
            batch = min(batch, number)
            sums |= sums << (batch * size)
            number, batch = number - batch, 2 * batch
    return sums


def _that_fit(
    order: list[tuple[Units, int]], alone: dict[str, int], wanted: float
) -> tuple[list[tuple[Units, int]], float]:
    """The units of the order without those that would remove more than `wanted` weights, at last
    with the one that then comes nearest to it; and how many weights they remove."""
    chosen: list[tuple[Units, int]] = []
    removed, gone, left = 0.0, set(), _weights_of_layers(order, alone)
    too_large: list[tuple[Units, int]] = []

    def size(unit: Units) -> int:
        if unit.layer in gone:
            return 0
        return left[unit.layer] if unit.structure == "layers" else alone[unit.name]

    for unit, i in order:
        if unit.layer in gone:
            continue
        of_unit = size(unit)
        if removed + of_unit > wanted:
            too_large.append((unit, i))
            continue
        chosen.append((unit, i))
        removed += of_unit
        left[unit.layer] -= of_unit
        gone |= {unit.layer} if unit.structure == "layers" else set()
    gap = wanted - removed
    last = min(too_large, key=lambda item: abs(size(item[0]) - gap), default=None)
    # The ticket keeps something.
    if last and abs(size(last[0]) - gap) < gap and size(last[0]) < sum(left.values()):
        return [*chosen, last], removed + size(last[0])
    return chosen, removed


def _weights_of_layers(order: list[tuple[Units, int]], alone: dict[str, int]) -> dict[str, int]:
    left: dict[str, int] = {}
    for unit, _ in order:
        left[unit.layer] = left.get(unit.layer, 0) + alone[unit.name]
    return left


def _removed_after(order: list[tuple[Units, int]], alone: dict[str, int]) -> list[int]:
    """Number of weights that the first 0, 1, 2, ... units of the order remove together."""
    left = _weights_of_layers(order, alone)
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
    """The same layers, and in each as many units of a kind, near the mean number in `kept`.

    The kind of the smallest units has the number that brings the removed weights nearest to
    `wanted`. If it has too few or too many for that, the number of the other kind moves as far as
    needed. One unit of each kind stays in each layer.
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
    for members, number in zip(kinds, _numbers(kinds, kept, wanted - removed), strict=True):
        for unit in members:
            lowest = torch.argsort(scores[unit.name].detach().float().flatten().cpu(), stable=True)
            evened[unit.name] = torch.ones(unit.count, 1, dtype=torch.bool)
            evened[unit.name][lowest[:number]] = False
    return {unit.name: evened[unit.name] for unit in units}


def _distance(a: int, b: int) -> int:
    return abs(a - b)


def _numbers(kinds: list[list[Units]], kept: dict[str, Tensor], wanted: float) -> list[int]:
    """Units that each layer loses, by kind, the smallest units last (see _evened_out).

    `wanted`: weights to remove from all layers together.
    """
    if not kinds:
        return []
    *others, last = kinds
    means = [sum(int((~kept[u.name]).sum()) for u in members) / len(members) for members in others]
    ranges = [
        sorted(range(members[0].count), key=partial(_distance, round(mean)))
        for members, mean in zip(others, means, strict=True)
    ]
    size = last[0].weights_each * len(last)
    found: list[tuple[float, list[int]]] = []
    for numbers in itertools.product(*ranges):
        taken = sum(n * m[0].weights_each * len(m) for n, m in zip(numbers, others, strict=True))
        number = min(max(round((wanted - taken) / size), 0), last[0].count - 1)
        gap = abs(wanted - taken - number * size)
        found.append((gap, [*numbers, number]))
        if gap <= size / 2:
            return found[-1][1]
    return min(found)[1]


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
