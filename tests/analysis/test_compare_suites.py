"""Two models compared by their suites, by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import call, fails

from reporting import compared_suites
from utils.files import read_json

NAMES = ["negative", "positive"]


def record(seed: int, negative: list[float], positive: list[float], task: str = "sst2", **more):
    """A suite in which an attack lowers each margin by 1, and dev is like test."""
    after = [[margin] for margin in (*negative, *positive)]
    before = [[margin + 1] for [margin] in after]
    labels = "0" * len(negative) + "1" * len(positive)
    margins = {"clean": before, "margin": after, "union": after}
    return {
        "kind": "suite",
        "task": task,
        "seed": seed,
        "label_names": NAMES,
        "checkpoint_sha256": f"{seed}{negative}",
        "rows": {"fingerprint": "r"},
        "row_labels": labels,
        "margins": margins,
        "dev": {"row_labels": labels, "margins": margins},
    } | more


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_a_shifted_copy_differs_by_class_and_not_when_equalized(tmp_path):
    negative, positive = [-0.6, -0.2, 0.3, 0.9], [-0.5, -0.1, 0.4, 0.8]
    dense = write(tmp_path / "d.jsonl", record(1, negative, positive))
    shifted = record(1, [m - 0.55 for m in negative], [m + 0.55 for m in positive])
    model = write(tmp_path / "m.jsonl", shifted)
    out = tmp_path / "out"
    call(
        *("analysis.compare_suites", "--suites", model, "--reference", dense),
        *("--output_dir", out),
    )
    rows = read_json(out / "compared.json")["sst2"]["measures"]
    assert [rows["Aua, mean"][k] for k in ("model", "reference")] == [62.5, 50]
    assert [rows["Aua, negative"][k] for k in ("model", "reference")] == [25, 50]
    assert [rows["Aua, positive"][k] for k in ("model", "reference")] == [100, 50]
    assert [rows["Aua, class-equalized"][k] for k in ("model", "reference")] == [50, 50]
    # The shifted model lost one clean row. With this much to lose, a bias brings dense as far.
    assert rows["Clean"]["model"] == 87.5 and rows["Clean"]["reference"] == 100
    equal_clean = rows["Aua, margin attack, reference with equal Clean"]
    assert equal_clean["reference"] == 62.5 == equal_clean["model"]
    assert "| Aua, positive | 100.0 | 50.0 |" in (out / "compared.md").read_text()
    curves = pd.read_csv(out / "thresholds.csv").set_index(["model", "threshold"])
    assert curves.loc["model", 0.0][["aua_negative", "aua_positive"]].tolist() == [25, 100]
    assert curves.loc["reference", 0.25][["aua_negative", "aua_positive"]].tolist() == [50, 75]


def test_seeds_are_paired_and_tasks_are_averaged():
    models = [record(s, [1.0, -1.0], [1.0, 2.0], t) for s in (1, 2) for t in ("sst2", "imdb")]
    dense = [record(s, [-1.0, -1.0], [1.0, -2.0], t) for s in (2, 1) for t in ("imdb", "sst2")]
    suites, reference = (
        [compared_suites.SuiteRecord.of(r, "file") for r in rs] for rs in (models, dense)
    )
    result = compared_suites.compare(suites, reference)
    assert result["sst2"]["seeds"] == [1, 2] and result["sst2"]["rows"] == 4
    assert result["sst2"]["measures"]["Aua, mean"]["difference"][0] == 50
    assert result["mean"]["measures"]["Aua, negative"]["difference"][0] == 50


def test_margins_of_several_classes_are_read_in_order():
    margins = {"clean": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}
    state = compared_suites._states(margins, "021", ("a", "b", "c"))["clean"].margins
    assert state.tolist() == [[np.inf, 1, 2], [3, 4, np.inf], [5, np.inf, 6]]


def test_other_rows_and_other_records_are_refused(tmp_path, capsys):
    good = write(tmp_path / "a.jsonl", record(1, [1.0], [1.0]))
    cases = {
        "give exactly one": write(tmp_path / "b.jsonl", record(2, [1.0], [1.0])),
        "the same rows": write(
            tmp_path / "c.jsonl", record(1, [1.0], [1.0], rows={"fingerprint": "x"})
        ),
        "is not a suite": write(tmp_path / "d.jsonl", {"kind": "attack"}),
        "there is no file": tmp_path / "nowhere.jsonl",
    }
    for part, path in cases.items():
        flags = ("--suites", good, "--reference", path, "--output_dir", tmp_path / "out")
        assert part in fails(capsys, "analysis.compare_suites", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("b", [[True, False, True, False]])
def test_the_interval_of_one_seed_covers_rows(b):
    a = np.array([[True, True, True, False]])
    gain = compared_suites.difference(a, np.array([b]))
    half = 3.182446 * 100 * np.std([0, 1, 0, 0], ddof=1) / 2
    assert gain == pytest.approx((25, 25 - half, 25 + half))
