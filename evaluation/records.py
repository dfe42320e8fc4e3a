"""Attack records: each read once, what they are compared by, and a measure over seeds."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.intervals import crossed_interval
from evaluation.protocol import protocol_versions
from evaluation.record_checks import check
from masking import tickets
from utils.cli import UserError, explain
from utils.files import read_jsonl, write_atomically

# What a record must share with another to stand in one table.
COMPARISON = (
    "task",
    "encoder",
    "recipe",
    "score_with",
    "similarity_threshold",
    "checkpoint_rule",
    "max_seq_length",
    "rows_fingerprint",
    "temperature_rule",
    "protocol_id",
)
# Beside the paper's numbers rows are averaged over seeds, so all else must be equal too.
STRICT_COMPARISON = (*COMPARISON, "training_rows", "protocol", "resource_digests")
# And a row of it, which is one model, may not mix kinds of noise that weights started from, nor
# settings of the search or of the training.
ROW_SETTINGS = (
    "reinit_law",
    "reinit_std",
    "reinit_scope",
    "early_scores_epoch",
    "search_settings",
    "training_settings",
    "stop_settings",
)
# Told by name only: nobody reads digests, and settings are long.
FINGERPRINTS = {
    "rows_fingerprint",
    "resource_digests",
    "search_settings",
    "training_settings",
    "stop_settings",
}


class NoRecords(UserError):
    """There is no attack record where one is needed."""


def read_records(paths: Iterable[str | Path]) -> list[dict]:
    """All attack records, each attack once, with the keys that comparisons are made by."""
    attacks, doubts = {}, []
    for file in record_files(paths):
        lines = read_jsonl(file)
        training_rows = _training_rows(lines)
        for number, record in enumerate(lines, 1):
            if record.get("kind") == "doubt":
                doubts.append(record)
            if record.get("kind") != "attack":
                continue
            if training_rows is not None:
                record.setdefault("training_rows", training_rows)
            with explain(f"{file}, record {number}, "):
                check(record)
            attacks[identity(record)] = _with_keys(record) | {"record": record}
    if not attacks:
        raise NoRecords(f"no attack records in {', '.join(map(str, paths))}: run attack.py first")
    for doubt in doubts:  # found after the attack, by transfer.py
        flag = {"flag": str(doubt.get("flag")), "why": str(doubt.get("why"))}
        for attack in attacks.values():
            if attack["attack_id"] == doubt.get("attack_id"):
                others = [f for f in attack.get("flags", []) if f["flag"] != flag["flag"]]
                attack["flags"] = attack["record"]["flags"] = [*others, flag]
    return list(attacks.values())


def identity(record: dict) -> tuple:
    """What an attack is read once by. Two controls may be one epoch of a training, and so one
    attack: what each of them stopped for tells them apart."""
    stop = json.dumps(record.get("stop_at_loss"), sort_keys=True)
    return record["attack_id"], record["seed"], stop


def record_files(paths: Iterable[str | Path]) -> list[Path]:
    """Runs keep records.jsonl, reports keep theirs as table1-records.jsonl and the like."""
    files = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"--records {path} does not exist")
        files += sorted(path.rglob("*records.jsonl")) if path.is_dir() else [path]
    return files


def _training_rows(lines: list[dict]) -> int | None:
    """Rows that the models of a record file were trained on, where its evaluations agree."""
    counts = {r.get("training_rows") for r in lines if r.get("kind") == "evaluation"}
    return counts.pop() if len(counts) == 1 else None


# What of an evaluation, beside COMPARISON, its protocol's id stands for (attack/protocol.py).
_OF_THE_PROTOCOL = (
    "precision",
    "query_budget",
    "attack_seed",
    "data",
    "rows",
    "resources",
    "attack_parts",
)


def _but_temperature(record: dict) -> str:
    """Equal where two attacks' protocols differ in nothing but the temperature; their ids do not
    tell."""
    told = {name: record.get(name) for name in _OF_THE_PROTOCOL}
    return json.dumps([told, protocol_versions(record.get("environment", {}))], sort_keys=True)


def _with_keys(record: dict) -> dict:
    foreign = _is_foreign(record)
    ticket = record["ticket"]
    if ticket:  # older score files say "random matched"
        ticket = ticket | {"kind": ticket["kind"].replace(" ", "_")}
    dense = not ticket or ticket.get("reinitialised") == "rest"
    digests = {n: r.get("sha256", r.get("name")) for n, r in record.get("resources", {}).items()}
    return record | {
        "encoder": record["encoder"]["name"] or "unknown encoder",
        "ticket": ticket,
        "checkpoint_rule": "given" if foreign else record["checkpoint"],
        "rows_fingerprint": record["rows"]["ids_fingerprint"] + record["rows"]["fingerprint"],
        "resource_digests": json.dumps(digests, sort_keys=True),
        "but_temperature": _but_temperature(record),
        **{key: (ticket or {}).get(key) for key in ROW_SETTINGS},
        "early_scores_epoch": _early_epoch(ticket or {}),
        "expected_density_percent": (ticket or {}).get("expected_density_percent"),
        "search_settings": json.dumps(_search_of(ticket or {}), sort_keys=True),
        "training_settings": json.dumps(record.get("training"), sort_keys=True),
        "stop_settings": _stop_settings(record.get("stop_at_loss")),
        "name": (_foreign_name(record) if foreign else _name(record, ticket))
        + (", dev rows" if record.get("split") == "dev" else ""),
        "sparsity": 0.0 if dense else ticket["sparsity_asked"],
    }


def _is_foreign(record: dict) -> bool:
    """Whether no stage of ours wrote the checkpoint: then neither its making nor a seed is known,
    and `checkpoint` is the name of its folder."""
    return record.get("stage", "ours") is None


def _foreign_name(record: dict) -> str:
    """Two of them are two models, also where their folders have one name."""
    return f"{record['checkpoint']} ({record['checkpoint_sha256'][:6]})"


def _name(record: dict, ticket: dict | None) -> str:
    method = record.get("method", "plain")
    if ticket is None:
        name = "dense fine-tuned" if method == "plain" else f"dense {method}"
        return name + _until(record.get("stop_at_loss"))
    name = f"{ticket['kind'].replace('_', ' ')} ticket"
    name += "" if method == "plain" else f", {method}"
    reinitialised = ticket.get("reinitialised", "nothing")
    return name + ("" if reinitialised == "nothing" else f", {reinitialised} re-initialised")


def _until(stop: dict | None) -> str:
    """For the name of a model whose training ended at a loss, not after its epochs."""
    if stop is None:
        return ""
    ticket = stop.get("ticket")
    if not ticket:
        return f", until a loss of {stop['loss']:g}"
    kind, percent = ticket["kind"].replace("_", " "), 100 * ticket["sparsity_asked"]
    return f", until the loss of the {kind} ticket ({percent:g} %, {stop['epochs']} epochs)"


def _search_of(ticket: dict) -> dict | None:
    """How a ticket's scores were found; less how that was computed, which some records hold."""
    found = ticket.get("search")
    return found and {k: v for k, v in found.items() if k != "compile"}


