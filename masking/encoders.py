"""The prunable matrices of an encoder: their names, kinds, shapes and fingerprint.

The code wraps an ordinary Hugging Face classifier and does not subclass it. It finds the prunable
matrices by what their modules are called (masking/families.py), and checks their number and shapes.
An encoder with another structure is an error, never a half-masked model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from torch import nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from masking.families import (
    KINDS,
    KINDS_OF_A_LAYER,
    RAW,
    RAW_NOT_TRANSPOSED,
    WITHOUT_POOLER,
    role_of,
)
from masking.layers import GatedLinear, GatedParameter, RawMatrix
from masking.parts import kinds_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What prunable_matrices returns: all have a `weight`, (out, in).
Matrix = nn.Linear | RawMatrix | GatedLinear | GatedParameter

# Keys of a configuration: names of the matrices that the pre-trained checkpoint does not hold, and
# the kinds that are gated (none: all).
NOT_PRETRAINED = "not_pretrained_matrices"
SELECTED = "prunable_kinds"
# Key of a configuration: what was removed from the model (removal.without_units).
REMOVED = "removed_units"


def mark_not_pretrained(model: PreTrainedModel, names: list[str]) -> None:
    """Exclude matrices without pre-trained values from the prunable matrices.

    `names`: module paths. The model's configuration stores them, and so do its checkpoints.
    """
    _set(model, NOT_PRETRAINED, list(names))


def not_pretrained(model: PreTrainedModel) -> list[str]:
    """Module paths of the matrices that mark_not_pretrained excluded."""
    return list(getattr(model.config, NOT_PRETRAINED, []))


def select(
    model: PreTrainedModel, only: list[str] | None, exclude: list[str] | None = None
) -> None:
    """Exclude the matrices of some kinds from the prunable matrices.

    `only`: the kinds that stay prunable, None for all. `exclude`: the kinds that do not. The
    model's configuration stores the kinds that stay. Raises ValueError for a kind that the encoder
    does not have, for a part of a fused matrix, or if nothing stays.
    """
    _set(model, SELECTED, [])
    if not only and not exclude:
        return
    only, exclude = only or [], exclude or []
    matrices = {name: kinds_of(name) for name in prunable_matrices(model)}
    present = [kind for kind in KINDS if any(kind in kinds for kinds in matrices.values())]
    if missing := [kind for kind in (*only, *exclude) if kind not in present]:
        raise ValueError(
            f"{type(model).__name__} has no matrices of the kind {missing[0]!r}; it has "
            + ", ".join(present)
        )
    stay = [kind for kind in present if kind in (only or present) and kind not in exclude]
    if not stay:
        raise ValueError("no matrix is left to prune; exclude fewer kinds")
    for name, kinds in matrices.items():
        if len(kinds) > 1 and 0 < len(set(kinds) & set(stay)) < len(kinds):
            raise ValueError(
                f"{name} holds {', '.join(kinds)} in one matrix: name all of them, or none"
            )
    _set(model, SELECTED, stay)


def selected(model: PreTrainedModel) -> list[str]:
    """The kinds that `select` chose; [] if all are prunable."""
    return list(getattr(model.config, SELECTED, []))


def _set(model: PreTrainedModel, key: str, value: list[str]) -> None:
    if value:
        setattr(model.config, key, value)
    elif hasattr(model.config, key):
        delattr(model.config, key)


def prunable_matrices(
    model: PreTrainedModel, with_not_pretrained: bool = False, of_all_kinds: bool = False
) -> dict[str, Matrix]:
    """Module path -> matrix, for the matrices of each layer and for the encoder's pooler.

    Each weight is (out, in). The order is that of the model, with the pooler last. BERT-base has 73
    matrices with 85,524,480 weights. Embeddings (with projections of them), norms, biases and all
    layers of the classification head are not prunable. A layer that the encoder uses several times
    (ALBERT) counts once.

    `with_not_pretrained`: include a pooler that the pre-trained checkpoint does not hold (see
    mark_not_pretrained). Such a pooler is random and differs between seeds. `of_all_kinds`: ignore
    the kinds that `select` chose.
    Raises ValueError if the structure of the encoder is not recognized.
    """
    model_name = type(model).__name__
    if model.base_model is model:
        raise ValueError(
            f"{model_name} is not supported: its encoder is not a part of its own, apart from the "
            "head; choose another encoder, or a checkpoint with a classifier"
        )
    layers: dict[str, dict[str, Matrix]] = {}
    poolers: dict[str, Matrix] = {}
    for name, matrix in _candidates(model):
        role = role_of(name)
        if role is None:
            raise ValueError(
                f"{model_name} is not supported: {name} is not a known matrix of an encoder; "
                "choose another encoder"
            )
        if role.kinds != ("pooler",):
            layers.setdefault(role.layer, {})[name] = matrix
        elif model_name not in WITHOUT_POOLER:
            poolers[name] = matrix
    _check_layers(model, layers)
    prunable = {name: m for group in (*layers.values(), poolers) for name, m in group.items()}
    excluded = [] if with_not_pretrained else not_pretrained(model)
    kinds = set() if of_all_kinds else set(selected(model))
    return {
        name: matrix
        for name, matrix in prunable.items()
        if name not in excluded and (not kinds or kinds & set(kinds_of(name)))
    }


def _candidates(model: PreTrainedModel) -> Iterator[tuple[str, Matrix]]:
    """Path and matrix of each linear of the encoder, and of what serves as one, in its order.

    Projections of embeddings are not among them.
    """
    base, prefix = model.base_model, model.base_model_prefix
    for inner, module in base.named_modules():
        is_of_embeddings = any(p.startswith("embedding") for p in inner.split("."))
        is_of_embeddings |= inner.endswith(("project_in", "project_out"))  # OPT
        if ".parametrizations" in inner or is_of_embeddings:
            continue
        name = f"{prefix}.{inner}"
        if isinstance(module, nn.Linear | GatedLinear):
            yield name, module
        elif isinstance(module, Conv1D):
            yield name, _raw_matrix(module, "weight", transposed=True)
        else:
            for path in RAW:
                inside, _, parameter = path.rpartition(".")
                if inner.endswith(inside) and _has_parameter(module, parameter):
                    transposed = path not in RAW_NOT_TRANSPOSED
                    yield f"{name}.{parameter}", _raw_matrix(module, parameter, transposed)


def multiplies(module: nn.Module) -> bool:
    """Whether a module computes x W + b with its `weight` and `bias`, (in, out) or (out, in)."""
    return isinstance(module, nn.Linear | Conv1D)


def _has_parameter(module: nn.Module, name: str) -> bool:
    return name in module._parameters or parametrize.is_parametrized(module, name)


def _raw_matrix(module: nn.Module, parameter: str, transposed: bool) -> Matrix:
    if parametrize.is_parametrized(module, parameter):
        return cast(GatedParameter, module.get_submodule(f"parametrizations.{parameter}.0"))
    return RawMatrix(module, parameter, transposed)


def _check_layers(model: PreTrainedModel, layers: dict[str, dict[str, Matrix]]) -> None:
    """Raise ValueError unless each layer has one matrix of each kind, of shapes that fit."""
    model_name, config = type(model).__name__, model.config
    expected = config.num_hidden_layers
    if hasattr(config, "num_hidden_groups"):  # ALBERT uses the layers of a group several times
        expected = config.num_hidden_groups * config.inner_group_num
    elif config.is_encoder_decoder:
        expected += getattr(config, "num_decoder_layers", None) or config.decoder_layers
    if len(layers) != expected:
        raise ValueError(
            f"{model_name} is not supported: {len(layers)} of its {expected} layers have known "
            "matrices; choose another encoder"
        )
    for layer, matrices in layers.items():
        shapes: dict[str, list[tuple[int, int]]] = {}
        # Columns of the attention's output: the rows of query, which are fewer than the hidden size
        # where heads were removed.
        inner = [
            m.weight.shape[1] for n, m in matrices.items() if "attention_output" in kinds_of(n)
        ]
        for name, matrix in matrices.items():
            rows, columns = matrix.weight.shape
            kinds = kinds_of(name)
            # GPT-BigCode has GPT-2's names, with the rows in another order.
            is_other = name.endswith("attn.c_attn") and isinstance(matrix, nn.Linear)
            is_fused = "query" in kinds and len(kinds) == 3
            if is_other or (is_fused and inner and rows != 3 * inner[0]):
                raise ValueError(
                    f"{model_name} is not supported: {name}, of {rows} rows, does not hold the "
                    f"rows of {', '.join(kinds)} in equal parts; choose another encoder"
                )
            for kind in kinds:
                shapes.setdefault(kind, []).append((rows // len(kinds), columns))
        if problem := _problem_of(shapes):
            raise ValueError(
                f"{model_name} is not supported: layer {layer} has {problem}; choose another "
                "encoder"
            )


def _problem_of(shapes: dict[str, list[tuple[int, int]]]) -> str | None:
    """What is wrong with a layer's matrices, kind -> shapes; None if nothing is."""
    if missing := [kind for kind in KINDS_OF_A_LAYER if kind not in shapes]:
        return f"no {' and no '.join(missing)} matrix that is known"
    if twice := [kind for kind, of_kind in shapes.items() if len(of_kind) > 1]:
        return f"{len(shapes[twice[0]])} matrices that could be {twice[0]}"
    one = {kind: of_kind[0] for kind, of_kind in shapes.items()}
    hidden, inner = one["query"][1], one["attention_output"][1]
    per_key = one["key"][0]  # fewer rows than query where heads share keys and values
    fits = (
        one["query"][0] == inner
        and one["attention_output"][0] == hidden
        and one["key"] == one["value"] == (per_key, hidden)
        and inner % per_key == 0
        and one["ffn_out"] == (hidden, one["ffn_in"][0])
        and one["ffn_in"][1] == hidden
        and one.get("ffn_gate", one["ffn_in"]) == one["ffn_in"]
    )
    return None if fits else "matrices of shapes " + ", ".join(f"{k} {s}" for k, s in one.items())


