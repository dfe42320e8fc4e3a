"""Agreement of tickets and what chance gives, on masks whose answers are known."""

import math

import pytest
import torch

from masking import overlap


def random_masks(density_of: dict[str, float], shape: tuple[int, int], seed: int):
    noise = torch.Generator().manual_seed(seed)
    return {n: torch.rand(shape, generator=noise) < d for n, d in density_of.items()}


def measured(a, b):
    return overlap.measures(overlap.overlaps(overlap.pack(a), overlap.pack(b)))


def test_a_ticket_agrees_with_itself_and_not_with_its_complement():
    masks = random_masks({"x": 0.5, "y": 0.3}, (7, 9), 0)
    over_all, by_matrix = measured(masks, masks)
    for found in (over_all, *by_matrix.values()):
        assert found["removed_jaccard"] == found["kept_jaccard"] == 1
        assert found["removed_beyond_chance"] == found["kept_beyond_chance_by_matrix"] == 1
    half = {"x": torch.tensor([[True, False]]).repeat(5, 3)}
    over_all, _ = measured(half, {n: ~m for n, m in half.items()})
    assert over_all["removed_jaccard"] == over_all["kept_jaccard"] == 0
    assert over_all["removed_chance"] == pytest.approx(1 / 3)  # 1/4 of 3/4
    assert over_all["removed_beyond_chance"] == pytest.approx(-0.5)


def test_two_by_two_by_hand():
    a = {"x": torch.tensor([[False, False], [True, True]]), "y": torch.tensor([[True, True]])}
    b = {"x": torch.tensor([[False, True], [False, True]]), "y": torch.tensor([[False, True]])}
    over_all, by_matrix = measured(a, b)
    # Of 6 weights a removes 2, b removes 3, both remove 1: 1 of 4. Kept: 4, 3, both 2: 2 of 5.
    assert over_all["removed_jaccard"] == 1 / 4 and over_all["kept_jaccard"] == 2 / 5
    # By chance: 2 * 3 / 6 = 1 in both, so 1 of 4. By matrix: 2 * 2 / 4 + 0 * 1 / 2 = 1 as well.
    assert over_all["removed_chance"] == over_all["removed_chance_by_matrix"] == 1 / 4
    assert by_matrix["x"]["removed_jaccard"] == 1 / 3 and by_matrix["y"]["removed_jaccard"] == 0
    assert by_matrix["x"]["removed_chance_by_matrix"] == 1 / 3
    assert by_matrix["x"]["removed_beyond_chance_by_matrix"] == 0
    assert by_matrix["x"]["removed_beyond_chance"] == pytest.approx((1 / 3 - 1 / 4) / (3 / 4))
    # Kept, by chance: 4 * 3 / 6 = 2, of 5; by matrix: 2 * 2 / 4 + 2 * 1 / 2 = 2.
    assert over_all["kept_chance"] == over_all["kept_chance_by_matrix"] == 2 / 5


def test_the_two_nulls_by_hand_where_densities_differ():
    full, none = torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.bool)
    over_all, _ = measured({"x": full, "y": none}, {"x": full, "y": none})
    # Each removes 4 of 8. At random 2 would be in both: 2 of 6. Given the matrices all 4: 4 of 4.
    assert over_all["removed_chance"] == pytest.approx(1 / 3)
    assert over_all["removed_chance_by_matrix"] == 1
    assert math.isnan(over_all["removed_beyond_chance_by_matrix"])


def test_chance_at_sparsity_30_percent():
    masks = {"x": (torch.arange(1000) >= 300).reshape(10, 100)}
    over_all, _ = measured(masks, masks)
    assert over_all["removed_chance"] == pytest.approx(0.09 / 0.51)


def test_random_tickets_agree_by_chance():
    """2 * 500,000 weights: the deviation of the index is about .0005, so .003 is six of them."""
    a, b = (random_masks({"x": 0.7, "y": 0.7}, (500, 1000), seed) for seed in (1, 2))
    over_all, by_matrix = measured(a, b)
    for found in (over_all, *by_matrix.values()):
        assert found["removed_jaccard"] == pytest.approx(found["removed_chance"], abs=0.003)
        assert found["removed_jaccard"] == pytest.approx(0.09 / 0.51, abs=0.003)
        assert found["removed_beyond_chance_by_matrix"] == pytest.approx(0, abs=0.004)
        assert found["kept_beyond_chance"] == pytest.approx(0, abs=0.01)


def test_equal_densities_by_matrix_are_not_equal_weights():
    a, b = (random_masks({"x": 0.95, "y": 0.45}, (500, 1000), seed) for seed in (1, 2))
    over_all, _ = measured(a, b)
    assert over_all["removed_beyond_chance"] > 0.1
    assert over_all["removed_jaccard"] == pytest.approx(
        over_all["removed_chance_by_matrix"], abs=0.003
    )
    assert over_all["removed_beyond_chance_by_matrix"] == pytest.approx(0, abs=0.004)


def test_nothing_removed_and_padding_bits():
    all_kept = {"x": torch.ones(3, 3, dtype=torch.bool)}  # 9 bits: 7 of the last byte are padding
    over_all, _ = measured(all_kept, all_kept)
    assert over_all["removed_jaccard"] == 1 and math.isnan(over_all["removed_beyond_chance"])
    none_kept = {"x": torch.zeros(3, 3, dtype=torch.bool)}
    found = overlap.overlaps(overlap.pack(none_kept), overlap.pack(none_kept))["x"]
    assert found == overlap.Overlap(9, 9, 9, 9)


def test_other_matrices_are_refused():
    a = overlap.pack({"x": torch.ones(2, 3, dtype=torch.bool)})
    b = overlap.pack({"x": torch.ones(3, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"x is \(2, 3\) in one and \(3, 2\) in the other"):
        overlap.overlaps(a, b)
    more = {"x": torch.ones(2, 3, dtype=torch.bool), "y": torch.ones(1, 1, dtype=torch.bool)}
    with pytest.raises(ValueError, match="y is missing in one"):
        overlap.overlaps(a, overlap.pack(more))
