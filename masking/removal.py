"""Removal: an ordinary, smaller model in the place of a masked one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from masking import encoders, unit_gates, unit_tickets
from masking.layers import RawMatrix
from masking.structures import Units
from masking.tickets import Masks

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# The number of neurons of a feed-forward network, in the names of the families.
NEURONS = (
    "intermediate_size",
    "hidden_dim",
    "n_inner",
    "d_ff",
    "ffn_dim",
    "d_inner",
    "dff",
    "ffn_hidden_size",
)
# Families in which the heads left may be any number. In other ones, transformers 5 refuses a hidden
# size that is not a multiple of the number of heads.
ANY_NUMBER_OF_HEADS = ("mistral", "qwen2", "qwen3", "gemma", "phi", "phi3")
# Largest difference between logits of the masked and the smaller model, as a share of the largest
# logit: sums over fewer numbers round differently.
TOLERANCE = 1e-4

# Structure -> the fact that says how many units a layer has left.
_PER_LAYER = {"ffn_neurons": "neurons_per_layer", "heads": "heads_per_layer"}

State = dict[str, Tensor]


def without_units(
    model: PreTrainedModel, units: list[Units], masks: Masks, only_layers: bool = False
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of the same class without the units that the masks remove.

    `model`: with the masks applied and held (surgery.apply_ticket, unit_gates.hold_at_zero). It is
    left as it is. `only_layers`: remove layers, leave neurons and heads.

    A configuration holds one number of neurons for all layers. The new model has the largest number
    that a layer keeps; the other layers fill up with zeros. It has fewer heads where all layers
    keep the same number and the configuration can say so (`head_dim`). Where the family has no name
    for the smaller number, the zeros stay.

    Returns the model, on the same device, and what it has: "layers", "neurons_per_layer",
    "heads_per_layer" where they became fewer, and "zeroed": the structures of which some units stay
    as zeros. Its configuration keeps the same facts. Raises ValueError if no smaller model computes
    the same logits.
    """
    kept = unit_tickets.kept_in(units, masks)
    gone = unit_tickets.removed_layers(units, kept)
    config, state, layers = _without_layers(model, units, gone)
    facts: dict[str, Any] = {"layers": config.num_hidden_layers} if gone else {}
    zeroed = []
    for structure in _PER_LAYER:
        members = [u for u in units if u.structure == structure and u.layer not in gone]
        numbers = [int(kept[unit.name].sum()) for unit in members]
        if not members or min(numbers) == members[0].count:
            continue
        new_config = None
        # A head of zeros is not the same as no head, so zeros cannot fill up heads.
        if not only_layers and max(numbers) and (structure == "ffn_neurons" or _equal(numbers)):
            selected = dict(state)
            for unit in members:
                _select(model, selected, unit, _places(kept[unit.name], max(numbers)), layers)
            new_config = _configured(model, config, structure, members, max(numbers), selected)
        if new_config is not None:
            config, state = new_config, selected
            facts[_PER_LAYER[structure]] = max(numbers)
        if new_config is None or not _equal(numbers):
            zeroed.append(structure)
    facts["zeroed"] = zeroed
    setattr(config, encoders.REMOVED, facts)
    return _make(model, config, state), facts


def _make(model: PreTrainedModel, config: PretrainedConfig, state: State) -> PreTrainedModel:
    new = _build(model, config)
    try:
        new.load_state_dict(state)
    except RuntimeError as e:
        raise ValueError(
            f"{type(model).__name__} cannot be made smaller: its layers are not alike; omit the "
            "layers from the structure"
        ) from e
    _check_same(model, new)
    return new.to(model.device).train(model.training)


def check_units(model: PreTrainedModel, units: list[Units]) -> None:
    """Raise ValueError if the family cannot do without such units.

    Tries the first two layers, which in some families are not alike, and the first neuron and head:
    nothing may be left of a unit whose columns are zero.
    """
    layers = [unit for unit in units if unit.structure == "layers"]
    for tried in layers[:2] if len(layers) > 1 else []:
        with unit_gates.skipped(model, [tried.layer]):
            _make(model, *_without_layers(model, layers, [tried.layer])[:2])
    for structure in {unit.structure for unit in units} - {"layers"}:
        first = next(unit for unit in units if unit.structure == structure)
        without = [_logits_without(model, first, rows_too) for rows_too in (False, True)]
        if _difference(*without) > TOLERANCE:
            raise ValueError(
                f"{type(model).__name__} has no {structure} that can be removed alone: what their "
                "rows compute also enters others; choose another structure"
            )


def _logits_without(model: PreTrainedModel, of_layer: Units, rows_too: bool) -> Tensor:
    """Logits with the columns of the first unit at zero, or its rows and biases as well."""
    matrices = encoders.prunable_matrices(model, of_all_kinds=True)
    changed: list[tuple[Tensor, Tensor]] = []

    def close(tensor: Tensor, keep: Tensor) -> None:
        changed.append((tensor, tensor.detach().clone()))
        tensor.mul_(keep.to(tensor))

    with torch.no_grad():
        for name, of_column in of_layer.columns.items():
            close(matrices[name].weight, of_column != 0)
        for name, of_row in of_layer.rows.items() if rows_too else ():
            close(matrices[name].weight, (of_row != 0)[:, None])
            bias = getattr(getattr(matrices[name], "module", matrices[name]), "bias", None)
            if isinstance(bias, nn.Parameter):
                close(bias, of_row != 0)
        logits = _logits(model)
        for tensor, before in reversed(changed):
            tensor.copy_(before)
    return logits


