"""Write files so that they are complete or absent, and read them with clear errors.

A file is written under a temporary name and then renamed.
"""

import fcntl
import hashlib
import json
import math
import os
from pathlib import Path
from typing import IO

from utils.cli import UserError


def sha256_of(path: str | Path) -> str:
    """SHA-256 of the bytes of a file, 64 hex digits."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_atomically(path: str | Path, write) -> None:
    """Call write(temporary path), then rename. Readers see the old file or the complete new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())  # complete on the disk before the rename
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, obj: object) -> None:
    """Write an object as JSON."""
    text = json.dumps(obj, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def append_jsonl(path: str | Path, record: dict) -> None:
    """Append one line in a single write. A killed process leaves at most one incomplete line."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as f:
        _drop_torn_line(f)
        f.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def _drop_torn_line(f: IO[bytes]) -> None:
    """Remove an incomplete last line, which a killed writer or a full disk leaves."""
    end = f.seek(0, os.SEEK_END)
    if end == 0:
        return
    f.seek(end - 1)
    if f.read(1) == b"\n":
        return
    f.seek(0)
    data = f.read()
    start = data.rfind(b"\n") + 1
    try:
        json.loads(data[start:])
        f.write(b"\n")  # a complete record without a line end
    except (ValueError, RecursionError):
        f.truncate(start)


def writable(value: object) -> object:
    """A value for JSON, which has no NaN: numbers that are not finite become strings."""
    if isinstance(value, list):
        return [writable(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_jsonl(path: str | Path) -> list[dict]:
    """The JSON objects of all lines. Skips an incomplete last line.

    Raises UserError if the file is missing, or if another line is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}; check the path")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 text ({e.reason} at byte {e.start})") from e
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as e:
            if number == len(lines):  # no line end: its writer was killed
                break
            reason = getattr(e, "msg", "nested too deeply")
            raise UserError(f"{path}, line {number}, is not JSON: {reason}") from e
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}, is not a JSON object")
        records.append(record)
    return records


def read_json(path: str | Path) -> dict:
    """The JSON object in a file. Raises UserError if the file is missing or damaged."""
    try:
        obj = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise UserError(f"{path} is damaged: it is not JSON") from e
    if not isinstance(obj, dict):
        raise UserError(f"{path} is damaged: it is not a JSON object")
    return obj


def lock_folder(folder: Path, name: str) -> IO:
    """Lock a folder until the process ends. UserError if another process holds the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / name, "w")  # noqa: SIM115  closing the file releases the lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise UserError(f"another process is at work in {folder}; wait until it ends") from e
    except OSError as e:  # of a network file system that is mounted without locks
        raise UserError(
            f"{folder} cannot be locked ({e.strerror}): choose a file system that has locks; mount "
            "Lustre with -o flock"
        ) from e
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock on the file, by the kernel's list; no lock is tried."""
    try:
        inode, locks = path.stat().st_ino, Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return False
    return any(f":{inode}" == field[-len(f":{inode}") :] for field in locks.split())


def public_name(name: str) -> str:
    """The name of an encoder for records: of a folder, only the last part of its path."""
    return Path(name).resolve().name if Path(name).is_dir() else name
