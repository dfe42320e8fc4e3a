"""Temperatures: the fit, the measures, and their effect on attacks on an over-confident model."""

import json
import shutil
import sys

import attack_tools as tools
import numpy as np
import pytest
import torch

import attack
from evaluation import calibration, presets
from utils import cli
from utils.cli import UserError
from utils.files import read_jsonl


def logits_of_known_temperature(t: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(z), and the logits t * z: their temperature is t."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=(rows, 3)) * 2
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    labels = (p.cumsum(1) < generator.random((rows, 1))).sum(1)
    return t * z, labels


@pytest.mark.parametrize("t", [0.3, 1.0, 12.0])
def test_a_known_temperature_is_fitted(t):
    logits, labels = logits_of_known_temperature(t)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(t, rel=0.05)
    assert not calibration.at_bound(calibration.fit_temperature(logits, labels))


def test_without_a_mistake_the_number_of_rows_limits_the_confidence():
    sure = np.array([[3.0, 0.0], [0.0, 3.0]] * 10)
    t = calibration.fit_temperature(sure, np.array([0, 1] * 10))
    assert 1 / (1 + np.exp(-3 / t)) == pytest.approx(1 - 1 / 22, abs=1e-4)


def test_no_temperature_fits_misleading_logits():
    blind = np.random.default_rng(0).normal(size=(400, 2))
    wrong = blind.argmin(
        axis=1
    )  # the opposite of the logits: a higher temperature is always better
    assert calibration.at_bound(calibration.fit_temperature(blind, wrong))


def test_measures_by_hand():
    # Two rows at 0.9, one of them right; two at 0.6, both right.
    at = lambda p: [np.log(p), np.log(1 - p)]  # noqa: E731
    logits = np.array([at(0.9), at(0.9), at(0.6), at(0.6)])
    measures = calibration.measures(logits, np.array([0, 1, 0, 0]))
    assert measures["ece_percent"] == pytest.approx(100 * (2 * 0.4 + 2 * 0.4) / 4)
    assert measures["mean_top_probability_percent"] == pytest.approx(75)
    assert measures["saturated_percent"] == 0
    assert [rows for rows, _, _ in measures["reliability"]] == [2, 2]
    assert measures["reliability"][0] == pytest.approx([2, 60, 100])
    assert measures["reliability"][1] == pytest.approx([2, 90, 50])
    # In float32 the largest number below 1 is 1 - 2^-24: margins above log(2^25) saturate.
    edge = np.array([[17.4, 0.0], [16.5, 0.0]])
    assert calibration.measures(edge, np.array([0, 0]))["saturated_percent"] == 50


def test_well_calibrated_logits_have_almost_no_error():
    logits, labels = logits_of_known_temperature(1.0)
    assert calibration.measures(logits, labels)["ece_percent"] < 1.5
    assert calibration.measures(10 * logits, labels)["ece_percent"] > 10
    assert calibration.measures(logits / 10, labels)["ece_percent"] > 10


def test_rules():
    assert presets.temperature_rules("1") == ["1"]
    assert presets.temperature_rules("1.0, fitted,1xfitted") == ["1", "fitted"]
    assert presets.temperature_rules("sweep,0.01") == ["0.25xfitted", "fitted", "4xfitted", "0.01"]
    assert calibration.temperature_of("4xfitted", 1.5) == 6
    assert calibration.temperature_of("0.01", None) == 0.01
    for wrong in ("", "hot", "0", "-1", "nan", "0xfitted", "fittedx2", "inf"):
        with pytest.raises(UserError, match="--temperature"):
            presets.temperature_rules(wrong)


pytestmark = pytest.mark.usefixtures("textattack")


def rows_of_words(count: int) -> list[tuple[str, int]]:
    """Texts with two to four more GOOD than BAD words, label 1, or vice versa, label 0."""
    generator = np.random.default_rng(3)
    rows = []
    for i in range(count):
        more, fewer = (tools.GOOD, tools.BAD) if i % 2 else (tools.BAD, tools.GOOD)
        words = [
            *generator.choice(more, 3 + i % 3, replace=False),
            *generator.choice(fewer, 1),
            *generator.choice(tools.OTHER, 4),
        ]
        rows.append((" ".join(generator.permutation(words)), i % 2))
    return rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model that counts words, and its copy with logits 100 times as large.

    One in five training labels is wrong, so the calibration is known.
    """
    folder = tmp_path_factory.mktemp("calibration")
    rows = rows_of_words(150)
    noisy = [(t, y if i % 5 else 1 - y) for i, (t, y) in enumerate(rows[:130])]
    tools.write_rows(folder / "data" / "train.tsv", noisy)
    tools.write_rows(folder / "data" / "test.tsv", rows[130:])
    folders = {}
    for name, scale in (("usual", 3.0), ("sure", 300.0)):
        run = folders[name] = tools.fake_run(folder / name, folder / "data" / "test.tsv")
        tools.word_counter(run / "last", scale)
        about = json.loads((run / "run.json").read_text())
        about["args"] |= {"data_dir": str(folder / "data"), "test_file": None}
        (run / "run.json").write_text(json.dumps(about))
    return folders


def attacked(run, monkeypatch, *flags) -> dict[str, dict]:
    """Records of an attack, by temperature rule. Equal attacks of two tests share no folder."""
    shutil.rmtree(run / "attacks", ignore_errors=True)
    output = run.parent / f"records-{run.name}-{len(list(run.parent.iterdir()))}.jsonl"
    arguments = ["--model_name", str(run), "--recipe", "deepwordbug", "--result_file", str(output)]
    monkeypatch.setattr(sys, "argv", ["attack.py", "--quiet", *arguments, *flags])
    cli.run(attack.main)
    return {r.get("temperature_rule", "1"): r for r in read_jsonl(output)}


def test_over_confidence_looks_like_robustness_until_it_is_calibrated(runs, monkeypatch, capsys):
    flags = ("--score_with", "softmax", "--temperature", "1,fitted")
    usual = attacked(runs["usual"], monkeypatch, *flags)
    sure = attacked(runs["sure"], monkeypatch, *flags)
    assert sure["1"]["aua_percent"] > usual["1"]["aua_percent"] + 20
    assert sure["fitted"]["aua_percent"] == usual["fitted"]["aua_percent"]
    assert sure["fitted"]["temperature"] == pytest.approx(100 * usual["fitted"]["temperature"])
    assert usual["1"]["saturated_percent"] == 0 and sure["1"]["saturated_percent"] > 50
    blind = {"saturated_softmax", "equal_importance"}
    assert {f["flag"] for f in sure["1"]["flags"]} >= blind
    assert not {f["flag"] for f in sure["fitted"]["flags"] + usual["1"]["flags"]} & blind
    assert "suspicious (saturated_softmax)" in capsys.readouterr().err
    assert sure["fitted"]["ece_percent"] == pytest.approx(usual["fitted"]["ece_percent"], abs=0.1)
    # A protocol contains the rule, not the fitted number, which belongs to the model.
    assert sure["fitted"]["protocol_id"] == usual["fitted"]["protocol_id"]
    assert sure["fitted"]["protocol_id"] != sure["1"]["protocol_id"]


def test_a_temperature_changes_nothing_for_log_odds(runs, monkeypatch, capsys):
    usual = attacked(runs["usual"], monkeypatch, "--temperature", "1,0.01,fitted")
    sure = attacked(runs["sure"], monkeypatch)
    assert usual["1"]["aua_percent"] < 60  # a change would be visible
    for other in (usual["0.01"], usual["fitted"], sure["1"]):
        assert other["row_outcomes"] == usual["1"]["row_outcomes"]
        assert other["queries_per_row"] == usual["1"]["queries_per_row"]
    assert "a temperature cannot reorder log-odds" in capsys.readouterr().err


def test_dividing_by_a_hundredth_equals_the_sure_copy(runs, monkeypatch):
    hot = attacked(runs["usual"], monkeypatch, "--temperature", "0.01", "--score_with", "softmax")
    sure = attacked(runs["sure"], monkeypatch, "--score_with", "softmax")
    assert hot["0.01"]["row_outcomes"] == sure["1"]["row_outcomes"]


def test_a_temperature_can_reorder_three_classes():
    """The order of two candidates by p of class 0 depends on T; not so with two classes."""
    a, b = np.array([0.0, 2.0, -9.0]), np.array([0.0, 1.5, 1.4])
    lower = [np.exp(z / t)[0] / np.exp(z / t).sum() for t in (0.1, 5.0) for z in (a, b)]
    assert (lower[0] < lower[1]) != (lower[2] < lower[3])


def test_fitted_needs_dev_rows(runs, monkeypatch, tmp_path):
    folder = tools.tiny_bert(tmp_path / "foreign")
    data = tools.write_rows(tmp_path / "test.tsv", tools.SENTENCES)
    flags = [
        "--model_name",
        folder,
        "--recipe",
        "deepwordbug",
        "--task_name",
        "sst2",
        "--test_file",
        data,
        "--max_seq_length",
        40,
        "--temperature",
        "fitted",
    ]
    monkeypatch.setattr(sys, "argv", ["attack.py", *map(str, flags)])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as e:
        cli.run(attack.main)
    assert e.value.code == 2 and sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_without_a_run_is_fitted_on_the_dev_rows_of_its_data(
    runs, monkeypatch, tmp_path
):
    """A copy of the usual checkpoint without its run has the same dev rows and temperature."""
    folder = shutil.copytree(runs["usual"] / "last", tmp_path / "copy")
    (folder / "checkpoint.json").unlink()
    data = ("--task_name", "sst2", "--data_dir", str(runs["usual"].parent / "data"))
    copy = attacked(folder, monkeypatch, *data, "--max_seq_length", "32", "--temperature", "fitted")
    usual = attacked(runs["usual"], monkeypatch, "--temperature", "fitted")
    for name in ("temperature", "temperature_fitted_on", "row_outcomes"):
        assert copy["fitted"][name] == usual["fitted"][name]


def test_the_victim_divides_by_its_temperature(runs):
    loaded = tools.load(runs["usual"] / "last")
    texts = [text for text, _ in rows_of_words(3)]
    cold, warm = tools.make_victim(loaded), tools.make_victim(loaded, temperature=4.0)
    assert torch.equal(cold(texts) / 4, warm(texts))
