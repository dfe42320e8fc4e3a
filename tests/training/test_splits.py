"""Sources of rows, and how rows are split, tokenized and batched."""

import gzip
import json
import sys
import types

import numpy as np
import pandas as pd
import pytest
from conftest import make_tokenizer, sentences, write_tsv

from training import batching
from training.rows import Rows
from training.settings import DataSettings
from training.splits import load_splits
from training.tasks import TASKS, resolve_task
from utils.cache import cache_folder
from utils.cli import UserError


def arguments(**flags):
    return DataSettings(**({"split_seed": 42, "task_name": "sst2"} | flags))


def fake_datasets(load_dataset) -> types.SimpleNamespace:
    """A replacement for the part of `datasets` that the code calls. It records progress bars."""
    shown = []
    return types.SimpleNamespace(
        load_dataset=load_dataset,
        are_progress_bars_disabled=lambda: bool(shown) and not shown[-1],
        disable_progress_bars=lambda: shown.append(False),
        enable_progress_bars=lambda: shown.append(True),
        shown=shown,
    )


def load(need=("train", "dev", "test"), **flags):
    args = arguments(**flags)
    return load_splits(args, resolve_task(args), need)


def test_glue_dev_is_test_and_dev_is_a_tenth_of_train(sst2_folder):
    splits = load(data_dir=str(sst2_folder))
    assert splits["test"].source == "dev.tsv" and len(splits["test"]) == 60
    assert len(splits["dev"]) == 24
    assert abs(sum(splits["dev"].labels) - 12) <= 1
    total = len(splits["train"]) + len(splits["dev"]) + sum(splits.dropped.values())
    assert total == 240
    assert not set(splits["train"].texts) & set(splits["test"].texts)
    assert not set(splits["train"].texts) & set(splits["dev"].texts)


def test_splits_are_a_function_of_data_and_split_seed(sst2_folder):
    first, again = (load(data_dir=str(sst2_folder)) for _ in range(2))
    other = load(data_dir=str(sst2_folder), split_seed=43)
    for name in ("train", "dev", "test"):
        assert first[name] == again[name]
    assert first["dev"].ids != other["dev"].ids and first["test"] == other["test"]
    # A stage that needs fewer splits gets the same rows, and a limit selects a part of them.
    assert load(("dev",), data_dir=str(sst2_folder))["dev"].ids == first["dev"].ids
    bounded = load(data_dir=str(sst2_folder), max_train_rows=50, max_eval_rows=10)
    assert set(bounded["train"].ids) < set(first["train"].ids)
    assert sum(bounded["train"].labels) == 25 and len(bounded["test"]) == 10


def test_training_texts_in_dev_or_test_are_dropped_and_counted(tmp_path):
    rows = sentences(100, 1)
    write_tsv(tmp_path / "train.tsv", rows)
    write_tsv(tmp_path / "test.tsv", [*sentences(20, 2), (rows[7][0].upper() + " ", rows[7][1])])
    splits = load(data_dir=str(tmp_path))
    assert splits.dropped["also_in_test"] >= 1
    assert "train:7" not in splits["train"].ids + splits["dev"].ids


def test_every_format_gives_the_same_rows(tmp_path):
    rows = sentences(40, 1)
    table = pd.DataFrame(rows, columns=["sentence", "label"])
    folders = {}
    for name in ("tsv", "csv", "jsonl", "parquet", "tsv.gz", "csv.gz", "jsonl.gz", "parquet.gz"):
        folder = folders[name] = tmp_path / name
        folder.mkdir()
        kind = name.removesuffix(".gz")
        for split, part in (("train", table), ("test", table[:20])):
            plain = folder / f"{split}.{kind}"
            if kind == "parquet":
                part.to_parquet(plain)
            elif kind == "jsonl":
                part.to_json(plain, orient="records", lines=True)
            else:
                part.to_csv(plain, index=False, sep="\t" if kind == "tsv" else ",")
            if name.endswith(".gz"):
                (folder / f"{split}.{name}").write_bytes(gzip.compress(plain.read_bytes()))
                plain.unlink()
    all_rows = [load(("test",), data_dir=str(f))["test"] for f in folders.values()]
    assert all(r.texts == all_rows[0].texts and r.labels == all_rows[0].labels for r in all_rows)


def test_texts_do_not_change(tmp_path):
    texts = ['he answered "no', "NA", "null", "1e5", " caf\u00e9 \u4f60 ", "a 'b' , c", "#N/A"]
    write_tsv(tmp_path / "test.tsv", [(t, i % 2) for i, t in enumerate(texts)])
    rows = load(("test",), test_file=str(tmp_path / "test.tsv"))["test"]
    assert [t for (t,) in rows.texts] == texts
    path = tmp_path / "w.tsv"
    path.write_bytes("\ufefflabel\tsentence\r\n0\tone\r\n1\ttwo\r\n".encode())
    rows = load(("test",), test_file=str(path))["test"]
    assert [t for (t,) in rows.texts] == ["one", "two"] and rows.labels == [0, 1]


