"""The folder of an attack, which makes an attack resumable.

attack.json holds its settings and row ids; rows.jsonl a line per attacked row, written when the row
is done; protocol.json and summary.json are written after the last row. This module does not import
TextAttack.
"""

import json
from pathlib import Path
from typing import IO

from evaluation.outcomes import LETTERS
from evaluation.protocol import fingerprint
from utils.cli import UserError, warn
from utils.files import (
    append_jsonl,
    lock_folder,
    read_json,
    read_jsonl,
    write_atomically,
    write_json,
)
from utils.process_state import current_threads, resume_threads

LOCK = "attack.lock"


def _digest(line: dict) -> str:
    """8 hex digits of a row's line without its time; equal for two attacks that agree."""
    content = {name: value for name, value in line.items() if name not in ("digest", "seconds")}
    return fingerprint(content)[:8]


def is_altered(line: dict) -> bool:
    """Whether somebody edited a row's line. Lines of earlier versions have no digest."""
    digest = _digest(line)
    return line.get("digest", digest) != digest


class AttackFolder:
    """The folder of one attack. It is resumed if its settings are equal and refused otherwise."""

    def __init__(self, folder: Path, settings: dict, ids: list[str], result_file: Path):
        """Read what the folder holds and write nothing.

        `ids`: of the rows to attack. `result_file`: JSON-lines file of the records of many attacks.
        Raises UserError if the folder holds anything else, another attack, or damaged files.
        """
        self.folder, self.result_file = folder, result_file
        self.settings, self.ids = json.loads(json.dumps(settings)), ids
        self._lock: IO | None = None
        self.done: dict[str, dict] = {}
        self.summary: dict | None = None
        self.threads: int | None = None  # of the rows in `done`
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; choose another --output_dir")
        if (folder / "attack.json").is_file():
            self._read()
        elif folder.exists() and any(
            p.name != LOCK and not p.name.startswith(".attack.json.") for p in folder.iterdir()
        ):
            raise UserError(
                f"{folder} is not empty and holds no attack; choose another --output_dir"
            )
        if result_file.is_dir() or any(p.is_file() for p in result_file.parents):
            raise UserError(f"{result_file} cannot be a record file; choose another --result_file")
        self._known_records()  # reports a damaged file before the attack

    def _read(self) -> None:
        facts = read_json(self.folder / "attack.json")
        earlier, self.threads = facts.get("settings", {}), facts.get("threads")
        if not isinstance(earlier, dict):
            raise UserError(f"{self.folder}/attack.json is damaged; choose another --output_dir")
        differing = ", ".join(
            f"{n} was {json.dumps(earlier.get(n))}, is now {json.dumps(self.settings.get(n))}"
            for n in sorted(self.settings.keys() | earlier.keys())
            if self.settings.get(n) != earlier.get(n)
        )
        if differing:
            what = f"{self.folder} holds an attack with other settings ({differing})"
            raise UserError(f"{what}; choose another --output_dir")
        if (self.folder / "rows.jsonl").is_file():
            lines = read_jsonl(self.folder / "rows.jsonl")
            self.done = {line["row_id"]: line for line in lines if line.get("row_id") in self.ids}
            for row_id, line in self.done.items():
                is_line = line.get("outcome") in LETTERS and isinstance(line.get("queries"), int)
                if not is_line or is_altered(line):
                    raise UserError(
                        f"{self.folder}/rows.jsonl {'was altered' if is_line else 'is damaged'}: "
                        f"{row_id}; delete its line and run the same command again"
                    )
        if (self.folder / "summary.json").is_file():
            self.summary = read_json(self.folder / "summary.json")
            if self.summary.get("attack_id") != self.attack_id:
                what = f"{self.folder}/summary.json is damaged or belongs to another attack"
                raise UserError(f"{what}; delete it and run the same command again")

    @property
    def attack_id(self) -> str:
        """Fingerprint of the settings (with the checkpoint's digest) and the rows."""
        return fingerprint([self.settings, self.ids])

    def begin(self) -> None:
        """Lock the folder and drop the torn last line that a killed attack can leave.

        An attack that resumes uses the threads that it began with: ties between candidates can
        depend on the last bit of a logit.

        Raises UserError if another process is attacking rows in this folder.
        """
        self._lock = lock_folder(self.folder, LOCK)
        if (self.folder / "attack.json").is_file():  # another process may have written since
            self._read()
        if self.done and (warning := resume_threads(self.threads, f"the attack in {self.folder}")):
            warn(warning)
        facts = {"settings": self.settings, "row_ids": self.ids, "threads": current_threads()}
        write_json(self.folder / "attack.json", facts)
        self._write_rows()

    def _write_rows(self) -> None:
        """Write all lines in the order of the rows; several processes finish them in any order."""
        text = "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in self.outcomes())
        path = self.folder / "rows.jsonl"
        write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))

    def append(self, line: dict) -> None:
        """Write the line of an attacked row, with its digest."""
        line = line | {"digest": _digest(line)}
        append_jsonl(self.folder / "rows.jsonl", line)
        self.done[line["row_id"]] = line

    def copy_rows(self, other: "AttackFolder") -> None:
        """Append the lines of an equal attack for the rows that this one lacks."""
        for line in other.outcomes():
            if line["row_id"] not in self.done:
                self.append(line)

    def outcomes(self) -> list[dict]:
        """Lines of the rows done so far, in the order of the rows."""
        return [self.done[i] for i in self.ids if i in self.done]

    def finish(self, record: dict, protocol: dict) -> None:
        """Write protocol.json and summary.json, and append the summary to the record file."""
        self.summary = record
        self._write_rows()
        write_json(self.folder / "protocol.json", protocol | {"row_ids": self.ids})
        write_json(self.folder / "summary.json", record)
        self.publish()
        self._unlock()

    def end(self) -> None:
        """Finish a folder that gets no summary of its own."""
        self._write_rows()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def publish(self) -> None:
        """Append the summary to the record file, unless the file has it already."""
        if not any(r.get("attack_id") == self.attack_id for r in self._known_records()):
            append_jsonl(self.result_file, self.summary)

    def _known_records(self) -> list[dict]:
        if not self.result_file.is_file():
            return []
        records = read_jsonl(self.result_file)
        if not records and self.result_file.stat().st_size:
            raise UserError(f"{self.result_file} holds no records; choose another --result_file")
        return records
