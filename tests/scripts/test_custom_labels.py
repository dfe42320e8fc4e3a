"""Unusual labels in stages 1, 2 and 3, in an attack, and in the replay of its texts.

The last set is that of a data set with label names of its own, in a local folder.
"""

import itertools
import json
import random

import datasets
import pandas as pd
import pytest
from attack_tools import ODD_TEXTS
from conftest import BAD, GOOD, PLAIN, call, fails

from utils.files import read_json, read_jsonl
from utils.runs import read_run

pytestmark = pytest.mark.usefixtures("textattack")

SETS = {
    "csv": ([0, -1, 1], ["-1", "0", "1"]),
    "parquet": ([5.0, 4.0, 3.0, 2.0, 1.0], ["1", "2", "3", "4", "5"]),
    "jsonl": (["c++", "c", "c#", "C"], ["C", "c", "c#", "c++"]),
    "tsv": (["10", "other", "2", "v1.0", "v1"], ["10", "2", "other", "v1", "v1.0"]),
    "data": ([0, 1, 2, 3], ["2", "1", "👍", "好评"]),
}
TRAIN = ("--quiet", "--bsz", 16, "--lr", "1e-2", "--device", "cpu")


def write(path, labels: list, count: int, seed: int) -> None:
    """Rows in which three words determine the label."""
    draw, words = random.Random(seed), GOOD + BAD
    rows = []
    for i in range(count):
        own = i % len(labels)
        text = draw.choices(PLAIN, k=draw.randint(3, 8))
        text += draw.choices(words[3 * own : 3 * own + 3], k=3)
        draw.shuffle(text)
        rows.append((" ".join(text), labels[own]))
    table = pd.DataFrame(rows, columns=["body", "class"])
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


def write_data_set(path, names: list[str], count: int, seed: int) -> None:
    """A file whose metadata hold the label names, as a data set of the hub has it.

    A quarter of the texts have odd characters. A text and a label are missing.
    """
    path.parent.mkdir(exist_ok=True)
    write(path, list(range(len(names))), count * len(names), seed)
    typed = {"body": datasets.Value("string"), "class": datasets.ClassLabel(names=names)}
    table = pd.read_parquet(path)
    odd = itertools.cycle(ODD_TEXTS)
    table["body"] = [f"{next(odd)} {x}" if i % 4 == 0 else x for i, x in enumerate(table["body"])]
    table.loc[0, "body"] = None
    table.loc[1, "class"] = -1
    datasets.Dataset.from_pandas(table, datasets.Features(typed)).to_parquet(path)


@pytest.fixture(scope="module", params=SETS)
def runs(request, encoder, tmp_path_factory):
    """Stages 1 (dense), 2 (search) and 3 (ticket) in one folder, with one set of labels."""
    folder = tmp_path_factory.mktemp(request.param)
    labels, names = SETS[request.param]
    for split, count, seed in (("train", 40, 1), ("test", 12, 2)):
        if request.param == "data":
            write_data_set(folder / "data" / f"{split}.parquet", names, count, seed)
        else:
            write(folder / f"{split}.{request.param}", labels, count * len(labels), seed)
    data = ("--task_name", "custom", "--text_columns", "body", "--label_column", "class")
    files = [("--train_file", "train"), ("--test_file", "test")]
    files = [x for flag, split in files for x in (flag, folder / f"{split}.{request.param}")]
    if request.param == "data":
        data, files = ("--dataset_name", folder / "data"), []
    first = ("--model_name", encoder, "--output_dir", folder / "dense", *data, *files)
    call("finetune", *first, "--epochs", 8, *TRAIN)
    call(
        *("search_ticket", "--model_name", folder / "dense", "--output_dir", folder / "search"),
        *("--epochs", 1, "--bsz", 16, "--adv_steps", 2, "--quiet", "--device", "cpu"),
    )
    call(
        *("retrain_ticket", "--model_name", encoder, "--output_dir", folder / "ticket"),
        *("--scores", folder / "search", "--sparsity", 0.3, "--epochs", 8, *TRAIN),
    )
    return folder, labels, names


