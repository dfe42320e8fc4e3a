"""Two models compared by their suites, by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call, fails
from record_tools import suite_record

from reporting import compared_suites, suite_records
from utils.files import read_json

NAMES = ["negative", "positive"]
ROOT = Path(__file__).parents[2]


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_a_shifted_copy_differs_by_class_and_not_when_equalized(tmp_path):
    negative, positive = [-0.6, -0.2, 0.3, 0.9], [-0.5, -0.1, 0.4, 0.8]
    dense = write(tmp_path / "d.jsonl", suite_record(1, negative, positive))
    shifted = suite_record(1, [m - 0.55 for m in negative], [m + 0.55 for m in positive])
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
    models = [suite_record(s, [1.0, -1.0], [1.0, 2.0], t) for s in (1, 2) for t in ("sst2", "imdb")]
    dense = [
        suite_record(s, [-1.0, -1.0], [1.0, -2.0], t) for s in (2, 1) for t in ("imdb", "sst2")
    ]
    suites, reference = (
        [suite_records.SuiteRecord.of(r, "file") for r in rs] for rs in (models, dense)
    )
    result = compared_suites.compare(suites, reference)
    assert result["sst2"]["seeds"] == [1, 2] and result["sst2"]["rows"] == 4
    assert result["sst2"]["measures"]["Aua, mean"]["difference"][0] == 50
    assert result["mean"]["measures"]["Aua, negative"]["difference"][0] == 50


def test_margins_of_several_classes_are_read_in_order():
    margins = {"clean": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}
    state = suite_records._states(margins, "021", ("a", "b", "c"))["clean"].margins
    assert state.tolist() == [[np.inf, 1, 2], [3, 4, np.inf], [5, np.inf, 6]]


def test_each_class_at_the_equalizing_bias_the_worst_class_and_the_default_answer():
    """The bias is chosen on the margin attack, so the classes may differ under the union."""

    def suite(seed: int, union: list[float], negative: float):
        made = suite_record(seed, [-1.0, 2.0], [-1.0, 2.0])
        made["margins"] = made["margins"] | {"union": [[margin] for margin in union]}
        shares = {"shares": [0.0, 1.0], "unknown": [[50.0, 50.0], [negative, 100 - negative]]}
        return suite_records.SuiteRecord.of(made | {"default_answer": shares}, "file")

    models = [suite(1, [-1.0, 2.0, -1.0, -1.0], 80), suite(2, [1.0, 2.0, -1.0, 2.0], 60)]
    dense = [suite(seed, [-1.0, 2.0, -1.0, 2.0], 50) for seed in (1, 2)]
    rows = compared_suites.compare(models, dense)["sst2"]["measures"]
    shown = {name: (row["model"], row["reference"]) for name, row in rows.items()}
    assert shown["Aua, class-equalized"] == (50, 50)
    assert shown["Aua, class-equalized, negative"] == (75, 50)
    assert shown["Aua, class-equalized, positive"] == (25, 50)
    assert shown["Aua, worst class"] == (25, 50)  # the mean over seeds of 0 and 50
    assert shown["Answers negative, content words unknown"] == (70, 50)
    assert shown["Answers positive, content words unknown"] == pytest.approx((30, 50))
    # Student's interval over two seeds: 12.7 times the standard error of -50 and 0, of 30 and 10.
    assert rows["Aua, worst class"]["difference"] == pytest.approx([-25, -342.7, 292.7], abs=0.1)
    answers = rows["Answers negative, content words unknown"]
    assert answers["difference"] == pytest.approx([20, -107.1, 147.1], abs=0.1)
    one = compared_suites.compare(models[:1], dense[:1])["sst2"]["measures"]
    assert one["Aua, worst class"]["difference"] == [-50, -100, 100]  # one seed tells nothing
    assert "mcnemar_p" not in one["Aua, worst class"]
    assert not any(name.startswith("Answers") for name in measures_without_probe())


def measures_without_probe() -> dict:
    [suite] = [suite_records.SuiteRecord.of(suite_record(1, [1.0], [1.0]), "file")]
    return compared_suites.compare([suite], [suite])["sst2"]["measures"]


def test_the_newest_record_with_the_most_parts_counts(tmp_path):
    def made(margin: float, parts: int, **more):
        rows = {"rows_per_part": dict.fromkeys("abcdef"[:parts], 1), "checkpoint_sha256": "x"}
        return suite_record(1, [margin], [margin], **rows, **more)

    single = {k: v for k, v in made(7.0, 1, rows={"fingerprint": "other"}).items() if k != "dev"}
    file = write(tmp_path / "suites.jsonl", made(1.0, 6), made(2.0, 6), made(3.0, 2), single)
    [read] = suite_records.read([file])
    assert read.states["margin"].margins[0, 1] == 2.0


def test_files_without_a_complete_record_are_refused(tmp_path, capsys):
    good = write(tmp_path / "good.jsonl", suite_record(1, [1.0], [1.0]))
    single = {k: v for k, v in suite_record(2, [1.0], [1.0]).items() if k != "dev"}
    cases = {
        "holds no records": write(tmp_path / "empty.jsonl"),
        "(task sst2, seed 2) that is not a suite with the parts dev and margin (it lacks": write(
            tmp_path / "single.jsonl", single, suite_record(1, [1.0], [1.0])
        ),
        "a damaged record": write(
            tmp_path / "odd.jsonl", suite_record(1, [1.0], [1.0], row_labels="0")
        ),
    }
    for part, path in cases.items():
        for files in ((path, good), (good, path)):
            flags = ("--suites", files[0], "--reference", files[1], "--output_dir", tmp_path / "o")
            assert part in fails(capsys, "analysis.compare_suites", *flags)
    assert not (tmp_path / "o").exists()


def test_other_rows_and_other_records_are_refused(tmp_path, capsys):
    good = write(tmp_path / "a.jsonl", suite_record(1, [1.0], [1.0]))
    cases = {
        "has no suite of sst2, seed 1": write(tmp_path / "b.jsonl", suite_record(2, [1.0], [1.0])),
        "on the rows of the compared model": write(
            tmp_path / "c.jsonl", suite_record(1, [1.0], [1.0], rows={"fingerprint": "x"})
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


def test_the_page_has_the_classes_of_a_model_of_the_study_at_its_bias():
    records = suite_records.read([ROOT / "results/study/second-half/dense-epochs19.jsonl"])
    [dense] = [r for r in records if (r.task, r.seed) == ("sst2", 11)]
    negative, positive = dense.states["union"].by_class(dense.bias)
    page = " ".join((ROOT / "docs" / "evaluation.md").read_text().split())
    assert f"has {negative:.1f} % on negative and {positive:.1f} % on positive rows" in page


def compared(tmp_path, capsys, models: list[dict], reference: list[dict]) -> str:
    """The error of compare_suites.py."""
    files = [
        write(tmp_path / f"{name}.jsonl", *lines)
        for name, lines in (("m", models), ("r", reference))
    ]
    out = tmp_path / "out"
    flags = ("--suites", files[0], "--reference", files[1], "--output_dir", out)
    error = fails(capsys, "analysis.compare_suites", *flags)
    assert not out.exists()
    return error


MARGINS = [1.0, -1.0], [1.0, -2.0]


def test_suites_that_cannot_be_compared_are_refused(tmp_path, capsys):
    one, weaker = (suite_record(1, *MARGINS) for _ in "ab")
    del weaker["rows_per_part"]["carried"]
    error = compared(tmp_path, capsys, [weaker], [one])
    assert "only one of the suites of sst2, seed 1, has the part carried" in error
    two = [one, one | {"checkpoint_sha256": "other"}]
    assert "--suites has several suites of sst2, seed 1" in compared(tmp_path, capsys, two, [one])
    assert "the reference has several suites of sst2" in compared(tmp_path, capsys, [one], two)
    other = suite_record(2, *MARGINS, rows={"fingerprint": "other"})
    error = compared(tmp_path, capsys, [one, other], [one, other])
    assert "the seeds of sst2 were attacked on different rows" in error


def test_seeds_can_be_chosen(tmp_path, capsys):
    file = write(tmp_path / "s.jsonl", *(suite_record(seed, *MARGINS) for seed in (1, 2, 3)))
    flags = ("--suites", file, "--reference", file, "--output_dir", tmp_path / "out")
    call("analysis.compare_suites", *flags, "--seeds", 1, 3)
    assert read_json(tmp_path / "out" / "compared.json")["sst2"]["seeds"] == [1, 3]
    assert "none of --seeds 4" in fails(capsys, "analysis.compare_suites", *flags, "--seeds", 4)


def test_tasks_with_other_seeds_have_no_mean(tmp_path):
    runs = [(1, "sst2"), (2, "sst2"), (2, "imdb"), (3, "imdb")]
    suites = [suite_records.SuiteRecord.of(suite_record(s, *MARGINS, t), "f") for s, t in runs]
    result = compared_suites.compare(suites, suites)
    assert set(result) == {"sst2", "imdb"}
    assert "No mean over tasks: their seeds differ." in compared_suites.markdown(result)


@pytest.mark.parametrize(
    "damage, words",
    [
        ({"seed": []}, "seed is []"),
        ({"task": ["sst2"]}, "task is"),
        ({"checkpoint_sha256": 3}, "checkpoint_sha256 is 3"),
        ({"margins": None}, "NoneType"),
        ({"margins": []}, "list"),
        ({"margins": {"clean": [[1.0]] * 4}}, "margins of margin are missing"),
        ({"margins": {"clean": [[1.0]] * 3}}, "margins of clean do not fit 4 rows"),
        ({"rows_per_part": 3}, "int"),
        (
            {
                "dev": {
                    "row_labels": "0000",
                    "margins": {"clean": [[1.0]] * 4, "margin": [[1.0]] * 4},
                }
            },
            "class",
        ),
        (
            {"dev": {"row_labels": "0011", "margins": {"margin": [[1.0]] * 4}}},
            "margins of clean are missing",
        ),
        ({"default_answer": {"unknown": []}}, "IndexError"),
        ({"default_answer": {"unknown": [[1.0, None]]}}, "default_answer"),
        ({"default_answer": {"unknown": [[1.0]]}}, "default_answer"),
        ({"default_answer": "x"}, "AttributeError"),
        ({"rows": None}, "NoneType"),
        ({"label_names": None}, "NoneType"),
    ],
)
def test_damaged_records_are_one_clear_line(tmp_path, capsys, damage, words):
    error = compared(
        tmp_path, capsys, [suite_record(1, *MARGINS) | damage], [suite_record(1, *MARGINS)]
    )
    assert "holds a damaged record of a suite" in error and words in error
