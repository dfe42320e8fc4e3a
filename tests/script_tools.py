"""Scripts: their parsers, the code that they reach, and small runs of the stages."""

import argparse
import ast
import contextlib
import gc
import importlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import call

from training import optim
from utils.files import read_jsonl

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


# Stage runs of seconds.
SMALL = {"max_train_rows": 160, "max_eval_rows": 40, "bsz": 16, "quiet": True}


def finetune(encoder: Path, data: Path, folder: Path, /, **flags) -> Path:
    """Stage 1 on SST-2. Returns the run folder, like the functions below."""
    usual = {"model_name": encoder, "task_name": "sst2", "data_dir": data, "lr": 1e-2} | SMALL
    call("finetune", **usual | flags, output_dir=folder)
    return folder


def search(dense: Path, folder: Path, /, *words, **flags) -> Path:
    """Stage 2."""
    usual = {"model_name": dense, "bsz": 16, "adv_steps": 2, "quiet": True}
    call("search_ticket", *words, **usual | flags, output_dir=folder)
    return folder


def retrain(encoder: Path, scores: Path, folder: Path, /, **flags) -> Path:
    """Stage 3 at sparsity 0.4."""
    usual = {"model_name": encoder, "scores": scores, "sparsity": 0.4, "lr": 1e-2}
    call("retrain_ticket", **usual | {"bsz": 16, "quiet": True} | flags, output_dir=folder)
    return folder


def imp(encoder: Path, data: Path, folder: Path, /, **flags) -> Path:
    """Iterative magnitude pruning with one epoch per round."""
    usual = {"model_name": encoder, "task_name": "sst2", "data_dir": data, "lr": 1e-2, "epochs": 1}
    call("prune_iteratively", **usual | SMALL | flags, output_dir=folder)
    return folder


def at_call(number: int, act: Callable[[], None], real: Callable) -> Callable:
    """`real`, before whose call number `number` `act` is called."""
    calls = itertools.count(1)

    def replacement(*arguments, **keywords):
        if next(calls) == number:
            act()
        return real(*arguments, **keywords)

    return replacement


class Killed(BaseException):
    """Like SIGKILL: no code may catch it."""


def die() -> None:
    raise Killed


def forget(stop) -> None:
    """Release the frames of an interrupted run and thus its lock, like the end of a process."""
    error = stop.value
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
    stop._excinfo = None
    gc.collect()


@contextlib.contextmanager
def killed_in_step(step: int) -> Iterator[None]:
    """The run dies in optimizer step `step`."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(optim, "set_lr", at_call(step, die, optim.set_lr))
        yield


def without_times(path: Path) -> list[dict]:
    """The lines of a JSON-lines file without the seconds that the run took."""
    drop = ("seconds", "seconds_of_training")
    return [{k: v for k, v in line.items() if k not in drop} for line in read_jsonl(path)]
