"""Units that are kept or removed whole, against models computed by hand."""

import itertools

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig, MistralConfig

from masking import encoders, removal, structures, surgery, tickets, unit_gates, unit_tickets
from training import importance
from training.batching import Encoded

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 30}
SIZES |= {"intermediate_size": 6, "max_position_embeddings": 20, "initializer_range": 0.5}
SHARED_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
BATCH = {
    "input_ids": torch.randint(2, 30, (3, 7), generator=torch.Generator().manual_seed(1)),
    "attention_mask": torch.ones(3, 7, dtype=torch.long),
}


def make(config=None):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config or BertConfig(**SIZES)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model


def logits(model):
    return model(**BATCH).logits


def set_gates(gated, gates):
    surgery.fix_gates(gated, gates)


def layer_of(model, i):
    return model.bert.encoder.layer[i]


def test_the_gate_of_a_neuron_multiplies_its_row_its_bias_and_its_column():
    model, by_hand = make(), make()
    units = structures.find_units(model, ["ffn_neurons"])
    assert [(u.name, u.count, u.weights_each) for u in units] == [
        (f"bert.encoder.layer.{i}[ffn_neurons]", 6, 16) for i in (0, 1)
    ]
    gates = {u.name: torch.rand(6, 1) for u in units}
    set_gates(unit_gates.install_unit_gates(model, units, 0.9), gates)
    for i, m in enumerate(gates.values()):
        layer_of(by_hand, i).intermediate.dense.weight.data.mul_(m)
        layer_of(by_hand, i).intermediate.dense.bias.data.mul_(m[:, 0])
        layer_of(by_hand, i).output.dense.weight.data.mul_(m[:, 0])
    torch.testing.assert_close(logits(model), logits(by_hand))
    assert not torch.allclose(logits(model), logits(make()))


def test_the_gate_of_a_head_multiplies_its_rows_their_biases_and_its_columns():
    model, by_hand = make(), make()
    units = structures.find_units(model, ["heads"])
    assert [(u.count, u.weights_each) for u in units] == [(2, 4 * 4 * 8)] * 2
    gates = {u.name: torch.rand(2, 1) for u in units}
    set_gates(unit_gates.install_unit_gates(model, units, 0.9), gates)
    for i, m in enumerate(gates.values()):
        rows = m[:, 0].repeat_interleave(4)
        attention = layer_of(by_hand, i).attention
        for linear in (attention.self.query, attention.self.key, attention.self.value):
            linear.weight.data.mul_(rows[:, None])
            linear.bias.data.mul_(rows)
        attention.output.dense.weight.data.mul_(rows)
    torch.testing.assert_close(logits(model), logits(by_hand))


def test_the_gate_of_a_layer_weighs_what_the_layer_changes():
    model, by_hand = make(), make()
    units = structures.find_units(model, ["layers"])
    gates = {u.name: torch.tensor([[g]]) for u, g in zip(units, (0.25, 0.0), strict=True)}
    set_gates(unit_gates.install_unit_gates(model, units, 0.9), gates)
    x = by_hand.bert.embeddings(BATCH["input_ids"])
    changed = layer_of(by_hand, 0)(x)
    x = x + 0.25 * ((changed[0] if isinstance(changed, tuple) else changed) - x)
    expected = by_hand.classifier(by_hand.bert.pooler(x))  # the second layer is not there
    torch.testing.assert_close(logits(model), expected)


def test_gates_that_are_open_change_nothing_and_get_gradients():
    model = make().requires_grad_(False)
    units = structures.find_units(model, ["ffn_neurons", "heads", "layers"])
    gated = unit_gates.install_unit_gates(model, units, 0.9)
    for layer in gated.values():
        layer.scores.requires_grad_(True).data.fill_(100.0)
    surgery.draw_noise(gated, torch.Generator().manual_seed(0))
    assert torch.equal(logits(model), logits(make()))
    for layer in gated.values():
        layer.scores.data.fill_(0.5)
        layer.uniform = None  # soft gates, none of which is closed
    logits(model).square().sum().backward()
    assert all(bool((layer.scores.grad != 0).any()) for layer in gated.values())


def test_heads_that_share_keys_and_values_are_one_unit():
    config = LlamaConfig(
        **SIZES | {"num_attention_heads": 4}, num_key_value_heads=2, pad_token_id=0
    )
    units = structures.find_units(make(config), ["heads"])
    # Rows: two heads of query, one of key and one of value; columns of two heads. Width 2.
    assert [(u.count, u.weights_each) for u in units] == [(2, (2 + 1 + 1 + 2) * 2 * 8)] * 2


