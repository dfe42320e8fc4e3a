"""The prunable matrices of an encoder: which they are, their kinds and shapes, a fingerprint.

An ordinary Hugging Face classifier is wrapped, not subclassed: whatever its attention class is
called, its prunable matrices are identified by structure and counted. An encoder without the
expected structure is an error, never a silently half-masked model.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from torch import nn

from masking.layers import GatedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The order in which BERT, RoBERTa, DistilBERT and ELECTRA define a layer's linears; their shapes
# are checked against it.
KINDS_OF_A_LAYER = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")

# The configuration's key for the names of matrices that the pre-trained checkpoint did not hold.
NOT_PRETRAINED = "not_pretrained_matrices"


def _layer_stack(base: nn.Module, depth: int, model_name: str) -> tuple[str, nn.ModuleList]:
    """The one outermost ModuleList of `depth` layers in the encoder."""
    stacks: list[tuple[str, nn.ModuleList]] = []
    for name, module in base.named_modules():
        inside_another = any(name.startswith(outer + ".") for outer, _ in stacks)
        if isinstance(module, nn.ModuleList) and len(module) == depth and not inside_another:
            stacks.append((name, module))
    if len(stacks) != 1:
        raise ValueError(
            f"{model_name} is not supported: it has {len(stacks)} stacks of {depth} layers where "
            "one was expected, so its prunable matrices cannot be identified"
        )
    return stacks[0]


def _linears(module: nn.Module) -> dict[str, nn.Linear | GatedLinear]:
    modules = module.named_modules()
    return {name: m for name, m in modules if isinstance(m, nn.Linear | GatedLinear)}


def mark_not_pretrained(model: PreTrainedModel, names: list[str]) -> None:
    """Exclude matrices (module paths) that no pre-training made from the prunable ones.

    The configuration holds them, so that the model's checkpoints do as well.
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
    """Full module path -> linear, for the six matrices of every layer and the encoder's pooler.

    A pooler that the pre-trained checkpoint did not hold (see mark_not_pretrained) is random,
    differs from seed to seed, and is excluded unless `with_not_pretrained`.

    Embeddings (with ELECTRA's projection), LayerNorms, biases and the classification head,
    dense layers of the head included, are not among them. BERT-base: 73 matrices, 85,524,480
    weights. Raises ValueError for an encoder whose layers are not of this form.
    """
    model_name = type(model).__name__
    base = model.base_model
    if base is model:
        raise ValueError(f"{model_name} has no encoder apart from its head")
    prefix = model.base_model_prefix
    stack_name, stack = _layer_stack(base, model.config.num_hidden_layers, model_name)
    prunable: dict[str, nn.Linear | GatedLinear] = {}
    for i, layer in enumerate(stack):
        linears = _linears(layer)
        if len(linears) != len(KINDS_OF_A_LAYER):
            raise ValueError(
                f"{model_name} is not supported: layer {i} has {len(linears)} linear layers "
                f"({', '.join(linears) or 'none'}) where 6 were expected (query, key, value, "
                "attention output, FFN in, FFN out)"
            )
        _check_shapes(list(linears.values()), f"{model_name} layer {i}")
        prunable |= {f"{prefix}.{stack_name}.{i}.{name}": m for name, m in linears.items()}
    for name, module in _linears(base).items():
        full = f"{prefix}.{name}"
        if name == "pooler.dense":
            if with_not_pretrained or full not in not_pretrained(model):
                prunable[full] = module
        elif full not in prunable and not name.startswith("embeddings"):
            raise ValueError(f"{model_name} is not supported: unexpected linear layer {full}")
    return prunable


def _check_shapes(linears: list[nn.Linear | GatedLinear], where: str) -> None:
    hidden, ffn = linears[0].weight.shape[1], linears[4].weight.shape[0]
    expected = [(hidden, hidden)] * 4 + [(ffn, hidden), (hidden, ffn)]
    shapes = [tuple(m.weight.shape) for m in linears]
    if shapes != expected:
        raise ValueError(f"{where} is not supported: matrices of shapes {shapes}, not {expected}")


def kind_of(position: int) -> str:
    """Kind of the matrix at `position` in prunable_linears' order, which ends with the pooler."""
    return KINDS_OF_A_LAYER[position % len(KINDS_OF_A_LAYER)]


def matrix_kinds(names: list[str]) -> dict[str, str]:
    """Name -> kind (query ... ffn_out, pooler), for the names of prunable_linears in its order."""
    return {n: "pooler" if n.endswith("pooler.dense") else kind_of(i) for i, n in enumerate(names)}


def matrix_layers(names: list[str]) -> dict[str, int | None]:
    """Name -> layer, from 1, or None for the pooler; names of prunable_linears in its order."""
    per_layer = len(KINDS_OF_A_LAYER)
    return {
        n: None if n.endswith("pooler.dense") else 1 + i // per_layer for i, n in enumerate(names)
    }


def weight_shapes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Name -> (out, in) of every prunable matrix."""
    weights = {name: m.weight for name, m in prunable_linears(model).items()}
    return {name: (w.shape[0], w.shape[1]) for name, w in weights.items()}


def encoder_fingerprint(model: PreTrainedModel, with_not_pretrained: bool = False) -> str:
    """16 hex digits over the names, shapes and values of the prunable matrices.

    Tells whether a score file was learned for this very pre-trained encoder; shapes alone do not.
    `with_not_pretrained` gives the fingerprint of earlier versions, which included a random pooler.
    """
    digest = hashlib.sha256()
    for name, module in prunable_linears(model, with_not_pretrained).items():
        weight = module.weight.detach().float().cpu().contiguous()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.numpy().data)
    return digest.hexdigest()[:16]


def check_masks_fit(model: PreTrainedModel, shapes: dict[str, tuple[int, int]]) -> None:
    """ValueError unless `shapes` (of scores' weights or of masks) are those of this model."""
    own = weight_shapes(model)
    missing, extra = sorted(own.keys() - shapes.keys()), sorted(shapes.keys() - own.keys())
    if missing or extra:
        raise ValueError(
            f"made for another encoder: it names {len(shapes)} matrices, this model has {len(own)}"
            + (f"; not in it: {missing[0]}" if missing else "")
            + (f"; not in this model: {extra[0]}" if extra else "")
        )
    for name, shape in own.items():
        if tuple(shapes[name]) != shape:
            raise ValueError(
                f"made for another encoder: {name} is {tuple(shapes[name])} in it and "
                f"{shape} in this model"
            )
