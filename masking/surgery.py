"""Install gates in an encoder or remove them, fix a ticket, reinitialize weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from masking import hard_concrete
from masking.encoders import check_masks_fit, prunable_matrices
from masking.layers import (
    GatedLinear,
    GatedParameter,
    RawMatrix,
    block_grid,
    fix_mask,
    parameter_of,
)
from masking.parts import kinds_of, layers_of, split_fused
from masking.tickets import shapes_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MLP_KINDS = ("attention_output", "ffn_in", "ffn_gate", "ffn_out")

# Name -> matrix with gates, in prunable_matrices' order.
Gated = dict[str, GatedLinear | GatedParameter]


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a LayerNorm, an RMSNorm or the like, whatever its family calls it."""
    return isinstance(module, nn.LayerNorm) or "Norm" in type(module).__name__


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def install_gates(
    model: PreTrainedModel, gate: float, out_w_per_mask: int = 1, in_w_per_mask: int = 1
) -> Gated:
    """Give each prunable matrix gates whose test-time value (Eq. 5) is `gate`.

    A GatedLinear replaces a linear; a GatedParameter goes in front of any other parameter.

    Each block of out_w_per_mask x in_w_per_mask weights has one gate; 0 means the whole side.
    Returns name -> gated layer in prunable_matrices' order. Raises ValueError unless 0 < gate < 1,
    or if the blocks do not divide a matrix, or if the encoder is not supported.
    """
    score = hard_concrete.score_for_gate(gate)
    gated: Gated = {}
    for name, matrix in prunable_matrices(model).items():
        grid = block_grid(tuple(matrix.weight.shape), out_w_per_mask, in_w_per_mask)
        if isinstance(matrix, RawMatrix):
            gated[name] = GatedParameter(matrix, score, grid)
        else:
            gated[name] = GatedLinear(matrix, score, grid)
            _replace(model, name, gated[name])
    number_gates(list(gated.values()))
    return gated


def draw_noise(gated: Gated, generator: torch.Generator | None, form: str = "floats") -> None:
    """Draw the noise u of Eqs. 1-2 for each gate, in the order of the matrices.

    Sets `uniform` of each layer. `generator`: on the device of the scores; None means torch's
    global generator. `form`:
    "floats": float32, U(0, 1), of the scores' shape.
    "bytes": two random bytes per gate, uint8, (2, ...). A CPU draws in one thread and needs a third
    of the time for bytes. Their resolution is finer than bf16's.
    "key": int32, (2,), from which the compiled gates compute the noise themselves.
    """
    layers = list(gated.values())
    if form == "bytes":
        _draw_bytes(layers, generator)
    elif form == "key":
        _draw_key(layers, generator)
    else:
        for layer in layers:
            shape, device = layer.scores.shape, layer.scores.device
            layer.uniform = torch.rand(shape, generator=generator, device=device)


