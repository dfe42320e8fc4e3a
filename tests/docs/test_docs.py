"""The pages: every command parses, every file, section, flag and variable they name exists."""

import argparse
import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from script_tools import parser_of, scripts

from evaluation.by_class import Rate
from reporting.compared_suites import SuiteRecord, compare
from reporting.render import rate
from utils.files import read_jsonl

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

MOST_README_LINES = 200
# German syntax and words of an earlier vocabulary.
FORBIDDEN = (
    r"less dense|stands? beside|beside\b|goes on|leaves with|is no run|is no suspect|told|mended|"
    "as many passes|left out|behind step|of which|anew|alone,|but for|protocol paper"
)
# Words in capital letters that are no variables of a script: placeholders and acronyms.
NOT_VARIABLES = {"CUDA", "JSON", "FOLDER", "FILE", "NAME", "SCALE", "CSV", "UTF", "RUN"}
STAGE_SCRIPTS = {
    "stage1-finetune.sh": ("finetune.py",),
    "stage2-search-ticket.sh": ("search_ticket.py", "prune_iteratively.py"),
    "stage3-draw-retrain_ticket.sh": ("retrain_ticket.py",),
}
WRAPPERS = {"reproduce.sh": "reproduce.py", "benchmarks/gpu.sh": "benchmarks/gpu.py"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def quoted(page: Path) -> list[str]:
    """What stands in backticks outside blocks; a line break in it is a space."""
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", without_blocks(page))]


def is_command(text: str) -> bool:
    return bool(re.match(r"(sh|python|torchrun) \S+\.(sh|py)\b", text))


def commands() -> Iterator[tuple[str, str]]:
    """Page and command line, from sh blocks and from backticks."""
    for name, page in zip(NAMES, PAGES, strict=True):
        for block in blocks(page, "sh"):
            yield from ((name, line) for line in block.splitlines() if line.strip())
        yield from ((name, text) for text in quoted(page) if is_command(text))


@pytest.fixture(scope="module")
def parsers() -> dict[str, argparse.ArgumentParser]:
    return {script: parser_of(script) for script in scripts()}


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


READ_BY_LIBRARIES = {"NLTK_DATA", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HOME", "TMPDIR"}
READ_BY_LIBRARIES |= {
    "LOCAL_RANK",
    "PMI_SIZE",
    "MASTER_ADDR",
    "HF_HUB_ETAG_TIMEOUT",
    "HF_HUB_DOWNLOAD_TIMEOUT",
}


def known_variables() -> set[str]:
    """Names that a shell script or a Python file reads from the environment."""
    found = set()
    for path in [*ROOT.glob("*.sh"), *ROOT.glob("scripts/*.sh")]:
        text = path.read_text()
        found |= set(re.findall(r"\$\{?([A-Z][A-Z_]+)", text))
        found |= set(re.findall(r"^([A-Z][A-Z_]+) +[123]", text, re.MULTILINE))
    folders = (ROOT, *(ROOT / name for name in ("evaluation", "training", "utils")))
    for path in (path for folder in folders for path in folder.glob("*.py")):
        found |= set(re.findall(r"environ[\w.]*[\[(]\"([A-Z_]+)\"", path.read_text()))
    return found | READ_BY_LIBRARIES


def parse(parser: argparse.ArgumentParser, script: str, words: list[str], need_all: bool) -> None:
    required = [action for action in parser._actions if action.required]
    try:
        if not need_all:  # flags that a stage script passes on
            for action in required:
                action.required = False
        _, rest = parser.parse_known_args(words)
    except SystemExit:
        pytest.fail(f"{script} does not parse {shlex.join(words)}")
    finally:
        for action in required:
            action.required = True
    # Some benchmarks pass their further flags on to a stage.
    passed_on = {"--task_name"} if script.startswith("benchmarks/") else set()
    unknown = {word for word in rest if word.startswith("-")} - passed_on
    assert not unknown and (passed_on or not rest), f"{script} has no {rest}"


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_parse(page, line, parsers, capsys):
    words = shlex.split(line, comments=True)
    if ">" in words:
        words = words[: words.index(">")]
    while words and re.match(r"[A-Z_]+=", words[0]):
        name = words.pop(0).split("=")[0]
        assert name in known_variables(), f"nothing reads {name}"
    program, *words = words
    program = program.removeprefix(".venv/bin/")
    if program == "pip":
        files = [word for flag, word in zip(words, words[1:], strict=False) if flag == "-r"]
        assert files and all((ROOT / name).is_file() for name in files)
        return
    if program == "hf":  # the hub's client
        assert words[0] == "download"
        return
    if program == "python" and words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[2:] if not word.startswith("-"))
        return
    assert program in ("sh", "python", "torchrun"), line
    if program == "torchrun":
        words = words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]
    script, *arguments = words
    assert (ROOT / script).is_file(), f"{page} names {script}, which does not exist"
    if script in STAGE_SCRIPTS:
        for python_script in STAGE_SCRIPTS[script] if arguments else ():
            parse(parsers[python_script], script, arguments, need_all=False)
    elif WRAPPERS.get(script, script) in parsers:
        python_script = WRAPPERS.get(script, script)
        parse(parsers[python_script], script, arguments, need_all=True)
    else:
        text = (ROOT / script).read_text()
        if script == "run_tests.sh":  # passes its arguments on to pytest
            text += (ROOT / "tests" / "conftest.py").read_text()
        for word in arguments:
            assert not word.startswith("--") or word in text, f"{script} has no {word}"


