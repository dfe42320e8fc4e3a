"""Suites in the general report: each is the union of its attacks."""

import json

import pytest
from conftest import call, fails
from doc_tools import ROOT
from record_tools import attack, rows_of, write

from evaluation.by_class import Rate
from reporting import suite_records
from reporting.compared_suites import compare
from reporting.render import rate
from utils.files import read_jsonl

SECOND_HALF = ROOT / "results" / "study" / "second-half"
TICKET, DENSE = (SECOND_HALF / f"{name}.jsonl" for name in ("ticket-robust-0.3", "dense-epochs19"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of the study's suites, with its page."""
    folder = tmp_path_factory.mktemp("report")
    call("report", "--records", TICKET, DENSE, "--output_dir", folder, "--html")
    return folder


def test_the_table_has_what_compare_suites_computes(report):
    compared = compare(*(suite_records.read([file]) for file in (TICKET, DENSE)))
    for task in ("sst2", "builtin/rotten_tomatoes"):
        measures = compared[task]["measures"]
        rows = {r["model"]: r for r in rows_of(report / "table.csv", task=task)}
        for model, side in (("robust ticket", "model"), ("dense fine-tuned", "reference")):
            row = rows[model]
            for column, measure in (
                ("clean_percent", "Clean"),
                ("aua_percent", "Aua, mean"),
                ("equalized_aua_percent", "Aua, class-equalized"),
            ):
                assert float(row[column]) == pytest.approx(measures[measure][side]), (task, column)
            by_class = dict(part.split(":") for part in row["aua_percent_by_class"].split(";"))
            for name, percent in by_class.items():
                assert float(percent) == pytest.approx(measures[f"Aua, {name}"][side], abs=1e-4)
        points, low, high = measures["Aua, class-equalized"]["difference"]
        text = (report / "table.md").read_text()
        assert f"{points:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−") in text


def test_the_page_has_the_class_equalized_column(report):
    page = (report / "report.html").read_text()
    assert "Aua class-equalized %" in page and "suite, textfooler-neighbours" in page
    suites = (suite_records.read([file]) for file in (TICKET, DENSE))
    compared = compare(*([s for s in of if s.seed in (11, 12, 13)] for of in suites))
    gain = rate(
        Rate(*compared["mean"]["measures"]["Aua, class-equalized"]["difference"]), bold=False
    )
    points, interval = gain.split(" ", 1)
    assert f"Class-equalized: {points} points {interval}" in page


def test_the_report_is_the_same_from_the_records_that_it_keeps(report, tmp_path):
    call("report", "--records", report, "--output_dir", tmp_path)
    assert (tmp_path / "table.md").read_text() == (report / "table.md").read_text()
    before = (report / "table.md").read_text()
    call("report", "--records", SECOND_HALF, "--output_dir", tmp_path)  # files of other names
    assert (tmp_path / "table.md").read_text() == before
    call("report", "--records", report, "--output_dir", report)  # loses no line
    assert (report / "table.md").read_text() == before


def test_a_suite_with_fewer_parts_is_not_compared_with_a_whole_one(tmp_path):
    ticket, dense = (read_jsonl(file)[0] for file in (TICKET, DENSE))
    del ticket["rows_per_part"]["carried"]
    run = tmp_path / "run"
    write(run, [ticket, dense], "suites.jsonl")
    write(run, [attack(aua=30.0)])
    call("report", "--records", tmp_path, "--output_dir", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "table.csv")
    assert len({row["protocol_id"] for row in rows}) == len(rows) == 3
    assert [
        row["equalized_aua_percent"] for row in rows if row["recipe"] == "textfooler-minilm"
    ] == [""]


def test_suites_without_a_bias_are_not_shown(tmp_path, capsys):
    line = {
        "kind": "suite",
        "task": "sst2",
        "seed": 1,
        "checkpoint_sha256": "c",
        "parts": ["probe"],
    }
    write(tmp_path / "run", [line], "suites.jsonl")
    error = fails(capsys, "report", "--records", tmp_path, "--output_dir", tmp_path / "out")
    assert "no attack records" in error and not (tmp_path / "out").exists()


def test_a_damaged_suite_is_one_clear_line(tmp_path, capsys):
    line = read_jsonl(TICKET)[0]
    line["margins"]["union"] = line["margins"]["union"][:-1]
    write(tmp_path / "run", [json.loads(json.dumps(line))], "suites.jsonl")
    error = fails(capsys, "report", "--records", tmp_path, "--output_dir", tmp_path / "out")
    assert "suites.jsonl holds a damaged record of a suite" in error
