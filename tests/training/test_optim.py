"""Compare the schedules and both forms of AdamW with their formulas."""

import math

import pytest
import torch
from torch import nn

import search_ticket
from training import optim
from utils.cli import UserError


def test_linear_schedule():
    assert [optim.linear_schedule(s, 2, 10) for s in (0, 1, 2, 6, 10, 12)] == [0, 0.5, 1, 0.5, 0, 0]
    assert optim.linear_schedule(0, 0, 4) == 1


def test_lambda_starts_at_10_percent_and_is_full_at_40_percent():
    values = [optim.lambda_at(t, 100, 0.5, 0.1, 0.3) for t in (1, 10, 25, 40, 100)]
    assert values == pytest.approx([0, 0, 0.25, 0.5, 0.5])
    # D1 as released counts three tensors per batch: it starts at 3.3 % and is full at 13.3 %.
    values = [optim.lambda_at(3 * t, 300, 0.5, 0.1, 0.3) for t in (10, 25, 40)]
    assert values == pytest.approx([0, 0.25, 0.5])
    assert optim.lambda_at(5, 10, 0.5, 0.5, 0.0) == 0.5 and optim.lambda_at(4, 10, 0.5, 0.5, 0) == 0


def test_released_adamw_by_hand():
    p = nn.Parameter(torch.tensor([2.0]))
    optimizer = optim.make_adamw("released", [p], 0.1, 0.01)
    want, m, v = 2.0, 0.0, 0.0
    for t, g in enumerate((0.5, -1e-9, 3.0), 1):
        p.grad = torch.tensor([g])
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        want -= 0.1 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (math.sqrt(v) + 1e-8)
        want -= 0.1 * 0.01 * want
        assert p.item() == pytest.approx(want, rel=1e-6)


def test_both_adamws_differ_if_gradients_are_below_eps():
    """D14: gradients of L0 are below 1e-8. There the step of torch is about 30 times as long."""
    steps = {}
    for kind in ("torch", "released"):
        p = nn.Parameter(torch.zeros(1))
        p.grad = torch.tensor([2.9e-9])
        optim.make_adamw(kind, [p], 0.1, 0.0).step()
        steps[kind] = -p.item()
    assert steps["torch"] == pytest.approx(0.1 * 2.9 / (2.9 + 10), rel=1e-3)
    assert steps["torch"] > 20 * steps["released"] > 0


def test_released_adamw_resumes():
    def run(p, optimizer, grads):
        for g in grads:
            p.grad = torch.tensor([g])
            optimizer.step()

    p, q = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    a = optim.make_adamw("released", [p], 0.1, 0.0)
    run(p, a, [1.0, 2.0, -1.0])
    b = optim.make_adamw("released", [q], 0.1, 0.0)
    run(q, b, [1.0, 2.0])
    c = optim.make_adamw("released", [q], 0.1, 0.0)
    c.load_state_dict(b.state_dict())
    run(q, c, [-1.0])
    assert torch.equal(p, q)


def test_biases_and_layer_norms_do_not_decay():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    decayed, plain = optim.decay_groups(model, 0.01)
    assert [p.shape for p in decayed["params"]] == [(4, 3), (2, 4)]
    assert len(plain["params"]) == 3 and plain["weight_decay"] == 0


def test_clip():
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3.0, 4.0])
    assert optim.clip([p], 0).item() == 5 and p.grad.tolist() == [3, 4]
    assert optim.clip([p], 1.0).item() == 5 and p.grad.norm().item() == pytest.approx(1, abs=1e-5)


def test_the_length_of_the_schedule():
    """D17: 10 examples in batches of 4 give 6 steps in two epochs; released: 20 // 4."""
    flags = ["--model_name", "-", "--output_dir", "-", "--epochs", "2", "--bsz", "4"]
    flags += ["--warmup_ratio", "0", "--lr", "1"]
    clocks = search_ticket.Clocks(search_ticket.parse_args(flags), 10, 3)
    assert [clocks.lr(step) for step in (1, 4, 6)] == pytest.approx([1, 0.5, 1 / 6])
    released = search_ticket.parse_args([*flags, "--deviations", "released"])
    assert released.schedule_length == "examples"
    assert [search_ticket.Clocks(released, 10, 3).lr(step) for step in (1, 6)] == [1, 0]
    released = search_ticket.parse_args([*flags, "--schedule_length", "examples"])
    assert released.lambda_clock == "steps" and search_ticket.Clocks(released, 10, 3).lr(6) == 0


def test_matrices_without_a_gradient_are_named():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    used.sum().backward()
    optim.check_gradients({"a": used})
    with pytest.raises(UserError, match=r"does not depend on b \(1 such matrices\)"):
        optim.check_gradients({"a": used, "b": unused})
