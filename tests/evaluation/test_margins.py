"""Aua at any bias, from margins, by hand."""

import numpy as np
import pytest

from evaluation.margins import (
    Margins,
    aua_by_threshold,
    bias_of_highest_accuracy,
    equalizing_bias,
)

TWO, THREE = ("negative", "positive"), ("a", "b", "c")
INF = np.inf


def two(negative: list[float], positive: list[float]) -> Margins:
    """Rows of two classes with these margins against the other class."""
    labels = np.array([0] * len(negative) + [1] * len(positive))
    values = np.full((len(labels), 2), INF)
    values[np.arange(len(labels)), 1 - labels] = [*negative, *positive]
    return Margins(labels, values, TWO)


def test_margins_of_logits():
    margins = Margins.of_logits(np.array([[2.0, 0.5, 1.0], [0.0, 3.0, 1.0]]), [0, 2], THREE)
    assert margins.margins.tolist() == [[INF, 1.5, 1.0], [1.0, -2.0, INF]]
    assert margins.right().tolist() == [True, False]
    assert margins.accuracy() == 50
    assert margins.by_class().tolist()[::2] == [100, 0] and np.isnan(margins.by_class()[1])


def test_a_bias_moves_the_margins_of_its_class_up_and_those_of_the_others_down():
    state = two([1.0, 0.2], [-0.5, 3.0])
    assert state.right(np.array([0.0, 0.6])).tolist() == [True, False, True, True]
    assert state.right(np.array([-0.3, 0.3])).tolist() == [True, False, True, True]
    assert state.accuracy(np.array([0.0, -4.0])) == 50  # the default answer


def test_a_margin_of_zero_is_wrong():
    assert two([0.0], [1e-9]).right().tolist() == [False, True]


def test_the_union_keeps_the_lowest_margin_of_each_class():
    a = Margins(np.array([0]), np.array([[INF, 1.0, -2.0]]), THREE)
    b = Margins(np.array([0]), np.array([[INF, -1.0, 3.0]]), THREE)
    assert a.lowest(b).margins.tolist() == [[INF, -1.0, -2.0]]


def test_what_an_attack_leaves_is_exact_at_every_bias():
    """Against the definition: a row falls if some queried text gets another label."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(40, 7, 4)) * 3  # rows, queried texts, classes
    labels = generator.integers(0, 4, 40)
    queried = [Margins.of_logits(logits[:, q], labels, tuple("wxyz")) for q in range(7)]
    lowest = queried[0].lowest(*queried[1:])
    for _ in range(20):
        bias = generator.normal(size=4) * 2
        survives = ((logits + bias).argmax(axis=2) == labels[:, None]).all(axis=1)
        assert lowest.right(bias).tolist() == survives.tolist()


def test_the_bias_that_equalizes_two_classes():
    """Without a bias 2 of 4 negative rows survive. With 0.4 to 1.0 all survive."""
    attacked = two([-0.4, -0.3, 1.5, 2.0], [1.0, 5.0, 6.0, 7.0])
    bias = equalizing_bias(attacked)
    assert bias.tolist() == pytest.approx([0.35, -0.35])
    assert attacked.by_class().tolist() == [50, 100]
    assert attacked.by_class(bias).tolist() == [100, 100]


def test_the_bias_is_the_middle_of_those_that_equalize():
    """Both classes survive at 1 of 2 from a shift of -1 (a positive row) to 1 (a negative row)."""
    assert equalizing_bias(two([-1.0, 2.0], [-1.0, 2.0])).tolist() == pytest.approx([0, 0])


@pytest.mark.parametrize("shift", [-3.0, -0.7, 0.4, 2.5])
def test_a_shifted_bias_changes_the_mean_and_not_the_equalized_aua(shift):
    """The mean is highest where the classes differ; the equalizing bias takes the shift back."""
    generator = np.random.default_rng(1)
    negative, positive = generator.normal(0.3, 1, 400), generator.normal(0.3, 2, 400)
    honest, shifted = two(negative, positive), two(negative - shift, positive + shift)
    assert abs(shifted.accuracy() - honest.accuracy()) > 1
    a, b = honest.accuracy(equalizing_bias(honest)), shifted.accuracy(equalizing_bias(shifted))
    assert a == pytest.approx(b, abs=0.3)
    moved = equalizing_bias(shifted) - equalizing_bias(honest)
    assert moved[0] - moved[1] == pytest.approx(shift, abs=0.05)


def test_several_classes_get_a_bias_each():
    generator = np.random.default_rng(2)
    labels = np.repeat(np.arange(4), 150)
    logits = generator.normal(size=(600, 4)) + 1.2 * np.eye(4)[labels]
    offset = np.array([1.0, -0.5, 0.3, -0.8])
    shifted = Margins.of_logits(logits + offset, labels, tuple("wxyz"))
    assert np.ptp(shifted.by_class()) > 30
    bias = equalizing_bias(shifted)
    assert np.ptp(shifted.by_class(bias)) < 3
    assert bias == pytest.approx(-offset, abs=0.35)


def of_classes(classes: int, rows: int, seed: int, decimals: int = 5) -> Margins:
    """Attacked rows of a model with a bias, which is surer of some classes than of others."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    evidence = generator.normal(size=(rows, classes)) * generator.uniform(0.3, 5, classes)
    evidence[np.arange(rows), labels] += generator.uniform(0, 5, classes)[labels]
    logits = (evidence + generator.normal(size=classes)).round(decimals)
    return Margins.of_logits(logits, labels, tuple("abcdefghij")[:classes])


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("decimals", [5, 0])  # 0: many rows turn at the same bias
def test_a_shift_of_any_size_is_taken_back_exactly(classes, decimals):
    dev, test = (of_classes(classes, 60, seed, decimals) for seed in (classes, 99))
    expected = equalizing_bias(dev)
    for size in (0, 1, 50, 200):
        offset = np.random.default_rng(size).normal(size=classes)
        offset *= size / np.abs(offset).max()
        found = equalizing_bias(shifted(dev, offset))
        assert found == pytest.approx(expected - (offset - offset.mean()), abs=1e-9)
        at_expected = test.by_class(expected).tolist()
        assert shifted(test, offset).by_class(found).tolist() == at_expected


