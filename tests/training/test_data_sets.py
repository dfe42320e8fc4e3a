"""Any data set, as the real client of the hub reads it from a local folder."""

import random
from pathlib import Path

import datasets
import pytest

from training import tasks
from training.settings import DataSettings
from training.splits import load_splits
from training.tasks import resolve_task
from utils.cli import UserError

TEXT = datasets.Value("string")
TWO = {"text": TEXT, "label": datasets.ClassLabel(names=["neg", "pos"])}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"text {draw.random()} {i}" for i in range(count)]


def rows(count: int, seed: int = 0, labels=(0, 1), column: str = "label") -> dict[str, list]:
    return {"text": texts(count, seed), column: [labels[i % len(labels)] for i in range(count)]}


def write(folder: Path, features: dict | None = None, **splits: dict) -> Path:
    """A folder of parquet files. Without `features`, columns have the types of their values."""
    folder.mkdir(parents=True)
    for split, columns in splits.items():
        known = {name: f for name, f in (features or {}).items() if name in columns}
        typed = datasets.Features(known) if features else None
        datasets.Dataset.from_dict(columns, typed).to_parquet(folder / f"{split}.parquet")
    return folder


def describe(folder: Path, *configs: str) -> None:
    (folder / "README.md").write_text("\n".join(["---", "configs:", *configs, "---", ""]))


def load(place, need=("train", "dev", "test"), **flags):
    args = DataSettings(dataset_name=str(place), split_seed=42, **flags)
    return load_splits(args, resolve_task(args), need)


def sizes(splits) -> tuple[int, ...]:
    return tuple(len(splits[name]) for name in ("train", "dev", "test"))


def test_label_names_come_from_the_data_set_and_codes_are_never_names(tmp_path, capsys):
    """Stars are coded 0 to 4 and named 1 to 5: code 1 is the name 2."""
    stars = {"review": TEXT, "stars": datasets.ClassLabel(names=["1", "2", "3", "4", "5"])}
    table = {"review": texts(100), "stars": [i % 5 for i in range(100)]}
    other = {"review": texts(20, 1), "stars": [4] * 10 + [0] * 10}
    splits = load(write(tmp_path / "stars", stars, train=table, test=other))
    assert splits.task.label_names == ("1", "2", "3", "4", "5")
    assert splits["test"].labels == other["stars"]
    assert [splits["train"].labels[i] for i in range(5)] == [
        table["stars"][int(row.split(":")[1])] for row in splits["train"].ids[:5]
    ]
    assert "./stars: text in 'review', label in 'stars'; train from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("splits", "expected", "sources"),
    [
        (
            {"train": rows(60), "validation": rows(20, 1), "test": rows(22, 2)},
            (60, 20, 22),
            ["./x/validation", "./x/test"],
        ),
        (
            {"train": rows(60), "validation": rows(20, 1), "test": rows(22, 2, (-1,))},
            (54, 6, 20),
            ["10% of ./x/train, split seed 42", "./x/validation"],
        ),
        (
            {"train": rows(60), "validation": rows(20, 1)},
            (54, 6, 20),
            ["10% of ./x/train, split seed 42", "./x/validation"],
        ),
        (
            {"train": rows(60), "test": {"text": texts(22, 2)}},  # no column of labels
            (46, 6, 8),
            ["10% of ./x/train, split seed 42", "12.5% of ./x/train, split seed 42"],
        ),
        (
            {"train": rows(10)},
            (6, 2, 2),
            ["10% of ./x/train, split seed 42", "12.5% of ./x/train, split seed 42"],
        ),
    ],
)
def test_which_splits_are_dev_and_test(splits, expected, sources, tmp_path):
    folder = write(tmp_path / "x", TWO, **splits)
    loaded = load(folder)
    assert sizes(loaded) == expected
    assert [loaded[name].source for name in ("dev", "test")] == sources
    for part in ("train", "dev", "test"):  # each stage and the attack get the same rows
        assert load(folder, (part,))[part].fingerprint == loaded[part].fingerprint