@pytest.mark.parametrize("name", NAMES)
def test_flags_exist(name, parsers):
    known = {flag for parser in parsers.values() for flag in flags_of(parser)}
    known |= {"--fast", "--transformers5", "--write_tables", "--nproc_per_node"}
    known |= {"--require-hashes", "--no-deps", "--dry-run", "--ignore-installed", "--report"}  # pip
    known |= {"--cpus-per-task", "--mem"}  # sbatch
    for text in quoted(ROOT / name):
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]+", text):
            assert flag in known, f"{name} names {flag}, which no script has"


@pytest.mark.parametrize("name", NAMES)
def test_variables_exist(name):
    known = known_variables() | constants()
    for text in quoted(ROOT / name):
        if re.fullmatch(r"[A-Z][A-Z_]{2,}", text) and text not in NOT_VARIABLES:
            assert text in known, f"{name} names {text}, which nothing reads"


def constants() -> set[str]:
    """Names of constants at the top level of a module."""
    found = set()
    for package in ("masking", "training", "evaluation", "experiments", "reporting"):
        for path in ROOT.glob(f"{package}/*.py"):
            found |= set(re.findall(r"^([A-Z_]+)\b.* = ", path.read_text(), re.MULTILINE))
    return found


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


TABLE_TASKS = ("builtin/rotten_tomatoes", "sst2")


def studied(recipe: str, task: str, sparsity: float | None, epochs: int) -> list[dict]:
    """Records of one of the study's models, of seeds 1, 2 and 3."""
    records = read_jsonl(ROOT / "results" / "study" / "study-records.jsonl")
    chosen = [
        r
        for r in records
        if (r["kind"], r["recipe"], r["task"]) == ("attack", recipe, task)
        and (r["ticket"] or {"sparsity_asked": None})["sparsity_asked"] == sparsity
        and (r["ticket"] or {"kind": "robust"})["kind"] == "robust"
        and (r["ticket"] or {}).get("structure") is None
        and not r.get("stop_at_loss")
        and (r["epochs"], r["epoch"], r["score_with"]) == (epochs, epochs, "log_odds")
    ]
    assert sorted(r["seed"] for r in chosen) == [1, 2, 3]
    return sorted(chosen, key=lambda r: r["seed"])


def outcomes_of(records: list[dict], label: str) -> list[str]:
    """Letters of the rows of one class: r robust, f fooled, w wrong before the attack."""
    return [
        outcome
        for r in records
        for outcome, other in zip(r["row_outcomes"], r["row_labels"], strict=True)
        if other == label
    ]


