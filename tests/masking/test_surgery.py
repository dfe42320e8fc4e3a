"""The matrices that are gated in real architectures. Gating changes nothing else."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
)

from masking import encoders, families, hard_concrete, parts, surgery

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 40,
}
CONFIGS = {
    "bert": (BertConfig(**SIZES), 3 * 6 + 1),
    "roberta": (RobertaConfig(**SIZES, pad_token_id=1), 3 * 6),
    "electra": (ElectraConfig(**SIZES, embedding_size=8), 3 * 6),
    "distilbert": (
        DistilBertConfig(
            dim=16, hidden_dim=32, n_layers=3, n_heads=2, vocab_size=50, max_position_embeddings=40
        ),
        3 * 6,
    ),
}


def make(config):
    torch.manual_seed(0)
    # A model keeps the configuration that it gets, and some tests change theirs.
    return AutoModelForSequenceClassification.from_config(copy.deepcopy(config)).eval()


def inputs(config):
    ids = torch.randint(2, 50, (2, 9), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("name", CONFIGS)
def test_six_matrices_per_layer_and_the_pooler_are_prunable_but_not_the_head(name):
    config, count = CONFIGS[name]
    model = make(config)
    linears = encoders.prunable_matrices(model)
    assert len(linears) == count
    assert all(path.startswith(model.base_model_prefix + ".") for path in linears)
    assert all(model.get_submodule(path) is linear for path, linear in linears.items())
    kinds = [parts.kinds_of(path)[0] for path in linears]
    assert kinds[:6] == list(families.KINDS_OF_A_LAYER) and kinds.count("query") == 3
    for path, kind in zip(linears, kinds, strict=True):
        letter = {"query": "q", "key": "k", "value": "v"}.get(kind)
        assert letter is None or path.rpartition(".")[2][0] == letter


@pytest.mark.parametrize("name", CONFIGS)
def test_open_gates_do_not_change_the_model(name):
    config, _ = CONFIGS[name]
    model = make(config)
    batch = inputs(config)
    plain = model(**batch).logits
    gated = surgery.install_gates(model, 0.9)
    half = model(**batch).logits
    assert not torch.allclose(plain, half)
    with torch.no_grad():
        for layer in gated.values():
            layer.scores.fill_(100.0)
    surgery.draw_noise(gated, torch.Generator().manual_seed(0))
    assert torch.equal(model(**batch).logits, plain)


def test_bert_base_has_the_number_of_weights_in_the_paper():
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(BertConfig())
    shapes = encoders.weight_shapes(model)
    assert len(shapes) == 73 and sum(a * b for a, b in shapes.values()) == 85_524_480


def test_a_layer_with_an_additional_linear_is_an_error():
    model = make(CONFIGS["bert"][0])
    model.bert.encoder.layer[1].attention.self.query_proj = torch.nn.Linear(16, 16)
    with pytest.raises(ValueError, match=r"layer.1 has 2 matrices that could be query"):
        encoders.prunable_matrices(model)
    for parent in ("encoder.layer.1", ""):
        model = make(CONFIGS["bert"][0])
        model.bert.get_submodule(parent).stray = torch.nn.Linear(16, 16)
        with pytest.raises(ValueError, match="stray is not a known matrix of an encoder"):
            encoders.prunable_matrices(model)


def test_a_missing_layer_or_a_wrong_shape_is_an_error():
    model = make(CONFIGS["bert"][0])
    model.config.num_hidden_layers = 4
    with pytest.raises(ValueError, match="3 of its 4 layers have known matrices"):
        encoders.prunable_matrices(model)
    model = make(CONFIGS["bert"][0])
    model.bert.encoder.layer[1].output.dense = torch.nn.Linear(32, 8)
    with pytest.raises(ValueError, match=r"layer.1 has matrices of shapes .*ffn_out \(8, 32\)"):
        encoders.prunable_matrices(model)


def test_masks_of_another_encoder_do_not_fit():
    model, other = make(CONFIGS["bert"][0]), make(CONFIGS["distilbert"][0])
    with pytest.raises(ValueError, match="another encoder"):
        encoders.check_masks_fit(model, encoders.weight_shapes(other))
    shapes = encoders.weight_shapes(model)
    encoders.check_masks_fit(model, shapes)
    name = next(iter(shapes))
    with pytest.raises(ValueError, match=r"has the shape \(4, 4\)"):
        encoders.check_masks_fit(model, shapes | {name: (4, 4)})


def test_fingerprints_distinguish_encoders():
    a, b = make(CONFIGS["bert"][0]), make(CONFIGS["bert"][0])
    assert encoders.encoder_fingerprint(a) == encoders.encoder_fingerprint(b)
    with torch.no_grad():
        b.bert.encoder.layer[2].output.dense.weight[0, 0] += 1e-3
    assert encoders.encoder_fingerprint(a) != encoders.encoder_fingerprint(b)
    with torch.no_grad():
        a.classifier.weight.zero_()  # the head does not belong to the encoder
    assert encoders.encoder_fingerprint(a) == encoders.encoder_fingerprint(make(CONFIGS["bert"][0]))


def test_noise_depends_only_on_its_generator():
    gated = surgery.install_gates(make(CONFIGS["bert"][0]), 0.9)
    layer = next(iter(gated.values()))
    surgery.draw_noise(gated, torch.Generator().manual_seed(5))
    first = layer.uniform.clone()
    surgery.draw_noise(gated, torch.Generator().manual_seed(6))
    assert not torch.equal(first, layer.uniform)
    surgery.draw_noise(gated, torch.Generator().manual_seed(5))
    assert torch.equal(first, layer.uniform)


def masks_of(model):
    noise = torch.Generator().manual_seed(3)
    shapes = encoders.weight_shapes(model)
    return {n: torch.rand(shape, generator=noise) < 0.7 for n, shape in shapes.items()}


@pytest.mark.parametrize("which", ["ticket", "rest"])
@pytest.mark.parametrize("law", ["normal", "matched", "shuffled"])
def test_reinitializing_changes_only_the_selected_weights(which, law):
    model = make(BertConfig(**SIZES))
    before = {n: m.weight.detach().clone() for n, m in encoders.prunable_matrices(model).items()}
    others = {
        n: p.detach().clone()
        for n, p in model.named_parameters()
        if n.removesuffix(".weight") not in before
    }
    masks = masks_of(model)
    surgery.reinitialise(model, masks, which, law, 0.5, torch.Generator().manual_seed(1))
    drawn = []
    for name, linear in encoders.prunable_matrices(model).items():
        chosen = masks[name] if which == "ticket" else ~masks[name]
        assert torch.equal(linear.weight[~chosen], before[name][~chosen])
        assert (linear.weight[chosen] != before[name][chosen]).float().mean() > 0.9
        drawn.append(linear.weight[chosen].detach())
        if law == "shuffled":
            assert torch.equal(drawn[-1].sort().values, before[name][chosen].sort().values)
    std = float(torch.cat(drawn).std())
    assert abs(std - (0.5 if law == "normal" else 0.02)) < 0.05 * std
    assert all(torch.equal(p, others[n]) for n, p in model.named_parameters() if n in others)


def test_the_rest_of_the_encoder_is_reinitialized():
    model = make(BertConfig(**SIZES))
    weights = encoders.prunable_matrices(model)["bert.encoder.layer.0.output.dense"].weight.clone()
    head = model.classifier.weight.clone()
    words = model.bert.embeddings.word_embeddings.weight.clone()
    torch.nn.init.normal_(model.bert.encoder.layer[1].output.LayerNorm.weight)
    surgery.reinitialise_the_rest_of_the_encoder(model, 0.02, torch.Generator().manual_seed(1))
    assert not torch.equal(model.bert.embeddings.word_embeddings.weight, words)
    assert (model.bert.encoder.layer[1].output.LayerNorm.weight == 1).all()
    assert (model.bert.pooler.dense.bias == 0).all() and torch.equal(model.classifier.weight, head)
    again = encoders.prunable_matrices(model)["bert.encoder.layer.0.output.dense"].weight
    assert torch.equal(again, weights)


def test_densities_by_head_by_hand():
    """A layer of width 4 has two heads of two rows each."""
    row = {0: [True] * 4, 1: [False] * 4}
    query, key, value, output, ffn_in, ffn_out = (
        f"bert.encoder.layer.0.{path}"
        for path in (
            *("attention.self.query", "attention.self.key", "attention.self.value"),
            *("attention.output.dense", "intermediate.dense", "output.dense"),
        )
    )
    masks = {n: torch.ones(4, 4, dtype=torch.bool) for n in (query, key, value, output, ffn_out)}
    masks[query] = torch.tensor([row[1], row[1], row[0], row[0]])
    masks[key] = torch.tensor([row[1], row[0], row[0], row[0]])
    masks[ffn_in] = torch.zeros(8, 4, dtype=torch.bool)
    masks["bert.pooler.dense"] = torch.zeros(4, 4, dtype=torch.bool)  # belongs to no layer
    densities = surgery.density_by_head(masks, 2)
    assert densities["heads"] == [pytest.approx([(0 + 0.5 + 1) / 3, 1.0])]
    assert densities["mlp"] == [pytest.approx(2 / 3)]
    del masks[value], masks[ffn_out]  # a matrix without gates is kept
    assert surgery.density_by_head(masks, 2) == {
        "heads": [pytest.approx([(0 + 0.5 + 1) / 3, 1.0])],
        "mlp": [pytest.approx(2 / 3)],
    }
    shared = torch.tensor([row[1], row[0]])  # keys and values of one head serve both
    masks[key] = masks[value] = shared
    densities = surgery.density_by_head(masks, 2, key_value_heads=1)
    assert densities["heads"] == [pytest.approx([(0 + 0.5 + 0.5) / 3, (1 + 0.5 + 0.5) / 3])]


def test_noise_in_bytes_is_uniform_and_depends_only_on_its_generator():
    gated = surgery.install_gates(make(CONFIGS["bert"][0]), 0.9)
    surgery.draw_noise(gated, torch.Generator().manual_seed(5), "bytes")
    first = {n: layer.uniform.clone() for n, layer in gated.items()}
    flat = torch.cat([u.flatten(1) for u in first.values()], dim=1)
    assert all(u.shape == (2, *gated[n].scores.shape) for n, u in first.items())
    for byte in flat.long():  # chi squared with 255 degrees of freedom: 255 +- 23
        counts = byte.bincount(minlength=256).float()
        expected = len(byte) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * 23
    surgery.draw_noise(gated, torch.Generator().manual_seed(5), "bytes")
    assert all(torch.equal(layer.uniform, first[n]) for n, layer in gated.items())


def keyed_draws(seed: int) -> torch.Tensor:
    """The draws of all gates of a small model: float32, (gates,)."""
    gated = surgery.install_gates(make(CONFIGS["bert"][0]), 0.9)
    surgery.draw_noise(gated, torch.Generator().manual_seed(seed), "key")
    return torch.cat([layer.uniform_draws().flatten() for layer in gated.values()])


def test_keyed_noise_is_uniform_and_independent():
    """Of one pass, between neighbors and matrices, and between passes with other keys."""
    first, others = keyed_draws(0), [keyed_draws(seed) for seed in range(1, 6)]
    assert torch.equal(first, keyed_draws(0)) and ((first > 0) & (first < 1)).all()
    n = len(first)
    for draws in (first, *others):
        counts = (draws * 256).long().bincount(minlength=256).float()
        assert ((counts - n / 256) ** 2 / (n / 256)).sum() < 255 + 5 * 23  # see above
    pairs = [(first[:-lag], first[lag:]) for lag in (1, 2, 16, 24, 256)]
    pairs += [(first, other) for other in others]
    for a, b in pairs:
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / len(a) ** 0.5
        cells = ((a * 16).long() * 16 + (b * 16).long()).bincount(minlength=256).float()
        assert ((cells - len(a) / 256) ** 2 / (len(a) / 256)).sum() < 255 + 5 * 23
    assert len(first.unique()) > 0.99 * n  # matrices do not repeat each other


def test_the_positions_of_keyed_noise_go_on_over_the_matrices():
    """One key and one matrix of all entries give the same draws."""
    gated = surgery.install_gates(make(CONFIGS["bert"][0]), 0.9)
    surgery.draw_noise(gated, torch.Generator().manual_seed(0), "key")
    key = next(iter(gated.values())).uniform
    draws, first = keyed_draws(0), torch.tensor(0, dtype=torch.int32)
    assert torch.equal(hard_concrete.uniform_of_key(key, first, draws.shape), draws)


@pytest.mark.slow
def test_compiled_gates_give_the_same_numbers():
    """With the same noise, gated weights agree to their rounding, and gradients do."""
    model = make(CONFIGS["bert"][0]).requires_grad_(False)
    gated = surgery.install_gates(model, 0.9)
    for layer in gated.values():
        layer.scores.requires_grad_()
    surgery.draw_noise(gated, torch.Generator().manual_seed(5), "key")

    def weights_and_gradients() -> dict:
        found = {}
        for name, layer in gated.items():
            weight = layer.gated_weight()
            (gradient,) = torch.autograd.grad((weight.float() ** 2).sum(), layer.scores)
            found[name] = weight.detach(), gradient
        return found

    for low, tolerance in ((True, 2**-8), (False, 1e-5)):
        for layer in gated.values():
            layer.keyed_product = hard_concrete.keyed_weight_and_slope
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            plain = weights_and_gradients()
            try:
                surgery.compile_gates(gated)
            except Exception as e:
                pytest.skip(f"no compiler here ({type(e).__name__})")
            surgery.draw_noise(gated, torch.Generator().manual_seed(5), "key")
            with torch.compiler.set_stance("fail_on_recompile"):  # one kernel serves all matrices
                compiled = weights_and_gradients()
            for name, both in compiled.items():
                torch.testing.assert_close(both, plain[name], rtol=tolerance, atol=1e-6)
