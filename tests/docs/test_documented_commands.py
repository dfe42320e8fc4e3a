"""The pages: every command parses, every flag and variable that they name exists."""

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest
from doc_tools import NAMES, PAGES, ROOT, blocks, quoted
from script_tools import parser_of, scripts

# Words in capital letters that are no variables of a script: placeholders and acronyms.
NOT_VARIABLES = {"CUDA", "JSON", "FOLDER", "FILE", "NAME", "SCALE", "CSV", "UTF", "RUN"}

STAGE_SCRIPTS = {
    "stage1-finetune.sh": ("finetune.py",),
    "stage2-search-ticket.sh": ("search_ticket.py", "prune_iteratively.py"),
    "stage3-draw-retrain_ticket.sh": ("retrain_ticket.py",),
}

WRAPPERS = {"reproduce.sh": "reproduce.py", "benchmarks/gpu.sh": "benchmarks/gpu.py"}


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
def test_commands_parse(page, line, parsers):
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
