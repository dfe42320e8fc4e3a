"""Kinds and layers of matrices by their names, and the parts of fused matrices."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

from masking.families import role_of


def kinds_of(name: str) -> tuple[str, ...]:
    """Kinds of the matrix at a module path: one, or those of the parts of a fused matrix.

    An unknown path has the kind "other".
    """
    part = re.fullmatch(r".*\[(\w+)\]", name)  # of split_fused
    if part:
        return (part[1],)
    role = role_of(name)
    return role.kinds if role else ("other",)


def layers_of(names: Iterable[str]) -> dict[str, int | None]:
    """Name -> layer from 1, None for the pooler. The layers count in the order of the names."""
    roles = {name: role_of(name.partition("[")[0]) for name in names}
    layers = list(dict.fromkeys(role.layer for role in roles.values() if role and role.layer))
    return {
        name: layers.index(role.layer) + 1 if role and role.layer else None
        for name, role in roles.items()
    }


def split_fused(tensors: dict[str, Tensor], heads: int | None) -> dict[str, Tensor]:
    """The parts of fused matrices, as "name[kind]"; all other matrices as they are.

    `tensors`: name -> (rows, ...), a row per row of the matrix, or per block of rows. `heads`:
    number of attention heads; None, if unknown, leaves matrices whose rows are grouped by head.
    """
    split = {}
    for name, tensor in tensors.items():
        role = role_of(name)
        if role is None or len(role.kinds) == 1 or (role.by_head and not heads):
            split[name] = tensor
            continue
        groups = heads if role.by_head and heads else 1
        parts = groups * len(role.kinds)
        if len(tensor) % parts:  # a block of rows belongs to several parts
            tensor = tensor.repeat_interleave(parts, 0)
        grouped = tensor.reshape(groups, len(role.kinds), -1, *tensor.shape[1:])
        for i, kind in enumerate(role.kinds):
            split[f"{name}[{kind}]"] = grouped[:, i].flatten(0, 1)
    return split
