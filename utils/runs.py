"""A run is a folder that knows what it is: its arguments, log, resume point and result.

run.json      stage, all arguments, library versions, commit, status (running | finished)
log.jsonl     one line per optimizer step or epoch
state.pt      resume point: tensors and numbers, loaded with weights_only, behind them a checksum
result.json   what came out
records.jsonl one self-describing line per evaluation; report.py reads these
"""

import functools
import hashlib
import importlib.metadata
import io
import json
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import IO, Any

from utils.cli import UserError, warn
from utils.files import (
    append_jsonl,
    lock_folder,
    read_json,
    read_jsonl,
    writable,
    write_atomically,
    write_json,
)
from utils.process_state import resume_threads
from utils.settings import identity_of

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

STATE_FORMAT = 3  # of state.pt; counts up when what stands in it changes
DIGEST_BYTES = 32  # SHA-256, behind the state


def seed_for(seed: int, purpose: str, *counters: object) -> int:
    """A 63-bit seed that depends on the run's seed, a purpose and counters (a step, an epoch).

    Every random draw is made from such a seed, so that a run resumed at step n draws what the
    uninterrupted one drew, without any generator's state being stored.
    """
    key = ":".join(map(str, (seed, purpose, *counters)))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def environment() -> dict:
    """Versions, commit, device name and CPU threads, for run.json and every record."""
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
        "threads": torch.get_num_threads(),
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


def _foreign_files(folder: Path) -> list[str]:
    """What lies in a folder besides what a run that was killed at its start leaves there."""
    return [
        p.name
        for p in folder.iterdir()
        if p.name != "run.lock" and not p.name.startswith(".run.json.")
    ]


def read_run(folder: str | Path) -> dict | None:
    """run.json of a run folder, or None where there is none."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        return None
    run = read_json(path)
    wanted = {"stage": str, "status": str} | ({"args": dict} if "args" in run else {})
    if not all(isinstance(run.get(name), kind) for name, kind in wanted.items()):
        raise UserError(f"{path} is damaged: it is not the manifest of a run")
    return run


class Run:
    """A run's folder while its script is at work."""

    def __init__(self, folder: str | Path, stage: str, settings: Any):
        """`settings`: the script's dataclass; those that define the run are compared on resume.

        Raises UserError where the folder holds another run, files that are not a run's, or a run
        that another process is working on.
        """
        self.folder = Path(folder)
        self.stage = stage
        self.identity = identity_of(settings)
        self.overwrite = settings.overwrite
        self._tensorboard = getattr(settings, "tensorboard", False)
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
            self._refuse_inputs_inside(vars(settings))
        if self.overwrite or (self.earlier or {}).get("status") == "clearing":
            self.earlier = None  # clearing: an --overwrite that was killed while it deleted
        elif self.earlier is not None:
            self._check_same()

    def _refuse_inputs_inside(self, arguments: dict) -> None:
        """--overwrite empties the folder: what is read from it would be lost first."""
        folder = self.folder.resolve()
        for name, value in arguments.items():
            if name == "output_dir" or not isinstance(value, str | Path) or not str(value):
                continue
            path = Path(value)
            if path.exists() and (path.resolve() == folder or folder in path.resolve().parents):
                raise UserError(
                    f"--{name} {value} lies in the --output_dir, which --overwrite would empty; "
                    "choose another --output_dir"
                )

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

    def _check_facts(self, facts: dict) -> None:
        """UserError where data, encoder or ticket are no longer those that the run began with."""
        earlier, facts = self.earlier or {}, json.loads(json.dumps(facts))
        for name in ("data", "encoder", "ticket"):
            if name in earlier and earlier[name] != facts.get(name):
                raise UserError(
                    f"the {name} of the run in {self.folder} has changed since it began: put it "
                    "back, choose another --output_dir, or pass --overwrite"
                )

    @property
    def finished(self) -> bool:
        return self.earlier is not None and self.earlier.get("status") == "finished"

    def begin(self, facts: dict) -> None:
        """Take the folder and write run.json. Call once everything has been validated."""
        self._lock = lock_folder(self.folder, "run.lock")
        now = read_run(self.folder)
        if now is not None and now.get("status") == "clearing":
            now = None
        if not self.overwrite and now != self.earlier:
            # Between our look at the folder and the lock, which was another's until now.
            raise UserError(
                f"another process has been at work in {self.folder} meanwhile: run the same "
                "command again"
            )
        self._check_facts(facts)
        if self.earlier is None:
            write_json(self.folder / "run.json", {"stage": self.stage, "status": "clearing"})
            for path in self.folder.iterdir():
                if path.name not in ("run.lock", "run.json"):
                    plain = path.is_file() or path.is_symlink()
                    path.unlink() if plain else shutil.rmtree(path)
        for left in self.folder.glob(".*.tmp"):  # of a process that was killed
            left.unlink()
        if (self.folder / "state.pt").is_file():
            earlier = self.earlier.get("environment", {}).get("threads")
            if warning := resume_threads(earlier, f"the run in {self.folder}"):
                warn(warning)
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
        path = self.folder / "records.jsonl"
        kept = [r for r in read_jsonl(path) if r.get("kind") == "attack"] if path.is_file() else []
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in [*records, *kept])
        write_atomically(
            self.folder / "records.jsonl", lambda p: p.write_text(lines, encoding="utf-8")
        )
        write_json(self.folder / "run.json", self.manifest | {"status": "finished"})
        (self.folder / "state.pt").unlink(missing_ok=True)
        self._lock.close()

    def log(self, line: dict) -> None:
        append_jsonl(self.folder / "log.jsonl", {k: writable(v) for k, v in line.items()})
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
