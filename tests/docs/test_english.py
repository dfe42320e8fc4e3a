"""Code, comments and pages do not contain the worst patterns of earlier versions."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Regular expressions; each occurred in an earlier version.
PATTERNS = (
    r"\bless dense\b",
    r"\bstands? (beside|in for)\b",
    r"\bgoes on\b",
    r"\bis no (run|suspect|row|part|whole)\b",
    r"\b(is|are) told\b",
    r"\btells? \w+ apart\b",
    r"\bmend(s|ed)?\b",
    r"\bas many (passes|epochs)\b",
    r"\bbehind (step|the (name|resume|state)|its last)\b",
    r"\bleft out\b",
    r"\bcolour",
    r"\b[Tt]okenis",
    r"\b[Nn]ormalis",
    r"\b[Ii]nitialisation\b",
)
SUFFIXES = (".py", ".sh", ".md")
SKIPPED = ("results", "runs", "shared")


def written_files() -> list[Path]:
    """Python files, shell scripts and pages, without SKIPPED and the lists of patterns."""
    tops = [p for p in ROOT.iterdir() if p.name not in SKIPPED and not p.name.startswith(".")]
    paths = [path for top in tops for path in (top.rglob("*") if top.is_dir() else [top])]
    written = (path for path in paths if path.suffix in SUFFIXES)
    return sorted(path for path in written if path.parent != Path(__file__).parent)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_occurs_nowhere(pattern):
    matches = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in written_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not matches, matches
