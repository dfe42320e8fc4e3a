"""Compare Eqs. 1-5 with closed forms, Monte Carlo samples and finite differences."""

import math

import pytest
import torch

from masking import hard_concrete


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_initial_score_of_the_paper():
    assert hard_concrete.score_for_gate(0.9) == pytest.approx(math.log(5))
    score = torch.tensor([hard_concrete.score_for_gate(0.3)])
    assert hard_concrete.soft_gate(score).item() == pytest.approx(0.3, abs=1e-6)
    for wrong in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError):
            hard_concrete.score_for_gate(wrong)


def test_a_gate_by_hand():
    # u = 1/2: log(u / (1 - u)) = 0, so s = sigmoid(score / beta) with beta = 2/3.
    score, u = torch.tensor([0.4]), torch.tensor([0.5])
    s = 1 / (1 + math.exp(-0.4 / (2 / 3)))
    assert hard_concrete.sample_gate(score, u).item() == pytest.approx(s * 1.2 - 0.1, abs=1e-6)


@pytest.mark.parametrize("score", [-3.0, -0.5, 0.0, 1.609, 4.0])
def test_open_probability_equals_the_share_of_open_samples(score):
    n = 200_000
    gates = hard_concrete.sample_gate(torch.full((n,), score), uniform(n))
    p = hard_concrete.open_probability(torch.tensor(score)).item()
    error = 4 * math.sqrt(p * (1 - p) / n)
    assert (gates > 0).float().mean().item() == pytest.approx(p, abs=error + 1e-6)
    # P(gate = 1) = P(s >= 11/12), by the logistic distribution of the noise.
    q = 1 / (1 + math.exp(-(score - (2 / 3) * math.log(11))))
    error = 4 * math.sqrt(q * (1 - q) / n)
    assert (gates == 1).float().mean().item() == pytest.approx(q, abs=error + 1e-6)


def test_extreme_noise_gives_no_nan():
    scores = torch.zeros(3, requires_grad=True)
    gates = hard_concrete.sample_gate(scores, torch.tensor([0.0, 0.5, 1 - 2**-24]))
    assert gates.tolist()[0] == 0 and gates.tolist()[2] == 1
    gates.sum().backward()
    assert torch.isfinite(scores.grad).all()


def test_gradients_against_finite_differences():
    scores = (uniform(40) * 2 - 1).double().requires_grad_()
    u = uniform(40, seed=1).double() * 0.5 + 0.25
    assert torch.autograd.gradcheck(lambda s: hard_concrete.sample_gate(s, u), scores)
    assert torch.autograd.gradcheck(hard_concrete.soft_gate, scores)
    assert torch.autograd.gradcheck(lambda s: hard_concrete.penalty([s[:30], s[30:]]), scores)


def test_penalty_over_entries_and_over_matrices():
    low, high = torch.full((1, 2), -50.0), torch.full((2, 3), 50.0)
    assert hard_concrete.penalty([low, high]).item() == pytest.approx(6 / 8)
    assert hard_concrete.penalty([low, high], "matrices").item() == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="mean_over"):
        hard_concrete.penalty([low], "rows")


def test_gate_shares_equal_the_shares_of_test_time_gates():
    scores = torch.linspace(-6, 6, 1001)
    gates = hard_concrete.soft_gate(scores)
    shares = hard_concrete.gate_shares([scores[:100], scores[100:]])
    assert shares["at_zero"] == pytest.approx((gates == 0).float().mean().item())
    assert shares["at_one"] == pytest.approx((gates == 1).float().mean().item())
    assert sum(shares.values()) == pytest.approx(1)


def noise_in_bytes(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=draw)


def test_bytes_give_the_middles_of_equal_intervals():
    noise = torch.tensor([[0, 0, 128, 255], [0, 1, 0, 255]], dtype=torch.uint8)
    want = torch.tensor([0.5, 1.5, 32768.5, 65535.5]) / 65536
    assert torch.equal(hard_concrete.uniform_of_bytes(noise), want)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_fast_gates_equal_plain_gates(dtype, tolerance):
    """With the same noise, products and derivatives agree to 1e-6 in fp32.

    In bf16 they agree to the rounding of the result, 2^-9 relative. The tolerance is twice that,
    because the rounding in fp32 can change the rounding to bf16.
    """
    scores = (uniform(200, 100) * 20 - 10).requires_grad_()
    noise, weight = noise_in_bytes(200, 100), uniform(200, 100, seed=2) - 0.5
    gated = hard_concrete.sample_gate(scores, hard_concrete.uniform_of_bytes(noise)) * weight
    (slope,) = torch.autograd.grad(gated.sum(), scores)
    fast = hard_concrete.gated_weight_and_slope(scores.detach(), noise, weight, dtype)
    for actual, plain in zip(fast, (gated.detach(), slope), strict=True):
        assert actual.dtype == dtype and ((plain == 0).float().mean() > 0.1)
        torch.testing.assert_close(actual.float(), plain, rtol=tolerance, atol=1e-6)


def test_fast_gates_at_extremes_are_finite():
    scores = torch.tensor([-1e4, -90.0, -60.0, 60.0, 90.0, 1e4])
    for byte in (0, 255):
        noise = torch.full((2, 6), byte, dtype=torch.uint8)
        gate, slope = hard_concrete.gated_weight_and_slope(
            scores, noise, torch.ones(6), torch.float32
        )
        assert gate.tolist() == [0, 0, 0, 1, 1, 1] and slope.tolist() == [0] * 6


@pytest.mark.parametrize("mean_over", ["entries", "matrices"])
def test_gradient_of_the_penalty_equals_autograds_bit_for_bit(mean_over):
    scores = [(uniform(*s) * 8 - 4).requires_grad_() for s in ((30, 40), (7, 11), (64, 3))]
    plain = hard_concrete.penalty(scores, mean_over)
    gradients = torch.autograd.grad(0.37 * plain, scores)
    value, actual = hard_concrete.penalty_and_gradients(scores, mean_over, 0.37)
    assert torch.equal(value, plain)
    assert all(torch.equal(a, b) for a, b in zip(actual, gradients, strict=True))
