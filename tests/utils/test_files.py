"""Locks of folders, and files of JSON lines."""

import errno
import fcntl
import os

import pytest

from utils.cli import UserError
from utils.files import append_jsonl, lock_folder, read_jsonl


def test_a_folder_is_locked_once(tmp_path):
    first = lock_folder(tmp_path, "x.lock")
    with pytest.raises(UserError, match="another process is at work"):
        lock_folder(tmp_path, "x.lock")
    first.close()
    lock_folder(tmp_path, "x.lock").close()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match="cannot be locked .*not implemented.*-o flock"):
        lock_folder(tmp_path, "x.lock")


def test_a_complete_record_without_a_line_end_is_kept(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}')
    append_jsonl(path, {"c": 3})
    path.write_text(path.read_text() + '{"torn": ')
    append_jsonl(path, {"d": 4})
    assert read_jsonl(path) == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]
