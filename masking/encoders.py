"""The prunable matrices of an encoder: their names, kinds, shapes and fingerprint.

The code wraps an ordinary Hugging Face classifier and does not subclass it. It identifies the
prunable matrices by structure, whatever the attention class is called, and counts them. An encoder
with another structure is an error, never a half-masked model.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from torch import nn

from masking.layers import GatedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The order in which BERT, RoBERTa, DistilBERT and ELECTRA define the linears of a layer.
# _check_shapes compares the shapes with this order.
KINDS_OF_A_LAYER = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")

# Configuration key: names of the matrices that the pre-trained checkpoint does not hold.
NOT_PRETRAINED = "not_pretrained_matrices"


def _layer_stack(base: nn.Module, depth: int, model_name: str) -> tuple[str, nn.ModuleList]:
    """Name and module of the only outermost ModuleList of `depth` layers in the encoder."""
    stacks: list[tuple[str, nn.ModuleList]] = []
    for name, module in base.named_modules():
        inside_another = any(name.startswith(outer + ".") for outer, _ in stacks)
        if isinstance(module, nn.ModuleList) and len(module) == depth and not inside_another:
            stacks.append((name, module))
    if len(stacks) != 1:
        raise ValueError(
            f"{model_name} is not supported: it has {len(stacks)} stacks of {depth} layers "
            "instead of one; choose another encoder"
        )
    return stacks[0]


def _linears(module: nn.Module) -> dict[str, nn.Linear | GatedLinear]:
    modules = module.named_modules()
    return {name: m for name, m in modules if isinstance(m, nn.Linear | GatedLinear)}


def mark_not_pretrained(model: PreTrainedModel, names: list[str]) -> None:
    """Exclude matrices without pre-trained values from the prunable matrices.

    `names`: module paths. The model's configuration stores them, and so do its checkpoints.
    """
    if names:
        setattr(model.config, NOT_PRETRAINED, list(names))
    elif hasattr(model.config, NOT_PRETRAINED):
        delattr(model.config, NOT_PRETRAINED)


def not_pretrained(model: PreTrainedModel) -> list[str]:
    """Module paths of the matrices that mark_not_pretrained excluded."""
    return list(getattr(model.config, NOT_PRETRAINED, []))


def prunable_linears(
    model: PreTrainedModel, with_not_pretrained: bool = False
) -> dict[str, nn.Linear | GatedLinear]:
    """Module path -> linear, for the six matrices of each layer and for the encoder's pooler.

    Each weight is (out, in). The layers come in order, and the pooler comes last. BERT-base has 73
    matrices with 85,524,480 weights. Embeddings (with ELECTRA's projection), LayerNorms, biases
    and all layers of the classification head are not prunable.

    `with_not_pretrained`: include a pooler that the pre-trained checkpoint does not hold (see
    mark_not_pretrained). Such a pooler is random and differs between seeds.
    Raises ValueError if a layer of the encoder does not have these six matrices.
    """
    model_name = type(model).__name__
    base = model.base_model
    if base is model:
        raise ValueError(f"{model_name} has no encoder apart from its head; load a classifier")
    prefix = model.base_model_prefix
    stack_name, stack = _layer_stack(base, model.config.num_hidden_layers, model_name)
    prunable: dict[str, nn.Linear | GatedLinear] = {}
    for i, layer in enumerate(stack):
        linears = _linears(layer)
        if len(linears) != len(KINDS_OF_A_LAYER):
            raise ValueError(
                f"{model_name} is not supported: layer {i} has {len(linears)} linear layers "
                f"({', '.join(linears) or 'none'}) instead of 6 (query, key, value, "
                "attention output, FFN in, FFN out); choose another encoder"
            )
        _check_shapes(list(linears.values()), f"{model_name} layer {i}")
        prunable |= {f"{prefix}.{stack_name}.{i}.{name}": m for name, m in linears.items()}
    for name, module in _linears(base).items():
        full = f"{prefix}.{name}"
        if name == "pooler.dense":
            if with_not_pretrained or full not in not_pretrained(model):
                prunable[full] = module
        elif full not in prunable and not name.startswith("embeddings"):
            raise ValueError(
                f"{model_name} is not supported: unexpected linear layer {full}; "
                "choose another encoder"
            )
    return prunable


def _check_shapes(linears: list[nn.Linear | GatedLinear], where: str) -> None:
    hidden, ffn = linears[0].weight.shape[1], linears[4].weight.shape[0]
    expected = [(hidden, hidden)] * 4 + [(ffn, hidden), (hidden, ffn)]
    shapes = [tuple(m.weight.shape) for m in linears]
    if shapes != expected:
        raise ValueError(f"{where} is not supported: matrices of shapes {shapes}, not {expected}")


def kind_of(position: int) -> str:
    """Kind (query ... ffn_out) of the matrix at `position`, from 0, in prunable_linears' order."""
    return KINDS_OF_A_LAYER[position % len(KINDS_OF_A_LAYER)]


def matrix_kinds(names: list[str]) -> dict[str, str]:
    """Name -> kind (query ... ffn_out, pooler). `names`: all names in prunable_linears' order."""
    return {n: "pooler" if n.endswith("pooler.dense") else kind_of(i) for i, n in enumerate(names)}


def matrix_layers(names: list[str]) -> dict[str, int | None]:
    """Name -> layer from 1, None for the pooler. `names`: all names in prunable_linears' order."""
    per_layer = len(KINDS_OF_A_LAYER)
    return {
        n: None if n.endswith("pooler.dense") else 1 + i // per_layer for i, n in enumerate(names)
    }


def weight_shapes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Name -> (out, in) of every prunable matrix."""
    weights = {name: m.weight for name, m in prunable_linears(model).items()}
    return {name: (w.shape[0], w.shape[1]) for name, w in weights.items()}


def encoder_fingerprint(model: PreTrainedModel, with_not_pretrained: bool = False) -> str:
    """16 hex digits of the SHA-256 of the names, shapes and values (float32) of the matrices.

    The fingerprint shows whether a score file was learned for this pre-trained encoder. Shapes
    alone cannot show it. `with_not_pretrained`: compute the fingerprint of earlier versions, which
    include a random pooler. Raises ValueError as prunable_linears does.
    """
    digest = hashlib.sha256()
    for name, module in prunable_linears(model, with_not_pretrained).items():
        weight = module.weight.detach().float().cpu().contiguous()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.numpy().data)
    return digest.hexdigest()[:16]


def check_masks_fit(model: PreTrainedModel, shapes: dict[str, tuple[int, int]]) -> None:
    """Raise ValueError unless `shapes`, name -> (out, in), equal weight_shapes(model)."""
    expected = weight_shapes(model)
    missing = sorted(expected.keys() - shapes.keys())
    extra = sorted(shapes.keys() - expected.keys())
    if missing or extra:
        raise ValueError(
            f"made for another encoder: it names {len(shapes)} matrices, this model has "
            f"{len(expected)}"
            + (f"; missing: {missing[0]}" if missing else "")
            + (f"; not in this model: {extra[0]}" if extra else "")
        )
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise ValueError(
                f"made for another encoder: {name} has the shape {tuple(shapes[name])}, "
                f"but {shape} in this model"
            )