def aua_by_class(recipe: str, sparsity: float | None, epochs: int) -> list[str]:
    """Aua of the study's models, mean of three seeds: both classes of both tasks, one decimal."""
    cells = []
    for task in TABLE_TASKS:
        records = studied(recipe, task, sparsity, epochs)
        for label in "01":
            rows = outcomes_of(records, label)
            cells.append(f"{100 * rows.count('r') / len(rows):.1f}")
    return cells


@pytest.mark.parametrize("name", ["README.md", "docs/study.md"])
def test_accuracies_by_class_are_those_of_the_records(name):
    """Rows such as '| robust ticket 30 %, 10 epochs | 29.3 | **45.7** | 33.7 | **55.3** |'."""
    recipe, count = "textfooler-neighbours", 0
    number = r"\*{0,2}(\d+\.\d)\*{0,2}"
    row = re.compile(
        r"^\| (?:under `([\w-]+)`: )?(?:dense|robust ticket (\d+) %), (\d+) epochs"
        + rf" \| {number} \| {number} \| {number} \| {number} \|$"
    )
    for line in (ROOT / name).read_text().splitlines():
        if match := row.match(line):
            attack, percent, epochs, *cells = match.groups()
            recipe, count = attack or recipe, count + 1
            sparsity = int(percent) / 100 if percent else None
            assert cells == aua_by_class(recipe, sparsity, int(epochs)), line
    assert count >= 4


@pytest.mark.parametrize(
    ("recipe", "losses"), [("textfooler-neighbours", 23), ("textbugger-minilm", 20)]
)
def test_comparisons_by_class_are_those_of_the_records(recipe, losses):
    """Tickets against dense models, seed by seed, as README.md and docs/study.md count them."""
    gains = {"0": [], "1": []}
    for task, sparsity, epochs in itertools.product(TABLE_TASKS, (0.3, 0.5), (10, 19)):
        tickets = studied(recipe, task, sparsity, 10)
        dense = studied(recipe, task, None, epochs)
        for (one, other), label in itertools.product(zip(tickets, dense, strict=True), "01"):
            robust = [outcomes_of([r], label).count("r") for r in (one, other)]
            gains[label].append(robust[0] - robust[1])
    assert len(gains["1"]) == 24 and all(gain > 0 for gain in gains["1"])
    assert sum(gain < 0 for gain in gains["0"]) == losses
    page = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert re.search(rf"\b{losses}\b under `{recipe}`", page)
    if recipe == "textfooler-neighbours":
        page = " ".join((ROOT / "README.md").read_text().split())
        assert f"gains in all 24, and the negative class loses in {losses}." in page


def test_the_change_of_clean_accuracy_is_that_of_the_records():
    """The largest change in a class, mean of three seeds, with as many epochs; no artifact."""
    changes = []
    for task, sparsity, label in itertools.product(TABLE_TASKS, (0.3, 0.5), "01"):
        models = [studied("textfooler-neighbours", task, s, 10) for s in (sparsity, None)]
        right = [outcomes_of(m, label) for m in models]
        one, other = (100 * (1 - rows.count("w") / len(rows)) for rows in right)
        changes.append(abs(one - other))
        for record in models[0] + models[1]:
            assert record["attacked_rows_in_train"] == record["attacked_rows_in_dev"] == 0
            assert record["saturated_percent"] == record["rows_of_equal_importance"] == 0
    page = " ".join((ROOT / "README.md").read_text().split())
    assert f"changes by at most {max(changes):.1f} points in either class" in page


def test_overlaps_are_those_of_the_record():
    text = (ROOT / "results" / "study" / "shared-texts.md").read_text()
    _, *numbers = re.findall(r"\| 200 \| (\d+) \||in common: (\d+)\.", "| 200 | 0 |" + text)
    counts = [int(a or b) for a, b in numbers]
    for name in ("README.md", "docs/study.md"):
        page = " ".join((ROOT / name).read_text().split())
        assert all(f"{count:,}" in page for count in counts) and len(counts) == 3


def test_results_are_small():
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    files = [ROOT / name for name in listed if name] or (ROOT / "results").rglob("*")
    assert sum(path.stat().st_size for path in files if path.is_file()) <= 12_000_000


