"""Any data set by its id, from a stand-in of the hub."""

import pytest
from hub.clients import clients_of
from hub.content import parquet, rows

from training.settings import DataSettings
from training.splits import load_splits
from training.tasks import resolve_task
from utils.cli import UserError

NAMES = ["yes", "no", "\N{THUMBS UP SIGN}"]


def load(name: str, need=("train", "dev", "test"), **flags):
    args = DataSettings(dataset_name=name, split_seed=42, **flags)
    return load_splits(args, resolve_task(args), need)


def add_reviews(hub, gated: bool = False) -> None:
    files = {
        f"data/{split}-00000-of-00001.parquet": parquet(rows(["content"], count, seed, 3), NAMES)
        for seed, (split, count) in enumerate((("train", 90), ("validation", 30), ("test", 33)))
    }
    hub.add("datasets", "owner/reviews", files, gated)


def test_a_data_set_by_id_and_then_from_the_cache(hub, tmp_path):
    add_reviews(hub)
    with clients_of(hub, tmp_path):
        splits = load("owner/reviews")
    assert splits.task.label_names == tuple(NAMES) and splits.task.text_columns == ("content",)
    assert [len(splits[name]) for name in ("train", "dev", "test")] == [90, 30, 33]
    assert splits["test"].source == "hub:owner/reviews/test"
    with clients_of(hub, tmp_path, offline=True):
        again = load("owner/reviews", ("test",))["test"]
    assert again.fingerprint == splits["test"].fingerprint


@pytest.mark.slow
def test_configurations(hub, tmp_path):
    with clients_of(hub, tmp_path):
        with pytest.raises(UserError, match=r"by --dataset_config \(sst2, qnli, qqp, mnli\)"):
            load("nyu-mll/glue")
        with pytest.raises(UserError, match=r"no configuration 'rte'"):
            load("nyu-mll/glue", dataset_config="rte")
        sst2, qnli = load("nyu-mll/glue:sst2"), load("nyu-mll/glue", dataset_config="qnli")
        with pytest.raises(UserError, match="validation_mismatched, test.*by --test_split"):
            load("nyu-mll/glue:mnli")
    assert sst2["test"].source == "hub:nyu-mll/glue:sst2/validation"
    assert qnli.task.text_columns == ("question", "sentence")
    with clients_of(hub, tmp_path, offline=True):
        with pytest.raises(UserError, match="name one of its configurations by --dataset_config"):
            load("nyu-mll/glue")
        with pytest.raises(UserError, match="not in the cache"):
            load("nyu-mll/glue:rte")


def test_a_test_file_without_the_label_column(hub, tmp_path):
    train = "text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(60))
    test = "id,text\n" + "".join(f"{i},test {i}\n" for i in range(20))
    hub.add("datasets", "owner/csv", {"train.csv": train.encode(), "test.csv": test.encode()})
    with clients_of(hub, tmp_path):
        splits = load("owner/csv")
    assert splits["test"].source == "12.5% of hub:owner/csv/train, split seed 42"


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("owner/nothing", None, "the hub has no data set of this name"),
        ("owner/script", {"script.py": b"import datasets\n"}, "scripts are no longer supported"),
        ("owner/empty", {"README.md": b"empty"}, "any data files"),
        ("owner/reviews", {}, "it is gated, and you are not logged in"),
    ],
)
def test_what_cannot_be_loaded_is_one_true_line(name, files, message, hub, tmp_path):
    if name == "owner/reviews":
        add_reviews(hub, gated=True)
    elif files is not None:
        hub.add("datasets", name, files)
    with clients_of(hub, tmp_path), pytest.raises(UserError, match=message) as error:
        load(name)
    assert "\n" not in str(error.value)