@pytest.mark.parametrize("nothing", [None, float("nan"), " ", [0]])
def test_a_row_without_a_label_does_not_define_a_class(tmp_path, nothing):
    rows = [(text, label) for text, label in sentences(40, 1)]
    table = pd.DataFrame({"text": [t for t, _ in rows], "label": [str(x) for _, x in rows]})
    table = table.astype({"label": object})
    table.at[7, "label"] = nothing
    table.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    with pytest.raises(UserError, match=r"train\.jsonl: row 7 has no label \(1 such rows\)"):
        load(
            ("train",),
            task_name="custom",
            train_file=str(tmp_path / "train.jsonl"),
            text_columns="text",
            label_column="label",
        )


def test_a_text_that_is_a_list_is_one_line(tmp_path):
    table = pd.DataFrame({"sentence": [["a", "b"], ["c"]] * 10, "label": [0, 1] * 10})
    table.to_parquet(tmp_path / "test.parquet")
    with pytest.raises(UserError, match="a text is of type"):
        load(("test",), test_file=str(tmp_path / "test.parquet"))


def test_labels_by_number_and_by_name(tmp_path):
    write_tsv(tmp_path / "test.tsv", [("a", "Positive"), ("b", "negative"), ("c", "1"), ("d", "0")])
    assert load(("test",), data_dir=str(tmp_path))["test"].labels == [1, 0, 1, 0]
    write_tsv(tmp_path / "test.tsv", [("a", "1.0"), ("b", "0.0")])
    assert load(("test",), data_dir=str(tmp_path))["test"].labels == [1, 0]


def test_local_data_with_other_column_names(tmp_path):
    rows = [(t, ("spam", "ham", "eggs")[i % 3]) for i, (t, _) in enumerate(sentences(90, 1))]
    for name in ("train", "test"):
        write_tsv(tmp_path / f"{name}.tsv", rows[:: 1 if name == "train" else 10], "body\tclass")
    splits = load(
        task_name="custom", data_dir=str(tmp_path), text_columns="body", label_column="class"
    )
    assert splits.task.label_names == ("eggs", "ham", "spam")
    assert set(splits["train"].labels) == {0, 1, 2}


def test_dev_and_test_files_are_used_by_their_names(tmp_path):
    for seed, name in enumerate(("train", "dev", "test")):
        write_tsv(tmp_path / f"{name}.tsv", sentences(40 + seed, seed))
    splits = load(data_dir=str(tmp_path))
    assert splits["dev"].source == "dev.tsv" and splits["test"].source == "test.tsv"
    # GLUE's test has no labels, so dev is the test.
    write_tsv(tmp_path / "test.tsv", [(t, -1) for t, _ in sentences(9, 5)])
    splits = load(data_dir=str(tmp_path))
    assert splits["test"].source == "dev.tsv" and splits["dev"].source.startswith("10%")


def test_the_exact_file_name_is_preferred_and_ambiguity_is_refused(tmp_path, sst2_folder):
    for seed, name in enumerate(("train", "train_sentences", "dev")):
        write_tsv(tmp_path / f"{name}.tsv", sentences(80, seed))
    assert load(data_dir=str(tmp_path)).rows["train"].source == "train.tsv"
    (tmp_path / "train.tsv").rename(tmp_path / "train_phrases.tsv")
    with pytest.raises(UserError, match="several train files"):
        load(data_dir=str(tmp_path))
    splits = load(
        train_file=str(tmp_path / "train_sentences.tsv"),
        validation_file=str(sst2_folder / "dev.tsv"),
    )
    assert splits["test"].source == "dev.tsv"


@pytest.mark.slow
def test_builtin_reviews():
    splits = load(task_name="builtin/rotten_tomatoes")
    sizes = {n: len(splits[n]) for n in ("train", "dev", "test")}
    assert 8400 < sum(sizes.values()) <= 8530 and 1000 < sizes["test"] < 1100
    assert abs(sum(splits["test"].labels) / sizes["test"] - 0.5) < 0.01
    tiny = load(task_name="builtin/imdb", max_train_rows=20, max_eval_rows=10)
    assert len(tiny["train"]) == 20 and len(tiny["test"].texts[0][0]) > 100


