"""Records that are damaged or of an earlier version, and a report into its own records."""

from pathlib import Path

import pytest
from conftest import call, fails
from record_tools import attack, rows_of, write

from evaluation import records

pytestmark = pytest.mark.usefixtures("undrawn")


def test_records_of_an_earlier_version_are_read(tmp_path):
    """Those of the first quickstart, which know no method and no settings."""
    folder = Path(__file__).resolve().parents[1] / "records_of_earlier_versions"
    call("report", "--records", folder, "--output_dir", tmp_path / "out")
    table = rows_of(tmp_path / "out" / "table.csv")
    assert [(r["model"], r["sparsity"], r["rows_attacked"]) for r in table] == [
        ("dense fine-tuned", "0.0", "60"),
        ("random ticket", "0.3", "60"),
        ("robust ticket", "0.3", "60"),
    ]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"seed": None}, "seed must be a whole number"),
        ({"row_outcomes": 5}, "row_outcomes must be a text, but is '5'"),
        ({"row_outcomes": "x" * 100}, "of f, r, w"),
        ({"flags": [{}]}, "flags[0].flag is missing"),
        ({"task": None}, "task must be a text"),
        ({"score_with": ["softmax"]}, "score_with must be a text"),
        ({"aua_percent": 900}, "0 to 100"),
        ({"aua_percent": float("inf")}, "0 to 100"),
        ({"rows_attacked": "200"}, "rows_attacked must be a whole number above 0"),
        ({"label_passes": "12"}, "label_passes must be a whole number"),
        ({"similarity_threshold": "x"}, "similarity_threshold must be a finite number"),
        ({"made_in": 5}, "made_in must be a list of two texts"),
        ({"encoder": "minilm"}, "encoder must be an object"),
        ({"intervals_95": {"aua_percent": [1]}}, "intervals_95 must be an object of pairs"),
        ({"stop_at_loss": {"loss": 0.1}}, "epoch must be a whole number"),
        ({"ticket": {"kind": "robust", "sparsity_asked": 1.7}}, "ticket.sparsity_asked must be"),
        ({"ticket": {"kind": "robust", "sparsity_asked": None}}, "[0, 1)"),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path, capsys, damage, said):
    write(tmp_path / "runs", [attack(**damage)])
    line = fails(capsys, "report", "--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    assert "record 1" in line and said in line and not (tmp_path / "out").exists()


def test_a_report_loses_no_line_of_what_it_reads(tmp_path, capsys):
    runs = write(tmp_path / "runs", [{"kind": "evaluation"}, attack()])
    before = (runs / "records.jsonl").read_bytes()
    line = fails(capsys, "report", "--records", runs, "--output_dir", runs)
    assert "1 lines that no row shows: choose another --output_dir" in line
    assert (runs / "records.jsonl").read_bytes() == before and not (runs / "table.md").exists()
    for _ in range(2):  # its own records can be read and written again
        source = runs if not (tmp_path / "out").exists() else tmp_path / "out"
        call("report", "--records", source, "--output_dir", tmp_path / "out")
    assert len(records.read_records([tmp_path / "out"])) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"aua_percent": 32.0}, "aua_percent is 32, but its row_outcomes give 40"),
        ({"rows_attacked": 11}, "for each of 11 rows"),
    ],
)
def test_a_record_whose_rates_are_not_its_rows_is_one_line(tmp_path, capsys, change, said):
    write(tmp_path / "runs", [attack(row_outcomes="rrrrffffww") | change])
    line = fails(capsys, "report", "--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    assert "record 1: " in line and said in line
