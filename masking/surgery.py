"""Installing gates in an encoder and removing them; fixing a ticket; reinitializing weights."""

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
    """Swap every prunable linear for a GatedLinear whose test-time gates start at `gate`.

    One gate per block of out_w_per_mask x in_w_per_mask weights; 0 means the whole side.
    Returns name -> gated layer in prunable_linears' order.
    """
    score = hard_concrete.score_for_gate(gate)
    gated = {}
    for name, linear in prunable_linears(model).items():
        grid = block_grid((linear.out_features, linear.in_features), out_w_per_mask, in_w_per_mask)
        gated[name] = GatedLinear(linear, score, grid)
        _replace(model, name, gated[name])
    return gated


def remove_gates(model: PreTrainedModel, gated: dict[str, GatedLinear]) -> None:
    """Put plain linears with the untouched weights back."""
    for name, layer in gated.items():
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        linear.weight, linear.bias = layer.weight, layer.bias
        _replace(model, name, linear)


def draw_noise(
    gated: dict[str, GatedLinear], generator: torch.Generator | None, in_bytes: bool = False
) -> None:
    """New noise for every gate; the order of the draws is the order of the matrices.

    `in_bytes`: two random bytes a gate in place of a float32. A CPU, which draws in one thread,
    has them in a third of the time, and bf16 resolves less than they do.
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
    """Let one compiled kernel do the fast path. Raises what torch.compile raises, such as where
    there is no compiler (C++ for a CPU, Triton for CUDA), and leaves the gates as they are."""
    compiled = torch.compile(hard_concrete.gated_weight_and_slope, dynamic=True)
    first = next(iter(gated.values()))
    scores = first.scores.detach().view(-1)[:64]
    noise = torch.zeros(2, len(scores), dtype=torch.uint8, device=scores.device)
    compiled(scores, noise, torch.ones_like(scores), torch.bfloat16)
    for layer in gated.values():
        layer.product = compiled


def fix_gates(gated: dict[str, GatedLinear], gates: dict[str, Tensor] | None) -> None:
    """Evaluate under these gates (a ticket's masks, say); None takes them away again."""
    for name, layer in gated.items():
        layer.fixed_gate = None if gates is None else gates[name].to(layer.scores.device)


def soft_gates(gated: dict[str, GatedLinear]) -> dict[str, Tensor]:
    """The test-time gates (Eq. 5) of every matrix, without a gradient."""
    return {n: hard_concrete.soft_gate(g.scores.detach()) for n, g in gated.items()}


def apply_ticket(model: PreTrainedModel, masks: dict[str, Tensor]) -> None:
    """Set the pruned weights to 0.0 and keep them there through training."""
    check_masks_fit(model, shapes_of(masks))
    for name, linear in prunable_linears(model).items():
        fix_mask(linear, masks[name])


def count_unpruned(model: PreTrainedModel, masks: dict[str, Tensor]) -> int:
    """How many weights that the ticket prunes are not exactly 0.0 in the model (should be 0)."""
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
    """Draw weights of the prunable matrices anew (Table 4): structure without initialisation.

    `which`: "ticket", the weights that the masks keep, or "rest", those that they remove. `law`:
    "normal", N(0, std); "matched", normal with the matrix's own mean and deviation; "shuffled",
    the same weights in another order.
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
    """Embeddings from N(0, std), biases 0, LayerNorms 1 and 0: what no mask covers."""
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
    """What Figure 3 draws: {"heads": density per layer and head, "mlp": density per layer}.

    A head's density is the mean over its rows of query, key and value; the MLP's is the mean of
    the densities of attention output, FFN in and FFN out. `masks` in prunable_linears' order.
    """
    kinds = len(KINDS_OF_A_LAYER)
    densities = [m.float() for name, m in masks.items() if not name.endswith("pooler.dense")]
    found: dict[str, list] = {"heads": [], "mlp": []}
    for start in range(0, len(densities), kinds):
        layer = densities[start : start + kinds]
        rows = torch.stack(layer[:3]).mean(dim=2)  # (3, hidden): query, key, value
        found["heads"].append(rows.reshape(3, heads, -1).mean(dim=(0, 2)).tolist())
        found["mlp"].append(float(torch.stack([m.mean() for m in layer[3:]]).mean()))
    return found
