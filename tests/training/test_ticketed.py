"""load_ticketed: a stock classifier whose pruned weights stay 0.0 in anybody's training loop."""

import pytest
import torch
from conftest import make_encoder
from transformers import AutoModelForSequenceClassification

from masking import encoders, surgery, ticket_files, tickets
from training import models
from training.ticketed import load_ticketed
from utils.cli import UserError


@pytest.fixture(scope="module")
def ticket(encoder, tmp_path_factory):
    """A folder with a ticket of random scores for the tiny encoder."""
    model = models.load_pretrained(str(encoder), ("a", "b"), 1, None, "sdpa")
    shapes = encoders.weight_shapes(model)
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    facts = models.encoder_facts(str(encoder), model, encoders.encoder_fingerprint(model))
    source = {"kind": "robust", "seed": 7, "task": "sst2", "encoder": facts}
    folder = tmp_path_factory.mktemp("ticket")
    masks = tickets.draw(scores, shapes, 0.3)
    ticket_files.save_ticket(folder / "ticket.safetensors", masks, {"source": source})
    return folder


def masks_of(ticket):
    return ticket_files.load_ticket(ticket / "ticket.safetensors")[0]


def train(model, optimizer, steps: int) -> None:
    ids = torch.arange(12).reshape(2, 6) % 10 + 1
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_pruned_weights_stay_zero_under_any_optimizer(ticket, encoder, kind, tmp_path):
    model = load_ticketed(ticket, str(encoder))
    assert type(model) is type(AutoModelForSequenceClassification.from_config(model.config))
    assert model.config.id2label == {0: "negative", 1: "positive"}
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    train(model, kind(model.parameters(), lr=0.01, weight_decay=0.1), steps=3)
    masks = masks_of(ticket)
    assert surgery.count_unpruned(model, masks) == 0
    name, mask = next(iter(masks.items()))
    assert (model.get_parameter(f"{name}.weight") != before[f"{name}.weight"])[mask].any()
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert surgery.count_unpruned(again, masks) == 0


def test_the_model_is_where_stage_3_starts(ticket, encoder):
    """The same weights: those of the encoder times the mask, and a classifier of the seed."""
    model = load_ticketed(ticket / "ticket.safetensors", str(encoder), seed=3)
    expected = models.load_pretrained(str(encoder), ("negative", "positive"), 3, None, "sdpa")
    surgery.apply_ticket(expected, masks_of(ticket))
    for name, weight in expected.named_parameters():
        assert torch.equal(model.get_parameter(name), weight), name


def test_other_labels_encoders_and_files(ticket, encoder, tmp_path):
    assert load_ticketed(ticket, str(encoder), ["x", "y", "z"]).num_labels == 3
    with pytest.raises(UserError, match="there is no ticket file at"):
        load_ticketed(tmp_path, str(encoder))
    other = make_encoder(tmp_path / "tiny-bert", seed=1)
    with pytest.raises(UserError, match="was made for the encoder tiny-bert"):
        load_ticketed(ticket, str(other))
    assert load_ticketed(ticket, str(other), allow_other_encoder=True)
    masks, manifest = ticket_files.load_ticket(ticket / "ticket.safetensors")
    custom = manifest | {"source": manifest["source"] | {"task": "custom"}}
    ticket_files.save_ticket(tmp_path / "custom.safetensors", masks, custom)
    with pytest.raises(UserError, match="'custom', whose labels are not known: give label_names"):
        load_ticketed(tmp_path / "custom.safetensors", str(encoder))