def test_splits_by_name(tmp_path):
    folder = write(tmp_path / "x", TWO, first=rows(60), second=rows(20, 1), third=rows(24, 2))
    entries = [f"  - split: {name}\n    path: {name}.*" for name in ("first", "second", "third")]
    describe(folder, "- config_name: default\n  data_files:", *entries)
    with pytest.raises(UserError, match="name the split that is the test by --test_split"):
        load(folder)
    with pytest.raises(UserError, match=r"\(splits: first, second, third\) has no labeled split"):
        load(folder, test_split="third")
    splits = load(folder, train_split="first", test_split="third")
    assert sizes(splits) == (54, 6, 24) and splits["test"].source == "./x/third"
    assert len(load(folder, ("test",), test_split="second")["test"]) == 20  # no train needed
    with pytest.raises(UserError, match="there is no split 'fourth'"):
        load(folder, test_split="fourth")


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("text", "label"), ("text", "label")),
        (("Text", "Label"), ("Text", "Label")),
        (("idx", "sentence", "label"), ("sentence", "label")),
        (("premise", "hypothesis", "label"), ("premise,hypothesis", "label")),
        (("question", "sentence", "idx", "label"), ("question,sentence", "label")),
        (("title", "content", "label"), ("content", "label")),
        (("text", "label_text", "label"), ("text", "label")),
        (("sms", "label"), ("sms", "label")),
        (("text", "coarse_label", "fine_label"), ("text", "coarse_label")),
        (("text", "user", "intent"), ("text", "intent")),
    ],
)
def test_obvious_columns_are_found(names, columns, tmp_path):
    numbers = ("label", "Label", "intent", "coarse_label", "fine_label", "idx")
    table = {n: [i % 2 for i in range(40)] if n in numbers else texts(40) for n in names}
    task = load(write(tmp_path / "x", train=table)).task
    assert (",".join(task.text_columns), task.label_column) == columns
    assert task.attack_column == task.text_columns[-1]


def test_columns_that_must_be_named(tmp_path):
    table = rows(40, labels=("a", "b"), column="the class")
    table = {"a, title": table.pop("text"), "my text": texts(40, 1)} | table
    folder = write(tmp_path / "x", train=table)
    with pytest.raises(UserError) as error:
        load(folder)
    for words in ("splits: train", "a, title, my text, the class", "--text_col", "--label_col"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)
    named = {"label_column": "the class", "text_columns": "my text"}
    assert load(folder, **named).task.text_columns == ("my text",)
    named["text_columns"] = '["a, title", "my text"]'
    assert load(folder, **named).task.text_columns == ("a, title", "my text")
    with pytest.raises(UserError, match="has no column 'nothing'"):
        load(folder, **named | {"label_column": "nothing"})


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[0], [1]], "texts with several labels are not supported"),
        ([i / 7 for i in range(40)], "this is a regression"),
        ([f"{i / 7:.3f}" for i in range(40)], "this is a regression"),
        ([f"row {i}" for i in range(40)], "40 different values in 40 rows are not classes"),
        ([0], "36 rows of 1 class"),
    ],
)
def test_columns_that_hold_no_classes(column, message, tmp_path):
    table = {"text": texts(40), "label": [column[i % len(column)] for i in range(40)]}
    folder = write(tmp_path / "x", train=table, test=table | {"text": texts(40, 1)})
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([True, False], ("False", "True")),
        (["0", "1"], ("0", "1")),
        (["01", "1", "001"], ("001", "01", "1")),
        ([2.0, 1.0], ("1", "2")),
        ([-1, 1], ("-1", "1")),
        (["好评", "差评"], ("好评", "差评")),
        (["c++", "c", "c#"], ("c", "c#", "c++")),
    ],
)
def test_labels_without_names_follow_the_rule_of_custom_tasks(values, names, tmp_path):
    folder = write(
        tmp_path / "x", train=rows(60, labels=values), test=rows(30, 1, labels=values[::-1])
    )
    splits = load(folder)
    assert splits.task.label_names == names
    assert splits["test"].labels[:2] == [
        names.index(str(v).removesuffix(".0")) for v in (values[::-1])[:2]
    ]


def test_many_classes_and_rare_classes(tmp_path):
    """Each class has a dev row, except a class of one row. A class without rows has a logit."""
    classes = [i % 150 for i in range(600)] + [150]
    features = {"text": TEXT, "label": datasets.ClassLabel(names=[f"c{i}" for i in range(152)])}
    table = {"text": texts(601), "label": classes}
    test = {"text": texts(300, 1), "label": classes[:300]}
    splits = load(write(tmp_path / "x", features, train=table, test=test))
    assert len(splits.task.label_names) == 152
    assert set(splits["dev"].labels) == set(range(150)) and len(splits["dev"]) == 150
    assert set(splits["train"].labels) == set(range(151))
    with pytest.raises(UserError, match="no row of"):
        load(tmp_path / "x", max_train_rows=100)