def test_the_penalty_counts_weights_and_each_weight_once():
    units = structures.find_units(make(), ["ffn_neurons", "heads", "layers"])
    scores = [torch.randn(u.count, 1, requires_grad=True) for u in units]
    opened = unit_tickets.opened_by(units, scores)
    by_hand = total = 0.0
    for i in (0, 1):
        p = {s: opened[f"bert.encoder.layer.{i}[{s}]"] for s in structures.STRUCTURES[1:]}
        of_units = 16 * p["ffn_neurons"].sum() + 128 * p["heads"].sum()
        by_hand += p["layers"].item() * of_units.item()
        total += 6 * 16 + 2 * 128
    value = unit_tickets.density(units, opened)
    assert value.item() == pytest.approx(by_hand / total)


def test_the_lowest_units_are_removed_up_to_the_nearest_number():
    units = structures.find_units(make(), ["ffn_neurons"])
    scores = {u.name: torch.arange(6.0)[:, None] + 3 * i for i, u in enumerate(units)}
    kept = unit_tickets.draw(units, scores, 0.4)  # 4.8 of 12
    assert [k[:, 0].tolist() for k in kept.values()] == [
        [False] * 4 + [True] * 2,
        [False] + [True] * 5,
    ]
    masks = unit_tickets.masks_of(units, kept, covered(make(), units))
    assert tickets.sparsity_of(masks) == pytest.approx(5 / 12)
    assert unit_tickets.removed_share(units, kept) == pytest.approx(5 / 12)
    again = unit_tickets.kept_in(units, masks)
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    even = unit_tickets.draw(units, scores, 0.4, uniform=True)
    assert [int((~k).sum()) for k in even.values()] == [2, 2]


@pytest.mark.parametrize(
    "structure", [["layers"], ["heads"], ["ffn_neurons", "layers"], ["heads", "ffn_neurons"]]
)
def test_the_nearest_sparsity_is_that_of_the_best_ranking(structure):
    """Against all tickets of a small model, layers in their order."""
    units = structures.find_units(make(BertConfig(**SIZES | {"intermediate_size": 3})), structure)
    all_kept = [list(itertools.product((True, False), repeat=unit.count)) for unit in units]
    shares = []
    for choice in itertools.product(*all_kept):
        kept = {u.name: torch.tensor(k)[:, None] for u, k in zip(units, choice, strict=True)}
        shares.append(unit_tickets.removed_share(units, kept))
    below_all = [share for share in shares if share < 1]
    for sparsity in (0.0, 0.1, 0.3, 0.47, 0.5, 0.55, 0.8, 0.99):
        nearest = min(abs(share - sparsity) for share in below_all)
        reached = unit_tickets.nearest_sparsity(units, sparsity)
        assert abs(reached - sparsity) == pytest.approx(nearest)


def covered(model, units):
    encoders.select(model, structures.covered_kinds(units))
    return encoders.weight_shapes(model)


def test_a_layer_takes_what_is_left_of_it():
    units = structures.find_units(make(), ["layers", "ffn_neurons"])
    scores = {u.name: torch.full((u.count, 1), 10.0) for u in units}
    scores["bert.encoder.layer.1[ffn_neurons]"][:3] = 0.0
    scores["bert.encoder.layer.1[layers]"][:] = 1.0
    kept = unit_tickets.draw(units, scores, 0.5)
    assert unit_tickets.removed_layers(units, kept) == ["bert.encoder.layer.1"]
    assert unit_tickets.removed_share(units, kept) == pytest.approx(0.5)
    # One layer of two always stays.
    kept = unit_tickets.draw(units, scores, 0.99)
    assert unit_tickets.removed_share(units, kept) < 1


def masked(structure, sparsity, uniform, config=None):
    model = make(config)
    units = structures.find_units(model, structure)
    scores = {u.name: torch.rand(u.count, 1) for u in units}
    kept = unit_tickets.draw(units, scores, sparsity, uniform)
    masks = unit_tickets.masks_of(units, kept, covered(model, units))
    surgery.apply_ticket(model, masks)
    unit_gates.hold_at_zero(model, units, masks)
    return model, units, masks


@pytest.mark.parametrize(
    "structure, uniform, sizes",
    [
        (["ffn_neurons"], True, {"intermediate_size": 3, "num_hidden_layers": 2}),
        (["layers"], False, {"intermediate_size": 6, "num_hidden_layers": 1}),
        (["heads"], True, {"intermediate_size": 6, "num_hidden_layers": 2}),
    ],
)
def test_a_smaller_model_answers_as_the_masked_one(structure, uniform, sizes):
    model, units, masks = masked(structure, 0.5, uniform)
    new, facts = removal.without_units(model, units, masks)
    torch.testing.assert_close(logits(new), logits(model))
    assert {name: getattr(new.config, name) for name in sizes} == sizes
    assert facts["zeroed"] == (["heads"] if structure == ["heads"] else [])
    assert not torch.allclose(logits(new), logits(make()))


