"""Caches under a home or cache folder that cannot be written."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import attack_tools
import pytest
from conftest import skip_without_textattack
from script_tools import finetune

from utils import cache, cli, process_state
from utils.files import read_jsonl

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "/dev/null/home"  # nobody, not even root, can make a folder there


@pytest.fixture(autouse=True)
def only_this_environment(monkeypatch, tmp_path):
    """A temporary folder of the test, no chosen caches, and the old environment at the end."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with process_state.environment():
        for name in ("ROBUST_TICKETS_CACHE", "XDG_CACHE_HOME", "HF_HOME", *cache._OF_LIBRARIES):
            monkeypatch.delenv(name, raising=False)
        yield


@pytest.fixture
def temporary(tmp_path) -> Path:
    return tmp_path / "temporary" / f"robust_tickets-{os.getuid()}"


def test_a_home_that_can_be_written_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.settle() == [] and "XDG_CACHE_HOME" not in os.environ
    assert cache.cache_folder() == cache.writable_cache() == tmp_path / "home/.cache/robust_tickets"
    assert cache.cached("a", "b") == tmp_path / "home/.cache/robust_tickets/a/b"
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path / "chosen"))
    assert cache.cached("a") == tmp_path / "chosen/a"


@pytest.mark.parametrize("home", [NOWHERE, "/proc/none"])
def test_another_home_is_replaced_by_the_temporary_folder(monkeypatch, temporary, home):
    monkeypatch.setenv("HOME", home)
    [warning] = cache.settle()
    assert f"{home} cannot be written: caches go to {temporary};" in warning
    assert cache.cached("a") == temporary / "a" and os.environ["XDG_CACHE_HOME"] == str(temporary)
    assert temporary.stat().st_mode & 0o77 == 0
    assert cache.settle() == []  # in a process that this one starts


def test_a_user_without_a_home_gets_one(monkeypatch, temporary):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError()))
    assert cache.settle() == [f"HOME is not set: caches go to {temporary}"]
    assert cache.cached("a") == temporary / ".cache" / "robust_tickets" / "a"
    assert Path.home() == temporary and cache.settle() == []


def test_a_cache_that_cannot_be_written_is_still_read(monkeypatch, temporary, tmp_path):
    chosen, home = tmp_path / "read-only", tmp_path / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (chosen / "tokens").mkdir(parents=True)
    (chosen / "tokens" / "x").touch()
    monkeypatch.setattr(cache, "_can_hold_files", lambda folder: folder == temporary)
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(chosen))
    monkeypatch.setenv("HOME", str(home))
    of_home, of_cache = cache.settle()
    assert str(home) in of_home and f"ROBUST_TICKETS_CACHE={chosen} cannot be written" in of_cache
    assert cache.cached("tokens", "x") == chosen / "tokens" / "x"
    assert cache.cached("tokens", "y") == temporary / "tokens" / "y"
    assert os.environ["HF_HOME"] == str(home / ".cache" / "huggingface")


def test_without_any_folder_one_line_says_so(monkeypatch, capsys):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    cli.settle_caches.cache_clear()
    with pytest.raises(SystemExit):
        cli.run(lambda: None)
    assert "no folder for temporary files can be written" in capsys.readouterr().err


def test_stage_1_runs_without_a_home(monkeypatch, encoder, sst2_folder, tmp_path, capsys):
    monkeypatch.setenv("HOME", NOWHERE)
    cli.settle_caches.cache_clear()
    run = finetune(encoder, sst2_folder, tmp_path / "run", epochs=1)
    assert (run / "last" / "model.safetensors").is_file()
    assert capsys.readouterr().err.count("cannot be written: caches go to") == 1


# Scripts in one new process, because its imports take seconds.
ONE_PROCESS = """
import importlib, sys
sys.path.insert(0, {root!r})
from utils import cli
for name, *words in {commands}:
    sys.argv = [name + ".py", *words]
    cli.run(importlib.import_module(name).main)
"""


@pytest.mark.slow
def test_an_attack_and_its_table_need_no_home(tmp_path):
    skip_without_textattack()
    data = attack_tools.write_rows(tmp_path / "test.tsv", attack_tools.SENTENCES)
    run = attack_tools.fake_run(tmp_path / "run", data, ticket=None)
    environment = {"PATH": os.environ["PATH"], "HOME": NOWHERE, "ROBUST_TICKETS_CACHE": NOWHERE}
    environment |= {"TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}
    attack = ["attack", "--model_name", run, "--recipe", "deepwordbug", "--num_examples", 2]
    report = ["report", "--records", run, "--output_dir", tmp_path / "table"]
    commands = [list(map(str, words)) for words in (attack, report)]
    program = ONE_PROCESS.format(root=str(ROOT), commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "atplotlib" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert NOWHERE in lines[0] and "ROBUST_TICKETS_CACHE" in lines[1]
    [record] = read_jsonl(run / "records.jsonl")
    assert record["rows_attacked"] == 2 and (tmp_path / "table" / "figure.png").is_file()
