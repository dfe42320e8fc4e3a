"""The scripts that read a command line, their parsers, and the code that they reach."""

import argparse
import ast
import importlib
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Variables and attributes that hold a script's settings, or a group of them.
SETTINGS = {"args", "settings", "a", "s"}


def scripts() -> list[str]:
    """All Python scripts that read a command line, such as analysis/transfer.py."""
    folders = (ROOT, ROOT / "analysis", ROOT / "benchmarks")
    paths = sorted(path for folder in folders for path in folder.glob("*.py"))
    return [str(p.relative_to(ROOT)) for p in paths if "parse_args(" in p.read_text()]


class Captured(Exception):
    """Carries a script's parser."""


@cache
def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser that a script builds."""

    def capture(self, *_):
        raise Captured(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Captured) as stop:
        patch.syspath_prepend(ROOT / script.rpartition("/")[0])  # as Python does for a script
        module = importlib.import_module(Path(script).stem)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", capture)
        patch.setattr(sys, "argv", [script])
        (module.parse_args if hasattr(module, "parse_args") else module.main)()
    return stop.value.args[0]


@cache
def helps_of(script: str) -> dict[str, str]:
    """Flag -> help text without the default, which may differ between scripts."""
    return {
        action.option_strings[0]: re.sub(r" \(default: [^()]*\)$", "", action.help)
        for action in parser_of(script)._actions
        if action.option_strings and action.dest != "help"
    }


@cache
def imported_files(path: Path) -> tuple[Path, ...]:
    """Our files that a file imports, at its top or within a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = (ROOT / f"{name.replace('.', '/')}.py" for name in sorted(names))
    return tuple(file for file in files if file.is_file())


def reached(script: str) -> set[Path]:
    """A script's file and all of ours that it imports, directly or not."""
    files, waiting = set(), [ROOT / script]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += imported_files(path)
    return files


@cache
def settings_read(path: Path) -> frozenset[str]:
    """Names that a file reads of a script's settings, as args.lr or getattr(args, "lr")."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            names |= {node.attr} if name in SETTINGS else set()
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            names |= {x.value for x in node.args[1:2] if isinstance(x, ast.Constant)}
    return frozenset(names)
