"""Records of benchmarks/gpu.py: which parts are finished, and the table.

A row of the table is a part on a card, toy or not.
"""

import argparse
import contextlib
import hashlib
import io
import json

import common

from utils import files


class Records:
    """The records in --output_dir. `inputs`: what gpu_inputs.check returns.

    UserError if the file is damaged.
    """

    def __init__(self, args: argparse.Namespace, inputs: dict[str, object]):
        self.folder, self.toy, self.inputs = args.output_dir, args.toy, inputs
        self.facts, self.sources = common.device_facts(args.device), _sources()
        path = self.folder / "gpu.jsonl"
        self.known = files.read_jsonl(path) if path.is_file() else []

    def why_again(self, name: str, uses: tuple[str, ...]) -> str | None:
        """Why a part runs although it has a record; "" without one, None if it is finished.

        `uses`: the inputs that the part reads.
        """
        tried = [r for r in self.known if r["row"]["part"] == name and r["status"] != "not run"]
        here = [r for r in tried if row_in_table(r) == self._row(name)]
        if not here:
            return f"no record of {self.facts['device']}{', toy' * self.toy}" if tried else ""
        last = here[-1]
        if last["status"] != "finished":
            return f"{last['status']} before"
        if "made_with" not in last:
            return "the record does not say what it was made with"
        then, now = last["made_with"], self._made_with(uses)
        differing = [name for name in now if then.get(name) != now[name]]
        return "; ".join(f"{n}: {then.get(n)} then, {now[n]} now" for n in differing) or None

    def add(self, name: str, uses: tuple[str, ...], facts: dict) -> dict:
        """Append the record of a part and write the table."""
        record = {"row": self._row(name), "made_with": self._made_with(uses)} | self.facts | facts
        self.known.append(record)
        self._publish(record)
        return record

    def table(self) -> str:
        """Write and return the table; "" without records."""
        return self._publish(None) if self.known else ""

    def _row(self, name: str) -> dict:
        return {"part": name, "device": self.facts["device"], "toy": self.toy}

    def _made_with(self, uses: tuple[str, ...]) -> dict[str, object]:
        """What a part's numbers depend on besides its row."""
        versions = {"torch": self.facts["torch"]}
        versions["transformers"] = self.facts["versions"].get("transformers")
        return {"sources": self.sources} | versions | {name: self.inputs[name] for name in uses}

    def _publish(self, record: dict | None) -> str:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            common.publish(self.folder, "gpu", record, lines_of, of_table)
        return text.getvalue()


def _sources() -> str:
    """16 hex digits of the SHA-256 of the sources.

    Not the commit: committing the records, which lie in the repository, changes no number, and a
    change that is not committed can.
    """
    digest = hashlib.sha256()
    for path in sorted([*common.ROOT.glob("*.py"), *common.ROOT.glob("*/*.py")]):
        digest.update(f"{path.relative_to(common.ROOT)} {files.sha256_of(path)}\n".encode())
    return digest.hexdigest()[:16]


def row_in_table(record: dict) -> dict:
    """The row that a record belongs to. Earlier records name their card elsewhere."""
    row = record["row"]
    return row | {"device": record.get("device", row["device"])}


def of_table(records: list[dict]) -> list[dict]:
    """By row: the newest record with findings, then the newest if that is another one.

    A part for which too little time was left hides nothing.
    """
    rows: dict[str, list[dict]] = {}
    for record in records:
        rows.setdefault(json.dumps(row_in_table(record)), []).append(record)
    shown = []
    for of_row in rows.values():
        tried = [r for r in of_row if r["status"] != "not run"] or of_row
        best = ([r for r in tried if r.get("findings")] or tried)[-1]
        shown += [best, *[tried[-1]] * (tried[-1] is not best)]
    return shown


def lines_of(record: dict) -> list[dict[str, str]]:
    """The lines of the table."""
    of = row_in_table(record)
    part = f"{of['part']}{', toy' * of['toy']}"
    found = list(record.get("findings", []))
    if record["status"] != "finished" or not found:
        ended = {"what": record["status"], "result": record["reason"]}
        found.append(ended | {"target": "-", "verdict": "-"})
    about = {
        "seconds of the part": f"{record['seconds']:.0f}",
        "device": of["device"],
        "torch": record.get("torch", "-"),
        "commit": record.get("commit") or "-",
    }
    return [
        {"part": part} | {name: text.replace("|", "/") for name, text in line.items()} | about
        for line in found
    ]