def is_grouped_by_head(model: PreTrainedModel) -> bool:
    """Whether a fused matrix has the rows of each head together, so that its parts need heads."""
    roles = map(role_of, prunable_matrices(model, of_all_kinds=True))
    return any(role is not None and role.by_head for role in roles)


def key_value_heads(model: PreTrainedModel) -> int:
    """Number of attention heads that have keys and values of their own."""
    config = model.config
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def weight_shapes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Name -> (out, in) of every prunable matrix."""
    weights = {name: m.weight for name, m in prunable_matrices(model).items()}
    return {name: (w.shape[0], w.shape[1]) for name, w in weights.items()}


def encoder_fingerprint(model: PreTrainedModel, with_not_pretrained: bool = False) -> str:
    """16 hex digits of the SHA-256 of the names, shapes and values (float32) of the matrices.

    The fingerprint shows whether a score file was learned for this pre-trained encoder. Shapes
    alone cannot show it. It covers the matrices of all kinds. `with_not_pretrained`: compute the
    fingerprint of earlier versions, which include a random pooler. Raises ValueError as
    prunable_matrices does.
    """
    digest = hashlib.sha256()
    matrices = prunable_matrices(model, with_not_pretrained, of_all_kinds=True)
    for name, matrix in matrices.items():
        weight = matrix.weight.detach().float().cpu().contiguous()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.numpy().data)
    return digest.hexdigest()[:16]


def check_masks_fit(
    model: PreTrainedModel,
    shapes: dict[str, tuple[int, int]],
    expected: dict[str, tuple[int, int]] | None = None,
) -> None:
    """Raise ValueError unless `shapes`, name -> (out, in), are those expected.

    `expected`: None for weight_shapes(model).
    """
    expected = weight_shapes(model) if expected is None else expected
    smaller = ", from which units were removed" if hasattr(model.config, REMOVED) else ""
    missing = sorted(expected.keys() - shapes.keys())
    extra = sorted(shapes.keys() - expected.keys())
    if missing or extra:
        raise ValueError(
            f"made for another encoder: it names {len(shapes)} matrices, this model{smaller} has "
            f"{len(expected)}"
            + (f"; missing: {missing[0]}" if missing else "")
            + (f"; not in this model: {extra[0]}" if extra else "")
        )
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise ValueError(
                f"made for another encoder: {name} has the shape {tuple(shapes[name])}, "
                f"but {shape} in this model{smaller}"
            )