def test_the_layer_with_the_most_neurons_decides_their_number():
    model, units, masks = masked(["ffn_neurons"], 0.4, False)
    numbers = [int(k.sum()) for k in unit_tickets.kept_in(units, masks).values()]
    new, facts = removal.without_units(model, units, masks)
    torch.testing.assert_close(logits(new), logits(model))
    assert new.config.intermediate_size == facts["neurons_per_layer"] == max(numbers)


def test_a_family_that_can_express_fewer_heads_loses_them():
    config = LlamaConfig(
        **SIZES | {"num_attention_heads": 4}, num_key_value_heads=2, pad_token_id=0
    )
    model, units, masks = masked(["heads"], 0.5, True, config)
    new, facts = removal.without_units(model, units, masks)
    torch.testing.assert_close(logits(new), logits(model))
    assert facts["heads_per_layer"] == 1 and new.config.num_attention_heads == 2


def test_heads_stay_as_zeros_where_transformers_5_refuses_their_number():
    """A hidden size of 24 is no multiple of 5 or 7 heads; Mistral does not mind."""
    sizes = SIZES | {"num_attention_heads": 6, "hidden_size": 24, "num_key_value_heads": 6}
    for config_class, is_removed in ((LlamaConfig, False), (MistralConfig, True)):
        model, units, masks = masked(["heads"], 1 / 6, True, config_class(**sizes, pad_token_id=0))
        new, facts = removal.without_units(model, units, masks)
        torch.testing.assert_close(logits(new), logits(model))
        assert new.config.num_attention_heads == (5 if is_removed else 6)
        assert facts["zeroed"] == ([] if is_removed else ["heads"])