@pytest.mark.parametrize("name", ["sst2", "qnli", "qqp", "mnli", "imdb", "ag_news"])
def test_the_hub_is_asked_for_the_right_data(name, monkeypatch):
    """The real loading code runs with a replacement that has the hub's columns."""
    task, asked = TASKS[name], []
    columns, classes = task.text_columns, len(task.label_names)

    class Table:
        def __init__(self, count):
            self.count = count

        def to_pandas(self):
            rows = {c: [f"{c} {i} {self.count}" for i in range(self.count)] for c in columns}
            rows["label"] = [i % classes for i in range(self.count)]
            return pd.DataFrame(rows | {"idx": range(self.count)})

    def load_dataset(hub_id, config, split):
        asked.append((hub_id, config, split))
        return Table(120 if split == "train" else 40)

    fake = fake_datasets(load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    splits = load(task_name=name)
    test_split = {"mnli": "validation_matched", "imdb": "test", "ag_news": "test"}.get(
        name, "validation"
    )
    assert {a[2] for a in asked} == {"train", test_split}
    assert {a[:2] for a in asked} == {(task.hub_id, task.hub_config)}
    assert len(splits["test"]) == 40 and len(splits["dev"]) == 12 and len(splits["train"]) == 108
    assert splits["train"].source == f"hub:{task.hub_id}/train"
    assert fake.shown == [False, True, False, True]


def test_without_a_network_the_error_names_the_download_command(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no route")

    fake = fake_datasets(load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    with pytest.raises(UserError, match="hf download nyu-mll/glue --repo-type dataset"):
        load()


BAD_FILES = {
    "empty": (b"", "is empty"),
    "header only": (b"sentence\tlabel\n", "no rows"),
    "one class": (b"sentence\tlabel\na\t1\nb\t1\n", "1 class"),
    "missing column": (b"text\tlabel\na\t1\nb\t0\n", "no column 'sentence'"),
    "no label column": (b"sentence\tgold\na\t1\nb\t0\n", "no column 'label'"),
    "label out of range": (b"sentence\tlabel\na\t1\nb\t2\n", "label '2' in row 1"),
    "label no number": (b"sentence\tlabel\na\tx\nb\t0\n", "label 'x' in row 0"),
    "label missing": (b"sentence\tlabel\na\t\nb\t0\n", "label '' in row 0"),
    "label nan": (b"sentence\tlabel\na\tnan\nb\t0\n", "label 'nan' in row 0"),
    "empty text": (b"sentence\tlabel\n \t1\nb\t0\n", "text in row 0 is empty"),
    "latin-1": ("sentence\tlabel\ncaf\u00e9\t1\nb\t0\n".encode("latin-1"), "not UTF-8"),
    "ragged": (b"sentence\tlabel\na\t1\nb\t0\tz\tw\n", "cannot be read as tsv"),
    "binary": (bytes(range(256)) * 4, "UTF-8"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named(tmp_path, name):
    content, message = BAD_FILES[name]
    path = tmp_path / "test.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as e:
        load(("test",), test_file=str(path))
    assert "test.tsv" in str(e.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"sentence": "a"', "cannot be read"),
        ("x.parquet", b"PAR1", "cannot be read"),
        ("x.tsv.gz", b"no gzip", "cannot be read"),
        ("x.xlsx", b"", "only tsv, csv"),
        ("x.csv", b'sentence,label\n"a,1\n', "cannot be read"),
    ],
)
def test_bad_files_of_other_formats(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(("test",), test_file=str(tmp_path / name))


def test_missing_sources(tmp_path, sst2_folder):
    for flags, message in (
        ({"data_dir": str(tmp_path / "nowhere")}, "not a folder"),
        ({"data_dir": str(tmp_path)}, "holds no"),
        ({"test_file": str(tmp_path / "no.tsv")}, "no file"),
        ({"data_dir": str(sst2_folder), "test_file": "x"}, "not both"),
        ({"train_file": str(sst2_folder / "train.tsv")}, "no test rows: give --test_file"),
        ({"task_name": "custom"}, "no built-in data"),
        ({"task_name": "sst3"}, "unknown task 'sst3'"),
        ({"task_name": None}, "no task"),
        ({"task_name": None, "dataset_name": "glue"}, "needs --task_name"),
        ({"task_name": "sst2", "dataset_name": "imdb"}, "does not hold"),
        ({"text_columns": "a,b"}, "names 2 columns"),
    ):
        with pytest.raises(UserError, match=message):
            load(**flags)


def test_attacked_columns_and_glue_names():
    columns = {n: TASKS[n].attack_column for n in ("mnli", "qnli", "qqp", "sst2")}
    assert columns == {
        "mnli": "hypothesis",
        "qnli": "question",
        "qqp": "question2",
        "sst2": "sentence",
    }
    assert resolve_task(arguments(task_name=None, dataset_name="imdb")).name == "imdb"
    assert resolve_task(arguments(dataset_name="glue")).name == "sst2"


def rows_of(texts):
    return Rows(
        [(t,) for t in texts],
        [i % 2 for i in range(len(texts))],
        [f"x:{i}" for i in range(len(texts))],
        "made",
    )


def test_tokens_are_cut_counted_and_cached(monkeypatch):
    tokenizer = make_tokenizer()
    rows = rows_of(["good film", "the film was very very good", "bad"])
    encoded = batching.encode(rows, tokenizer, 5)
    assert [len(x) for x in encoded.input_ids] == [4, 5, 3]
    assert encoded.truncated_rows == 1
    assert encoded.input_ids[1][-1] == tokenizer.sep_token_id

    def never(*_):
        raise AssertionError("tokenized twice")

    monkeypatch.setattr(batching, "_tokenize", never)
    again = batching.encode(rows, tokenizer, 5)
    assert all(
        np.array_equal(a, b) for a, b in zip(encoded.input_ids, again.input_ids, strict=True)
    )
    with pytest.raises(AssertionError):
        batching.encode(rows, tokenizer, 4)


def test_a_damaged_cache_is_replaced():
    rows = rows_of(["good film", "bad film"])
    batching.encode(rows, make_tokenizer(), 7)
    for path in (cache_folder() / "tokens").iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert len(batching.encode(rows, make_tokenizer(), 7)) == 2


def test_batches_hold_every_row_once_and_little_padding():
    draw = np.random.default_rng(0)
    lengths = draw.integers(3, 60, 1000).tolist()
    batches = batching.epoch_batches(lengths, 16, seed=1)
    assert sorted(i for b in batches for i in b) == list(range(1000))
    assert batches == batching.epoch_batches(lengths, 16, seed=1)
    assert batches != batching.epoch_batches(lengths, 16, seed=2)

    def padded(batches):
        return sum(len(b) * max(lengths[i] for i in b) for b in batches)

    shuffled = batching.epoch_batches(lengths, 16, seed=1, by_length=False)
    assert sorted(i for b in shuffled for i in b) == list(range(1000))
    assert padded(batches) < 1.1 * sum(lengths) < 1.5 * sum(lengths) < padded(shuffled)


def test_collate_pads_to_the_batch():
    encoded = batching.encode(rows_of(["good", "very good film"]), make_tokenizer(), 16)
    batch = batching.collate(encoded, [1, 0])
    assert batch["input_ids"].shape == (2, 5)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert (batch["input_ids"][1, 3:] == encoded.pad_token_id).all()
    assert batch["labels"].tolist() == [1, 0]
    assert json.dumps(sorted(batch)) == json.dumps(
        ["attention_mask", "input_ids", "labels", "token_type_ids"]
    )


def test_all_stages_have_the_same_splits_where_train_and_test_overlap(tmp_path):
    """Texts of test are removed from train before the dev split, even if test is not needed."""
    train = sentences(80, 1)
    write_tsv(tmp_path / "train.tsv", train)
    write_tsv(tmp_path / "dev.tsv", train[:6] + sentences(20, 2))
    whole = load(data_dir=str(tmp_path))
    assert whole.dropped["also_in_test"] >= 6
    part = load(need=("train", "dev"), data_dir=str(tmp_path))
    for name in ("train", "dev"):
        assert part[name].fingerprint == whole[name].fingerprint
    assert "test" not in part.rows and part.dropped == whole.dropped
    assert load(need=("test",), data_dir=str(tmp_path))["test"].ids == whole["test"].ids


def test_training_pairs_with_an_empty_text_are_dropped_and_counted(tmp_path):
    """The hub's QQP has two such pairs. Elsewhere an empty text is an error."""
    pairs = [(a, b, y) for (a, y), (b, _) in zip(sentences(60, 1), sentences(60, 2), strict=True)]
    header = "question1\tquestion2\tlabel"
    write_tsv(tmp_path / "train.tsv", [*pairs[:40], ("why", "", 0), (" ", "how", 1)], header)
    write_tsv(tmp_path / "dev.tsv", pairs[40:], header)
    splits = load(data_dir=str(tmp_path), task_name="qqp")
    assert splits.dropped["empty"] == 2
    assert splits.facts()["training_rows_dropped"]["empty"] == 2
    write_tsv(tmp_path / "dev.tsv", [*pairs[40:], ("why", "", 0)], header)
    with pytest.raises(UserError, match="dev.tsv: the text in row 20 is empty"):
        load(data_dir=str(tmp_path), task_name="qqp")


def test_the_token_cache_distinguishes_encoders_with_other_inputs(sst2_folder):
    rows = load(data_dir=str(sst2_folder))["test"]
    with_types, without = make_tokenizer(), make_tokenizer()
    without.model_input_names = ["input_ids", "attention_mask"]
    assert batching.encode(rows, with_types, 32).token_type_ids is not None
    assert batching.encode(rows, without, 32).token_type_ids is None
