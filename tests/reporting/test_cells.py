"""Cells by hand, their text, and what is computed by class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import call
from record_tools import ROBUST_30, ROOT, attack, rows_of, write

from evaluation.intervals import crossed_interval, mean_difference
from evaluation.records import AttackRecord
from experiments.models import DENSE, Model
from reporting import render
from reporting.cells import Cell, cells_by_class, model_of, worst_class
from reporting.comparisons import Control, Result, controls_of, difference, interaction
from reporting.summary_table import make_tables
from reporting.table_files import tex_cell


def read(*lines: dict) -> list[AttackRecord]:
    return [AttackRecord.read(line) for line in lines]


def test_a_cell_by_hand():
    """30, 34, 41: mean 35, squares 25 + 1 + 36 = 62, over 2: sqrt(31) = 5.57."""
    cell = Cell({1: 30.0, 2: 34.0, 3: 41.0}, (25.04, 44.96))
    assert (cell.mean, cell.n) == (35.0, 3) and cell.deviation == pytest.approx(31**0.5)
    assert render.cell(cell) == "35.0 ± 5.6 [25.0, 45.0] (n=3)"
    assert render.cell(cell, interval=False, count=False) == "35.0 ± 5.6"
    assert tex_cell(cell) == r"35.0$^{(3)}_{\pm 5.6}$"
    assert render.cell(Cell({7: 1.25})) == "1.2 (n=1)" and Cell({7: 1.0}).deviation is None
    assert render.cell(Cell({})) == "—" and Cell({}).mean is None


def test_numbers_and_differences_as_text():
    assert render.number(-1.26, "+.1f") == "−1.3" and render.number(None) == "—"
    a, b = (read(attack(m, 1, row_outcomes=o)) for m, o in ((ROBUST_30, "r" * 9), (DENSE, "f" * 9)))
    assert render.short(difference(a, b)) == "**+100.0** p = 0.0039"  # 2 / 2^9
    assert render.short(difference(a, a)) == "+0.0 p = 1"


def compared(mine: list[AttackRecord], theirs: list[AttackRecord]) -> Result:
    return Result("", mine, [Control("dense", "", theirs)])


def test_an_export_is_a_model_of_its_own_and_the_control_of_none_but_exports():
    records = read(*(attack(m, runtime=r) for m in (DENSE, ROBUST_30) for r in (None, "onnx-int8")))
    dense, int8, *tickets = records
    assert len({model_of(record) for record in records}) == 4
    for ticket, control in zip(tickets, (dense, int8), strict=True):
        assert controls_of([ticket], records)[0].records == [control]
    names = [result.label for result in make_tables(records)[0]]
    assert names == [
        "dense fine-tuned",
        "dense fine-tuned, int8 (ONNX)",
        "robust ticket, 30 %",
        "robust ticket, int8 (ONNX), 30 %",
    ]
    with pytest.raises(ValueError, match="runtime must be one of onnx, onnx-int8, but is 'tpu'"):
        read(attack(runtime="tpu"))


# Two seeds of ten rows, the first five of class 0. Dense: 2 and 2 of class 0 survive, 2 and 2 of
# class 1; the ticket: 2 and 1 of class 0, 5 and 4 of class 1.
DENSE_ROWS = ("rrfffrrfff", "rrfffrrfff")
TICKET_ROWS = ("rrfffrrrrr", "rffffrrrrf")
NAMED = {"row_labels": "0000011111", "label_names": ["bad", "good"]}


def lines() -> tuple[list[dict], list[dict]]:
    return tuple(
        [attack(model, seed, row_outcomes=o, **NAMED) for seed, o in enumerate(rows, 1)]
        for model, rows in ((DENSE, DENSE_ROWS), (ROBUST_30, TICKET_ROWS))
    )


def test_cells_by_class_by_hand():
    dense, ticket = (read(*of_model) for of_model in lines())
    cells = cells_by_class(ticket)
    assert {name: cell.values for name, cell in cells.items()} == {
        "bad": {1: 40.0, 2: 20.0},
        "good": {1: 100.0, 2: 80.0},
    }
    good = np.array([[True] * 5, [True] * 4 + [False]])
    assert cells["good"].interval == pytest.approx(crossed_interval(good))
    assert worst_class(cells) == cells["bad"] and worst_class({}).mean is None
    gains = compared(ticket, dense).gains["dense"]
    assert {name: rate.percent for name, rate in gains.items()} == {"bad": -10.0, "good": 50.0}
    assert cells_by_class(read(attack(row_outcomes="rrff"))) == {}  # of an earlier version


def test_a_gain_and_an_aua_of_one_class_are_flagged(tmp_path):
    """Forty rows: the ticket survives on 18 of 20 good rows, the dense model on 4 of each class."""
    named = {"row_labels": "0" * 20 + "1" * 20, "label_names": ["bad", "good"]}
    dense = attack(DENSE, 42, row_outcomes=("r" * 4 + "f" * 16) * 2, **named)
    rows = "r" * 4 + "f" * 16 + "r" * 18 + "f" * 2
    ticket = attack(ROBUST_30, 42, row_outcomes=rows, **named)
    carried = compared(read(ticket), read(dense)).carried
    assert "+70.0 points on good rows" in carried["dense"]
    assert not compared(read(dense), read(dense)).carried
    assert Result("", read(ticket), []).marks == " (one class survives)"
    missing = Control("same epochs", "", [])
    assert Result("", read(dense), [missing]).marks == " (control missing)"
    write(tmp_path / "runs", [dense, ticket])
    flags = ("--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    call("report", "--make", "table1", "--scale", "mini", *flags)
    text = (tmp_path / "out" / "table1.md").read_text()
    assert "One class carries the gain of RobustT over dense, same epochs" in text
    assert "Aua bad %" in text and "Aua worst class %" in text and "Δ Aua good" in text
    assert "Aua bad" in (tmp_path / "out" / "table1.tex").read_text()
    table = tmp_path / "out" / "table1.csv"
    own = {"method": "RobustT", "recipe": "textfooler-minilm"}
    means = {r["metric"]: r["ours_mean"] for r in rows_of(table, **own)}
    assert (means["aua:bad"], means["aua:good"], means["aua:worst class"]) == ("20", "90", "20")
    assert rows_of(table, metric="aua", **own)[0]["one_class_carries_gain_over"] == "same epochs"
    call("report", *flags)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "robust ticket (control missing, one class survives)" in text
    assert "By class, robust ticket, 30 % minus dense (same epochs)" in text
    row = rows_of(tmp_path / "out" / "table.csv", model="robust ticket")[0]
    assert row["aua_percent_by_class"] == "bad:20;good:90"
    assert row["aua_percent_worst_class"] == "20.0"


def test_the_effect_of_length_is_a_difference_of_differences():
    """Of ten rows the ticket is right on 5 and 6 more than dense after 10 epochs, on 2 and 1 after
    3: 5.5 rows minus 1.5 are 40 points."""

    def model(right: tuple[int, int], of: Model) -> list[AttackRecord]:
        return read(
            *(attack(of, s, row_outcomes="r" * n + "f" * (10 - n)) for s, n in enumerate(right, 1))
        )

    longer = (
        model((8, 9), replace(ROBUST_30, epochs=10)),
        model((3, 3), Model(epochs=10)),
    )
    usual = model((5, 4), ROBUST_30), model((3, 3), DENSE)
    effect = interaction([(longer, usual)])
    assert effect.points == pytest.approx(40) and effect.bounds[0] < 40 < effect.bounds[1]
    assert interaction([(usual, usual)]).points == 0
    assert interaction([(longer, usual), (usual, usual)]).points == pytest.approx(20)
    one_seed = tuple(side[:1] for side in longer)
    assert interaction([(one_seed, usual)]) is None


def test_the_mean_over_data_sets_has_the_wider_interval():
    """Seeds' differences that cancel between two data sets make the crossed interval too narrow."""
    rows = np.arange(100)
    up, down = (np.array([rows < n for n in counts]) for counts in ((30, 50, 70), (70, 50, 30)))
    base = np.zeros((3, 100), bool)
    mean, low, high = mean_difference([(up, base), (down, base)])
    assert mean == pytest.approx(50) and high - low > 40
    _, alike_low, alike_high = mean_difference([(up, base), (up, base)])
    assert alike_high - alike_low >= high - low  # seeds with the same luck on both


def test_no_number_is_read_back_from_text():
    """Tables hold numbers until they are rendered; the readers of files alone parse them."""
    parsers = (
        "import re\n",
        "re.match",
        "re.fullmatch",
        "re.search",
        "removesuffix(",
        "float(text",
    )
    core = "cells comparisons paper_tables grids table_files render costs study "
    core += "study_summary summary_table calibration_table figure_data build"
    for name in core.split():
        text = Path(ROOT / "reporting" / f"{name}.py").read_text()
        assert not [parser for parser in parsers if parser in text], name
