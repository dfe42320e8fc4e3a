"""A run is a folder that holds its arguments, log, resume point and result.

run.json      stage, arguments, environment, status (running | finished)
log.jsonl     one line per optimizer step or epoch
state.pt      resume point: tensors and numbers, loaded with weights_only, followed by a checksum
result.json   result of the run
records.jsonl one complete record per evaluation; report.py reads these
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import IO, Any

from utils import resume_point
from utils.cli import UserError, warn
from utils.environment import environment
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
from utils.settings import identity_before, identity_of


def seed_for(seed: int, purpose: str, *counters: object) -> int:
    """A 63-bit seed from the run's seed, a purpose and counters, such as a step or an epoch.

    Each random draw uses such a seed. A run that resumes at step n therefore draws the same numbers
    as an uninterrupted run, although no state of a generator is stored.
    """
    key = ":".join(map(str, (seed, purpose, *counters)))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def _foreign_files(folder: Path) -> list[str]:
    """Names of the files in a folder, without those of a run that was killed at its start."""
    return [
        p.name
        for p in folder.iterdir()
        if p.name != "run.lock" and not p.name.startswith(".run.json.")
    ]


def read_run(folder: str | Path) -> dict | None:
    """run.json of a run folder; None if the folder has none. UserError if it is damaged."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        return None
    run = read_json(path)
    required = {"stage": str, "status": str} | ({"args": dict} if "args" in run else {})
    if not all(isinstance(run.get(name), kind) for name, kind in required.items()):
        raise UserError(f"{path} is damaged: it is not the manifest of a run")
    return run


class Run:
    """The folder of a run while its script works on it."""

    def __init__(self, folder: str | Path, stage: str, settings: Any):
        """`settings`: the script's dataclass. A resumed run must have the same identity settings.

        Raises UserError if the folder holds another run or files that do not belong to a run.
        """
        self.folder = Path(folder)
        self.stage = stage
        self.identity = identity_of(settings)
        self._before = identity_before(settings)
        self.overwrite = settings.overwrite
        self._tensorboard = getattr(settings, "tensorboard", False)
        self._writer = None
        self._lock: IO | None = None
        self.earlier = read_run(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; choose another --output_dir")
        if self.earlier is None and self.folder.exists() and _foreign_files(self.folder):
            # Also with --overwrite: the files of another program must not be deleted.
            raise UserError(
                f"{self.folder} is not empty and holds no run; choose another --output_dir"
            )
        if self.overwrite:
            self._refuse_inputs_inside(vars(settings))
        if self.overwrite or (self.earlier or {}).get("status") == "clearing":
            self.earlier = None  # clearing: --overwrite was killed while it deleted files
        elif self.earlier is not None:
            self._check_same()

    def _refuse_inputs_inside(self, arguments: dict) -> None:
        """Raise UserError if the run reads a file in its folder, which --overwrite empties."""
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
        if self.earlier.get("stage") != self.stage:
            raise UserError(
                f"{self.folder} holds a run of stage {self.earlier.get('stage')}; "
                "choose another --output_dir, or pass --overwrite"
            )
        now = json.loads(json.dumps(self.identity))
        earlier = json.loads(json.dumps(self._before)) | self.earlier.get("args", {})
        differing = [k for k in sorted(now.keys() | earlier.keys()) if now.get(k) != earlier.get(k)]
        if differing:
            shown = ", ".join(f"{k} {earlier.get(k)!r} then, {now.get(k)!r} now" for k in differing)
            raise UserError(
                f"{self.folder} holds a run with other arguments ({shown}); choose "
                "another --output_dir, or pass --overwrite"
            )

    def _check_facts(self, facts: dict) -> None:
        """Raise UserError if data, encoder or ticket differ from those at the start of the run."""
        earlier, facts = self.earlier or {}, json.loads(json.dumps(facts))
        for name in ("data", "encoder", "ticket"):
            if name in earlier and earlier[name] != facts.get(name):
                raise UserError(
                    f"the {name} of the run in {self.folder} has changed since it began: restore "
                    "it, choose another --output_dir, or pass --overwrite"
                )

    @property
    def finished(self) -> bool:
        return self.earlier is not None and self.earlier.get("status") == "finished"

    def begin(self, facts: dict) -> None:
        """Lock the folder and write run.json. Call this after all inputs have been validated.

        `facts`: entries of run.json, such as data, encoder and ticket. Raises UserError if another
        process works on the run, or if the facts differ from those of the run that resumes.
        """
        self._lock = lock_folder(self.folder, "run.lock")
        now = read_run(self.folder)
        if now is not None and now.get("status") == "clearing":
            now = None
        if not self.overwrite and now != self.earlier:
            # Another process held the lock after this one had read the folder.
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
        for leftover in self.folder.glob(".*.tmp"):  # of a process that was killed
            leftover.unlink()
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
        """Write result.json and the records, mark the run finished, delete the resume point."""
        write_json(self.folder / "result.json", result)
        path = self.folder / "records.jsonl"
        earlier = read_jsonl(path) if path.is_file() else []
        attacks = [r for r in earlier if r.get("kind") == "attack"]
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in [*records, *attacks])
        write_atomically(path, lambda p: p.write_text(lines, encoding="utf-8"))
        write_json(self.folder / "run.json", self.manifest | {"status": "finished"})
        (self.folder / "state.pt").unlink(missing_ok=True)
        self._lock.close()

    def log(self, line: dict) -> None:
        """Append a line to log.jsonl and, with --tensorboard, its numbers to the event file."""
        append_jsonl(self.folder / "log.jsonl", {k: writable(v) for k, v in line.items()})
        if not self._tensorboard:
            return
        step = line.get("optimizer_step", 0)
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # purge_step hides the values that an interrupted run wrote after its resume point.
            self._writer = SummaryWriter(self.folder / "tensorboard", purge_step=step)
        for name, value in line.items():
            if isinstance(value, int | float) and name != "optimizer_step":
                self._writer.add_scalar(name, value, step)

    def save_state(self, state: dict) -> None:
        """Write the resume point. The old one stays until the new one is complete."""
        resume_point.write(self.folder / "state.pt", state)

    def load_state(self) -> dict | None:
        """The resume point; None if there is none. UserError if it is damaged."""
        path = self.folder / "state.pt"
        return resume_point.read(path) if path.is_file() else None

    def cut_log(self, optimizer_step: int, finished_epochs: int) -> None:
        """Remove the log lines after the resume point.

        The line at the end of an epoch has its number as `finished_epochs`.
        """
        log = self.folder / "log.jsonl"
        if not log.is_file():
            return
        lines = [
            r
            for r in read_jsonl(log)
            if r.get("optimizer_step", 0) <= optimizer_step
            and r.get("finished_epochs", 0) <= finished_epochs
        ]
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in lines)
        write_atomically(log, lambda p: p.write_text(text, encoding="utf-8"))
