"""Draw tickets by their definition. Score and ticket files keep their contents and show damage."""

import json

import pytest
import torch
from safetensors.torch import save_file

from masking import ticket_files, tickets

SHAPES = {"b": (3, 4), "a": (5, 2)}


def random_scores(shapes=SHAPES, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.3, 0.5, 0.77, 0.99])
def test_exactly_the_lowest_round_s_n_scores_are_removed(sparsity):
    scores = random_scores({"x": (37, 11), "y": (8, 9)})
    masks = tickets.draw(scores, {n: tuple(s.shape) for n, s in scores.items()}, sparsity)
    removed = torch.cat([scores[n][~masks[n]] for n in scores])
    kept = torch.cat([scores[n][masks[n]] for n in scores])
    assert len(removed) == round(sparsity * (37 * 11 + 72))
    assert not len(removed) or removed.max() <= kept.min()


def test_ties_are_removed_in_the_order_of_matrices_and_rows():
    scores = {"b": torch.zeros(2, 2), "a": torch.zeros(1, 4)}
    masks = tickets.draw(scores, {"b": (2, 2), "a": (1, 4)}, 0.375)
    assert masks["b"].tolist() == [[False, False], [False, True]] and masks["a"].all()


def test_several_tickets_at_once_equal_those_drawn_one_by_one():
    """With ties and sparsity 0. Also compares with a stable sort, which is the definition."""
    scores = {"b": (random_scores()["b"] * 2).round(), "a": (random_scores()["a"] * 2).round()}
    sparsities = [0.5, 0.0, 0.1, 0.9, 0.5]
    flat = torch.cat([s.flatten() for s in scores.values()])
    order = flat.sort(stable=True).indices
    assert len(flat.unique()) < len(flat)
    for sparsity, masks in zip(
        sparsities, tickets.draw_each(scores, SHAPES, sparsities), strict=True
    ):
        single = tickets.draw(scores, SHAPES, sparsity)
        assert all(torch.equal(masks[n], single[n]) for n in SHAPES)
        removed = torch.cat([~masks[n].flatten() for n in scores])
        assert set(removed.nonzero()[:, 0].tolist()) == set(
            order[: round(sparsity * len(flat))].tolist()
        )
        assert all(m.is_contiguous() for m in masks.values())


def test_drawing_keeps_the_scores_and_nests_tickets():
    scores = random_scores()
    before = {n: s.clone() for n, s in scores.items()}
    small, large = (tickets.draw(scores, SHAPES, s) for s in (0.3, 0.6))
    assert all(torch.equal(scores[n], before[n]) for n in scores)
    assert all((large[n] <= small[n]).all() for n in scores)


def test_whole_blocks_are_removed():
    shapes = {"x": (4, 6), "y": (2, 6)}
    rows = {"x": torch.tensor([[4.0], [1.0], [3.0], [2.0]]), "y": torch.tensor([[0.0], [9.0]])}
    masks = tickets.draw(rows, shapes, 0.5)
    assert masks["x"].all(1).tolist() == [True, False, True, False]
    assert masks["y"].all(1).tolist() == [False, True]
    # Unequal blocks: rows of x with 6 weights each, and all of y with 12. The ranking allows 12
    # (only y) or 18 (y and a row) removed weights; 12 is nearer to 0.4 * 36 = 14.4.
    masks = tickets.draw({"x": rows["x"], "y": torch.tensor([[0.0]])}, shapes, 0.4)
    assert tickets.sparsity_of(masks) == pytest.approx(12 / 36)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_sparsity_outside_its_range(sparsity):
    with pytest.raises(ValueError, match="sparsity"):
        tickets.draw(random_scores(), SHAPES, sparsity)


