"""Iterative magnitude pruning: its ranking against rounds by hand, resumption, and errors."""

import json

import pytest
import torch
from conftest import call, fails, log_lines
from safetensors.torch import load_file
from script_tools import finetune, imp, killed_in_step
from torch import nn

import prune_iteratively
from masking import ticket_files, tickets


@pytest.fixture(scope="module")
def three_rounds(encoder, sst2_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imp") / "run"
    return imp(encoder, sst2_folder, folder, to_sparsity=0.5, share_per_round=0.2)


def test_pruning_by_hand():
    """Two matrices with six weights. A round removes the smallest of the remaining weights."""
    a, b = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)
    linears = {"a": a, "b": b}
    removed_in = {n: torch.zeros(1, 3, dtype=torch.int16) for n in linears}
    sizes = {n: torch.zeros(1, 3) for n in linears}
    a.weight.data = torch.tensor([[0.5, -0.1, 0.9]])
    b.weight.data = torch.tensor([[-0.2, 0.8, 0.4]])
    prune_iteratively.prune(linears, removed_in, sizes, 1, 1 / 3)
    assert removed_in["a"].tolist() == [[0, 1, 0]] and removed_in["b"].tolist() == [[1, 0, 0]]
    # After the training of the next round, the ranking differs and removed weights are 0.
    a.weight.data = torch.tensor([[0.6, 0.0, 0.3]])
    b.weight.data = torch.tensor([[0.0, 0.2, -0.7]])
    prune_iteratively.prune(linears, removed_in, sizes, 2, 2 / 3)
    assert removed_in["a"].tolist() == [[0, 1, 2]] and removed_in["b"].tolist() == [[1, 2, 0]]
    scores = tickets.survival_scores(removed_in, sizes)
    shapes = {"a": (1, 3), "b": (1, 3)}
    order = []
    for k in range(1, 7):  # the next removed weight: by round, then by size
        masks = tickets.draw(scores, shapes, k / 6 - 1e-9 if k == 6 else k / 6)
        order.append({(n, j) for n in masks for j in range(3) if not masks[n][0, j]})
    steps = [order[0]] + [later - sooner for sooner, later in zip(order, order[1:], strict=False)]
    assert steps == [{("a", 1)}, {("b", 0)}, {("b", 1)}, {("a", 2)}, {("a", 0)}, {("b", 2)}]


def smallest(weights: dict, names: list, alive: dict, count: int) -> dict:
    """By hand: the `count` smallest of the remaining weights of all matrices together."""
    flat = [
        (abs(float(w)), n, i)
        for n in names
        for i, w in enumerate(weights[f"{n}.weight"].flatten())
        if alive[n][i]
    ]
    flat.sort()
    gone = {n: set() for n in names}
    for _, n, i in flat[:count]:
        gone[n].add(i)
    return gone


def test_the_first_round_equals_an_ordinary_fine_tuning(
    three_rounds, encoder, sst2_folder, tmp_path
):
    """Round 1 removes the smallest weights of the model that finetune.py trains."""
    finetune(encoder, sst2_folder, tmp_path / "dense", epochs=1)
    weights = load_file(tmp_path / "dense" / "last" / "model.safetensors")
    scores, shapes, manifest = ticket_files.load_scores(three_rounds / "scores.safetensors")
    total = sum(s.numel() for s in scores.values())
    alive = {n: [True] * s.numel() for n, s in scores.items()}
    gone = smallest(weights, list(scores), alive, round(0.2 * total))
    masks = tickets.draw(scores, shapes, 0.2)
    for name, mask in masks.items():
        assert set((~mask.flatten()).nonzero().flatten().tolist()) == gone[name]
    assert manifest["kind"] == "imp" and manifest["up_to_sparsity"] == 0.5
    assert manifest["sparsity_after_round"] == pytest.approx([0.2, 0.4, 0.5])


