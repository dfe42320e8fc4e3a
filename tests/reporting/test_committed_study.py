"""The committed tables of the study, and the page that quotes them."""

import re
import shutil

import pytest
from record_tools import ROOT, study

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.slow
def test_the_study_s_tables_are_those_of_its_records(tmp_path):
    kept = ROOT / "results" / "study"
    given = kept / "study-records.jsonl"
    shutil.copy(kept / "costs.jsonl", tmp_path)
    study(tmp_path, records=given, out=".")
    names = ("study.md", "study-summary.md", "study.csv", "study-calibration.csv")
    for name in (*names, "study-costs.csv"):
        assert (tmp_path / name).read_text() == (kept / name).read_text(), name


def test_the_page_quotes_the_study_s_summary():
    """Its rows may leave out the marks after a model's name, and the summary's further tables."""
    summary = (ROOT / "results" / "study" / "study-summary.md").read_text()
    known = {_cells(line) for line in summary.splitlines() if line.startswith("|")}
    quoted, is_summary, head = [], False, "Δ Aua vs. dense (same epochs)"
    for line in (ROOT / "docs" / "study.md").read_text().splitlines():
        is_summary = line.startswith("|") and (is_summary or head in line)
        quoted += [_cells(line)] if is_summary else []
    assert all(row in known for row in quoted), [row for row in quoted if row not in known]
    assert len(quoted) > 20


def _cells(line: str) -> tuple[str, ...]:
    """Of a table's row, without "(control missing)" and the like after the model's name."""
    name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
    return (re.sub(r" (†|\((control|suspicious|one class).*\))$", "", name), *cells)
