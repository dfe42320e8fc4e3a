"""report.html: the answer in words, and the table, against the records that they come from."""

import re
from dataclasses import replace

import pytest
from page_tools import outcomes, page_of, shown_text, two_models
from record_tools import ROBUST_30, ROOT, SEARCH, TASK, attack, controlled, write

from evaluation.records import AttackRecord, read_records
from experiments.models import DENSE
from experiments.scales import SCALES
from experiments.study import STUDY
from reporting import render
from reporting.page import charts, curves, reliability, table
from reporting.page.blocks import alike, of_sub_tables, of_tables
from reporting.page.charts import LOOKS, Axis
from reporting.page.group import Group
from reporting.paper_tables import sub_tables
from reporting.summary_table import make_tables
from utils.files import write_json

pytestmark = pytest.mark.usefixtures("undrawn")


def test_the_answer_is_a_sentence_of_the_records(tmp_path):
    """Ticket 61, 62, 63; dense 39, 38, 37: the mean difference is 24 points."""
    text = shown_text(page_of(tmp_path, two_models()))
    assert "robust ticket, 30 % minus dense, same epochs: +24.0 points [" in text
    assert "], beyond noise." in text
    assert "2 models with seeds 1, 2, 3" in text and "1,800 training rows" in text
    assert "62.0 ± 1.0" in text and "38.0 ± 1.0" in text


def test_several_tickets_are_counted_and_none_is_picked(tmp_path):
    lines = two_models(seeds=(1,), ticket=60, dense=40)
    for percent, right in ((50, 39), (80, 5)):
        ticket = replace(ROBUST_30, sparsity=percent / 100)
        lines.append(attack(ticket, 1, row_outcomes=outcomes(right, 80 - right, 20)))
    text = shown_text(page_of(tmp_path, lines))
    assert (
        "Of 3 robust tickets, 1 gains accuracy under attack over dense models with the same epochs "
        "beyond noise, 1 loses it, and 1 is not distinguishable from noise. They range from −34.0 "
        "points (McNemar's p = 1.2e−10) (robust ticket, 80 %) to +22.0 points"
    ) in text


@pytest.mark.slow
def test_the_answer_of_the_study_is_that_of_its_page():
    """docs/study.md: **+8.2** [+0.7, +15.6] for RobustT 30 %, 10 epochs."""
    records = read_records([ROOT / "results" / "study" / "study-records.jsonl"])
    subs = [s for t in STUDY.tasks for s in sub_tables(STUDY, t, SCALES["study"], records, "last")]
    group = Group(alike(of_sub_tables(subs))[0])
    [answer] = [a for a in group.answers if a.label == "RobustT 30 %, 10 epochs"]
    assert answer.tasks == list(STUDY.tasks) and answer.first.in_full == "dense, same epochs"
    shown = render.in_words(answer.first.difference)
    assert shown == "+8.2 points [+0.7, +15.6], beyond noise"
    page = (ROOT / "docs" / "study.md").read_text()
    assert f"| {render.short(answer.first.difference)} |" in page
    assert group.lead.startswith("Of 6 robust tickets, 2 gain ") and "one class" in group.lead
    assert set(answer.carried) == set(STUDY.tasks)
    assert "Rand (matched) 30 % on sst2 minus dense, same epochs: −14.5 points" in group.lead


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


def test_curves_have_the_means_of_the_records(tmp_path):
    """Three sparsities and two lengths of retraining; the dense model is a level."""
    lines = [attack(seed=s, row_outcomes=outcomes(40 + s, 40 - s, 20)) for s in (1, 2)]
    for percent, right in ((30, 60), (50, 50), (80, 10)):
        ticket = replace(ROBUST_30, sparsity=percent / 100)
        for seed in (1, 2):
            letters = outcomes(right + seed, 80 - right - seed, 20)
            lines.append(attack(ticket, seed, row_outcomes=letters))
    lines.append(attack(replace(ROBUST_30, epochs=10), 1, row_outcomes=outcomes(70, 10, 20)))
    plots = curves.of_models(of_tables(make_tables(list(map(AttackRecord.read, lines))), "title"))
    by_name = {(plot.x_label, plot.y_label): plot for plot in plots}
    aua = by_name["weights removed (%)", "Aua %"]
    assert [(name, x, y.split(" [")[0]) for name, x, y in aua.numbers] == [
        ("robust ticket, 3 epochs", "30", "61.5 ± 0.7"),
        ("robust ticket, 3 epochs", "50", "51.5 ± 0.7"),
        ("robust ticket, 3 epochs", "80", "11.5 ± 0.7"),
        ("dense fine-tuned, 3 epochs", "any", "41.5 ± 0.7"),
    ]
    assert aua.curves[1].level == pytest.approx(100 - aua.y_axis.at(41.5))
    epochs = by_name["epochs of retraining, a training each", "Clean %"]
    assert [x for _, x, _ in epochs.numbers] == ["3", "10"]
    assert "robust ticket, 30 % 80.0" in epochs.description
    html = page_of(tmp_path, lines)
    assert "61.5 ± 0.7" in html and "No search was read." in html


