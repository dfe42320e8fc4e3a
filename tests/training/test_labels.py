"""Labels: the text of a cell, their order, the search by name, and the logits of a checkpoint."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import sentences, write_tsv
from transformers import BertConfig

from training import labels
from training.settings import DataSettings
from training.splits import load_splits
from training.tasks import TASKS, resolve_task
from utils.cli import UserError


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (3, "3"),
        (np.int64(-1), "-1"),
        (1.0, "1"),
        (np.float32(-1), "-1"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (np.float32(0.1), "0.1"),
        (float("inf"), "inf"),
        (Decimal("2.00"), "2"),
        (True, "True"),
        (np.False_, "False"),
        ("1.0", "1"),
        ("+1.00", "1"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("-10.0", "-10"),
        ("v1.0", "v1.0"),
        ("1.10", "1.10"),
        ("01", "01"),
        ("01.0", "01.0"),
        ("1.0.0", "1.0.0"),
        (" c++ ", "c++"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_the_text_of_a_cell(cell, text):
    assert labels.label_text(cell) == text


@pytest.mark.parametrize(
    ("given", "order"),
    [
        (["1", "-1", "0"], ("-1", "0", "1")),
        (["10", "9", "2", "1"], ("1", "2", "9", "10")),
        (["0.5", "-0.5", "1e-3"], ("-0.5", "1e-3", "0.5")),
        (["10", "2", "other"], ("10", "2", "other")),
        (["b", "a", "b"], ("a", "b")),
        (["c#", "c", "c++"], ("c", "c#", "c++")),
        (["v1", "v1.0"], ("v1", "v1.0")),
        (["us", "US"], ("US", "us")),
        (["01", "1"], ("01", "1")),
    ],
)
def test_order_is_numeric_if_all_are_numbers_else_alphabetic(given, order):
    assert labels.ordered(given) == labels.ordered(reversed(given)) == order


def test_a_label_is_found_by_name_then_in_another_case_then_by_position():
    find = labels.finder(("US", "us", "\u00e9t\u00e9", "Straße"))
    assert [find(x) for x in ("US", "us", "STRASSE", "E\u0301TE\u0301")] == [0, 1, 3, 2]
    assert find("Us") is None  # two names fit
    assert [find(x) for x in ("0", "3", "4", "x")] == [0, 3, None, None]


def test_positions_never_contradict_names_that_are_numbers():
    stars = labels.finder(("1", "2", "3", "4", "5"))
    assert [stars(x) for x in ("1", "5", "0")] == [0, 4, None]
    mixed = labels.finder(labels.ordered([*map(str, range(11)), "other"]))
    names = ("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9", "other")
    assert [mixed(x) for x in names] == list(range(12)) and mixed("11") is None


def order_of(names, task_names):
    config = BertConfig(id2label=dict(enumerate(names)), num_labels=len(names))
    task = resolve_task(arguments(task_name="custom"))
    task = replace(task, label_names=tuple(task_names))
    return labels.label_order(config, Path("folder"), task)


@pytest.mark.parametrize(
    ("names", "task_names", "order"),
    [
        (["-1", "0", "1"], ["-1", "0", "1"], [0, 1, 2]),
        (["0", "1", "-1"], ["-1", "0", "1"], [2, 0, 1]),
        (["5", "4", "3", "2", "1"], ["1", "2", "3", "4", "5"], [4, 3, 2, 1, 0]),
        (["c#", "c", "c++"], ["c", "c#", "c++"], [1, 0, 2]),
        (["us", "US"], ["US", "us"], [1, 0]),
        (["+1", "-1.0"], ["-1", "1"], [1, 0]),
        (["LABEL_0", "LABEL_1", "LABEL_2"], ["-1", "0", "1"], [0, 1, 2]),
        (["LABEL_0", "LABEL_1"], ["b", "a"], [0, 1]),
        (["0", "1"], ["negative", "positive"], [0, 1]),
        (["CONTRADICTION", "Entailment", "neutral"], TASKS["mnli"].label_names, [1, 2, 0]),
        (["Not-Entailment", "entailment"], TASKS["qnli"].label_names, [1, 0]),
        (["1", "0"], ["0", "1"], [1, 0]),
        (["Нет", "да"], ["да", "нет"], [1, 0]),
        (["差评", "好评"], ["好评", "差评"], [1, 0]),
        (["👎", "👍"], ["👍", "👎"], [1, 0]),
        (["E\u0301te\u0301", "hiver"], ["hiver", "\u00e9t\u00e9"], [1, 0]),
        (["01", "1", "001"], ["001", "01", "1"], [2, 0, 1]),
    ],
)
def test_logits_of_a_checkpoint(names, task_names, order):
    assert order_of(names, task_names) == order


@pytest.mark.parametrize(
    ("names", "task_names"),
    [
        (["1", "2", "3"], ["0", "1", "2"]),
        (["c", "d"], ["c", "c++"]),
        (["c++", "d"], ["c#", "d"]),
        (["-1", "2"], ["1", "2"]),
        (["👍", "👎"], ["😀", "😢"]),
        (["1", "0"], ["negative", "positive"]),  # numbers that contradict the positions
        (["LABEL_1", "LABEL_0"], ["negative", "positive"]),
        (["1", "negative"], ["negative", "positive"]),
        (["a", "LABEL_1"], ["a", "b"]),
    ],
)
def test_labels_of_another_task_are_refused(names, task_names):
    with pytest.raises(UserError, match="names its labels"):
        order_of(names, task_names)


def test_a_custom_task_takes_the_labels_of_a_checkpoint():
    custom = TASKS["custom"]

    def taken(names, facts):
        config = BertConfig(id2label=dict(enumerate(names)), num_labels=len(names))
        return labels.task_with_labels_of(custom, config, facts).label_names

    assert taken(["1", "2", "3"], {}) == ("1", "2", "3")
    assert taken(["LABEL_0", "LABEL_1"], {}) == ("0", "1")
    assert taken(["1", "0"], {}) == ("1", "0")
    names = ["LABEL_0", "LABEL_1"]  # labels of a user in checkpoint.json
    assert taken(names, {"label_names": names}) == ("LABEL_0", "LABEL_1")
    assert labels.task_with_labels_of(TASKS["sst2"], None, {}) is TASKS["sst2"]


def arguments(**flags):
    return DataSettings(**({"split_seed": 42} | flags))


def load(folder, need=("train", "dev", "test"), **flags):
    args = arguments(
        task_name="custom",
        data_dir=str(folder),
        text_columns="sentence",
        label_column="label",
        **flags,
    )
    return load_splits(args, resolve_task(args), need)


def table_of(values, count=60, seed=1):
    texts = [text for text, _ in sentences(count, seed)]
    return pd.DataFrame(
        {"sentence": texts, "label": [values[i % len(values)] for i in range(count)]}
    )


def write(table, path):
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


SETS = {
    "signs": ([-1, 0, 1], ("-1", "0", "1")),
    "stars": ([5, 4, 3, 2, 1], ("1", "2", "3", "4", "5")),
    "floats": ([2.0, 1.0, 3.0], ("1", "2", "3")),
    "gaps": ([0, 3, 7], ("0", "3", "7")),
    "booleans": ([True, False], ("False", "True")),
    "only signs": (["c++", "c#", "c"], ("c", "c#", "c++")),
    "versions": (["v1.0", "v1", "1.0"], ("1", "v1", "v1.0")),
    "words": (
        ["d\u00e9j\u00e0", "\u65b0", "\U0001f600"],
        ("d\u00e9j\u00e0", "\u65b0", "\U0001f600"),
    ),
    "case": (["us", "US", "Us"], ("US", "Us", "us")),
    "other": (
        [*map(str, range(11)), "other"],
        ("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9", "other"),
    ),
}


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", SETS)
def test_any_set_of_labels_in_any_file(tmp_path, kind, name):
    values, names = SETS[name]
    train, test = table_of(values, 20 * len(values)), table_of(values[::-1], 24, seed=2)
    write(train, tmp_path / f"train.{kind}")
    write(test, tmp_path / f"test.{kind}")
    splits = load(tmp_path)
    assert splits.task.label_names == names
    position = {labels.label_text(v): names.index(labels.label_text(v)) for v in values}
    for split, table in (("train", train), ("dev", train), ("test", test)):
        rows = splits[split]
        wanted = [
            position[labels.label_text(table["label"][int(i.split(":")[1])])] for i in rows.ids
        ]
        assert rows.labels == wanted
    assert set(splits["train"].labels) == set(range(len(names)))


def test_the_labels_come_from_train_for_each_split(tmp_path, capsys):
    write(table_of(["b", "c", "a"]), tmp_path / "train.tsv")
    write(table_of(["c", "b"], 20, seed=2), tmp_path / "test.tsv")
    alone = load(tmp_path, ("test",))
    assert alone.task.label_names == ("a", "b", "c") and set(alone["test"].labels) == {1, 2}
    printed = capsys.readouterr().err
    assert printed == "labels of the task custom, in order: 0 = a, 1 = b, 2 = c\n"
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(UserError, match="no train rows, which define the labels"):
        load(tmp_path, ("test",))


def test_a_label_that_training_does_not_have_is_named(tmp_path):
    write(table_of([1, 2, 3]), tmp_path / "train.csv")
    write(table_of([1, 2, 0], 20, seed=2), tmp_path / "test.csv")
    with pytest.raises(
        UserError, match=r"test\.csv: label '0' in row 2 \(6 such rows\) .* has 1, 2, 3"
    ):
        load(tmp_path)


def test_a_test_file_whose_labels_are_all_minus_one_has_labels_in_a_custom_task(tmp_path):
    write(table_of([-1, 1]), tmp_path / "train.tsv")
    write_tsv(tmp_path / "test.tsv", [(text, -1) for text, _ in sentences(9, 5)])
    with pytest.raises(UserError, match="9 rows of 1 class"):
        load(tmp_path)


def test_a_built_in_task_keeps_its_labels(tmp_path):
    names = ("World", "Sports", "Business", "Sci/Tech")
    for values in ([0, 1, 2, 3], [0.0, 1.0, 2.0, 3.0], ["world", "SPORTS", "Business", "sci/tech"]):
        table = table_of(values, 80).rename(columns={"sentence": "text"})
        write(table, tmp_path / "train.jsonl")
        write(table_of(values, 20, 2).rename(columns={"sentence": "text"}), tmp_path / "test.jsonl")
        args = arguments(task_name="ag_news", data_dir=str(tmp_path))
        splits = load_splits(args, resolve_task(args))
        assert splits.task.label_names == names
        lines = [json.loads(x) for x in (tmp_path / "test.jsonl").read_text().splitlines()]
        assert splits["test"].labels == [values.index(x["label"]) for x in lines]
