"""Each family of encoders that docs/encoders.md lists works, and the page says how."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from families import FAMILIES, REFUSED, build, describe, load
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from masking import (
    encoders,
    removal,
    structures,
    surgery,
    ticket_files,
    tickets,
    unit_gates,
    unit_tickets,
)
from masking.layers import RawMatrix, parameter_of
from training import importance
from training.adversary import perturbed
from training.batching import Encoded
from training.optim import decay_groups
from utils.cli import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "encoders.md"
HEAD = ["encoder", "classifier", "kinds of matrices", "padding", "4.57", "5.17"]
TEXTS = ("good", "a film " * 4 + "good", "the plot of a bad film " * 40)  # 1, 9 and many words


def tokens(tokenizer, texts):
    out = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    return {name: out[name] for name in tokenizer.model_input_names if name in out}


def stored(model) -> dict[int, int]:
    """id -> size of the parameters that hold the matrices of an encoder, found without our code."""
    found = {}
    for name, module in model.base_model.named_modules():
        is_pooler = name == "pooler" and type(model).__name__.startswith("BigBird")
        if "embedding" in name or "project_" in name or is_pooler:
            continue
        if isinstance(module, nn.Linear | Conv1D):
            found[id(module.weight)] = module.weight.numel()
        for letter, parameter in module.named_parameters(recurse=False):
            if letter in ("q", "k", "v", "o", "r", "r_kernel"):  # XLNet, Funnel
                found[id(parameter)] = parameter.numel()
    return found


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = build(FAMILIES[request.param], tmp_path_factory.mktemp("family") / "encoder")
    return folder, *load(folder)


def test_answers_do_not_depend_on_padding(family):
    _, model, tokenizer = family
    with torch.inference_mode():
        single = torch.cat([model(**tokens(tokenizer, [text])).logits for text in TEXTS])
        batched = model(**tokens(tokenizer, list(TEXTS))).logits
    torch.testing.assert_close(batched, single, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(single[0], single[1])  # and they depend on the text


def test_a_perturbation_reaches_each_token_and_no_padding(family):
    _, model, tokenizer = family
    batch = tokens(tokenizer, ["good film and bad plot", "bad"])
    width = model.get_input_embeddings().embedding_dim
    delta = torch.zeros(*batch["input_ids"].shape, width, requires_grad=True)
    with perturbed(model, delta):
        model(**batch).logits.sum().backward()
    assert torch.equal(delta.grad.abs().sum(dim=2) > 0, batch["attention_mask"].bool())
    model.zero_grad()


def test_each_weight_has_one_gate_and_open_gates_change_nothing(family):
    folder, model, tokenizer = family
    batch = tokens(tokenizer, list(TEXTS))
    expected, plain = stored(model), model(**batch).logits.detach()
    names = list(encoders.prunable_matrices(model))
    model = load(folder)[0].requires_grad_(False)
    gated = surgery.install_gates(model, 0.9)
    assert list(gated) == names == list(encoders.prunable_matrices(model))
    assert sum(layer.scores.numel() for layer in gated.values()) == sum(expected.values())
    half = model(**batch).logits
    with torch.no_grad():
        for layer in gated.values():
            layer.scores.fill_(100.0)
    surgery.draw_noise(gated, torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(**batch).logits, plain, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(half, plain, rtol=1e-5, atol=1e-6)
    surgery.draw_noise(gated, torch.Generator().manual_seed(0), "bytes")
    with torch.no_grad():
        for layer in gated.values():
            layer.scores.fill_(0.5)
    model(**batch).logits.sum().backward()
    assert all(layer.scores.grad is not None for layer in gated.values())


def test_a_ticket_survives_training_saving_and_loading(family, tmp_path):
    folder, _, tokenizer = family
    model = load(folder)[0]
    shapes = encoders.weight_shapes(model)
    noise = torch.Generator().manual_seed(3)
    scores = {name: torch.rand(shape, generator=noise) for name, shape in shapes.items()}
    masks = tickets.draw(scores, shapes, 0.3)
    surgery.apply_ticket(model, masks)
    optimizer = torch.optim.AdamW(decay_groups(model, 0.01), lr=0.01)
    before = {
        name: m.weight.detach().clone() for name, m in encoders.prunable_matrices(model).items()
    }
    for _ in range(2):
        model(**tokens(tokenizer, list(TEXTS))).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    ticket_files.save_ticket(tmp_path / "ticket.safetensors", masks, {})
    again, _ = ticket_files.load_ticket(tmp_path / "ticket.safetensors")
    assert again.keys() == masks.keys()
    assert all(torch.equal(again[name], mask) for name, mask in masks.items())
    model.save_pretrained(tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert surgery.count_unpruned(stock, masks) == 0
    for name, matrix in encoders.prunable_matrices(stock).items():
        changed = matrix.weight.detach() != before[name]
        assert changed[masks[name]].float().mean() > 0.5 and not changed[~masks[name]].any()


def row_of(rows: Encoded, i: int) -> Encoded:
    types = rows.token_type_ids and [rows.token_type_ids[i]]
    ids, labels = [rows.input_ids[i]], [rows.labels[i]]
    return replace(rows, input_ids=ids, token_type_ids=types, labels=labels)


def test_values_from_rows_are_those_of_a_padded_batch_without_its_padding(family):
    """Wanda's and Taylor's, row by row, against gradients and inputs of all rows together."""
    _, model, tokenizer = family
    batch = tokens(tokenizer, list(TEXTS))
    labels, mask = [0, 1, 1], batch["attention_mask"].bool()

    def without_padding(name: str) -> list:
        return [row[kept].numpy() for row, kept in zip(batch[name], mask, strict=True)]

    types = without_padding("token_type_ids") if "token_type_ids" in batch else None
    more = (0, tokenizer.pad_token_id, tokenizer.padding_side)
    rows = Encoded(without_padding("input_ids"), types, labels, *more)
    norms = importance.input_norms(model, rows)
    parts = [importance.input_norms(model, row_of(rows, i)) for i in range(len(rows))]
    matrices = encoders.prunable_matrices(model)
    for name, matrix in matrices.items():
        assert norms[name].shape == matrix.weight.shape[1:] and norms[name].isfinite().all()
        squares = sum(part[name].square() for part in parts)
        torch.testing.assert_close(norms[name].square(), squares)
    assert len(norms) == len(matrices)

    found = importance.weights_times_gradients(model, rows)
    loss = nn.functional.cross_entropy(model(**batch).logits, torch.tensor(labels))
    loss.backward()
    for name, matrix in matrices.items():
        parameter = parameter_of(matrix)
        product = (parameter * parameter.grad).detach()
        if isinstance(matrix, RawMatrix):
            product = matrix.as_matrix(product)
        torch.testing.assert_close(found[name], product, rtol=1e-3, atol=1e-6)
    model.zero_grad()


def test_the_page_describes_the_family(family, request):
    """With --write_tables, the row is written instead. A column belongs to a version."""
    version = ".".join(transformers.__version__.split(".")[:2])
    if version not in HEAD:
        pytest.skip(f"the page has no column for transformers {version}")
    name = request.node.callspec.params["family"]
    *cells, attention = describe(*family[1:])
    rows = {row[0]: row for row in table_of_page()}
    old = rows.get(name, [""] * len(HEAD))
    expected = [name, *cells, *old[4:]]
    expected[HEAD.index(version)] = attention
    if request.config.getoption("--write_tables"):
        write_table([*(rows | {name: expected}).values()])
    else:
        assert old == expected, "run the tests with --write_tables"


def table_of_page() -> list[list[str]]:
    part = PAGE.read_text().partition("<!-- families -->")[2].partition("<!-- refused -->")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [line[2:-2].split(" | ") for line in lines[2:]]


def write_table(rows: list[list[str]]) -> None:
    before, _, rest = PAGE.read_text().partition("<!-- families -->")
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEAD, ["---"] * len(HEAD), *rows)]
    after = rest.partition("<!-- refused -->")[2]
    text = "\n".join(lines)
    PAGE.write_text(f"{before}<!-- families -->\n{text}\n<!-- refused -->{after}")


@pytest.mark.parametrize("name", REFUSED)
def test_other_structures_are_refused_in_one_line(name, tmp_path):
    family, reason = REFUSED[name]
    build(family, tmp_path / "encoder")
    with pytest.raises((UserError, ValueError)) as e:
        encoders.prunable_matrices(load(tmp_path / "encoder")[0])
    assert reason in str(e.value) and "\n" not in str(e.value)
    assert name in PAGE.read_text().partition("These are refused")[2]


# What the configuration of a family cannot say: fewer neurons; fewer layers, or one less.
ALL_NEURONS_STAY = {"BLOOM"}
ALL_LAYERS_STAY = {"ALBERT", "Funnel", "ModernBERT", "T5", "mT5"}
FEWER_HEADS = {"Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma 2", "Phi", "Phi-3"}


def without_units(family, structure, sparsity):
    """The masked model, the smaller one, what was removed, and inputs."""
    folder, _, tokenizer = family
    model = load(folder)[0]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.1, generator=generator)
    units = structures.find_units(model, structure)
    removal.check_units(model, units)
    encoders.select(model, structures.covered_kinds(units))
    scores = {u.name: torch.rand(u.count, 1, generator=generator) for u in units}
    kept = unit_tickets.draw(units, scores, sparsity)
    masks = unit_tickets.masks_of(units, kept, encoders.weight_shapes(model))
    batch = tokens(tokenizer, list(TEXTS))
    gated = load(folder)[0]
    gated.load_state_dict(model.state_dict())
    surgery.fix_gates(unit_gates.install_unit_gates(gated, units, 0.9), kept)
    surgery.apply_ticket(model, masks)
    unit_gates.hold_at_zero(model, units, masks)
    with torch.inference_mode():
        torch.testing.assert_close(gated(**batch).logits, model(**batch).logits)
    return model, *removal.without_units(model, units, masks), batch


@pytest.mark.slow
def test_units_are_removed_as_far_as_the_family_can_express(family, request, tmp_path):
    name = request.node.callspec.params["family"]
    cases = {"ffn_neurons": 0.3, "heads": 0.5} | (
        {} if name in ALL_LAYERS_STAY else {"layers": 0.5}
    )
    for structure, sparsity in cases.items():
        model, smaller, facts, batch = without_units(family, [structure], sparsity)
        smaller.save_pretrained(tmp_path / structure)
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / structure).eval()
        with torch.inference_mode():
            expected = model(**batch).logits
            for other in (smaller, again):
                torch.testing.assert_close(other(**batch).logits, expected, rtol=1e-4, atol=1e-5)
        encoders.prunable_matrices(smaller)  # it can be searched, pruned and exported again
        if structure == "ffn_neurons":
            assert ("neurons_per_layer" in facts) is (name not in ALL_NEURONS_STAY)
        if structure == "layers":
            assert facts["layers"] == again.config.num_hidden_layers == 1
        if structure == "heads" and "heads_per_layer" in facts:
            assert name in FEWER_HEADS


@pytest.mark.parametrize("family", sorted(ALL_LAYERS_STAY), indirect=True)
def test_layers_that_a_family_cannot_lose_are_refused_before_a_search(family):
    model = family[1]
    with pytest.raises(ValueError, match=r"(uses the same layer|can be removed alone|not alike)"):
        removal.check_units(model, structures.find_units(model, ["layers"]))
