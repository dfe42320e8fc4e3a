"""Intervals, and comparisons of two models row by row."""

import re

import numpy as np
import pytest
from record_tools import LTH, ROBUST_30, attack, aua_of, general, report, rows_of

from evaluation.intervals import crossed_interval
from experiments.models import DENSE

pytestmark = pytest.mark.usefixtures("undrawn")


def test_intervals_and_paired_comparisons_from_the_rows_outcomes(tmp_path):
    """Ten rows. Dense: 8 right before, 4 after; the ticket of seed 42 has 1 of them, 5 others."""
    dense = {"row_outcomes": "rrrrffffww", "rows_attacked": 10, "clean_percent": 80.0}
    lines = [
        attack(DENSE, 42, 40.0, **dense, intervals_95={"aua_percent": [16.8, 68.7]}),
        attack(ROBUST_30, 42, 60.0, **dense | {"row_outcomes": "rfffrrrrrf"}),
    ]
    out = report(tmp_path, "table1", lines=lines)
    text = (out / "table1.md").read_text()
    assert "40.0 [16.8, 68.7] (n=1)" in text
    # Only the ticket right on 5 rows, only the dense model on 3: p = 2 (1 + 8 + 28 + 56) / 2^8.
    assert (
        "RobustT +20.0 (right alone on 5 rows against 3, p = 0.73), not distinguishable from noise"
        in text
    )
    lines += [
        attack(DENSE, 43, 40.0, **dense),
        attack(ROBUST_30, 43, 40.0, **dense | {"row_outcomes": "rrrffffrff"}),
    ]
    text = (report(tmp_path, "table1", lines=lines) / "table1.md").read_text()
    cell = re.search(r"\| RobustT .*? 50\.0 ± 14\.1 \[([\d.]+), ([\d.]+)\] \(n=2\)", text)
    table = np.array([[c == "r" for c in "rfffrrrrrf"], [c == "r" for c in "rrrffffrff"]])
    assert tuple(map(float, cell.groups())) == pytest.approx(crossed_interval(table), abs=0.06)
    assert re.search(r"RobustT \+10\.0 \[−[\d.]+, \+[\d.]+\], not distinguishable", text)
    row = aua_of(tmp_path / "out", "RobustT")
    assert float(row["ours_low_95"]) < 50 < float(row["ours_high_95"])


def test_the_general_table_compares_rows_and_shows_each_seed(tmp_path):
    """As above, of two seeds; the ticket's third seed has no dense model beside it."""
    facts = {"rows_attacked": 10}
    lines = [
        attack(DENSE, 42, 40.0, row_outcomes="rrrrffffww", label_passes=3, **facts),
        attack(DENSE, 43, 50.0, row_outcomes="rrrrrfffww", label_passes=3, **facts),
        attack(ROBUST_30, 42, 60.0, row_outcomes="rfffrrrrrf", **facts),
        attack(ROBUST_30, 43, 60.0, row_outcomes="rrrrrrffff", **facts),
    ]
    text = (general(tmp_path, lines=lines) / "table.md").read_text()
    assert "| 45.0 ± 7.1 [" in text and "| 60.0 ± 0.0 [" in text
    assert re.search(
        r"Aua compared with dense fine-tuned, .*: robust ticket, 30 % \+15\.0 \[.*\], not "
        r"distinguishable from noise \(McNemar's p by seed: 42: 0\.73, 43: 1\)",
        text,
    )
    assert (
        "Aua of robust ticket, 30 % compared with its dense controls: same epochs (3 epochs)"
        in text
    )
    row = rows_of(tmp_path / "out" / "table.csv", model="dense fine-tuned")[0]
    assert row["aua_percent_by_seed"] == "42:40;43:50"
    assert float(row["aua_percent_deviation"]) == pytest.approx(50**0.5)
    general(tmp_path, lines=[lines[0], lines[2], attack(ROBUST_30, 44, 60.0)])
    assert "p = 0.73), seed 42 only, not" in (tmp_path / "out" / "table.md").read_text()


def test_outcomes_of_different_numbers_of_rows_are_not_compared(tmp_path):
    lines = [attack(seed=42, row_outcomes="rrfff"), attack(seed=43, row_outcomes="rrff")]
    general(tmp_path, lines=lines)
    assert "| 45.0 ± 7.1 |" in (tmp_path / "out" / "table.md").read_text()


def test_two_protocols_are_never_in_one_comparison(tmp_path):
    lines = [
        attack(DENSE, 42, 40.0, protocol_id="aaa"),
        attack(ROBUST_30, 42, 50.0, protocol_id="aaa"),
        attack(LTH, 42, 60.0, protocol_id="bbb"),
    ]
    out = report(tmp_path, "table1", lines=lines)
    text = (out / "table1.md").read_text()
    assert (
        "evaluation protocol aaa" in text
        and "differing in protocol_id (bbb there, aaa here)" in text
    )
    lth = aua_of(out, "LTH")
    assert lth["ours_mean"] == ""
    general(tmp_path, "general")
    assert (tmp_path / "general" / "table.md").read_text().count("## ") == 2
