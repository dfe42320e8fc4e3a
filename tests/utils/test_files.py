"""Locks of folders."""

import errno
import fcntl
import os

import pytest

from utils.cli import UserError
from utils.files import lock_folder


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
