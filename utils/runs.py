"""A run is a folder that knows what it is: its arguments, log, resume point and result.

run.json      stage, all arguments, library versions, commit, status (running | finished)
log.jsonl     one line per optimizer step or epoch
state.pt      resume point: tensors and numbers, loaded with weights_only, behind them a checksum
result.json   what came out
records.jsonl one self-describing line per evaluation; report.py reads these
"""

import fcntl
import functools
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import IO

from utils.cli import UserError

LIBRARIES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "scikit-learn",
    "scipy",
    "textattack",
    "tensorflow",
    "nltk",
)

STATE_FORMAT = 2  # of state.pt; counts up when what stands in it changes
DIGEST_BYTES = 32  # SHA-256, behind the state

# Arguments that say where or how loudly, not what: a resumed run may differ in them.
NOT_IDENTITY = {
    *("output_dir", "overwrite", "quiet", "tensorboard", "checkpoint_every", "result_file"),
}


def seed_for(seed: int, purpose: str, *counters: object) -> int:
    """A 63-bit seed that depends on the run's seed, a purpose and counters (a step, an epoch).

    Every random draw is made from such a seed, so that a run resumed at step n draws what the
    uninterrupted one drew, without any generator's state being stored.
    """
    key = ":".join(map(str, (seed, purpose, *counters)))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def sha256_of(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_atomically(path: str | Path, write) -> None:
    """Call write(path beside) and rename: readers see the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: str | Path, obj: object) -> None:
    text = json.dumps(obj, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def append_jsonl(path: str | Path, record: dict) -> None:
    """Append one line; a single write, so that a killed process leaves at most one torn line."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as f:
        _drop_torn_line(f)
        f.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def _drop_torn_line(f: IO[bytes]) -> None:
    """Cut what a killed writer, or a full disk, left behind the last whole line."""
    end = f.seek(0, os.SEEK_END)
    if end == 0:
        return
    f.seek(end - 1)
    if f.read(1) != b"\n":
        f.seek(0)
        f.truncate(f.read().rfind(b"\n") + 1)


def _writable(value: object) -> object:
    """JSON has no NaN: a number that is not finite is written as a text."""
    if isinstance(value, list):
        return [_writable(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_jsonl(path: str | Path) -> list[dict]:
    """All lines; a torn last line is left out, any other bad line is a UserError."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}")
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
            if number == len(lines):  # no newline after it: the writer was killed
                break
            reason = getattr(e, "msg", "nested too deeply")
            raise UserError(f"{path}, line {number}, is not JSON: {reason}") from e
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}, is not a JSON object")
        records.append(record)
    return records


def read_json(path: str | Path) -> dict:
    """A JSON object from a file; UserError where it is missing or is not one."""
    try:
        obj = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise UserError(f"{path} is damaged: it is not JSON") from e
    if not isinstance(obj, dict):
        raise UserError(f"{path} is damaged: it is not a JSON object")
    return obj


def environment() -> dict:
    """Versions, commit and device name, for run.json and every record."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    import torch  # here: run folders are looked at before torch, which takes seconds, is needed

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "python": platform.python_version(),
        "versions": versions,
        "installed": installed_digest(),
        "commit": git_commit(),
        "device": device,
    }


@functools.cache
def installed_digest() -> str:
    """16 hex digits over all installed packages and versions: whether two environments agree."""
    # Not all of sys.path: some packages put copies of others there when they are imported.
    places = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    found = {
        f"{d.name.lower()}=={d.version}" for d in importlib.metadata.distributions(path=places)
    }
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


@functools.cache
def git_commit() -> str | None:
    """Commit of this repository, '+' behind it where files differ from it; None outside git."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD")[:12] + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def lock_folder(folder: Path, name: str) -> IO:
    """The folder's lock, held until the process ends; UserError where another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / name, "w")  # noqa: SIM115  closing it would release it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        raise UserError(f"another process is at work in {folder}") from e
    return lock


def _foreign_files(folder: Path) -> list[str]:
    """What lies in a folder besides what a run that was killed at its start leaves there."""
    return [p.name for p in folder.iterdir()
            if p.name != "run.lock" and not p.name.startswith(".run.json.")]  # fmt: skip


def read_run(folder: str | Path) -> dict | None:
    """run.json of a run folder, or None where there is none."""
    path = Path(folder) / "run.json"
    return read_json(path) if path.is_file() else None


class Run:
    """A run's folder while its script is at work."""

    def __init__(self, folder: str | Path, stage: str, arguments: dict):
        """`arguments`: all of the script's; those that define the run are compared on resume.

        Raises UserError where the folder holds another run, something that is no run, or a run
        that another process is working on.
        """
        self.folder = Path(folder)
        self.stage = stage
        self.identity = {k: v for k, v in arguments.items() if k not in NOT_IDENTITY}
        self.overwrite = bool(arguments.get("overwrite"))
        self._tensorboard = bool(arguments.get("tensorboard"))
        self._writer = None
        self._lock: IO | None = None
        self.earlier = read_run(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; choose another --output_dir")
        if self.earlier is None and self.folder.exists() and _foreign_files(self.folder):
            # Also with --overwrite: what is no run of ours is not ours to delete.
            raise UserError(
                f"{self.folder} is not empty and holds no run; choose another --output_dir"
            )
        if self.overwrite:
            self.earlier = None
        elif self.earlier is not None:
            self._check_same()

    def _check_same(self) -> None:
        earlier = self.earlier.get("args", {})
        if self.earlier.get("stage") != self.stage:
            raise UserError(
                f"{self.folder} holds a run of stage {self.earlier.get('stage')}; "
                "choose another --output_dir, or pass --overwrite"
            )
        mine = json.loads(json.dumps(self.identity))
        differing = [
            k for k in sorted(mine.keys() | earlier.keys()) if mine.get(k) != earlier.get(k)
        ]
        if differing:
            shown = ", ".join(
                f"{k} {earlier.get(k)!r} then, {mine.get(k)!r} now" for k in differing
            )
            raise UserError(
                f"{self.folder} holds a run with other arguments ({shown}); choose "
                "another --output_dir, or pass --overwrite"
            )

    @property
    def finished(self) -> bool:
        return self.earlier is not None and self.earlier.get("status") == "finished"

    def begin(self, facts: dict) -> None:
        """Take the folder and write run.json. Call once everything has been validated."""
        self._lock = lock_folder(self.folder, "run.lock")
        now = read_run(self.folder)
        if not self.overwrite and now != self.earlier:
            # Between our look at the folder and the lock, which was another's until now.
            raise UserError(
                f"another process has been at work in {self.folder} meanwhile: run the same "
                "command again"
            )
        if self.earlier is None:
            for path in self.folder.iterdir():
                if path.name != "run.lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.manifest = {
            "stage": self.stage,
            "status": "running",
            **facts,
            "args": self.identity,
            "environment": environment(),
        }
        write_json(self.folder / "run.json", self.manifest)

    def finish(self, result: dict, records: list[dict]) -> None:
        """Write result.json and the records, mark the run finished, drop the resume point."""
        write_json(self.folder / "result.json", result)
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        write_atomically(
            self.folder / "records.jsonl", lambda p: p.write_text(lines, encoding="utf-8")
        )
        write_json(self.folder / "run.json", self.manifest | {"status": "finished"})
        (self.folder / "state.pt").unlink(missing_ok=True)
        self._lock.close()

    def log(self, line: dict) -> None:
        append_jsonl(self.folder / "log.jsonl", {k: _writable(v) for k, v in line.items()})
        if not self._tensorboard:
            return
        step = line.get("optimizer_step", 0)
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What an interrupted run wrote behind the resume point is hidden.
            self._writer = SummaryWriter(self.folder / "tensorboard", purge_step=step)
        for name, value in line.items():
            if isinstance(value, int | float) and name != "optimizer_step":
                self._writer.add_scalar(name, value, step)

    def save_state(self, state: dict) -> None:
        """Resume point; the old one stays until the new one is whole."""
        import torch

        # Through memory: torch's own writer turns a full disk into an error of many forms.
        buffer = io.BytesIO()
        torch.save(state | {"format": STATE_FORMAT}, buffer)
        buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
        write = lambda p: p.write_bytes(buffer.getbuffer())  # noqa: E731
        write_atomically(self.folder / "state.pt", write)

    def load_state(self) -> dict | None:
        """The resume point; None at a fresh start."""
        path = self.folder / "state.pt"
        if not path.is_file():
            return None
        import torch

        data = path.read_bytes()
        body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            raise UserError(
                f"{path} is damaged (its checksum differs); start over with --overwrite"
            )
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        if state.get("format") != STATE_FORMAT:
            raise UserError(
                f"{path} was written by another version of this program: finish the run with that "
                "version, or start over with --overwrite"
            )
        return state

    def cut_log(self, optimizer_step: int, finished_epochs: int) -> None:
        """Remove the log lines that were written after the resume point.

        Lines that end an epoch carry its number as `finished_epochs`.
        """
        log = self.folder / "log.jsonl"
        if not log.is_file():
            return
        kept = [
            r
            for r in read_jsonl(log)
            if r.get("optimizer_step", 0) <= optimizer_step
            and r.get("finished_epochs", 0) <= finished_epochs
        ]
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept)
        write_atomically(log, lambda p: p.write_text(text, encoding="utf-8"))