def _draw_bytes(
    layers: list[GatedLinear | GatedParameter], generator: torch.Generator | None
) -> None:
    sizes = [2 * layer.scores.numel() for layer in layers]
    device = layers[0].scores.device
    draws = torch.empty(-(-sum(sizes) // 8), dtype=torch.int64, device=device)
    draws.random_(-(2**63), None, generator=generator)  # all 64 bits
    parts = draws.view(torch.uint8)[: sum(sizes)].split(sizes)
    for layer, part in zip(layers, parts, strict=True):
        layer.uniform = part.view(2, *layer.scores.shape)


def _draw_key(
    layers: list[GatedLinear | GatedParameter], generator: torch.Generator | None
) -> None:
    """One draw for all layers. No operation of it waits for a GPU."""
    words = torch.empty(2, dtype=torch.int64, device=layers[0].scores.device)
    key = words.random_(-(2**31), 2**31, generator=generator).to(torch.int32)
    for layer in layers:
        layer.uniform = key


def number_gates(layers: list[GatedLinear | GatedParameter]) -> None:
    """Give each layer the position of its first gate among those of all layers, modulo 2^32."""
    position = 0
    for layer in layers:
        layer.first.fill_((position + 2**31) % 2**32 - 2**31)
        position += layer.scores.numel()


def compile_gates(gated: Gated) -> None:
    """Compile the fast path of all layers into one kernel, for noise in the form of a key.

    Call it under the autocast of the passes; otherwise the first pass compiles again. Raises any
    error of torch.compile, such as a missing compiler (C++ for a CPU, Triton for CUDA). The layers
    are unchanged in this case.
    """
    compiled = torch.compile(hard_concrete.keyed_weight_and_slope, dynamic=True)
    layers = list(gated.values())
    # A whole matrix: after a call with few entries, the kernel uses one thread for all sizes. And
    # not a square one: its kernel would serve square ones only.
    layer = next((layer for layer in layers if len(set(layer.shape)) == 2), layers[0])
    plain, layer.keyed_product = layer.keyed_product, compiled
    try:
        layer.fast_weight(torch.zeros(2, dtype=torch.int32, device=layer.scores.device))
    finally:
        layer.keyed_product = plain
    for layer in layers:
        layer.keyed_product = compiled


def fix_gates(gated: Gated, gates: dict[str, Tensor] | None) -> None:
    """Use these gates instead of the scores; None: use the scores again.

    `gates`: name -> bool or float in [0, 1], (out, in) or one per block, such as a ticket's masks.
    """
    for name, layer in gated.items():
        layer.fixed_gate = None if gates is None else gates[name].to(layer.scores.device)


def soft_gates(gated: Gated) -> dict[str, Tensor]:
    """Name -> test-time gates (Eq. 5): float32, of the scores' shape, in [0, 1], no gradient."""
    return {n: hard_concrete.soft_gate(g.scores.detach()) for n, g in gated.items()}


def apply_ticket(model: PreTrainedModel, masks: dict[str, Tensor]) -> None:
    """Set the pruned weights to 0.0 and keep them at 0.0 during training.

    `masks`: name -> bool, (out, in), True = kept. Raises ValueError if the names or shapes are not
    those of the model's prunable matrices.
    """
    check_masks_fit(model, shapes_of(masks))
    for name, matrix in prunable_matrices(model).items():
        fix_mask(matrix, masks[name])


def count_unpruned(model: PreTrainedModel, masks: dict[str, Tensor]) -> int:
    """Number of weights that the ticket prunes but that are not exactly 0.0 in the model.

    `masks`: name -> bool, (out, in), True = kept. The result should be 0.
    """
    matrices = prunable_matrices(model)
    return sum(
        int(torch.count_nonzero(matrices[n].weight[~m.to(matrices[n].weight.device)]))
        for n, m in masks.items()
    )


def reinitialise(
    model: PreTrainedModel,
    masks: dict[str, Tensor],
    which: str,
    law: str,
    std: float,
    generator: torch.Generator,
) -> None:
    """Draw new values for weights of the prunable matrices (Table 4).

    This keeps the structure of a ticket without its pre-trained weights.
    `masks`: name -> bool, (out, in), True = kept. `which`: "ticket" selects the weights that the
    masks keep, "rest" those that they remove. `law`: "normal" draws from N(0, std^2), "matched"
    from a normal distribution with the mean and standard deviation of the matrix, "shuffled"
    permutes the selected weights. `generator`: on the CPU.
    Raises ValueError for another `law`, or if the masks do not fit the model.
    """
    check_masks_fit(model, shapes_of(masks))
    for name, matrix in prunable_matrices(model).items():
        weight = matrix.weight.detach()
        chosen = masks[name] if which == "ticket" else ~masks[name]
        noise = torch.randn(weight.shape, generator=generator)
        if law == "normal":
            new = (noise * std)[chosen]
        elif law == "matched":
            new = (noise * weight.std() + weight.mean())[chosen]
        elif law == "shuffled":
            new = weight[chosen][noise[chosen].argsort()]
        else:
            raise ValueError(f"law must be normal, matched or shuffled, got {law!r}")
        weight[chosen] = new


def reinitialise_the_rest_of_the_encoder(
    model: PreTrainedModel, std: float, generator: torch.Generator
) -> None:
    """Draw new values for all parameters of the encoder that are not in a prunable matrix.

    Embeddings are drawn from N(0, std^2). Biases become 0. LayerNorm weights become 1; other norms
    start as their family starts them.
    """
    matrices = {id(parameter_of(matrix)) for matrix in prunable_matrices(model).values()}
    with torch.no_grad():
        for module in model.base_model.modules():
            if is_norm(module) and not isinstance(module, nn.LayerNorm):
                model._init_weights(module)
                continue
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, nn.LayerNorm):
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                elif name == "bias":
                    parameter.zero_()
                elif id(parameter) not in matrices:
                    parameter.normal_(0.0, std, generator=generator)


def density_by_head(
    masks: dict[str, Tensor], heads: int, key_value_heads: int | None = None
) -> dict[str, list]:
    """The densities of Figure 3: {"heads": one per layer and head, "mlp": one per layer}.

    `masks`: name -> bool, (out, in), True = kept; a matrix without a mask is kept. `heads`: number
    of heads per layer. `key_value_heads`: number of heads with keys and values of their own, which
    the others share; None: all. The density of a head is the mean over its rows of query, key and
    value. The density of an MLP is the mean of the densities of attention output and of the FFN's
    matrices.
    """
    masks = split_fused(masks, heads)
    layer_of = layers_of(masks)
    layers: dict[int, dict[str, Tensor]] = {}
    for name, mask in masks.items():
        if (layer := layer_of[name]) is not None:
            layers.setdefault(layer, {})[kinds_of(name)[0]] = mask.float()
    rows_of = {"query": heads, "key": key_value_heads or heads, "value": key_value_heads or heads}
    per_layer: dict[str, list] = {"heads": [], "mlp": []}
    for _, of_kind in sorted(layers.items()):
        rows = {
            k: of_kind[k].mean(dim=1).reshape(n, -1) for k, n in rows_of.items() if k in of_kind
        }
        shared = [r.repeat_interleave(heads // len(r), 0) for r in rows.values()]
        all_kept = torch.ones(shared[0].shape if shared else (heads, 1))
        shared += [all_kept] * (len(rows_of) - len(shared))
        per_layer["heads"].append(torch.stack(shared).mean(dim=(0, 2)).tolist())
        mlp = [of_kind[k].mean() for k in MLP_KINDS if k in of_kind]
        mlp += [torch.tensor(1.0)] * (3 - len(mlp))
        per_layer["mlp"].append(float(torch.stack(mlp).mean()))
    return per_layer