def _early_epoch(ticket: dict) -> int | None:
    """The search epoch whose scores a ticket is drawn from, where it is not the last."""
    epoch, epochs = ticket.get("scores_epoch"), (ticket.get("search") or {}).get("epochs")
    return (
        epoch if ticket.get("kind") in tickets.GATE_KINDS and epochs and epoch != epochs else None
    )


def _stop_settings(stop: dict | None) -> str | None:
    """What else tells such models apart: how the ticket was made. The loss is each seed's own."""
    ticket = (stop or {}).get("ticket")
    names = (*ROW_SETTINGS[:3], "reinitialised")
    told = {name: (ticket or {}).get(name) for name in names} | {"search": _search_of(ticket or {})}
    return ticket and json.dumps(told, sort_keys=True)


def largest_group(
    items: list[dict], keys: Iterable[str], encoder: str, noun: str = "record"
) -> tuple[list[dict], list[str]]:
    """The items that may be compared with each other, and a note per group that is left out.

    Items belong together where all `keys` are equal. Groups of the scale's `encoder` come first,
    then larger ones, then the one whose last item is the newest (furthest behind).
    """
    keys = tuple(keys)
    groups: dict[tuple, list[dict]] = {}
    newest = {}
    for position, item in enumerate(items):
        group = tuple(item.get(key) for key in keys)
        groups.setdefault(group, []).append(item)
        newest[group] = position
    if not groups:
        return [], []
    best = max(
        groups, key=lambda g: (groups[g][0].get("encoder") == encoder, len(groups[g]), newest[g])
    )
    notes = []
    for group, members in groups.items():
        if group == best:
            continue
        differing = [
            key if key in FINGERPRINTS else f"{key} ({there} there, {here} here)"
            for key, there, here in zip(keys, group, best, strict=True)
            if there != here
        ]
        count = f"{len(members)} {noun}{'s' * (len(members) > 1)}"
        notes.append(f"Left out: {count}, differing in {', '.join(differing)}.")
    return groups[best], notes


