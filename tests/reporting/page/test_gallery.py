"""tickets.md and tickets.html: the committed gallery, and galleries of invented tickets."""

import shutil

from conftest import call, fails
from page_tools import shown_text
from record_tools import ROOT, attack, controlled, write

from masking.ticket_files import read_manifest

STUDY = ROOT / "results" / "study"
NAME = "sst2-seed2-robust-0.3"


def gallery(tmp_path, records, *tickets) -> tuple[str, str]:
    folders = ("--records", records, "--output_dir", tmp_path / "out")
    call("report", *folders, "--gallery", *tickets)
    return tuple((tmp_path / "out" / f"tickets.{end}").read_text("utf-8") for end in ("md", "html"))


def test_the_committed_gallery_is_that_of_the_committed_tickets(tmp_path, monkeypatch):
    """To make it again: python report.py --records results/study/study-records.jsonl --gallery
    results/study/tickets --output_dir docs"""
    monkeypatch.chdir(ROOT)
    places = "results/study/study-records.jsonl", "results/study/tickets"
    markdown, html = gallery(tmp_path, *places)
    assert markdown == (ROOT / "docs" / "tickets.md").read_text("utf-8")
    assert html == (ROOT / "docs" / "tickets.html").read_text("utf-8")
    assert len(html) < 5_000_000 and html.count("load_ticketed(") == 2 * 6


def test_a_ticket_has_the_numbers_of_its_records(tmp_path):
    path = tmp_path / f"{NAME}.safetensors"
    shutil.copy(STUDY / "tickets" / path.name, path)
    write(tmp_path / "runs", [attack(seed=2, task="sst2", row_outcomes="rrrrffffww")])
    markdown, html = gallery(tmp_path, tmp_path / "runs", path)
    assert "## How well they do" not in markdown  # no record of this ticket
    assert "No record of a retraining of this ticket." in html
    line = controlled(2, task="sst2", row_outcomes="rrrrrrffww")
    line["ticket"]["scores_sha256"] = read_manifest(path)["source"]["sha256"]
    dense = attack(seed=2, task="sst2", row_outcomes="rrrrffffww")
    write(tmp_path / "runs", [line, dense])
    markdown, html = gallery(tmp_path, tmp_path / "runs", path)
    row = f"| `{NAME}` | sst2, 3 epochs, textfooler-minilm | 80.0 [70.0, 88.0] | 60.0 |"
    assert row in markdown and "+20.0 (p = 0.5)" in markdown
    assert "+20.0 (p = 0.5)" in shown_text(html) and "1.4 MB" in shown_text(html)


def test_what_is_no_ticket_is_refused(tmp_path, capsys):
    write(tmp_path / "runs", [attack()])
    folders = ("--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    error = fails(capsys, "report", *folders, "--gallery", tmp_path / "runs")
    assert "no ticket files in" in error and not (tmp_path / "out").exists()
    error = fails(capsys, "report", *folders, "--gallery", tmp_path, "--html")
    assert "--gallery writes a gallery only: omit --html" in error