@pytest.mark.slow
def test_the_second_round_rewinds_and_keeps_the_first_ones_zeros(
    encoder, sst2_folder, tmp_path, monkeypatch
):
    """With a learning rate that moves nothing, the ranking is that of the pre-trained weights."""
    before = load_file(encoder / "model.safetensors")
    seen, real = [], prune_iteratively.prune

    def watched(linears, removed_in, magnitudes, round_, sparsity):
        seen.append({n: m.weight.detach().clone() for n, m in linears.items()})
        seen[-1]["removed"] = {n: r.clone() for n, r in removed_in.items()}
        real(linears, removed_in, magnitudes, round_, sparsity)

    monkeypatch.setattr(prune_iteratively, "prune", watched)
    flags = {"to_sparsity": 0.4, "share_per_round": 0.2, "lr": 1e-30}
    folder = imp(encoder, sst2_folder, tmp_path / "run", **flags)
    second = seen[1].pop("removed")
    for name, weight in seen[1].items():
        kept = second[name] == 0
        assert (weight[~kept] == 0).all() and not kept.all()
        assert torch.equal(weight[kept], before[f"{name}.weight"][kept])
    call("make_scores", kind="magnitude", model_name=encoder, output_dir=tmp_path / "oneshot")
    scores, shapes, _ = ticket_files.load_scores(folder / "scores.safetensors")
    oneshot, _, _ = ticket_files.load_scores(tmp_path / "oneshot" / "scores.safetensors")
    for sparsity in (0.1, 0.2, 0.3, 0.4):
        ours, theirs = (tickets.draw(s, shapes, sparsity) for s in (scores, oneshot))
        assert all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_later_rounds_start_from_the_earlier_ticket(three_rounds):
    lines = [line for line in log_lines(three_rounds) if "round" in line]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert [line["sparsity_after"] for line in lines] == pytest.approx([0.2, 0.4, 0.5], abs=1e-3)
    assert all(0 <= line["dev_accuracy_percent"] <= 100 for line in lines)
    steps = [line["lr"] for line in log_lines(three_rounds) if "lr" in line]
    assert len(steps) == 30 and steps[0] == steps[10] == steps[20] == 0  # each round warms up


def test_a_ticket_is_drawn_and_trained_up_to_the_last_round(
    three_rounds, encoder, sst2_folder, tmp_path, capsys
):
    flags = ("--model_name", encoder, "--scores", three_rounds, "--epochs", 1, "--quiet")
    call("retrain_ticket", *flags, sparsity=0.5, output_dir=tmp_path / "t")
    manifest = json.loads((tmp_path / "t" / "ticket.json").read_text())
    assert manifest["source"]["kind"] == "imp"
    line = fails(capsys, "retrain_ticket", *flags, sparsity=0.6, output_dir=tmp_path / "x")
    assert "only up to sparsity 0.5" in line and not (tmp_path / "x").exists()


@pytest.mark.parametrize(("every", "die_at"), [(0, 7), (0, 15), (4, 7), (5, 21), (10, 12)])
def test_an_interrupted_run_ends_with_the_same_bytes(
    three_rounds, encoder, sst2_folder, tmp_path, every, die_at
):
    flags = {"to_sparsity": 0.5, "share_per_round": 0.2, "checkpoint_every": every}
    with killed_in_step(die_at):
        imp(encoder, sst2_folder, tmp_path / "run", **flags)
    imp(encoder, sst2_folder, tmp_path / "run", **flags)
    name = "scores.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (three_rounds / name).read_bytes()
    steps = [x["optimizer_step"] for x in log_lines(tmp_path / "run") if "lr" in x]
    assert steps == list(range(1, 31))


@pytest.mark.slow
def test_imp_under_adversarial_training_is_another_kind(encoder, sst2_folder, tmp_path):
    folder = imp(encoder, sst2_folder, tmp_path / "run", to_sparsity=0.2, method="freelb")
    _, _, manifest = ticket_files.load_scores(folder / "scores.safetensors")
    assert manifest["kind"] == "imp_freelb" and manifest["recipe"]["adv_steps"] == 2
