"""Install gates in an encoder or remove them, fix a ticket, reinitialize weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from masking import hard_concrete
from masking.encoders import KINDS_OF_A_LAYER, check_masks_fit, prunable_linears
from masking.layers import GatedLinear, block_grid, fix_mask
from masking.tickets import shapes_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def install_gates(
    model: PreTrainedModel, gate: float, out_w_per_mask: int = 1, in_w_per_mask: int = 1
) -> dict[str, GatedLinear]:
    """Replace each prunable linear by a GatedLinear whose test-time gates (Eq. 5) equal `gate`.

    Each block of out_w_per_mask x in_w_per_mask weights has one gate; 0 means the whole side.
    Returns name -> gated layer in prunable_linears' order. Raises ValueError unless 0 < gate < 1,
    or if the blocks do not divide a matrix, or if the encoder is not supported.
    """
    score = hard_concrete.score_for_gate(gate)
    gated = {}
    for name, linear in prunable_linears(model).items():
        grid = block_grid((linear.out_features, linear.in_features), out_w_per_mask, in_w_per_mask)
        gated[name] = GatedLinear(linear, score, grid)
        _replace(model, name, gated[name])
    return gated


def draw_noise(
    gated: dict[str, GatedLinear], generator: torch.Generator | None, in_bytes: bool = False
) -> None:
    """Draw the noise u of Eqs. 1-2 for each gate, in the order of the matrices.

    Sets `uniform` of each layer: float32, U(0, 1), of the scores' shape. `generator`: on the device
    of the scores; None means torch's global generator.
    `in_bytes`: draw two random bytes per gate instead, uint8, (2, ...). A CPU draws in one thread
    and needs a third of the time for bytes. Their resolution is finer than bf16's.
    """
    if in_bytes:
        _draw_bytes(list(gated.values()), generator)
        return
    for layer in gated.values():
        layer.uniform = torch.rand(
            layer.scores.shape, generator=generator, device=layer.scores.device
        )


def _draw_bytes(layers: list[GatedLinear], generator: torch.Generator | None) -> None:
    sizes = [2 * layer.scores.numel() for layer in layers]
    device = layers[0].scores.device
    draws = torch.empty(-(-sum(sizes) // 8), dtype=torch.int64, device=device)
    draws.random_(-(2**63), None, generator=generator)  # all 64 bits
    parts = draws.view(torch.uint8)[: sum(sizes)].split(sizes)
    for layer, part in zip(layers, parts, strict=True):
        layer.uniform = part.view(2, *layer.scores.shape)


def compile_gates(gated: dict[str, GatedLinear]) -> None:
    """Compile the fast path of all layers into one kernel.

    Raises any error of torch.compile, such as a missing compiler (C++ for a CPU, Triton for CUDA).
    The layers are unchanged in this case.
    """
    compiled = torch.compile(hard_concrete.gated_weight_and_slope, dynamic=True)
    first = next(iter(gated.values()))
    scores = first.scores.detach().view(-1)[:64]
    noise = torch.zeros(2, len(scores), dtype=torch.uint8, device=scores.device)
    compiled(scores, noise, torch.ones_like(scores), torch.bfloat16)
    for layer in gated.values():
        layer.product = compiled


def fix_gates(gated: dict[str, GatedLinear], gates: dict[str, Tensor] | None) -> None:
    """Use these gates instead of the scores; None: use the scores again.

    `gates`: name -> bool or float in [0, 1], (out, in) or one per block, such as a ticket's masks.
    """
    for name, layer in gated.items():
        layer.fixed_gate = None if gates is None else gates[name].to(layer.scores.device)


def soft_gates(gated: dict[str, GatedLinear]) -> dict[str, Tensor]:
    """Name -> test-time gates (Eq. 5): float32, of the scores' shape, in [0, 1], no gradient."""
    return {n: hard_concrete.soft_gate(g.scores.detach()) for n, g in gated.items()}


def apply_ticket(model: PreTrainedModel, masks: dict[str, Tensor]) -> None:
    """Set the pruned weights to 0.0 and keep them at 0.0 during training.

    `masks`: name -> bool, (out, in), True = kept. Raises ValueError if the names or shapes are not
    those of the model's prunable matrices.
    """
    check_masks_fit(model, shapes_of(masks))
    for name, linear in prunable_linears(model).items():
        fix_mask(linear, masks[name])


def count_unpruned(model: PreTrainedModel, masks: dict[str, Tensor]) -> int:
    """Number of weights that the ticket prunes but that are not exactly 0.0 in the model.

    `masks`: name -> bool, (out, in), True = kept. The result should be 0.
    """
    linears = prunable_linears(model)
    return sum(
        int(torch.count_nonzero(linears[n].weight[~m.to(linears[n].weight.device)]))
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
    for name, linear in prunable_linears(model).items():
        weight = linear.weight.detach()
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

    Embeddings are drawn from N(0, std^2). Biases become 0. LayerNorm weights become 1.
    """
    matrices = {id(linear.weight) for linear in prunable_linears(model).values()}
    with torch.no_grad():
        for module in model.base_model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, nn.LayerNorm):
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                elif name == "bias":
                    parameter.zero_()
                elif id(parameter) not in matrices:
                    parameter.normal_(0.0, std, generator=generator)


def density_by_head(masks: dict[str, Tensor], heads: int) -> dict[str, list]:
    """The densities of Figure 3: {"heads": one per layer and head, "mlp": one per layer}.

    `masks`: name -> bool, (out, in), True = kept, in prunable_linears' order. `heads`: number of
    heads per layer. The density of a head is the mean over its rows of query, key and value. The
    density of an MLP is the mean of the densities of attention output, FFN in and FFN out.
    """
    kinds = len(KINDS_OF_A_LAYER)
    densities = [m.float() for name, m in masks.items() if not name.endswith("pooler.dense")]
    per_layer: dict[str, list] = {"heads": [], "mlp": []}
    for start in range(0, len(densities), kinds):
        layer = densities[start : start + kinds]
        rows = torch.stack(layer[:3]).mean(dim=2)  # (3, hidden): query, key, value
        per_layer["heads"].append(rows.reshape(3, heads, -1).mean(dim=(0, 2)).tolist())
        per_layer["mlp"].append(float(torch.stack([m.mean() for m in layer[3:]]).mean()))
    return per_layer
