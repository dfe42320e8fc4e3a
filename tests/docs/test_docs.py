"""The pages: every file and section that they name exists, examples run, their form."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from doc_tools import NAMES, ROOT, blocks, quoted, without_blocks

MOST_README_LINES = 200

# German syntax and words of an earlier vocabulary.
FORBIDDEN = (
    r"less dense|stands? beside|beside\b|goes on|leaves with|is no run|is no suspect|told|mended|"
    "as many passes|left out|behind step|of which|anew|alone,|but for|protocol paper"
)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as the common forges make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(linked), f"{name} links to {target}: no such section"


@cache
def script_names() -> set[str]:
    """Names of all scripts, wherever they are; .venv would take seconds."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    inside = (path for folder in folders for path in folder.rglob("*.*"))
    return {path.name for path in (*ROOT.glob("*.*"), *inside)}


@pytest.mark.parametrize("name", NAMES)
def test_files_exist(name):
    """Paths in backticks whose first folder, or whose name, is one of the repository's."""
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"runs"}
    for text in quoted(ROOT / name):
        text = text.split("#")[0].strip()
        if not re.fullmatch(r"[\w./*-]+", text):
            continue
        in_tree = "/" in text and text.split("/")[0] in tops
        is_script = "/" not in text and text.endswith((".py", ".sh")) and "*" not in text
        if in_tree:
            places = (ROOT, (ROOT / name).parent)
            assert any(list(place.glob(text.rstrip("/"))) for place in places), (name, text)
        elif is_script:
            assert text in script_names(), f"{name} names {text}, which does not exist"


@pytest.mark.parametrize("name", NAMES)
def test_words(name):
    matches = re.findall(rf"\b(?:{FORBIDDEN})|[†‡]", without_blocks(ROOT / name))
    assert not matches, f"{name} uses {matches}"


@pytest.mark.parametrize("name", NAMES)
def test_python_blocks_compile(name):
    for block in blocks(ROOT / name, "python"):
        compile(block, name, "exec")


def test_the_example_that_reads_a_ticket_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (block,) = blocks(ROOT / "results" / "README.md", "python")
    exec(block, {})
    assert capsys.readouterr().out.startswith("robust 0.29999")


@pytest.mark.slow
def test_the_example_that_loads_a_ticket_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    (block,) = blocks(ROOT / "docs" / "tickets.md", "python")
    names: dict = {}
    exec(block, names)
    weights = dict(names["model"].named_parameters())
    pruned = weights["bert.encoder.layer.0.intermediate.dense.weight"] == 0
    assert 0.2 < float(pruned.float().mean()) < 0.4


def test_the_layout_names_every_module():
    layout = (ROOT / "CONTRIBUTING.md").read_text().split("## Layout")[1].split("```")[1]
    words = set(re.findall(r"\w+", layout))
    for package in ("analysis", "masking", "training", "evaluation", "experiments", "utils"):
        modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
        assert modules <= words, modules - words


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_README_LINES


def test_pages_start_with_their_purpose():
    for page in (ROOT / "docs").glob("*.md"):
        title, blank, first, *_ = page.read_text().splitlines()
        assert title.startswith("# ") and not blank and first.startswith("This page "), page


def test_sections_of_the_study_are_numbered_in_order():
    titles = re.findall(r"^## (\d+)\. ", (ROOT / "docs" / "study.md").read_text(), re.MULTILINE)
    assert titles == [str(i + 1) for i in range(len(titles))] and len(titles) > 5


def test_every_deviation_has_a_row():
    text = (ROOT / "docs" / "deviations.md").read_text()
    assert re.findall(r"^\| (D\d+) ", text, re.MULTILINE) == [f"D{i}" for i in range(1, 18)]


def test_results_are_small():
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    files = [ROOT / name for name in listed if name] or (ROOT / "results").rglob("*")
    assert sum(path.stat().st_size for path in files if path.is_file()) <= 12_000_000
