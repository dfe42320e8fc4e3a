"""Which linears of an encoder are prunable; putting gates in and taking them out; fixing a ticket.

Wraps an ordinary Hugging Face classifier rather than subclassing it: whatever its attention class
is called, its prunable matrices are found by structure and counted, and an encoder that does not
have the expected structure is an error, never a silently half-masked model.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from masking import hard_concrete
from masking.layers import GatedLinear, block_grid, fix_mask

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
            "one was expected, so its prunable matrices cannot be told"
        )
    return stacks[0]


def _linears(module: nn.Module) -> dict[str, nn.Module]:
    gateable = (nn.Linear, GatedLinear)
    return {name: m for name, m in module.named_modules() if isinstance(m, gateable)}


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
) -> dict[str, nn.Module]:
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
    found: dict[str, nn.Module] = {}
    for i, layer in enumerate(stack):
        linears = _linears(layer)
        if len(linears) != len(KINDS_OF_A_LAYER):
            raise ValueError(
                f"{model_name} is not supported: layer {i} has {len(linears)} linear layers "
                f"({', '.join(linears) or 'none'}) where 6 were expected (query, key, value, "
                "attention output, FFN in, FFN out)"
            )
        _check_shapes(list(linears.values()), f"{model_name} layer {i}")
        found |= {f"{prefix}.{stack_name}.{i}.{name}": m for name, m in linears.items()}
    for name, module in _linears(base).items():
        full = f"{prefix}.{name}"
        if name == "pooler.dense":
            if with_not_pretrained or full not in not_pretrained(model):
                found[full] = module
        elif full not in found and not name.startswith("embeddings"):
            raise ValueError(f"{model_name} is not supported: unexpected linear layer {full}")
    return found


def _check_shapes(linears: list[nn.Module], where: str) -> None:
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
    return {name: tuple(m.weight.shape) for name, m in prunable_linears(model).items()}


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
        grid = block_grid(tuple(linear.weight.shape), out_w_per_mask, in_w_per_mask)
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


def apply_ticket(model: PreTrainedModel, masks: dict[str, Tensor]) -> None:
    """Set the pruned weights to 0.0 and keep them there through training."""
    check_masks_fit(model, {name: tuple(mask.shape) for name, mask in masks.items()})
    for name, linear in prunable_linears(model).items():
        fix_mask(linear, masks[name])


def count_unpruned(model: PreTrainedModel, masks: dict[str, Tensor]) -> int:
    """How many weights that the ticket prunes are not exactly 0.0 in the model (should be 0)."""
    linears = prunable_linears(model)
    return sum(
        int((linears[n].weight[~m.to(linears[n].weight.device)] != 0).sum())
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
    check_masks_fit(model, {name: tuple(mask.shape) for name, mask in masks.items()})
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