def one_per_seed(records: list[dict]) -> list[dict]:
    """Of several attacks on one model and seed the last: two of them are not two seeds."""
    return list({r["seed"]: r for r in records}.values())


@dataclass(frozen=True)
class Cell:
    """One measure of one model, by seed; percentages, queries or shares."""

    values: dict[int, float]

    @classmethod
    def of(cls, records: list[dict], metric: str) -> "Cell":
        found = {r["seed"]: r[metric] for r in records if r.get(metric) is not None}
        return cls({seed: found[seed] for seed in sorted(found)})

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, with n - 1; None below two."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None

    @property
    def by_seed(self) -> str:
        return ";".join(f"{seed}:{number(value)}" for seed, value in self.values.items())

    def __str__(self) -> str:
        if not self.values:
            return "—"
        spread = "" if self.deviation is None else f" ± {self.deviation:.1f}"
        return f"{self.mean:.1f}{spread} (n={self.n})"


# Which letters of a record's row_outcomes count for a measure.
COUNTED = {"clean_percent": "rf", "aua_percent": "r"}


def outcomes(records: list[dict], measure: str) -> np.ndarray | None:
    """bool, (records, rows): whether a row counts for the measure; None where a record lacks it."""
    letters = [r.get("row_outcomes") for r in records]
    if measure not in COUNTED or not records or None in letters or len({*map(len, letters)}) > 1:
        return None
    return np.array([[letter in COUNTED[measure] for letter in line] for line in letters])


def interval(records: list[dict], measure: str) -> tuple[float, float] | None:
    """95 %: Wilson's over rows for one seed, for several evaluation/intervals.py, over both.

    Records of several seeds without outcomes row by row (earlier versions) have none.
    """
    if len(records) == 1:
        found = records[0].get("intervals_95", {}).get(measure)
        return tuple(found) if found else None
    table = outcomes(records, measure)
    return None if table is None or len(table) < 2 else crossed_interval(table)


def doubts_of(records: list[dict]) -> list[str]:
    """Why a result is suspicious, a text per flag, with the seeds where there are several."""
    seeds: dict[str, list[int]] = {}
    whys = {}
    for record in records:
        for flag in record.get("flags", []):
            seeds.setdefault(flag["flag"], []).append(record["seed"])
            whys.setdefault(flag["flag"], flag["why"])
    several = len(records) > 1
    return [
        f"{name.replace('_', ' ')} ({why}{f'; seeds {seeds[name]}' if several else ''})"
        for name, why in whys.items()
    ]


def number(value: float | None) -> str:
    """For a CSV cell: six digits; empty where there is none."""
    return "" if value is None else f"{value:.6g}"


def text_cell(value: object) -> str:
    """For a CSV cell: a text that a spreadsheet takes for a formula gets an apostrophe."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_text(path: Path, text: str) -> Path:
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8", newline=""))
    return path


def write_records(path: Path, records: list[dict]) -> Path:
    """The records as they were read, for whoever wants to make the same again."""
    lines = [json.dumps(r["record"], ensure_ascii=False) + "\n" for r in records]
    return write_text(path, "".join(lines))
