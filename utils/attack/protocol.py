"""Which rows are attacked, what is kept of each, and what is computed from them. No TextAttack.

An attack's folder holds attack.json (its settings and row ids), rows.jsonl (a line per attacked
row, written as it goes) and, once all rows are done, summary.json.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import IO

from utils.cli import UserError
from utils.data import Rows, sample_balanced
from utils.files import (
    append_jsonl,
    lock_folder,
    read_json,
    read_jsonl,
    write_atomically,
    write_json,
)
from utils.metrics import wilson_interval
from utils.runs import environment, seed_for

LOCK = "attack.lock"
SUCCESS, FAILED, SKIPPED = "success", "failed", "skipped"
# A record keeps a letter for each attacked row, in the rows' order: right after the attack, fooled
# by it, wrong before. Intervals over seeds and paired comparisons are made from them.
LETTERS = {FAILED: "r", SUCCESS: "f", SKIPPED: "w"}


def choose_rows(rows: Rows, count: int, how: str, seed: int) -> Rows:
    """The rows to attack, in file order; all of them where there are no more than `count`.

    random: as equal per class as the classes' sizes admit, by seed (never by model).
    first: the file's first `count`, as the released code does (D6); IMDB's are one class.
    """
    if how == "first":
        return rows.take(list(range(min(count, len(rows)))))
    return sample_balanced(rows, count, seed_for(seed, "attacked rows"))


def describe_data(split: Rows) -> dict:
    """For the record: the split that rows were chosen from."""
    return {"source": split.source, "rows": len(split), "fingerprint": split.fingerprint}


def describe_rows(chosen: Rows, how: str, seed: int) -> dict:
    """For the record: how many, of which classes, from where, and a fingerprint of their ids."""
    return {
        "chosen": how,
        "seed": seed if how == "random" else None,
        "rows": len(chosen),
        "rows_per_label": {str(k): n for k, n in sorted(Counter(chosen.labels).items())},
        "ids_fingerprint": fingerprint(chosen.ids),
        "fingerprint": chosen.fingerprint,
    }


def fingerprint(thing: object) -> str:
    """16 hex digits over anything that JSON can hold."""
    text = json.dumps(thing, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tally(outcomes: list[dict]) -> dict:
    """Measures of an attack from its rows' lines (keys outcome, queries, words_changed,
    words_total). Percentages; intervals are Wilson's, at 95 %.

    clean: rows that were right before the attack; aua: rows that are right after it; both of all
    attacked rows. suc = 100 * (1 - aua / clean), None where no row was right. queries_per_row is
    the mean over rows that were not skipped, words_changed_percent the mean share of words
    changed over rows where the attack succeeded.
    """
    rows = len(outcomes)
    failed = sum(o["outcome"] == FAILED for o in outcomes)
    won = [o for o in outcomes if o["outcome"] == SUCCESS]
    right = failed + len(won)
    queries = [o["queries"] for o in outcomes if o["outcome"] != SKIPPED]
    shares = [100 * o["words_changed"] / o["words_total"] for o in won]
    return {
        "rows_attacked": rows,
        "rows_skipped": rows - right,
        "rows_failed": failed,
        "rows_successful": len(won),
        "clean_percent": 100 * right / rows,
        "aua_percent": 100 * failed / rows,
        "suc_percent": 100 * (1 - failed / right) if right else None,
        "queries_per_row": _mean(queries),
        "words_changed_percent": _mean(shares),
        "intervals_95": {
            "clean_percent": wilson_interval(right, rows),
            "aua_percent": wilson_interval(failed, rows),
            "suc_percent": wilson_interval(len(won), right),
        },
    }


def _mean(values: list) -> float | None:
    return sum(values) / len(values) if values else None


def folder_name(
    recipe: str, checkpoint: str, rows: str, num_examples: int, seed: int, score_with: str
) -> str:
    """Name of an attack's folder inside its run's attacks/."""
    parts = [recipe, checkpoint, f"{rows}{num_examples}", f"seed{seed}"]
    return "_".join(parts + ["softmax"] * (score_with == "softmax"))


def _digest(line: dict) -> str:
    """8 hex digits over a row's line, less its time: two attacks that agree have the same."""
    content = {name: value for name, value in line.items() if name not in ("digest", "seconds")}
    return fingerprint(content)[:8]


