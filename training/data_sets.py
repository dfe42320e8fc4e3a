"""Any classification data set of the hub or in a local folder, as `datasets` reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from training import hub
from training.columns import CLASS, kinds_of_features, with_columns
from training.data_sources import Tables, quiet
from training.labels import is_label, label_text
from training.tasks import Task
from utils.cli import UserError

VALIDATIONS = ("validation", "valid", "val", "dev")


def open_tables(task: Task, need: tuple[str, ...]) -> tuple[Task, Tables]:
    """The task with its columns, and the tables of its splits.

    The table of a split that is not there is missing: without a dev split, dev is a part of train;
    without a labeled test split, the validation split is test; without either, test is a part of
    train. A column with label names is a categorical column of names.
    Raises UserError if the data set cannot be loaded, or if a flag must name a column or a split.
    """
    data = _load(task)
    where = f"{task.name} (splits: {', '.join(data)})"
    first = data.get(task.train_split) or next(iter(data.values()))
    kinds = kinds_of_features(first.features)
    task = with_columns(task, kinds, where)
    splits = _splits(task, data, where)
    wanted = set(need)
    has_names = bool(task.label_names) or kinds[task.label_column] == CLASS
    if not has_names or "test" not in splits or ("dev" in need and "dev" not in splits):
        wanted.add("train")
    if "train" in wanted:
        wanted |= {"dev", "test"}  # their texts are removed from train
        if "train" not in splits:
            raise UserError(
                f"{where} has no labeled split {task.train_split!r}: name one by --train_split"
            )
    kind = "" if task.name.startswith("./") else "hub:"
    return task, {
        name: (_table(data[split], task), f"{kind}{task.name}/{split}")
        for name, split in splits.items()
        if name in wanted
    }


def _load(task: Task) -> Mapping[str, Any]:
    """Split name -> datasets.Dataset."""
    import datasets

    place, config = str(task.hub_id), task.hub_config
    try:
        with quiet(datasets):
            if any((Path(place) / f).is_file() for f in ("dataset_dict.json", "state.json")):
                data = datasets.load_from_disk(place)
                return data if isinstance(data, Mapping) else {"train": data}
            try:
                return datasets.load_dataset(place, config)
            except datasets.exceptions.DatasetGenerationError as e:
                if "same columns" not in str(e):
                    raise
                return _load_split_by_split(datasets, place, config)
    except Exception as e:  # a missing id, a network, damaged files: errors of many types
        raise UserError(_why_not(datasets, e, place, config)) from e


def _load_split_by_split(datasets: Any, place: str, config: str | None) -> Mapping[str, Any]:
    """Load splits with different columns, such as a test split without labels."""
    builder = datasets.load_dataset_builder(place, config)
    reader = type(builder).__module__.rpartition(".")[2]
    return {
        str(split): datasets.load_dataset(reader, data_files={split: files}, split=split)
        for split, files in builder.config.data_files.items()
    }


def _why_not(datasets: Any, e: Exception, place: str, config: str | None) -> str:
    """One line: the flag that names a configuration, or what is wrong with the hub or the files."""
    cause = e.__cause__ if isinstance(e, datasets.exceptions.DatasetGenerationError) else None
    reason = " ".join(str(cause or e).split())[:250]
    if "BuilderConfig" in str(e) or "Config name is missing" in str(e):
        with quiet(datasets):
            configs = ", ".join(datasets.get_dataset_config_names(place))
        which = f"has no configuration {config!r}" if config else "has several configurations"
        return f"{place} {which}: name one by --dataset_config ({configs})"
    if "configurations in the cache" in str(e):  # without a network
        return f"{place}: name one of its configurations by --dataset_config: {reason}"
    why = None if Path(place).is_dir() else hub.why_not_loaded(e, place, "dataset")
    unread = f"{type(cause or e).__name__}: {reason} (docs/data.md says what can be read)"
    return f"cannot load the data set {place}: {why or unread}"


def _splits(task: Task, data: Mapping[str, Any], where: str) -> dict[str, str]:
    """train, dev, test -> split of the data set, as far as there are such splits."""
    train, test = task.train_split, task.test_split
    labeled = [split for split in data if _has_labels(data[split], task.label_column)]
    if test and test not in labeled:
        what = (
            f"the split {test!r} has no labels" if test in data else f"there is no split {test!r}"
        )
        raise UserError(f"{where}: {what}; name another one by --test_split")
    others = [split for split in labeled if split != train]
    validation = next((split for split in VALIDATIONS if split in others), None)
    if not test:
        test = "test" if "test" in others else validation or ""
    if not test and len(others) > 1:
        raise UserError(f"{where}: name the split that is the test by --test_split")
    test = test or "".join(others)
    splits = {"train": train if train in labeled else None, "test": test}
    splits["dev"] = validation if validation != test else None
    return {name: split for name, split in splits.items() if split}


def _has_labels(split: Any, column: str) -> bool:
    """Whether a split has labels. -1 in each row means none, as in GLUE's test."""
    if column not in split.column_names:
        return False
    values = split.select_columns([column]).to_pandas()[column].unique()
    return bool({label_text(value) for value in values if is_label(value)} - {"-1"})


def _table(split: Any, task: Task) -> pd.DataFrame:
    columns = dict.fromkeys((*task.text_columns, task.label_column))
    table = split.select_columns([c for c in columns if c in split.column_names]).to_pandas()
    feature = split.features.get(task.label_column)
    names = getattr(feature, "names", None)
    if names is not None:
        codes = table[task.label_column].fillna(-1).astype(int)
        table[task.label_column] = pd.Categorical.from_codes(codes, categories=names)
    return table
