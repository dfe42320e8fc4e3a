"""report.html: the answer in words, and the table, against the records that they come from."""

import pytest
from page_tools import outcomes, page_of, shown_text, two_models
from record_tools import ROBUST_30, attack, controlled, write

from experiments.models import DENSE
from reporting.page.charts import Axis

pytestmark = pytest.mark.usefixtures("undrawn")


def test_the_answer_is_a_sentence_of_the_records(tmp_path):
    """Ticket 61, 62, 63; dense 39, 38, 37: the mean difference is 24 points."""
    text = shown_text(page_of(tmp_path, two_models()))
    assert "robust ticket, 30 % minus dense, same epochs: +24.0 points [" in text
    assert "], beyond noise." in text
    assert "2 models with seeds 1, 2, 3" in text and "1,800 training rows" in text
    assert "62.0 ± 1.0" in text and "38.0 ± 1.0" in text


def test_one_seed_gives_a_p_value(tmp_path):
    text = shown_text(page_of(tmp_path, two_models(seeds=(1,), ticket=41, dense=40)))
    assert "+3.0 points (McNemar's p = 0.25), not distinguishable from noise" in text


def test_a_gain_of_one_class_is_in_the_answer(tmp_path):
    facts = {"row_labels": "0" * 50 + "1" * 50, "label_names": ["bad", "good"]}
    facts |= {"rows": {"ids_fingerprint": "a", "fingerprint": "b"}}
    lines = [
        controlled(1, row_outcomes="f" * 40 + "r" * 10 + "r" * 45 + "f" * 5, **facts),
        attack(seed=1, row_outcomes="f" * 38 + "r" * 12 + "r" * 10 + "f" * 40, **facts),
    ]
    text = shown_text(page_of(tmp_path, lines))
    assert "But one class carries the gain: −4.0 on bad and +70.0 on good rows" in text
    assert "One class survives (Aua is 90.0 % on good rows" in text  # a doubt, in words


def test_a_single_model_and_other_rows_have_nothing_to_compare(tmp_path):
    one = page_of(tmp_path / "one", [attack(row_outcomes=outcomes(20, 60, 20))])
    assert "Aua 20.0 % [" in one or "Aua 20.0 %." in shown_text(one)
    assert "There is nothing to compare it with." in shown_text(one)
    lines = [attack(), attack(ROBUST_30, rows={"ids_fingerprint": "x", "fingerprint": "y"})]
    assert "There is nothing to compare it with." in shown_text(page_of(tmp_path / "two", lines))


def test_missing_rows_have_the_command_that_runs_them(tmp_path):
    write(tmp_path / "runs", [attack(DENSE, 1, recipe="textfooler-neighbours")])
    flags = ("--make", "study", "--scale", "study", "--tasks", "builtin/rotten_tomatoes")
    html = page_of(tmp_path, [attack(DENSE, 1, recipe="textfooler-neighbours")], *flags)
    command = "sh reproduce.sh study --scale study --tasks builtin/rotten_tomatoes --seeds 1 "
    assert f"{command}--rows &#39;RobustT 30 %&#39;" in html
    assert html.count('data-state="run"') == 1 and html.count('data-state="missing"') > 20


def test_names_of_records_are_escaped(tmp_path):
    name = '"><script>alert(1)</script>'
    html = page_of(tmp_path, [attack(encoder={"name": name}, deviations=name)])
    assert name not in html and "&lt;script&gt;alert(1)" in html
    assert html.count("<script>") == 1


@pytest.mark.parametrize(
    "values, ticks",
    [
        ([12, 47], ["10", "20", "30", "40", "50"]),
        ([0.871, 0.95], ["0.86", "0.88", "0.90", "0.92", "0.94", "0.96"]),
        ([3], ["3", "4"]),
        ([-1, 1], ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
        ([], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0], ["0.0", "0.2"]),
    ],
)
def test_an_axis_has_round_ticks_that_hold_the_values(values, ticks):
    axis = Axis.over(values)
    assert all(axis.low <= value <= axis.high for value in values)
    assert [text for _, text in axis.ticks] == ticks