def test_removed_units_stay_at_zero_in_training():
    model, units, masks = masked(["ffn_neurons"], 0.5, False)
    model.train()
    kept = unit_tickets.kept_in(units, masks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        logits(model).square().sum().backward()
        optimizer.step()
    for i, of_layer in enumerate(kept.values()):
        bias = layer_of(model, i).intermediate.dense.bias
        assert bool((bias[~of_layer[:, 0]] == 0).all()) and bool((bias[of_layer[:, 0]] != 0).all())
    assert surgery.count_unpruned(model, masks) == 0


def test_a_model_that_would_answer_otherwise_is_not_made():
    model, units, masks = masked(["ffn_neurons"], 0.5, True)
    other = make()  # its removed neurons are at work
    encoders.select(other, encoders.selected(model))
    with pytest.raises(ValueError, match="cannot be made smaller"):
        removal.without_units(other, units, masks)


@pytest.mark.parametrize(
    "structure, config, message",
    [
        (["neurons"], {}, "structure neurons is unknown: choose weights"),
        (["layers"], {"model_type": "albert"}, "uses the same layer several times"),
    ],
)
def test_structures_that_an_encoder_does_not_have(structure, config, message):
    from transformers import AlbertConfig

    model = make(AlbertConfig(**SIZES, embedding_size=4)) if config else make()
    with pytest.raises(ValueError, match=message):
        structures.find_units(model, structure)


@pytest.mark.slow
def test_layers_that_are_not_alike_are_refused_before_a_search():
    from transformers import ModernBertConfig

    model = make(ModernBertConfig(**SIZES, pad_token_id=0, reference_compile=False))
    units = structures.find_units(model, ["layers"])
    with pytest.raises(ValueError, match="layers are not alike"):
        removal.check_units(model, units)
    bert = make()
    removal.check_units(bert, structures.find_units(bert, ["layers"]))
    assert torch.equal(logits(bert), logits(make()))


def test_sums_over_units():
    model = make()
    units = structures.find_units(model, ["ffn_neurons", "heads"])
    weights = {n: m.weight.detach() for n, m in encoders.prunable_matrices(model).items()}
    sums = unit_tickets.sums_over_units(units, weights)
    layer = layer_of(model, 1)
    neuron = layer.intermediate.dense.weight[3].sum() + layer.output.dense.weight[:, 3].sum()
    assert sums["bert.encoder.layer.1[ffn_neurons]"][3].item() == pytest.approx(neuron.item())
    attention = layer.attention
    read = (attention.self.query, attention.self.key, attention.self.value)
    head = sum(linear.weight[4:].sum() for linear in read)
    head += attention.output.dense.weight[:, 4:].sum()
    assert sums["bert.encoder.layer.1[heads]"][1].item() == pytest.approx(head.item(), rel=1e-5)


def test_a_checkpoint_with_several_ends_of_text_and_heads_that_stay():
    config = LlamaConfig(**SIZES | SHARED_HEADS, eos_token_id=[3, 4])
    model, units, masks = masked(["ffn_neurons"], 0.5, True, config)
    new, _ = removal.without_units(model, units, masks)
    torch.testing.assert_close(logits(new), logits(model))


def test_heads_that_work_in_pairs_are_refused():
    from transformers import DiffLlamaConfig

    model = make(DiffLlamaConfig(**SIZES | {"num_attention_heads": 4}, pad_token_id=0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="no heads that can be removed alone"):
        removal.check_units(model, structures.find_units(model, ["heads"]))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    removal.check_units(model, structures.find_units(model, ["ffn_neurons"]))


def test_a_layer_that_returns_a_list_and_heads_whose_width_cannot_be_set():
    from transformers import FalconConfig, OpenAIGPTConfig

    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 20, "vocab_size": 30}
    model = make(OpenAIGPTConfig(**sizes, pad_token_id=0))
    units = structures.find_units(model, ["layers"])
    gated = unit_gates.install_unit_gates(model, units, 0.9)
    surgery.fix_gates(gated, {u.name: torch.ones(1, 1) for u in units})
    assert torch.equal(logits(model), logits(make(OpenAIGPTConfig(**sizes, pad_token_id=0))))
    few = {n: v for n, v in SIZES.items() if n in ("hidden_size", "num_hidden_layers")}
    few |= {"num_attention_heads": 2, "vocab_size": 30, "pad_token_id": 0, "alibi": False}
    config = FalconConfig(**few, multi_query=False, new_decoder_architecture=False)
    model, units, masks = masked(["heads"], 0.5, True, config)
    assert removal.without_units(model, units, masks)[1]["zeroed"] == ["heads"]


def test_a_unit_that_is_too_large_is_passed_over():
    """A layer with the lowest score would remove half of the weights at once."""
    units = structures.find_units(make(), ["layers", "ffn_neurons"])
    scores = {u.name: torch.arange(float(u.count))[:, None] + 5 for u in units}
    scores["bert.encoder.layer.1[layers]"][:] = -1.0
    for sparsity in (0.05, 0.2, 0.3, 0.45):
        kept = unit_tickets.draw(units, scores, sparsity)
        nearest = unit_tickets.nearest_sparsity(units, sparsity)
        assert unit_tickets.removed_share(units, kept) == pytest.approx(nearest)
    kept = unit_tickets.draw(units, scores, 0.55)
    assert unit_tickets.removed_layers(units, kept) == ["bert.encoder.layer.1"]


def test_an_even_ticket_of_two_kinds_reaches_what_either_alone_cannot():
    """By the ranking, neurons go first and no head; all neurons but one are too few."""
    units = structures.find_units(make(), ["ffn_neurons", "heads"])
    sizes = {u.structure: 2 * u.weights_each for u in units}
    total = sum(u.count * u.weights_each for u in units)
    scores = {
        u.name: torch.arange(float(u.count))[:, None] + 10 * (u.structure == "heads") for u in units
    }
    for sparsity in (0.1, 0.3, 0.45, 0.5, 0.6):
        kept = unit_tickets.draw(units, scores, sparsity, uniform=True)
        assert len({(u.structure, int(kept[u.name].sum())) for u in units}) == 2
        gap = abs(unit_tickets.removed_share(units, kept) - sparsity) * total
        nearest = min(
            abs(h * sizes["heads"] + n * sizes["ffn_neurons"] - sparsity * total)
            for h, n in itertools.product(range(2), range(6))
        )
        assert gap <= max(nearest, sizes["ffn_neurons"] / 2) + 1e-6, sparsity


def test_the_change_of_the_loss_without_a_unit_counts_its_biases():
    """Against the derivative of the loss by a gate of 1 on the neuron."""
    model = make().train(False)
    layer = layer_of(model, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    rows = Encoded([np.arange(3, 9, dtype=np.int32)], None, [1], 0, 0)
    units = structures.find_units(model, ["ffn_neurons"])
    encoders.select(model, structures.covered_kinds(units))
    sums = unit_tickets.sums_over_units(
        units, *importance.weights_and_biases_times_gradients(model, rows)
    )
    gates = torch.ones(units[1].count, dtype=torch.float64, requires_grad=True)
    model.double()
    weight, bias = layer.intermediate.dense.weight, layer.intermediate.dense.bias
    out = layer.output.dense.weight
    gated = {
        "bert.encoder.layer.1.intermediate.dense.weight": weight * gates[:, None],
        "bert.encoder.layer.1.intermediate.dense.bias": bias * gates,
        "bert.encoder.layer.1.output.dense.weight": out * gates,
    }
    batch = {"input_ids": torch.arange(3, 9)[None], "attention_mask": torch.ones(1, 6, dtype=int)}
    logits = torch.func.functional_call(model, gated, (), batch).logits
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1]))
    (expected,) = torch.autograd.grad(loss, gates)
    torch.testing.assert_close(sums[units[1].name][:, 0], expected, rtol=1e-3, atol=1e-6)
