"""Run folders: resume points, locks, inputs that changed, and overwriting."""

import dataclasses
import gc
import shutil

import pytest
import torch
from script_tools import Killed, forget

from utils import files, resume_point, runs
from utils.cli import UserError
from utils.settings import Role, setting


@dataclasses.dataclass
class Settings:
    """Settings of an example script."""

    a: int = setting(0, "number")
    scores: str | None = setting(None, "file", role=Role.PLACE)
    overwrite: bool = setting(False, "start over", role=Role.OUTPUT)


@pytest.mark.parametrize("offset", [0, 50, 1000, -40, -1])
def test_an_altered_resume_point_is_named(offset, tmp_path):
    run = runs.Run(tmp_path / "r", "x", Settings())
    run.begin({})
    run.save_state({"tensor": torch.arange(500.0)})
    assert torch.equal(run.load_state()["tensor"], torch.arange(500.0))
    path = tmp_path / "r" / "state.pt"
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(UserError, match="state.pt is damaged"):
        run.load_state()
    path.write_bytes(data[:100])
    with pytest.raises(UserError, match="state.pt is damaged"):
        run.load_state()


def test_a_resume_point_of_another_version_is_named(tmp_path, monkeypatch):
    run = runs.Run(tmp_path / "r", "x", Settings())
    run.begin({})
    with monkeypatch.context() as patch:
        patch.setattr(resume_point, "STATE_FORMAT", 1)
        run.save_state({})
    with pytest.raises(UserError, match="by another version"):
        run.load_state()


def test_two_processes_in_one_folder(tmp_path):
    first = runs.Run(tmp_path / "r", "x", Settings(a=1))
    second = runs.Run(tmp_path / "r", "x", Settings(a=1))
    first.begin({})
    with pytest.raises(UserError, match="another process is at work"):
        second.begin({})
    first.finish({}, [])
    with pytest.raises(
        UserError, match="has been at work"
    ):  # finished after `second` read the folder
        second.begin({})
    assert runs.Run(tmp_path / "r", "x", Settings(a=1)).finished


def test_inputs_that_changed_since_the_run_began(tmp_path):
    data = {"splits": {"train": {"rows": 3, "fingerprint": "a"}}}
    runs.Run(tmp_path / "r", "x", Settings(a=1)).begin({"data": data})
    gc.collect()
    again = runs.Run(tmp_path / "r", "x", Settings(a=1))
    with pytest.raises(UserError, match="the data of the run in .* has changed since it began"):
        again.begin({"data": {"splits": {"train": {"rows": 3, "fingerprint": "b"}}}})
    del again
    gc.collect()
    runs.Run(tmp_path / "r", "x", Settings(a=1)).begin({"data": data})


def test_an_overwrite_that_was_killed_while_it_deleted(tmp_path, monkeypatch):
    run = runs.Run(tmp_path / "r", "x", Settings(a=1))
    run.begin({})
    (tmp_path / "r" / "last").mkdir()
    (tmp_path / "r" / "link").symlink_to(tmp_path)
    run.finish({}, [])
    with monkeypatch.context() as patch, pytest.raises(Killed) as stop:
        patch.setattr(shutil, "rmtree", lambda _: (_ for _ in ()).throw(Killed))
        runs.Run(tmp_path / "r", "x", Settings(a=2, overwrite=True)).begin({})
    forget(stop)
    third = runs.Run(tmp_path / "r", "x", Settings(a=2))
    third.begin({})
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["run.json", "run.lock"]
    assert not third.finished


def test_attacks_on_an_unfinished_run_keep_their_records(tmp_path):
    run = runs.Run(tmp_path / "r", "x", Settings())
    run.begin({})
    files.append_jsonl(tmp_path / "r" / "records.jsonl", {"kind": "attack", "attack_id": "a"})
    run.finish({}, [{"kind": "evaluation"}])
    kinds = [r["kind"] for r in files.read_jsonl(tmp_path / "r" / "records.jsonl")]
    assert kinds == ["evaluation", "attack"]


def test_overwrite_deletes_runs_and_nothing_else(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds no run"):
            runs.Run(home, "x", Settings(overwrite=overwrite))
    run = runs.Run(tmp_path / "r", "x", Settings(a=1))
    run.begin({})
    (tmp_path / "r" / "big").mkdir()
    run.finish({}, [])
    with pytest.raises(UserError, match="a 1 then, 2 now"):
        runs.Run(tmp_path / "r", "x", Settings(a=2))
    # It does not delete its inputs either, because the run reads them later.
    for source in (tmp_path / "r", tmp_path / "r" / "big"):
        with pytest.raises(UserError, match="--scores .* lies in the --output_dir"):
            runs.Run(tmp_path / "r", "x", Settings(scores=str(source), overwrite=True))
    assert (tmp_path / "r" / "big").exists()
    runs.Run(tmp_path / "r", "x", Settings(a=2, overwrite=True)).begin({})
    assert not (tmp_path / "r" / "big").exists() and not (tmp_path / "r" / "result.json").exists()