def test_rows_without_a_text_or_label_are_dropped_and_counted(tmp_path):
    table = {"text": ["", None, " ", *texts(57)], "label": [0, 1, -1] * 20}
    test = {"text": ["", *texts(29, 1)], "label": [0, 1, -1] * 10}
    splits = load(write(tmp_path / "x", TWO, train=table, test=test))
    assert splits.dropped == {
        "empty": 3,
        "without_label": 20,
        "also_in_test": 0,
        "also_in_dev": 0,
    }
    assert len(splits["train"]) + len(splits["dev"]) == 38 and len(splits["test"]) == 19
    assert splits["test"].ids[0] == "test:1"


def test_configurations_and_saved_data_sets(tmp_path):
    for name, count in (("one", 40), ("two", 60)):
        write(tmp_path / "x" / name, TWO, train=rows(count))
    entries = [f"- config_name: {n}\n  data_files: {n}/train.parquet" for n in ("one", "two")]
    describe(tmp_path / "x", *entries)
    with pytest.raises(UserError, match=r"several configurations: .*--dataset_config \(one, two\)"):
        load(tmp_path / "x")
    with pytest.raises(UserError, match=r"no configuration 'three': .* \(one, two\)"):
        load(tmp_path / "x", dataset_config="three")
    assert sum(sizes(load(tmp_path / "x", dataset_config="two"))) == 60
    assert load(f"{tmp_path}/x:one").task.name == "./x:one"
    whole = datasets.Dataset.from_dict(rows(40), features=datasets.Features(TWO))
    datasets.DatasetDict({"train": whole}).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").task.label_names == ("neg", "pos")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no folder ./nowhere"),
        ("sst3", "unknown task 'sst3'"),
        ("a/b/c", "unknown task 'a/b/c'"),
        ("builtin/nothing", "unknown task 'builtin/nothing'"),
    ],
)
def test_data_sets_that_do_not_exist(name, message):
    with pytest.raises(UserError, match=message) as error:
        load(name)
    assert "\n" not in str(error.value)


def test_a_copy_of_a_data_set_in_a_folder(tmp_path):
    folder = write(tmp_path / "copy", TWO, train=rows(60), test=rows(20, 1))
    splits = load("owner/name", data_dir=str(folder))
    assert splits.task.name == "owner/name" and sizes(splits) == (54, 6, 20)
    with pytest.raises(UserError, match="--data_dir nowhere is not a folder"):
        load("owner/name", data_dir="nowhere")


def test_damaged_data_sets_are_one_line(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1,2,3\n")
    with pytest.raises(UserError, match="cannot load the data set .*Expected 2 fields in line 3"):
        load(tmp_path)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(UserError, match="cannot load the data set .*No .* data files found"):
        load(tmp_path)


def test_names_of_tasks_and_of_their_folders():
    def task(**flags):
        return resolve_task(DataSettings(**flags))

    by_config = task(dataset_name="a/b", dataset_config="c")
    assert by_config == task(task_name="a/b:c") and by_config.name == "a/b:c"
    assert task(dataset_name="a/b", task_name="a/b").name == "a/b"
    for flags, message in (
        ({"dataset_name": "a/b:c", "dataset_config": "d"}, "two configurations"),
        ({"dataset_name": "a/b", "task_name": "sst2"}, "does not hold"),
        ({"task_name": "sst2", "dataset_config": "c"}, "--dataset_config has no effect"),
        ({"task_name": "imdb", "test_split": "train"}, "--test_split has no effect"),
        ({"dataset_name": "a/b", "text_columns": "a,b,c"}, "names 3 columns"),
    ):
        with pytest.raises(UserError, match=message):
            task(**flags)
    folders = {
        "sst2": "sst2",
        "builtin/imdb": "builtin/imdb",
        "a/b:c": "a--b--c",
        "../my data/x/": "my data--x",
        "/root/x": "root--x",
    }
    assert {name: tasks.folder_of(name) for name in folders} == folders
    assert all(tasks.known_or_open(name) for name in ("sst2", "a/b", "./x"))
    assert not tasks.known_or_open("sst3") and not tasks.known_or_open("builtin/x")
