"""Rates and gains by class, by hand; and the rules that flag a mean which one class carries."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import fisher_exact

from evaluation import by_class
from evaluation.checks import flags_of
from evaluation.outcomes import check_labels, decode_labels, encode_labels
from utils.files import read_jsonl

RESULTS = Path(__file__).resolve().parents[2] / "results"


def record(outcomes: str, labels: str, seed: int = 1, **others) -> dict:
    counts = {label: labels.count(label) for label in sorted(set(labels))}
    rows = {"rows_per_label": counts, "fingerprint": "same"}
    return {
        "seed": seed,
        "label_names": ["negative", "positive"],
        "rows": rows,
        "rows_attacked": len(outcomes),
        "row_outcomes": outcomes,
        "row_labels": labels,
    } | others


def two_classes(negative: int, positive: int, each: int = 100, seed: int = 1) -> dict:
    """A record with the given number of surviving rows in each class."""
    letters = "r" * negative + "f" * (each - negative) + "r" * positive + "f" * (each - positive)
    return record(letters, "0" * each + "1" * each, seed)


def test_labels_are_one_digit_per_row_or_a_list():
    assert encode_labels([0, 9, 10, 35]) == "09az"
    assert decode_labels("09az") == [0, 9, 10, 35]
    assert encode_labels([0, 36]) == [0, 36] == decode_labels([0, 36])
    for wrong in ("0A", "0-", [1, -1], [0, True], [0, "1"], 3):
        with pytest.raises(ValueError, match="row_labels"):
            decode_labels(wrong)


def test_labels_must_fit_the_rows():
    check_labels(record("rfw", "001"))
    check_labels(record("rfw", "001") | {"row_labels": None})
    with pytest.raises(ValueError, match="2 row_labels for 3 rows"):
        check_labels(record("rfw", "001") | {"row_labels": "00"})
    with pytest.raises(ValueError, match="contradicts itself"):
        check_labels(record("rfw", "001") | {"row_labels": "011"})


def test_rates_by_class_by_hand():
    one = record("rrfwrfff", "00001111")
    aua = by_class.rates_by_class([one])
    assert list(aua) == ["negative", "positive"]
    assert [rate.percent for rate in aua.values()] == [50, 25]
    assert aua["positive"][1:] == pytest.approx((4.5587, 69.9358), abs=1e-3)  # Wilson, 1 of 4
    clean = by_class.rates_by_class([one], "clean_percent")
    assert [rate.percent for rate in clean.values()] == [75, 100]
    two = [one, record("rrrrffff", "00001111", seed=2)]
    assert [rate.percent for rate in by_class.rates_by_class(two).values()] == [75, 12.5]
    assert by_class.rates_by_class([one | {"row_labels": None}]) == {}
    assert by_class.rates_by_class([one, record("rrfwrfff", "00011111", seed=2)]) == {}


def test_gains_by_class_by_hand():
    before = [record("rrffrrff", "00001111", seed) for seed in (1, 2)]
    after = [record("rrffrrrr", "00001111", 1), record("rfffrrrf", "00001111", 2)]
    gains = by_class.gain_by_class(after, before)
    assert gains["negative"].percent == -12.5 and gains["positive"].percent == 37.5
    alone = by_class.gain_by_class(after[:1], before)  # one common seed: Student's over 4 rows
    half = 3.18245 * np.std([0, 0, 1, 1], ddof=1) / 2 * 100
    assert alone["positive"] == pytest.approx((50, 50 - half, 50 + half), abs=1e-3)
    assert by_class.gain_by_class(after, [record("rrffrrff", "00001111", 3)]) == {}
    moved = [r | {"rows": {"fingerprint": "other"}} for r in before]
    assert by_class.gain_by_class(after, moved) == {}


def test_one_class_survives():
    flagged = two_classes(negative=25, positive=45)
    p = 2 * fisher_exact([[45, 55], [25, 75]], alternative="greater").pvalue
    why = by_class.one_class_survives(flagged)
    assert "45.0 % on positive rows" in why and "25.0 % on the others" in why
    assert f"p = {p:.2g}" in why
    assert by_class.one_class_survives(two_classes(45, 25)).startswith("Aua is 45.0 % on negative")
    assert by_class.one_class_survives(two_classes(29, 33)) is None
    # Significant with 10,000 rows per class, but only 8 points apart.
    assert by_class.one_class_survives(two_classes(3000, 3800, each=10_000)) is None
    # 20 points apart, but only 20 rows per class.
    assert by_class.one_class_survives(two_classes(5, 9, each=20)) is None
    assert by_class.one_class_survives(record("rrrr", "1111")) is None


def test_one_class_of_four_survives():
    letters = "".join("r" * n + "f" * (50 - n) for n in (12, 30, 10, 14))
    labels = "".join(str(label) * 50 for label in range(4))
    why = by_class.one_class_survives(record(letters, labels, label_names=list("abcd")))
    assert why.startswith("Aua is 60.0 % on b rows and 24.0 % on the others")


def test_one_class_carries_a_gain():
    dense = [two_classes(30, 30, seed=seed) for seed in (1, 2, 3)]
    ticket = [two_classes(29, 52, seed=seed) for seed in (1, 2, 3)]
    why = by_class.one_class_carries(ticket, dense)
    assert "+22.0 points on positive rows and -1.0 on the others" in why
    both = [two_classes(50, 52, seed=seed) for seed in (1, 2, 3)]
    assert by_class.one_class_carries(both, dense) is None
    assert by_class.one_class_carries(dense, ticket) is None  # nothing is gained
    assert by_class.one_class_carries(ticket, [{**r, "row_labels": None} for r in dense]) is None


def test_the_flag_is_in_a_record():
    facts = {"rows_skipped": 0, "max_seq_length": 32}
    flags = flags_of(two_classes(25, 45) | facts, 25.0)
    assert [flag["flag"] for flag in flags] == ["one_class_survives"]
    assert flags_of(two_classes(29, 33) | facts, 25.0) == []


def test_false_alarms_are_rare():
    """Records of one rate for both classes: the exact test at .05 fires on fewer than 5 %."""
    generator = np.random.default_rng(0)
    fired = [
        by_class.one_class_survives(two_classes(*generator.binomial(100, 0.35, 2).tolist()))
        for _ in range(400)
    ]
    assert 0 < sum(why is not None for why in fired) < 0.05 * 400


def test_every_committed_record_has_the_labels_of_its_rows():
    for path in sorted(RESULTS.rglob("*records.jsonl")):
        for attack in read_jsonl(path):
            assert attack["row_labels"], path
            check_labels(attack)


# Mean Aua over three seeds, 10 retraining epochs: negative and positive.
STUDY = {
    ("builtin/rotten_tomatoes", 10, None): (33.0, 29.0),
    ("builtin/rotten_tomatoes", 19, None): (32.3, 30.0),
    ("builtin/rotten_tomatoes", 10, 0.3): (29.3, 45.7),
    ("builtin/rotten_tomatoes", 10, 0.5): (31.0, 50.7),
    ("sst2", 10, None): (38.3, 31.0),
    ("sst2", 19, None): (42.0, 33.7),
    ("sst2", 10, 0.3): (33.7, 55.3),
    ("sst2", 10, 0.5): (31.7, 53.3),
}


def of_study(task: str, epochs: int, sparsity: float | None) -> list[dict]:
    return [
        r
        for r in read_jsonl(RESULTS / "study" / "study-records.jsonl")
        if (r["task"], r["epochs"], (r["ticket"] or {}).get("sparsity_asked"))
        == (task, epochs, sparsity)
        and (r["ticket"] or {}).get("structure") is None
        and r.get("runtime") is None
        and r["recipe"] == "textfooler-neighbours"
        and not json.dumps(r.get("stop_at_loss")).count("loss")
    ]


@pytest.mark.parametrize("model", STUDY)
def test_the_study_by_class(model):
    records = of_study(*model)
    assert sorted(r["seed"] for r in records) == [1, 2, 3]
    rates = by_class.rates_by_class(records)
    measured = rates["negative"].percent, rates["positive"].percent
    assert measured == pytest.approx(STUDY[model], abs=0.05)


@pytest.mark.parametrize("task", ["builtin/rotten_tomatoes", "sst2"])
def test_one_class_carries_the_gain_of_the_study(task):
    for sparsity in (0.3, 0.5):
        for epochs in (10, 19):
            ticket, dense = of_study(task, 10, sparsity), of_study(task, epochs, None)
            assert "on positive rows" in by_class.one_class_carries(ticket, dense)