SECOND_HALF = ROOT / "results" / "study" / "second-half"


def suites(name: str, task: str) -> list[dict]:
    """Records of a model's suites on a task: before texts were carried over, and after."""
    return [r for r in read_jsonl(SECOND_HALF / f"{name}.jsonl") if r["task"] == task]


def second_half(position: int, task: str = "sst2") -> dict:
    """What compare_suites.py makes of the records at `position` (0: before texts were carried)."""
    ticket, dense = (
        [SuiteRecord.of(suites(name, task)[position], name)]
        for name in ("ticket-robust-0.3", "dense-epochs19")
    )
    return compare(ticket, dense)[task]["measures"]


@pytest.mark.parametrize("task", TABLE_TASKS)
@pytest.mark.parametrize(
    "row, position, measure",
    [
        ("Clean", -1, "Clean"),
        ("Aua, margin attack alone", -1, "Aua, margin attack alone"),
        ("Aua under the union: mean", -1, "Aua, mean"),
        ("negative", -1, "Aua, negative"),
        ("positive", -1, "Aua, positive"),
        ("**class-equalized** (the endpoint)", -1, "Aua, class-equalized"),
        ("*without carried texts*: mean", 0, "Aua, mean"),
        ("*without carried texts*: class-equalized", 0, "Aua, class-equalized"),
    ],
)
def test_the_page_of_the_study_has_the_numbers_of_the_second_half(row, position, measure, task):
    numbers = second_half(position, task)[measure]
    cells = [row, f"{numbers['model']:.1f}", f"{numbers['reference']:.1f}"]
    line = f"| {' | '.join(cells)} | {rate(Rate(*numbers['difference']))} |"
    assert line in (ROOT / "docs" / "study.md").read_text()


@pytest.mark.parametrize(("task", "rows"), [("sst2", (63, 32)), (TABLE_TASKS[0], (69, 20))])
def test_the_pages_count_the_rows_that_carried_texts_fool(task, rows):
    survived = [
        SuiteRecord.of(r, "ticket").states["union"].right().sum()
        for r in suites("ticket-robust-0.3", task)
    ]
    assert survived == [rows[0], rows[0] - rows[1]]
    dense = [r["percent"] for r in suites("dense-epochs19", task)]
    assert dense[0]["union"] == dense[1]["union"]  # no row falls the other way round


def test_the_pages_say_on_how_many_rows_carried_texts_fool():
    text = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert (
        "on 63 rows" in text and "fool it on 32 of them (on Rotten Tomatoes, on 20 of 69)" in text
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    measure = second_half(-1, TABLE_TASKS[0])
    equalized, mean = (measure[f"Aua, {name}"] for name in ("class-equalized", "mean"))
    endpoint = "{:.1f} [{:.1f}, +{:.1f}]".format(*equalized["difference"]).replace("-", "−")
    assert "32 of the 63 rows" in text and f"On Rotten Tomatoes it is {endpoint}" in text
    assert f"the mean still gains {mean['difference'][0]:.1f}" in text


def test_the_page_of_the_study_has_the_answers_of_the_probe():
    of_ticket, of_dense = (
        suites(name, "sst2")[-1]["default_answer"]
        for name in ("ticket-robust-0.3", "dense-epochs19")
    )
    positive = [round(a[k][-1][1]) for k in ("unknown", "random") for a in (of_ticket, of_dense)]
    text = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert (
        "to {} % of the texts whose content words are [UNK], dense to {} %".format(*positive[:2])
        in text
    )
    assert "with random words {} and {} %".format(*positive[2:]) in text
    unknown = [
        round(suites(name, TABLE_TASKS[0])[-1]["default_answer"]["unknown"][-1][1])
        for name in ("ticket-robust-0.3", "dense-epochs19")
    ]
    other = "to {} % of the texts whose content words are [UNK], dense to {} %".format(*unknown)
    assert text.count(other) == 1
    shifted = second_half(-1)["Aua, margin attack, reference with equal Clean"]
    assert f"reaches {shifted['reference']:.1f}, not {shifted['model']:.1f}" in text
