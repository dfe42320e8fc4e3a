"""Compare gated layers and layers with a fixed mask with layers computed by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from masking import hard_concrete
from masking.layers import GatedLinear, block_grid, expand_blocks, fix_mask


def test_a_layer_by_hand():
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        linear.bias.copy_(torch.tensor([10.0, 20.0]))
    layer = GatedLinear(linear, 0.0, (2, 2))
    with torch.no_grad():
        layer.scores.copy_(torch.tensor([[50.0, -50.0], [0.0, 50.0]]))
    # Test-time gates 1, 0, sigmoid(0) * 1.2 - 0.1 = 0.5, 1.
    y = layer(torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(y, torch.tensor([[11.0, 20 + 1.5 + 4]]))


def test_open_gates_equal_the_plain_layer_bit_for_bit():
    linear = nn.Linear(7, 5)
    layer = GatedLinear(linear, 100.0, (5, 7))
    layer.uniform = torch.rand(5, 7) * 0.9 + 0.05
    x = torch.randn(3, 7)
    assert torch.equal(layer(x), linear(x))


def test_gradients_of_the_scores_by_finite_differences():
    linear = nn.Linear(3, 4).double()
    layer = GatedLinear(linear, 0.3, (4, 3))
    layer.scores = nn.Parameter(layer.scores.double())
    layer.uniform = torch.rand(4, 3, dtype=torch.double) * 0.4 + 0.2
    x = torch.randn(2, 3, dtype=torch.double)

    def output(scores):
        gates = hard_concrete.sample_gate(scores, layer.uniform)
        return F.linear(x, gates * linear.weight.detach(), linear.bias.detach())

    assert torch.autograd.gradcheck(output, layer.scores)
    torch.testing.assert_close(layer(x), output(layer.scores))


@pytest.mark.parametrize(
    ("blocks", "grid"),
    [((1, 1), (4, 6)), ((1, 0), (4, 1)), ((0, 1), (1, 6)), ((2, 3), (2, 2)), ((0, 0), (1, 1))],
)
def test_one_gate_per_weight_row_column_block_matrix(blocks, grid):
    assert block_grid((4, 6), *blocks) == grid
    values = torch.arange(grid[0] * grid[1], dtype=torch.float).reshape(grid)
    full = expand_blocks(values, (4, 6))
    for i in range(4):
        for j in range(6):
            assert full[i, j] == values[i * grid[0] // 4, j * grid[1] // 6]


def test_blocks_that_do_not_divide():
    with pytest.raises(ValueError, match="do not divide"):
        block_grid((4, 6), 3, 1)


def test_a_fixed_mask_trains_like_a_masked_product():
    torch.manual_seed(0)
    linear = nn.Linear(6, 4)
    weight = linear.weight.detach().clone()
    mask = torch.rand(4, 6) > 0.4
    fix_mask(linear, mask)
    product = nn.Parameter(weight * mask)
    bias = nn.Parameter(linear.bias.detach().clone())
    of_linear = torch.optim.AdamW(linear.parameters(), 0.05, weight_decay=0.1)
    of_product = torch.optim.AdamW([product, bias], 0.05, weight_decay=0.1)
    for _ in range(20):
        x = torch.randn(8, 6)
        for optimizer, y in (
            (of_linear, linear(x)),
            (of_product, F.linear(x, product * mask, bias)),
        ):
            optimizer.zero_grad()
            (y**2).sum().backward()
            optimizer.step()
    assert (linear.weight[~mask] == 0).all()
    torch.testing.assert_close(linear.weight, product)


def test_a_mask_of_another_shape_or_dtype_is_refused():
    linear = nn.Linear(3, 2)
    for wrong in (torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool)):
        with pytest.raises(ValueError, match="boolean"):
            fix_mask(linear, wrong)


NOISES = {
    "bytes": lambda grid: torch.randint(0, 256, (2, *grid), dtype=torch.uint8),
    "key": lambda grid: torch.tensor([11, -7, 1000], dtype=torch.int32),
}


def gated_pair(weight_needs_gradient=False, grid=(24, 16), form="bytes"):
    """A layer with noise in bytes or as a key, and one with the same noise as floats."""
    torch.manual_seed(0)
    noise = NOISES[form](grid)
    linear = nn.Linear(16, 24).requires_grad_(weight_needs_gradient)
    scores = torch.randn(grid) * 2
    fast, plain = GatedLinear(linear, 0.0, grid), GatedLinear(linear, 0.0, grid)
    for layer in (fast, plain):
        layer.scores.data.copy_(scores)
    fast.uniform = noise
    plain.uniform = fast.uniform_draws()
    return fast, plain


def output_and_gradients(layer, low: bool):
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        y = layer(x)
    inputs = [layer.scores, x] + ([layer.weight] if layer.weight.requires_grad else [])
    return y.detach(), *torch.autograd.grad((y.float() ** 2).sum(), inputs)


@pytest.mark.parametrize("form", NOISES)
@pytest.mark.parametrize(("low", "tolerance"), [(False, 1e-5), (True, 0.05)])
def test_the_fast_layer_equals_the_plain_layer(low, tolerance, form):
    """Tolerance: in fp32 1e-5 of the largest entry; in bf16 the rounding of sums of products."""
    fast, plain = gated_pair(form=form)
    for actual, expected in zip(
        output_and_gradients(fast, low), output_and_gradients(plain, low), strict=True
    ):
        assert actual.dtype == expected.dtype
        assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("settings", [{"weight_needs_gradient": True}, {"grid": (24, 1)}])
def test_layers_outside_the_fast_path_use_the_plain_path(settings):
    fast, plain = gated_pair(**settings)
    for actual, expected in zip(
        output_and_gradients(fast, False), output_and_gradients(plain, False), strict=True
    ):
        assert torch.equal(actual, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_mask_follows_its_layer_to_a_gpu():
    linear, mask = nn.Linear(3, 2, bias=False), torch.tensor([[True, False, True], [False] * 3])
    fix_mask(linear, mask)
    linear.to("cuda")(torch.ones(1, 3, device="cuda")).sum().backward()
    assert linear.weight.grad.tolist() == mask.float().tolist()