class AttackFolder:
    """An attack's folder: resumed where its settings are the same, refused where they differ."""

    def __init__(self, folder: Path, settings: dict, ids: list[str], result_file: Path):
        """Reads what is there and writes nothing. UserError where it is another attack's.

        `ids`: of the rows to attack. `result_file`: records of many attacks, a line each.
        """
        self.folder = folder
        self.result_file = result_file
        self.settings = json.loads(json.dumps(settings))
        self.ids = ids
        self._lock: IO | None = None
        self.done: dict[str, dict] = {}
        self.summary: dict | None = None
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; choose another --output_dir")
        if (folder / "attack.json").is_file():
            self._read()
        elif folder.exists() and any(
            p.name != LOCK and not p.name.startswith(".attack.json.") for p in folder.iterdir()
        ):
            raise UserError(f"{folder} is not empty and holds no attack; choose another one")
        if result_file.is_dir() or any(p.is_file() for p in result_file.parents):
            raise UserError(f"{result_file} cannot be a record file; choose another --result_file")
        self._known_records()  # if that file is damaged, say so before the attack

    def _read(self) -> None:
        earlier = read_json(self.folder / "attack.json").get("settings", {})
        if not isinstance(earlier, dict):
            raise UserError(f"{self.folder}/attack.json is damaged")
        names = sorted(self.settings.keys() | earlier.keys())
        differing = [n for n in names if self.settings.get(n) != earlier.get(n)]
        if differing:
            shown = ", ".join(
                f"{n} {json.dumps(earlier.get(n))} then, {json.dumps(self.settings.get(n))} now"
                for n in differing
            )
            raise UserError(
                f"{self.folder} holds an attack with other settings ({shown}); choose another "
                "--output_dir"
            )
        if (self.folder / "rows.jsonl").is_file():
            lines = read_jsonl(self.folder / "rows.jsonl")
            self.done = {line["row_id"]: line for line in lines if line.get("row_id") in self.ids}
            for line in self.done.values():
                if line.get("outcome") not in LETTERS or not isinstance(line.get("queries"), int):
                    raise UserError(f"{self.folder}/rows.jsonl is damaged: {line['row_id']}")
                if line.get("digest", _digest(line)) != _digest(line):
                    raise UserError(f"{self.folder}/rows.jsonl was altered: {line['row_id']}")
        if (self.folder / "summary.json").is_file():
            summary = read_json(self.folder / "summary.json")
            if summary.get("attack_id") != self.attack_id:
                raise UserError(f"{self.folder}/summary.json is damaged or another attack's")
            self.summary = summary

    @property
    def attack_id(self) -> str:
        """Of the settings, rows and checkpoint: the same attack anywhere has the same."""
        return fingerprint([self.settings, self.ids])

    def begin(self) -> None:
        """Take the folder; drop a torn last line of an attack that was killed.

        UserError where another process is at work in it.
        """
        self._lock = lock_folder(self.folder, LOCK)
        if (self.folder / "attack.json").is_file():  # another's, between our look and the lock
            self._read()
        write_json(self.folder / "attack.json", {"settings": self.settings, "row_ids": self.ids})
        text = "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in self.done.values())
        path = self.folder / "rows.jsonl"
        write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))

    def append(self, line: dict) -> None:
        line = line | {"digest": _digest(line)}
        append_jsonl(self.folder / "rows.jsonl", line)
        self.done[line["row_id"]] = line

    def outcomes(self) -> list[dict]:
        """Lines of the rows done so far, in the rows' order."""
        return [self.done[i] for i in self.ids if i in self.done]

    def finish(self, record: dict) -> None:
        """Write the summary, here and into the record file."""
        self.summary = record
        write_json(self.folder / "summary.json", record)
        self.publish()
        if self._lock is not None:
            self._lock.close()

    def publish(self) -> None:
        """Append the summary to the record file unless it stands there already."""
        if not any(r.get("attack_id") == self.attack_id for r in self._known_records()):
            append_jsonl(self.result_file, self.summary)

    def _known_records(self) -> list[dict]:
        if not self.result_file.is_file():
            return []
        records = read_jsonl(self.result_file)
        if not records and self.result_file.stat().st_size:
            raise UserError(f"{self.result_file} holds no records; choose another --result_file")
        return records


# Settings that say which model was attacked and where, not how.
OF_THE_VICTIM = {"checkpoint", "checkpoint_sha256", "label_order", "device"}
VERSIONS = ("textattack", "transformers", "tokenizers", "nltk", "tensorflow")


def describe_protocol(settings: dict, row_ids: list[str], parts: list[str]) -> dict:
    """All that defines an evaluation but the model: two with one `id` may stand in one comparison.

    Data, rows and their classes, length, precision, recipe with each of its `parts` (search,
    transformation, constraints, as TextAttack describes them), resources by fingerprint, scores,
    seed, and the versions of the libraries that an outcome can depend on.
    """
    versions = environment()["versions"]
    described = {name: value for name, value in settings.items() if name not in OF_THE_VICTIM}
    described |= {"row_ids": fingerprint(row_ids), "parts": parts,
                  "versions": {n: versions[n] for n in VERSIONS if n in versions}}  # fmt: skip
    return {"id": fingerprint(described)[:12], **described}


def so_far(outcomes: list[dict]) -> str:
    """For the progress line."""
    t = tally(outcomes)
    suc = "-" if t["suc_percent"] is None else f"{t['suc_percent']:.1f} %"
    return f"clean {t['clean_percent']:.1f} %, aua {t['aua_percent']:.1f} %, suc {suc}"


def summary(facts: dict, folder: AttackFolder, parts: list[str]) -> dict:
    """The self-describing record of a finished attack. `facts`: what is known of the checkpoint;
    `parts`: of describe_protocol."""
    outcomes = folder.outcomes()
    described = describe_protocol(folder.settings, folder.ids, parts)
    return {
        "kind": "attack",
        **facts,
        **{name: value for name, value in folder.settings.items() if name != "task"},
        **tally(outcomes),
        "row_outcomes": "".join(LETTERS[o["outcome"]] for o in outcomes),
        "attack_id": folder.attack_id,
        "protocol_id": described["id"],
        "attack_parts": parts,
        "seconds": round(sum(o["seconds"] for o in outcomes), 3),
        "environment": environment(),
    }


def in_words(summary: dict) -> str:
    """One line for the terminal."""

    def percent(name: str) -> str:
        value, interval = summary[name], summary["intervals_95"].get(name)
        if value is None:
            return "-"
        return f"{value:.1f} %" + (f" ({interval[0]:.1f}-{interval[1]:.1f})" if interval else "")

    queries = summary["queries_per_row"]
    return (
        f"{summary['recipe']}, {summary['rows_attacked']} rows, protocol "
        f"{summary['protocol_id']}: clean {percent('clean_percent')}, "
        f"aua {percent('aua_percent')}, suc {percent('suc_percent')}, "
        f"{'-' if queries is None else round(queries, 1)} queries a row, "
        f"{percent('words_changed_percent')} of the words changed"
    )
