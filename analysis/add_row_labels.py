"""Add the labels of the attacked rows to record files of an earlier version.

    python analysis/add_row_labels.py --records results/study/study-records.jsonl \\
        --task_data sst2=data/sst2

Without `row_labels` the class of an attacked row is unknown, and so is Aua by class. This script
loads the data, draws the attacked rows again, checks them against the fingerprints in each record,
and writes `row_labels`. A record whose rows cannot be drawn again stays as it is.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluation.settings import RecordFiles
from training.settings import DEFAULT_SPLIT_SEED, DataSettings
from utils import cli
from utils.cli import UserError
from utils.settings import Role, changed, parse, setting

Key = tuple[str, str, str, int, int | None]


def folder_of_task(text: str) -> tuple[str, str]:
    """'sst2=data/sst2' -> ("sst2", "data/sst2")."""
    task, equals, folder = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=FOLDER")
    return task, folder


@dataclass(kw_only=True)
class Settings(RecordFiles):
    """Rows."""

    task_data: list = setting(
        [],
        "data folder of each task that has no built-in data, such as sst2=data/sst2",
        folder_of_task,
        role=Role.DATA_PLACE,
        nargs="+",
        metavar="TASK=FOLDER",
    )
    split_seed: int = changed(DataSettings, "split_seed", DEFAULT_SPLIT_SEED)
    eval_row_limits: list = setting(
        [500],
        "values of --max_eval_rows that runs may have used, besides none",
        cli.positive_int,
        role=Role.DATA,
        nargs="+",
        unset="500",
    )


def parse_args(argv: list[str] | None = None) -> Settings:
    return parse(Settings, __doc__.split("\n")[0], argv)


def main() -> None:
    args = parse_args()
    from evaluation.outcomes import check_labels, encode_labels
    from evaluation.records import record_files
    from utils.files import read_jsonl, write_atomically

    draws: dict[Key, list[int] | None] = {}
    for path in record_files(args.records):
        records = read_jsonl(path)
        added = 0
        for record in records:
            if record.get("kind") != "attack" or record.get("row_labels") is not None:
                continue
            labels = labels_of_rows(record, args, draws)
            if labels is None or not record.get("row_outcomes"):
                continue
            with cli.explain(f"{path}: a record "):
                check_labels(record | {"row_labels": encode_labels(labels)})
            insert_after(record, "row_outcomes", "row_labels", encode_labels(labels))
            added += 1
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        if added:
            write_atomically(path, lambda p, text=text: p.write_text(text, encoding="utf-8"))
        missing = sum(r.get("kind") == "attack" and "row_labels" not in r for r in records)
        print(f"{path}: labels added to {added} records, {missing} records without labels remain")


def labels_of_rows(record: dict, args: Settings, draws: dict) -> list[int] | None:
    """Labels of a record's attacked rows, drawn again; None if no data give its fingerprints."""
    from evaluation import protocol

    about = record["rows"]
    key = (record["task"], about["fingerprint"], about["chosen"], about["rows"], about["seed"])
    if key in draws:
        return draws[key]
    draws[key] = None
    if about["chosen"] == "intersection":  # depends on the compared models
        return None
    for limit in (None, *args.eval_row_limits):
        split = load_split(record, args, limit)
        if split is None or split.fingerprint != record["data"]["fingerprint"]:
            continue
        # "random" has named the balanced draw in records without a preset.
        for how in dict.fromkeys((about["chosen"], "balanced")):
            rows = protocol.choose_rows(split, about["rows"], how, about["seed"] or 0)
            same_ids = protocol.fingerprint(rows.ids) == about["ids_fingerprint"]
            if same_ids and rows.fingerprint == about["fingerprint"]:
                draws[key] = rows.labels
                return rows.labels
    return None


def load_split(record: dict, args: Settings, limit: int | None):
    """The split that the rows were chosen from; None if its data are not available."""
    from training.settings import data_settings_in
    from training.splits import load_splits
    from training.tasks import resolve_task

    flags = {
        "task_name": record["task"],
        "data_dir": dict(args.task_data).get(record["task"]),
        "split_seed": args.split_seed,
        "max_eval_rows": limit,
    }
    name = record.get("split", "test")
    try:
        options = data_settings_in(flags)
        return load_splits(options, resolve_task(options), (name,))[name]
    except UserError as e:
        cli.warn(f"no {name} rows of {record['task']}: {e}")
        return None


def insert_after(record: dict, key: str, name: str, value: object) -> None:
    """Insert `name` into the record, in the place where a new record has it."""
    items = list(record.items())
    record.clear()
    for other, content in items:
        record[other] = content
        if other == key:
            record[name] = value


if __name__ == "__main__":
    cli.run(main)
