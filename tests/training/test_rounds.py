"""The rounds of iterative pruning, and the label passes that a mask has seen."""

import pytest

from training import rounds


def test_sparsities_of_rounds():
    after = rounds.sparsities_of_rounds
    assert after(0.3, 0.1, "all") == pytest.approx([0.1, 0.2, 0.3])
    assert after(0.25, 0.1, "all") == pytest.approx([0.1, 0.2, 0.25])
    assert after(0.3, 0.1, "remaining") == pytest.approx([0.1, 0.19, 0.271, 0.3])
    assert len(after(0.9, 0.1, "all")) == 9


def test_a_mask_has_seen_the_labels_of_its_rounds():
    imp = {"sparsity_after_round": [0.1, 0.2, 0.3], "recipe": {"epochs": 5}}
    passes = [rounds.label_passes_of(imp, s) for s in (0.05, 0.1, 0.11, 0.3)]
    assert passes == [5, 5, 10, 15]
    assert rounds.label_passes_of(imp) == 15
    assert rounds.label_passes_of({"label_passes": 9}, 0.3) == 9
    assert rounds.label_passes_of({}, 0.3) == 0  # noise