def _equal(numbers: list[int]) -> bool:
    return min(numbers) == max(numbers)


def _places(kept: Tensor, number: int) -> Tensor:
    """Places of the kept units, filled up with the first removed ones to `number`, in order."""
    order = torch.argsort(~kept.flatten(), stable=True)
    return order[:number].sort().values


def _without_layers(
    model: PreTrainedModel, units: list[Units], gone: list[str]
) -> tuple[PretrainedConfig, State, dict[str, str]]:
    """Configuration and tensors without these layers, and the new path of each layer."""
    config = copy.deepcopy(model.config)
    layers = list(dict.fromkeys(unit.layer for unit in units))
    stay = [layer for layer in layers if layer not in gone]
    new_paths = dict(zip(stay, layers if gone else stay, strict=False))
    places = [layers.index(layer) for layer in stay]
    if gone:
        config.num_hidden_layers = len(stay)
        for key, value in list(vars(config).items()):  # such as layer_types, attention_layers
            if "layer" in key and isinstance(value, list) and len(value) == len(layers):
                setattr(config, key, [value[i] for i in places])
        if hasattr(config, "attention_types"):  # GPT-Neo: what attention_layers are made from
            config.attention_types = [[config.attention_layers, 1]]
    state = {}
    for name, tensor in model.state_dict().items():
        layer = next((path for path in layers if name.startswith(path + ".")), None)
        if layer in gone:
            continue
        new_name = name if layer is None else new_paths[layer] + name[len(layer) :]
        state[new_name] = tensor.detach().cpu()
    return config, state, new_paths


def _select(
    model: PreTrainedModel, state: State, unit: Units, places: Tensor, layers: dict[str, str]
) -> None:
    """Keep the rows and columns of the units at `places`, and those of no unit, in `state`."""
    matrices = encoders.prunable_matrices(model, of_all_kinds=True)
    for side, is_row in ((unit.rows, True), (unit.columns, False)):
        for name, of_index in side.items():
            matrix = matrices[name]
            module = matrix.module if isinstance(matrix, RawMatrix) else matrix
            if not encoders.multiplies(module):
                continue  # its shape then fits no configuration
            chosen = torch.nonzero((of_index < 0) | torch.isin(of_index, places))[:, 0]
            new_name = layers[unit.layer] + name[len(unit.layer) :]
            axis = 0 if is_row == isinstance(module, nn.Linear) else 1
            weight = state[f"{new_name}.weight"]
            state[f"{new_name}.weight"] = weight.index_select(axis, chosen).contiguous()
            if is_row and module.bias is not None:
                state[f"{new_name}.bias"] = state[f"{new_name}.bias"][chosen]


def _configured(
    model: PreTrainedModel,
    config: PretrainedConfig,
    structure: str,
    members: list[Units],
    number: int,
    state: State,
) -> PretrainedConfig | None:
    """A configuration whose model has tensors of the shapes in `state`; None if there is none."""
    wanted = {name: tensor.shape for name, tensor in state.items()}
    for changes in _changes(model, config, structure, members[0].count, number):
        candidate = copy.deepcopy(config)
        try:
            for key, value in changes.items():
                setattr(candidate, key, value)
            with torch.device("meta"):
                built = _build(model, candidate)
        except (ValueError, RuntimeError, TypeError, AttributeError, AssertionError):  # refused
            continue
        if {name: tensor.shape for name, tensor in built.state_dict().items()} == wanted:
            return candidate
    return None


def _changes(
    model: PreTrainedModel, config: PretrainedConfig, structure: str, count: int, number: int
) -> Iterator[dict[str, int]]:
    """What could make the family's configuration say `number` in place of `count`."""
    if structure == "ffn_neurons":
        yield from ({key: number} for key in NEURONS if hasattr(config, key))
        return
    heads = config.num_attention_heads
    is_multiple = config.hidden_size % (heads * number // count) == 0
    if not is_multiple and config.model_type not in ANY_NUMBER_OF_HEADS:
        return
    matrices = encoders.prunable_matrices(model, of_all_kinds=True)
    of_output = next(m for n, m in matrices.items() if "attention_output" in encoders.kinds_of(n))
    yield {
        "num_attention_heads": heads * number // count,
        "num_key_value_heads": number,
        "head_dim": of_output.weight.shape[1] // heads,
    }


def _build(model: PreTrainedModel, config: PretrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):  # its first weights, which are replaced, are random
        return type(model)(config)


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    """Of a few random tokens, in evaluation mode: float32, on the CPU."""
    config = model.config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    special = {config.pad_token_id, *ends}
    ids = torch.tensor([i for i in range(config.vocab_size) if i not in special])
    generator = torch.Generator().manual_seed(0)
    tokens = ids[torch.randint(len(ids), (2, 8), generator=generator)]
    if ends[0] is not None:
        tokens[:, -1] = ends[0]  # encoder-decoders read the class there
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    was_training = model.training
    logits = model.eval()(**{k: v.to(model.device) for k, v in batch.items()}).logits
    model.train(was_training)
    return logits.float().cpu()


def _difference(before: Tensor, after: Tensor) -> float:
    """Largest difference as a share of the largest logit."""
    return float((before - after).abs().max() / before.abs().max().clamp_min(1e-6))


def _check_same(model: PreTrainedModel, new: PreTrainedModel) -> None:
    """Raise ValueError unless both models compute the same logits."""
    difference = _difference(_logits(model), _logits(new))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{type(model).__name__} cannot be made smaller: without the removed units its logits "
            f"differ by {difference:.1e} of the largest; omit the layers from the structure, or "
            "keep the zeros"
        )