def test_every_stage_has_the_same_labels_in_the_same_order(runs):
    folder, _, names = runs
    for run in ("dense", "search", "ticket"):
        assert read_run(folder / run)["label_names"] == names
    for checkpoint in ("dense/best", "ticket/last"):
        config = read_json(folder / checkpoint / "config.json")
        assert list(config["id2label"].values()) == names
        assert read_json(folder / checkpoint / "checkpoint.json")["label_names"] == names
    for run in ("dense", "ticket"):
        last = read_json(folder / run / "result.json")["checkpoints"]["last"]
        assert last["clean_percent"] > 80
    # The search starts from the dense weights. With another label order it would start at chance.
    line = [x for x in read_jsonl(folder / "search" / "log.jsonl") if "dev" in x][-1]
    assert line["dev"]["dev_accuracy_soft_gates_percent"] > 70


def test_attack_and_replay_take_the_labels_from_the_checkpoint(runs):
    folder, labels, names = runs
    for run in ("dense", "ticket"):
        call(
            *("attack", "--model_name", folder / run, "--recipe", "deepwordbug", "--quiet"),
            *(
                "--num_examples",
                2 * len(labels),
                "--output_dir",
                folder / run / "attacks" / "words",
            ),
        )
        lines = read_jsonl(folder / run / "records.jsonl")
        *_, record = [line for line in lines if line["kind"] == "attack"]
        assert record["label_names"] == names
        assert record["label_order"] == list(range(len(names)))
        assert record["rows"]["rows_per_label"] == {str(i): 2 for i in range(len(names))}
        assert record["clean_percent"] > 70
    call(
        *("analysis.transfer", "--attacks", folder / "dense" / "attacks" / "words"),
        *(
            folder / "ticket" / "attacks" / "words",
            "--output_dir",
            folder / "replay",
            "--device",
            "cpu",
        ),
    )
    replay = read_json(folder / "replay" / "transfer.json")
    for result, run in zip(replay["results"], ("dense", "ticket"), strict=True):
        summary = read_json(folder / run / "attacks" / "words" / "summary.json")
        assert result["clean_percent"] == pytest.approx(summary["clean_percent"])


@pytest.mark.parametrize("runs", ["data"], indirect=True)
def test_any_data_set_in_the_other_scripts(runs, encoder):
    folder, _, names = runs
    data = ("--dataset_name", folder / "data", "--device", "cpu", "--quiet")
    pruned, ticket = folder / "pruned", folder / "ticket"
    steps = ("--to_sparsity", 0.2, "--share_per_round", 0.2, "--epochs", 1, "--bsz", 16)
    call("prune_iteratively", "--model_name", encoder, "--output_dir", pruned, *data, *steps)
    assert read_run(pruned)["label_names"] == names and read_run(pruned)["task"] == "./data"
    quick = ("--recipe", "deepwordbug", "--num_examples", 8, "--quiet")
    call("attack", "--model_name", ticket, *quick, "--output_dir", ticket / "attacks" / "few")
    call(
        *("analysis.text_quality", "--attacks", ticket / "attacks" / "few"),
        *("--output_dir", folder / "quality", "--device", "cpu"),
    )
    quality = read_json(folder / "quality" / "quality.json")
    assert (quality["task"], quality["column"]) == ("./data", "body")
    other = ("--model_name", ticket, "--dataset_name", folder / "data", "--test_split", "train")
    call("attack", *other, *quick, "--output_dir", folder / "train")  # another split of the data
    record = read_jsonl(ticket / "records.jsonl")[-1]
    in_train, in_dev = record["attacked_rows_in_train"], record["attacked_rows_in_dev"]
    assert in_train and in_train + in_dev == 8 and record["label_names"] == names


def test_a_label_of_a_test_file_that_training_does_not_have(runs, encoder, capsys):
    folder, labels, names = runs
    path = folder / "more.jsonl"
    lines = [{"body": "the film", "class": x} for x in [*names, "unknown label"]]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    message = f"label 'unknown label' in row {len(labels)} (1 such rows)"
    attack = ("attack", "--model_name", folder / "ticket", "--recipe", "deepwordbug")
    line = fails(capsys, *attack, "--test_file", path)
    assert message in line and line.endswith(", ".join(names))
    data = ("--task_name", "custom", "--text_columns", "body", "--label_column", "class")
    if (folder / "data").is_dir():
        return
    [train] = folder.glob("train.*")
    files = ("--train_file", train, "--test_file", path)
    first = ("--model_name", encoder, "--output_dir", folder / "refused", *data, *files)
    assert message in fails(capsys, "finetune", *first, *TRAIN)
