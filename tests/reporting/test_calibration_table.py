"""The table of attacks at several temperatures."""

import csv

import pytest
from record_tools import LTH, attack, aua_of, general, report, rows_of

from evaluation import records
from experiments.models import DENSE

pytestmark = pytest.mark.usefixtures("undrawn")


def test_calibrated_attacks_have_a_table_of_their_own(tmp_path):
    def at(rule: str | None, aua: float, **facts) -> dict:
        changes = {"temperature_rule": rule, "protocol_id": rule or "plain"} if rule else {}
        return attack(DENSE, 42, aua, score_with="softmax", **changes, **facts)

    lines = [
        at(None, 45.0, ece_percent=12.0, saturated_percent=30.0),
        at("fitted", 25.0, temperature=3.5, ece_percent=4.0),
        at("4xfitted", 23.0, temperature=14.0),
        attack(LTH, 42, 30.0, score_with="softmax"),
    ]
    text = (general(tmp_path, lines=lines) / "table.md").read_text()
    assert text.count("## Calibration") == 1
    cells = (
        "| dense fine-tuned | 0 % | 3 | 3.50 | 12.0 | 4.0 | 30.0 | 45.0 | 25.0 | 23.0 | 4xfitted |"
    )
    assert cells in text and "| imp ticket | 30 % | 3 |" not in text.split("## Calibration")[1]
    with open(tmp_path / "out" / "calibration.csv", newline="") as f:
        assert [r["aua_percent"] for r in csv.DictReader(f)] == ["45.0", "25.0", "23.0"]
    # In the paper's tables only what was attacked as trained.
    row = aua_of(report(tmp_path, "table1"), "Fine-tune")
    assert (row["ours_mean"], row["n"]) == ("45", "1")
    # Below them the others stand in this table, too, and can be made again.
    assert cells in (tmp_path / "out" / "table1.md").read_text()
    assert len(rows_of(tmp_path / "out" / "table1-calibration.csv")) == 3
    kept = records.read_records([tmp_path / "out" / "table1-records.jsonl"])
    assert {r.temperature_rule for r in kept} == {None, "fitted", "4xfitted"}


def test_a_calibration_table_mixes_neither_protocols_nor_seeds(tmp_path):
    def at(rule: str | None, seed: int, aua: float, protocol: str, **facts) -> dict:
        changes = {"temperature_rule": rule, "temperature": 2.0} if rule else {}
        return attack(DENSE, seed, aua, **changes, protocol_id=protocol, **facts)

    lines = [
        at(rule, 42, aua, f"{protocol}{rule}", query_budget=budget)
        for protocol, budget, auas in (("a", None, (40.0, 20.0)), ("b", 50, (70.0, 60.0)))
        for rule, aua in zip((None, "fitted"), auas, strict=True)
    ]
    lines += [
        at(None, 43, 90.0, "aNone"),
        at(None, 44, 50.0, "aNone"),
        at("fitted", 44, 30.0, "afitted"),
        at("0.5", 42, 99.0, "another"),
        at("0.5", 44, 10.0, "other"),
        at("0.5", 45, 10.0, "other"),
    ]
    general(tmp_path, lines=lines)
    with open(tmp_path / "out" / "calibration.csv", newline="") as f:
        rows = [(r["protocol_id"], r["aua_by_seed"]) for r in csv.DictReader(f)]
    # Seeds 42 and 44 of a would do without the third temperature; of that, one protocol is shown.
    assert rows == [
        ("aNone", "44:50"),
        ("afitted", "44:30"),
        ("other", "44:10"),
        ("bNone", "42:70"),
        ("bfitted", "42:60"),
    ]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "evaluation protocols aNone (as trained), afitted (fitted), other (0.5)" in text
    assert "not attacked at all of its temperatures: seeds 42, 43, 45." in text
    assert "Skipped: 1 record, differing in protocol_id (another there, other here)." in text
