"""Delta: its first draw, ascent, projection, and the place where it enters the encoder."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    RobertaConfig,
)

from training.adversary import ascend, initial_delta, perturbed, sentence_norms
from training.methods import AdversarySettings


def test_initial_delta_by_hand():
    uniform = torch.ones(2, 3, 4)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    delta = initial_delta(uniform, mask, 0.6)
    assert delta[0].unique().tolist() == pytest.approx([0.6 / 12**0.5])
    assert delta[1, 0].unique().tolist() == pytest.approx([0.6 / 2])
    assert (delta[1, 1:] == 0).all()
    assert sentence_norms(delta).tolist() == pytest.approx([0.6, 0.6])
    assert initial_delta(uniform, mask, 0.6, "linf").abs().max() == pytest.approx(0.6)


def moved(delta, gradient, lr: float, bound: float, norm: str = "l2") -> torch.Tensor:
    settings = AdversarySettings(adv_lr=lr, adv_max_norm=bound, adv_norm_type=norm)
    return ascend(delta, gradient, settings)


def test_an_ascent_has_the_length_of_its_step_and_stays_in_the_ball():
    noise = torch.Generator().manual_seed(0)
    delta = torch.randn(3, 4, 5, generator=noise) * 0.1
    gradient = torch.randn(3, 4, 5, generator=noise)
    step = moved(delta, gradient, 0.03, 0.0) - delta
    assert sentence_norms(step).tolist() == pytest.approx([0.03] * 3, abs=1e-6)
    bounded = moved(delta, gradient, 5.0, 0.7)
    assert sentence_norms(bounded).tolist() == pytest.approx([0.7] * 3, abs=1e-5)
    inside = moved(delta * 0.01, gradient, 0.01, 0.7)
    torch.testing.assert_close(inside, moved(delta * 0.01, gradient, 0.01, 0.0))
    assert moved(delta, gradient, 5.0, 0.2, "linf").abs().max() <= 0.2
    assert torch.isfinite(moved(delta, torch.zeros(3, 4, 5), 0.03, 0.0)).all()


SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 40,
}


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SIZES),
        RobertaConfig(**SIZES, pad_token_id=1),
        DistilBertConfig(
            dim=16, hidden_dim=32, n_layers=2, n_heads=2, vocab_size=50, max_position_embeddings=40
        ),
    ],
)
def test_delta_zero_equals_the_plain_model_with_padding_and_token_types(config):
    """The encoder computes position and token type ids, also if padding shifts RoBERTa's."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 1, 1]])
    batch = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
    if config.model_type == "bert":
        batch["token_type_ids"] = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]])
    plain = model(**batch).logits
    delta = torch.zeros(2, 4, 16, requires_grad=True)
    with perturbed(model, delta):
        logits = model(**batch).logits
    assert torch.equal(logits, plain)
    gradient = torch.autograd.grad(logits.logsumexp(1).sum() + logits[:, 0].sum(), delta)[0]
    assert gradient[0].abs().sum() > 0
    assert torch.equal(model(**batch).logits, plain)  # the hook is removed
    with perturbed(model, torch.randn(2, 4, 16)):
        assert not torch.allclose(model(**batch).logits, plain)