def test_nan_scores_and_other_matrices():
    scores = random_scores()
    scores["a"][0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        tickets.draw(scores, SHAPES, 0.5)
    with pytest.raises(ValueError, match="same"):
        tickets.draw(random_scores(), {"b": (3, 4)}, 0.5)


def test_ticket_file_round_trip_and_bytes(tmp_path):
    masks = tickets.draw(random_scores(), SHAPES, 0.4)
    manifest = ticket_files.save_ticket(
        tmp_path / "t.safetensors", masks, {"kind": "test", "z": [1]}
    )
    back, read = ticket_files.load_ticket(tmp_path / "t.safetensors")
    assert list(back) == list(masks) and all(torch.equal(back[n], masks[n]) for n in masks)
    assert read == json.loads(json.dumps(manifest)) and read["kind"] == "test"
    assert read["sparsity"] == pytest.approx(9 / 22) and read["shapes"] == {
        "b": [3, 4],
        "a": [5, 2],
    }
    first = (tmp_path / "t.safetensors").read_bytes()
    ticket_files.save_ticket(tmp_path / "t.safetensors", masks, {"z": [1], "kind": "test"})
    assert (tmp_path / "t.safetensors").read_bytes() == first


def test_scores_file_round_trip(tmp_path):
    path = tmp_path / "scores.safetensors"
    scores = random_scores() | {"rows": torch.randn(3, 1)}
    shapes = SHAPES | {"rows": (3, 7)}
    ticket_files.save_scores(path, scores, shapes, {"kind": "robust"})
    back, back_shapes, manifest = ticket_files.load_scores(path)
    assert all(torch.equal(back[n], scores[n]) for n in scores) and back_shapes == shapes
    assert list(back) == list(scores) and manifest["kind"] == "robust"
    assert ticket_files.score_file(tmp_path) == path


def test_each_damaged_byte_of_a_ticket_is_noticed(tmp_path):
    path = tmp_path / "t.safetensors"
    ticket_files.save_ticket(path, tickets.draw(random_scores(), SHAPES, 0.4), {"kind": "test"})
    whole, accepted = path.read_bytes(), 0
    want, manifest = ticket_files.load_ticket(path)
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        try:
            masks, _ = ticket_files.load_ticket(path)
        except ValueError:
            continue
        # A letter of the manifest may differ, but not the masks.
        accepted += 1
        assert all(torch.equal(masks[n], want[n]) for n in want)
    assert accepted < len(whole) / 7 / 2
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        ticket_files.load_ticket(path)


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="no ticket file"):
        ticket_files.load_ticket(path)
    save_file({"a": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match="not a ticket file"):
        ticket_files.load_ticket(path)
    ticket_files.save_scores(path, random_scores(), SHAPES, {})
    with pytest.raises(ValueError, match="not a ticket file"):
        ticket_files.load_ticket(path)
    bad = random_scores()
    bad["a"][0, 0] = float("inf")
    ticket_files.save_scores(path, bad, SHAPES, {})
    with pytest.raises(ValueError, match="finite"):
        ticket_files.load_scores(path)


def test_densities():
    masks = {"a": torch.tensor([[True, False]]), "b": torch.tensor([[True, True]])}
    assert tickets.density_by(masks, {"a": "x", "b": "y"}) == {"x": 0.5, "y": 1.0}
    assert tickets.density_by(masks, {"a": "x", "b": "x"}) == {"x": 0.75}


def test_ranks_above_the_whole_numbers_of_float32_stay_distinct():
    import numpy as np

    like = {"a": torch.zeros(1, 4)}
    ranks = np.array([2**24 + 1, 2**24, 85_524_479, 0])
    scores = tickets.scores_of_ranks(ranks, like)["a"][0]
    assert scores.argsort().tolist() == [3, 1, 0, 2] and len(scores.unique()) == 4
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_the_complement_keeps_the_removed_weights_also_with_ties(sparsity):
    scores = {"x": torch.randint(0, 3, (8, 5)).float(), "y": torch.randint(0, 3, (6, 10)).float()}
    shapes = {n: tuple(s.shape) for n, s in scores.items()}
    masks = tickets.draw(scores, shapes, sparsity)
    others = tickets.draw(tickets.reversed_ranking(scores), shapes, 1 - sparsity)
    assert all(torch.equal(others[n], ~masks[n]) for n in masks)


def test_quantiles_in_rows_by_hand():
    scores = {"x": torch.tensor([[3.0, 1.0, 2.0, 1.0], [0.0, -5.0, 7.0, 9.0]])}
    found = tickets.quantiles_in_rows(scores)["x"]
    assert (found * 4 - 0.5).tolist() == [[3, 0, 2, 1], [1, 0, 2, 3]]  # equal ones by column


@pytest.mark.parametrize("shapes", [{"a": (6, 10), "b": (30, 10)}, {"a": (40, 24), "b": (24, 96)}])
def test_quantiles_in_rows_remove_the_same_share_of_each_row(shapes):
    scores = random_scores(shapes)
    quantiles = tickets.quantiles_in_rows(scores)
    rows = sum(out for out, _ in shapes.values())
    mean = sum(out * columns for out, columns in shapes.values()) / rows
    for percent in range(0, 100, 5):
        for name, mask in tickets.draw(quantiles, shapes, percent / 100).items():
            columns = shapes[name][1]
            removed = (~mask).sum(1)
            off = (removed - percent / 100 * columns).abs().max()
            assert off <= 0.5 + max(c for _, c in shapes.values()) / (2 * mean)
            if len({c for _, c in shapes.values()}) == 1 and percent % 10 == 0:
                assert (removed == percent // 10).all()  # exactly, where it is a whole number
            for row, kept, count in zip(scores[name], mask, removed, strict=True):
                lowest = row.argsort()[:count]
                assert not kept[lowest].any()