def test_a_reliability_diagram_has_the_bins_of_the_records():
    """Two seeds: 10 rows at 90 % of which 8 are right, and 30 at 92 % of which 18 are; 10 at 60."""
    first = attack(seed=1, reliability=[[10, 60.0, 70.0], [10, 90.0, 80.0]])
    second = attack(seed=2, reliability=[[30, 92.0, 60.0]])
    blocks = of_tables(make_tables([AttackRecord.read(x) for x in (first, second)]), "title")
    assert reliability.has_bins(blocks)
    [plot] = reliability.plots(blocks)
    assert [(x, y) for _, x, y in plot.numbers] == [("60", "70.0"), ("91.5", "65.0")]
    with pytest.raises(ValueError, match="reliability must be a list of"):
        AttackRecord.read(attack(reliability=[[0, 1.0]]))


def test_a_table_without_a_record_of_its_attacks_shows_what_to_run(tmp_path):
    """Figure 1 needs a search; Table 1's models have other epochs. The heat map is no curve."""
    folder = tmp_path / "runs" / "search-robust"
    settings = SEARCH | {"seed": 1, "lambda_amp": 0.5}
    run = {"stage": "search", "status": "finished", "task": TASK, "args": settings}
    write_json(folder / "run.json", run | {"encoder": {"name": "builtin/minilm"}})
    shares = {"at_zero": 0.1, "at_one": 0.2, "undecided": 0.7}
    steps = [{"optimizer_step": n, "penalty": 1 - n / 10, "gate_shares": shares} for n in (1, 2)]
    write(folder, steps, "log.jsonl")
    write(tmp_path / "runs" / "dense", [attack(replace(DENSE, epochs=7))])
    flags = ("--make", "figure1", "table1", "--scale", "mini", "--tasks", TASK)
    html = page_of(tmp_path, [], *flags)
    text = shown_text(html)
    assert "This page holds no attack" in text and "BERT-Attack, not run" in text
    assert html.count('<tr data-state="missing"') == 7
    assert "Epochs of searches are not shown: the run in" in text  # its log has no epoch
    assert "λ = 0.5 1 0.900" in text and "gates at 0 1 0.100" in text
    assert "sh reproduce.sh table1 --scale mini --tasks builtin/rotten_tomatoes" in text


def test_many_models_have_fewer_figures_and_all_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "MOST_DRAWN", 3)
    monkeypatch.setattr(table, "MOST_BARS", 4)
    models = [replace(DENSE, epochs=n) for n in range(1, 6)]
    html = page_of(tmp_path, [attack(model, 1, row_outcomes="rrffw") for model in models])
    assert "2 further models are in the" in shown_text(html)
    assert html.count('data-state="run"') == 5 and html.count('<svg class="strip') == 3


def contrast(a: str, b: str) -> float:
    """Of two colors such as #ffffff, by WCAG 2."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted(map(luminance, (a, b)))
    return (lighter + 0.05) / (darker + 0.05)


def test_colors_have_contrast_in_both_schemes():
    css = (ROOT / "reporting" / "page" / "page.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    for scheme in schemes:
        colors = dict(re.findall(r"--(\w+): (#\w{6});", scheme))
        for text in ("ink", "soft", "link", "warn"):
            for paper in ("paper", "raised"):
                assert contrast(colors[text], colors[paper]) >= 4.5, (text, paper)
        for marked in ("removed", "added"):
            assert contrast(colors["ink"], colors[marked]) >= 4.5
        marks = [colors[f"c{i}"] for i in range(LOOKS)]
        assert all(contrast(mark, colors["paper"]) >= 3 for mark in marks)
        # The darkest cell of a heat map mixes 68 % of the color into the paper.
        mixed = "#"
        for i in (1, 3, 5):
            paper, heat = (int(colors[name][i : i + 2], 16) for name in ("paper", "heat"))
            mixed += f"{round(0.32 * paper + 0.68 * heat):02x}"
        assert contrast(colors["ink"], mixed) >= 4.5


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


def test_an_axis_of_one_value_has_it_in_the_middle():
    axis = Axis.over([20.0], least_span=20)
    assert (axis.low, axis.high) == (10, 30) and axis.at(20.0) == 50