@pytest.mark.parametrize("offset", [(0, 0, 200, 0), (-25, 0, 0, 50), (300, -300, 100, 0)])
@pytest.mark.parametrize("rows", [12, 100])
def test_the_classes_become_alike_whatever_the_shift(offset, rows):
    """To about one row per class."""
    for seed in range(3):
        attacked = shifted(of_classes(4, rows, seed), np.array(offset))
        assert np.ptp(attacked.by_class()) > 90
        assert np.ptp(attacked.by_class(equalizing_bias(attacked))) <= 400 / rows + 1e-9


def shifted(state: Margins, offset: np.ndarray) -> Margins:
    """Margins of the model with `offset` added to its logits."""
    margins = state.margins + offset[state.labels][:, None] - offset[None, :]
    return Margins(state.labels, margins, state.label_names)


def test_with_unequal_classes_the_bias_is_the_best_there_is():
    """By trying a bias in each gap between two rows."""
    generator = np.random.default_rng(4)
    for _ in range(20):
        attacked = two(generator.normal(0.3, 1, 7).tolist(), generator.normal(0, 2, 12).tolist())
        finite = np.sort(attacked.margins[np.isfinite(attacked.margins)] * ([1] * 7 + [-1] * 12))
        tried = [np.array([0.0, (a + b) / 2]) for a, b in zip(finite, finite[1:], strict=False)]
        least = min(np.ptp(attacked.by_class(bias)) for bias in tried)
        assert np.ptp(attacked.by_class(equalizing_bias(attacked))) == pytest.approx(least)


def test_a_default_answer_has_no_equalizing_bias():
    """All rows of one class survive, all others fall, and one bias turns all of them."""
    attacked = two([20.0, 20.0], [-20.0, -20.0])
    assert np.ptp(attacked.by_class(equalizing_bias(attacked))) == 100


def test_a_class_without_rows_has_no_bias():
    with pytest.raises(ValueError, match="no attacked rows"):
        equalizing_bias(two([1.0], []))


def test_the_highest_mean_at_a_clean_accuracy():
    """Answering negative more often saves two negative rows and costs one clean positive row."""
    clean = two([3.0, 3.0, 3.0, 3.0], [0.5, 3.0, 3.0, 3.0])
    attacked = two([-0.6, -0.7, 2.0, 2.0], [-9.0, -9.0, 2.0, 2.0])
    free = bias_of_highest_accuracy(clean, attacked, lowest_clean=100)
    assert clean.accuracy(free) == 100 and attacked.accuracy(free) == 50
    paid = bias_of_highest_accuracy(clean, attacked, lowest_clean=87.5)
    assert clean.accuracy(paid) == 87.5 and attacked.accuracy(paid) == 75
    assert paid[0] - paid[1] == pytest.approx((0.7 + 2) / 2)


def test_aua_by_threshold():
    attacked = two([1.0, 2.0], [-0.5, 0.5])
    rates = aua_by_threshold(attacked, np.array([0.0, 1.5]))
    assert rates.tolist() == [[100, 50], [50, 100]]
    with pytest.raises(ValueError, match="two classes"):
        aua_by_threshold(Margins(np.array([0]), np.array([[INF, 1.0, 1.0]]), THREE), np.zeros(1))


@pytest.mark.parametrize(
    "values, part",
    [([[1.0, 2.0]], "own class"), ([[INF, np.nan]], "NaN"), ([[INF, 1.0, 1.0]], "fit")],
)
def test_wrong_margins(values, part):
    with pytest.raises(ValueError, match=part):
        Margins(np.array([0]), np.array(values), TWO)


def test_ties_at_the_bias_do_not_depend_on_a_shift():
    """Margins of few values, as of a model of keywords, lie exactly on the threshold."""
    labels = np.repeat([0, 1], 50)

    def shifted(negative: list[float], positive: list[float], shift: float) -> Margins:
        margins = np.full((100, 2), np.inf)
        margins[:50, 1], margins[50:, 0] = negative, positive
        bias = np.array([shift, 0.0])
        moved = margins + bias[labels][:, None] - bias[None, :]
        return Margins(labels, moved.round(5), ("negative", "positive"))

    equalized = set()
    for shift in (0, 0.1, 0.3, 0.7, 1.1, 2.3, 30.1):
        dev = shifted([-3.0] * 25 + [1.0] * 25, [3.0] * 25 + [-1.0] * 25, shift)
        test = shifted([-1.0] * 30 + [1.0] * 20, [3.0] * 30 + [1.0] * 20, shift)
        equalized.add(test.accuracy(equalizing_bias(dev)))
    assert len(equalized) == 1
