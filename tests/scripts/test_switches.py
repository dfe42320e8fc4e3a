"""Settings that change what is computed: of the search, of training and of the start of stage 3."""

import json

import pytest
import torch
from safetensors.torch import load_file
from script_tools import finetune, retrain, search

from masking import ticket_files, tickets
from utils.files import read_jsonl

SWITCHED = {"epochs": 1, "max_grad_norm": 0.01, "precision": "fp32"}


@pytest.fixture(scope="module")
def usual_search(runs, tmp_path_factory):
    """The search whose switches are changed one by one."""
    return search(runs / "dense", tmp_path_factory.mktemp("usual") / "search", **SWITCHED)


@pytest.mark.parametrize(
    "flags",
    [
        ("--deviations", "released"),
        ("--adv_gradient", "last"),
        ("--adv_steps", 0),
        ("--redraw", "each_step"),
        ("--out_w_per_mask", 1, "--in_w_per_mask", 0),
        ("--out_w_per_mask", 4, "--in_w_per_mask", 4),
        ("--adv_norm_type", "linf"),
        ("--adv_max_norm", 0.01),
        ("--no-group_by_length",),
        ("--precision", "bf16"),
        ("--start_from", "last"),
        ("--attn_implementation", "eager"),
    ],
)
def test_every_switch_of_the_search_runs_and_changes_the_scores(
    runs, usual_search, tmp_path, flags
):
    plain, _, _ = ticket_files.load_scores(usual_search / "scores.safetensors")
    search(runs / "dense", tmp_path / "t", *flags, **SWITCHED)
    scores, shapes, _ = ticket_files.load_scores(tmp_path / "t" / "scores.safetensors")
    best_is_last = json.loads((runs / "dense/result.json").read_text())["best_dev_epoch"] == 4
    same = all(s.shape == plain[n].shape and torch.equal(s, plain[n]) for n, s in scores.items())
    if flags[0] == "--start_from" and best_is_last:
        assert same
    elif flags[0] != "--attn_implementation":  # equal to rounding
        assert not same
    masks = tickets.draw(scores, shapes, 0.5)
    assert abs(tickets.sparsity_of(masks) - 0.5) < 0.02


def test_released_deviations_in_stages_1_and_3(runs, encoder, sst2_folder, tmp_path):
    finetune(encoder, sst2_folder, tmp_path / "d", epochs=1, deviations="released")
    args = json.loads((tmp_path / "d" / "run.json").read_text())["args"]
    assert args["max_grad_norm"] == 0 and args["adamw"] == "released"
    flags = {"epochs": 1, "deviations": "released", "max_grad_norm": 1.0}
    retrain(encoder, runs / "search", tmp_path / "t", **flags)
    args = json.loads((tmp_path / "t" / "run.json").read_text())["args"]
    assert args["max_grad_norm"] == 1.0 and args["adamw"] == "released"
    masks, _ = ticket_files.load_ticket(tmp_path / "t" / "ticket.safetensors")
    weights = load_file(tmp_path / "t" / "last" / "model.safetensors")
    assert all((weights[f"{n}.weight"][~m] == 0).all() for n, m in masks.items())


@pytest.mark.parametrize("law", [{}, {"reinit_law": "shuffled", "reinit_scope": "encoder"}])
def test_table_4_structure_without_pretrained_weights(runs, encoder, tmp_path, law):
    """The zeros of the ticket stay, its other weights are new. The learning rate moves nothing."""
    flags = {"epochs": 1, "lr": 1e-30, "reinitialise": "ticket"} | law
    retrain(encoder, runs / "search", tmp_path / "t", **flags)
    masks, _ = ticket_files.load_ticket(tmp_path / "t" / "ticket.safetensors")
    before = load_file(encoder / "model.safetensors")
    after = load_file(tmp_path / "t" / "last" / "model.safetensors")
    for path, mask in masks.items():
        weight, old = after[f"{path}.weight"], before[f"{path}.weight"]
        assert (weight[~mask] == 0).all() and (weight[mask] != old[mask]).float().mean() > 0.9
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(after[name], before[name]) == (not law)
    ticket = read_jsonl(tmp_path / "t" / "records.jsonl")[0]["ticket"]
    assert ticket["reinitialised"] == "ticket" and ticket["sparsity_asked"] == 0.4
    assert ticket["reinit_law"] == law.get("reinit_law", "normal")


def test_table_4_pretrained_weights_without_structure(runs, encoder, tmp_path):
    """Dense: weights of the ticket start pre-trained, others from N(0, 0.02^2). All train."""
    flags = {"epochs": 1, "reinitialise": "rest"}
    retrain(encoder, runs / "search", tmp_path / "t", **flags, lr=1e-30)
    masks, _ = ticket_files.load_ticket(tmp_path / "t" / "ticket.safetensors")
    before = load_file(encoder / "model.safetensors")
    after = load_file(tmp_path / "t" / "last" / "model.safetensors")
    drawn = []
    for path, mask in masks.items():
        weight, old = after[f"{path}.weight"], before[f"{path}.weight"]
        assert torch.equal(weight[mask], old[mask])
        drawn.append(weight[~mask])
    assert float(torch.cat(drawn).std()) == pytest.approx(0.02, rel=0.05)
    retrain(encoder, runs / "search", tmp_path / "u", **flags)
    moved = load_file(tmp_path / "u" / "last" / "model.safetensors")
    for path, mask in masks.items():
        weight, old = moved[f"{path}.weight"], after[f"{path}.weight"]
        assert (weight[~mask] != old[~mask]).float().mean() > 0.9


def test_adversarial_retraining_and_shared_dropout(runs, encoder, tmp_path):
    """Stage 3 with FreeLB, and one dropout mask for all passes of a step or one per pass."""
    for name, flags in (("step", {}), ("pass", {"redraw": "each_pass"})):
        more = {"epochs": 1, "method": "freelb"} | flags
        retrain(encoder, runs / "search", tmp_path / name, **more)
    step, each = (load_file(tmp_path / n / "last/model.safetensors") for n in ("step", "pass"))
    assert any(not torch.equal(step[n], each[n]) for n in step)
    assert read_jsonl(tmp_path / "step" / "records.jsonl")[0]["method"] == "freelb"
