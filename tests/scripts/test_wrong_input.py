"""Wrong input to each script: one line with the error and its fix, status 2, nothing written."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import (
    call,
    fails,
    make_encoder,
    sentences,
    skip_without_textattack,
    words_of,
    write_tsv,
)
from safetensors.torch import load_file, save_file

from evaluation import readers
from masking import ticket_files, tickets
from training.data_sources import read_table
from utils import files, launch
from utils.cli import UserError

ROOT = Path(__file__).resolve().parents[2]
OUT = "OUT"  # placeholder for the output folder


@pytest.fixture(scope="module")
def place(encoder, sst2_folder, tmp_path_factory):
    """A folder with one valid input and many invalid ones of each kind."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(encoder, root / "encoder")
    shutil.copytree(sst2_folder, root / "data")
    call(
        "finetune",
        model_name=root / "encoder",
        task_name="sst2",
        data_dir=root / "data",
        output_dir=root / "dense",
        quiet=True,
        epochs=1,
        max_train_rows=32,
        max_eval_rows=20,
    )
    call("make_scores", kind="random", model_name=root / "encoder", output_dir=root / "scores")
    bad_data(root)
    bad_runs(root)
    bad_scores(root)
    bad_encoders(root)
    (root / "notes").mkdir()
    (root / "notes" / "thesis.tex").write_text("mine")
    return root


def bad_data(root: Path) -> None:
    files = {
        "empty.tsv": b"",
        "header.tsv": b"sentence\tlabel\n",
        "one_class.tsv": b"sentence\tlabel\n" + b"".join(b"a%d\t1\n" % i for i in range(30)),
        "columns.tsv": b"text\tlabel\na\t1\nb\t0\n",
        "no_label.tsv": b"sentence\tgold\na\t1\nb\t0\n",
        "label_7.tsv": b"sentence\tlabel\na\t7\nb\t0\n",
        "label_nan.tsv": b"sentence\tlabel\na\tnan\nb\t0\n",
        "no_text.tsv": b"sentence\tlabel\n \t1\nb\t0\n",
        "latin1.tsv": "sentence\tlabel\ncaf\u00e9\t1\nb\t0\n".encode("latin-1"),
        "utf16.tsv": "sentence\tlabel\na\t1\nb\t0\n".encode("utf-16"),
        "binary.tsv": bytes(range(256)) * 40,
        "ragged.tsv": b"sentence\tlabel\na\t1\nb\t0\tz\tw\n",
        "wide.tsv": b"sentence\tlabel\n" + b"a\t1\tx\nb\t0\ty\n" * 20,
        "listed.jsonl": b'{"sentence": ["a"], "label": 1}\n{"sentence": "b", "label": 0}\n' * 20,
        "absent.jsonl": b'{"label": 1}\n{"sentence": "b", "label": 0}\n' * 20,
        "few.tsv": b"sentence\tlabel\na\t1\nb\t0\nc\t1\n",
        "torn.tsv.gz": b"\x1f\x8b\x08\x00 and no more",
        "torn.parquet": b"PAR1",
        "torn.jsonl": b'{"sentence": "a"',
        "quote.csv": b'sentence,label\n"a,1\n',
        "table.xlsx": b"PK",
    }
    (root / "bad").mkdir()
    for name, content in files.items():
        (root / "bad" / name).write_bytes(content)
    (root / "none").mkdir()
    write_tsv(root / "two" / "train_a.tsv", sentences(20, 1))
    write_tsv(root / "two" / "train_b.tsv", sentences(20, 2))


def bad_runs(root: Path) -> None:
    run = json.loads((root / "dense" / "run.json").read_text())
    for name, text in {
        "unfinished": json.dumps(run | {"status": "running"}),
        "torn_run": '{"stage": ',
        "list_run": "[1, 2]",
        "deep_run": "[" * 100_000,
        "other_stage": json.dumps(run | {"stage": "search"}),
    }.items():
        (root / name).mkdir()
        (root / name / "run.json").write_text(text)
    for name in ("no_checkpoint", "altered", "four_labels", "other_tokenizer"):
        shutil.copytree(root / "dense", root / name)
    shutil.rmtree(root / "no_checkpoint" / "best")
    weights = root / "altered" / "best" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-9] ^= 4
    weights.write_bytes(data)
    config = json.loads((root / "four_labels" / "best" / "config.json").read_text())
    config["id2label"] = {str(i): str(i) for i in range(4)}
    config["label2id"] = {str(i): i for i in range(4)}
    (root / "four_labels" / "best" / "config.json").write_text(json.dumps(config))
    facts = json.loads((root / "four_labels" / "best" / "checkpoint.json").read_text())
    del facts["sha256"]
    (root / "four_labels" / "best" / "checkpoint.json").write_text(json.dumps(facts))
    for name, change in (("ticketed", {"stage": "retrain"}), ("no_gradient", {})):
        shutil.copytree(root / "dense", root / name)
        (root / name / "best" / "checkpoint.json").write_text(json.dumps(facts | change))
    weights = root / "no_gradient" / "best" / "model.safetensors"
    values = load_file(weights)
    values["classifier.weight"].zero_()
    save_file(values, weights, {"format": "pt"})
    tokenizer = root / "other_tokenizer" / "best" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("good", "gooe"))


def bad_scores(root: Path) -> None:
    whole = (root / "scores" / "scores.safetensors").read_bytes()
    (root / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "text.safetensors").write_text("no scores")
    altered = bytearray(whole)
    altered[-100] ^= 1
    (root / "altered.safetensors").write_bytes(altered)
    scores, shapes, manifest = ticket_files.load_scores(root / "scores" / "scores.safetensors")
    save = ticket_files.save_scores
    save(root / "imp.safetensors", scores, shapes, manifest | {"up_to_sparsity": 0.2})
    save(root / "rest.safetensors", scores, shapes, manifest | {"from_sparsity": 0.8})
    name = next(iter(scores))
    nan = scores | {name: torch.full_like(scores[name], float("nan"))}
    save(root / "nan.safetensors", nan, shapes, manifest)


def bad_encoders(root: Path) -> None:
    make_encoder(root / "wider", hidden=32)
    make_encoder(root / "another", seed=7)
    for name in ("torn_encoder", "three_layers", "no_tokenizer", "no_config"):
        shutil.copytree(root / "encoder", root / name)
    weights = root / "torn_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    path = root / "three_layers" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    for file in (root / "no_tokenizer").glob("tokenizer*"):
        file.unlink()
    (root / "no_config" / "config.json").write_text("{torn")
    shutil.copytree(root / "encoder", root / "evil")  # asks transformers to run its code
    config = json.loads((root / "evil" / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (root / "evil" / "config.json").write_text(json.dumps(config))
    code = f"open({str(root / 'RAN')!r}, 'w').close()\nclass EvilConfig: pass\n"
    (root / "evil" / "evil.py").write_text(code)


# Valid flags of each script. A case changes some of them (None: omits the flag). A leading slash
# marks names of files and folders in `place`.
GOOD = {
    "finetune": {
        "model_name": "/encoder",
        "task_name": "sst2",
        "data_dir": "/data",
        "output_dir": OUT,
    },
    "search_ticket": {"model_name": "/dense", "output_dir": OUT},
    "prune_iteratively": {
        "model_name": "/encoder",
        "task_name": "sst2",
        "data_dir": "/data",
        "to_sparsity": 0.3,
        "output_dir": OUT,
    },
    "retrain_ticket": {
        "model_name": "/encoder",
        "scores": "/scores",
        "sparsity": 0.3,
        "task_name": "sst2",
        "data_dir": "/data",
        "output_dir": OUT,
    },
    "make_scores": {"kind": "random", "model_name": "/encoder", "output_dir": OUT},
    "attack": {"model_name": "/dense", "recipe": "deepwordbug", "output_dir": OUT},
    "report": {"records": "/dense", "output_dir": OUT},
}
FILES = {"data_dir": None, "test_file": "/data/dev.tsv"}
TAYLOR = {"kind": "taylor", "finetuned": "/dense", "calibration_rows": 8}
NO_DATA = {"data_dir": None}


def trained_on(file: str) -> dict:
    return FILES | {"train_file": f"/bad/{file}"}


CASES = [
    # Arguments.
    ("finetune", {"epochs": 0}, "'0' is not a whole number >= 1"),
    ("finetune", {"epochs": 2.5}, "'2.5' is not a whole number"),
    ("finetune", {"bsz": -3}, "'-3' is not a whole number >= 1"),
    ("finetune", {"lr": -1}, "'-1' is not a number > 0"),
    ("finetune", {"lr": "nan"}, "'nan' is not a number > 0"),
    ("finetune", {"lr": "inf"}, "'inf' is not a number > 0"),
    ("finetune", {"dropout": 1.5}, "not a number in [0, 1]"),
    ("finetune", {"warmup_ratio": 2}, "not a number in [0, 1]"),
    ("finetune", {"seed": -1}, "'-1' is not a whole number >= 0"),
    ("finetune", {"split_seed": "x"}, "'x' is not a whole number"),
    ("finetune", {"checkpoint_every": "often"}, "'often' is not a whole number"),
    ("finetune", {"checkpoint_every": "0m"}, "'0' is not a number > 0"),
    ("finetune", {"keep_epochs": 9}, "beyond --epochs 3"),
    ("finetune", {"keep_epochs": "1,x"}, "'x' is not a whole number"),
    ("finetune", {"precision": "fp8"}, "invalid choice: 'fp8'"),
    ("finetune", {"deviations": "mine"}, "invalid choice: 'mine'"),
    ("finetune", {"device": "cuda"}, "sees no CUDA device"),
    ("finetune", {"no_such_flag": 1}, "unrecognized arguments: --no_such_flag"),
    ("finetune", {"epoch": 1}, "unrecognized arguments: --epoch"),
    ("finetune", {"output_dir": None}, "required: --output_dir"),
    ("finetune", {"method": "smart"}, "invalid choice: 'smart'"),
    ("finetune", {"adv_steps": 2}, "not read by --method plain"),
    ("finetune", {"method": "freelb", "adv_steps": 0}, "needs --adv_steps and --adv_lr above 0"),
    ("finetune", {"method": "pgd", "info_beta": 1}, "not read by --method pgd"),
    ("finetune", {"method": "infobert", "anchor_low": 0.95}, "must be below --anchor_high"),
    ("finetune", {"lr": "5e-5\r"}, r"'5e-5\r' contains a carriage return"),
    ("finetune", {"time_budget": "90"}, "'90' is not a time such as 45m or 8h"),
    ("attack", {"time_budget": "0h"}, "'0' is not a number > 0"),
    ("finetune", {"micro_bsz": 0}, "'0' is not a whole number >= 1"),
    ("finetune", {"method": "infobert", "micro_bsz": 4}, "without --micro_bsz"),
    ("finetune", {"stop_at_loss": "low"}, "--stop_at_loss: 'low' is not a number > 0"),
    ("finetune", {"stop_at_loss": "/data"}, "is not a run folder of retrain_ticket.py"),
    (
        "attack",
        {"temperature": "hot"},
        "--temperature 'hot' is not valid; give a number above 0, fitted",
    ),
    ("attack", {"query_budget": 0}, "'0' is not a whole number >= 1"),
    ("attack", {"preset": "mine"}, "invalid choice: 'mine'"),
    ("attack", {"row_choice": "intersection"}, "need each other"),
    ("attack", {"checkpoint": "first"}, "invalid choice: 'first'"),
    ("finetune", {"max_seq_length": 999}, "the encoder has 128 positions"),
    ("finetune", {"max_seq_length": 2}, "--max_seq_length 2: it must be at least 8"),
    ("finetune", {"max_train_rows": 1}, "1 class"),
    # Tasks and columns.
    ("finetune", {"task_name": "sst3"}, "unknown task 'sst3'"),
    ("finetune", {"task_name": None}, "no task: give --task_name"),
    ("finetune", {"dataset_name": "imdb"}, "does not hold the task sst2"),
    ("finetune", {"task_name": None, "dataset_name": "glue"}, "needs --task_name"),
    ("finetune", {"text_columns": "a,b"}, "names 2 columns; sst2 has 1"),
    ("finetune", {"text_columns": "text"}, "no column 'text'"),
    ("finetune", {"label_column": "gold"}, "no column 'gold'"),
    # Data.
    ("finetune", {"data_dir": "/nowhere"}, "is not a folder"),
    ("finetune", {"data_dir": "/none"}, "holds no {train,dev,test}"),
    ("finetune", {"data_dir": "/two"}, "holds several train files"),
    ("finetune", {"test_file": "/data/dev.tsv"}, "either --data_dir or single files"),
    ("finetune", FILES, "no train and no dev rows: give --train_file"),
    ("finetune", NO_DATA | {"train_file": "/data/train.tsv"}, "give --test_file"),
    ("finetune", trained_on("missing.tsv"), "no file"),
    ("finetune", trained_on("empty.tsv"), "is empty"),
    ("finetune", trained_on("header.tsv"), "has no rows"),
    ("finetune", trained_on("one_class.tsv"), "1 class"),
    ("finetune", trained_on("columns.tsv"), "no column 'sentence'"),
    ("finetune", trained_on("no_label.tsv"), "no column 'label'"),
    ("finetune", trained_on("label_7.tsv"), "label '7' in row 0"),
    ("finetune", trained_on("label_nan.tsv"), "label 'nan' in row 0"),
    ("finetune", trained_on("no_text.tsv"), "the text in row 0 is empty"),
    ("finetune", trained_on("latin1.tsv"), "is not UTF-8 text"),
    ("finetune", trained_on("utf16.tsv"), "is not UTF-8 text"),
    ("finetune", trained_on("binary.tsv"), "UTF-8"),
    ("finetune", trained_on("ragged.tsv"), "cannot be read as tsv"),
    ("finetune", trained_on("listed.jsonl"), "is of type list, not a string"),
    ("finetune", trained_on("absent.jsonl"), "the text in row 0 is empty"),
    ("finetune", trained_on("wide.tsv"), "cannot be read as tsv"),
    ("finetune", trained_on("few.tsv"), "too few to split"),
    ("finetune", trained_on("torn.tsv.gz"), "cannot be read as tsv"),
    ("finetune", trained_on("torn.parquet"), "cannot be read as parquet"),
    ("finetune", trained_on("torn.jsonl"), "cannot be read as jsonl"),
    ("finetune", trained_on("quote.csv"), "cannot be read as csv"),
    ("finetune", trained_on("table.xlsx"), "only tsv, csv, jsonl, parquet"),
    # Encoders.
    ("finetune", {"model_name": "./nowhere"}, "no folder ./nowhere"),
    ("finetune", {"model_name": "builtin/maxilm"}, "unknown built-in encoder"),
    ("finetune", {"model_name": "/torn_encoder"}, "no model that transformers can load"),
    ("finetune", {"model_name": "/three_layers"}, "weights of the encoder are missing"),
    ("finetune", {"model_name": "/no_tokenizer"}, "no tokenizer that transformers can load"),
    ("finetune", {"model_name": "/evil"}, "that transformers can load"),
    ("finetune", {"bsz": 10**12}, "below 2^31"),
    ("finetune", {"task_name": "custom", "text_columns": ","}, "names 0 columns"),
    ("finetune", {"output_dir": "/data/dev.tsv/sub"}, "Not a directory"),
    ("finetune", {"output_dir": "/" + 300 * "x"}, "File name too long"),
    ("finetune", {"model_name": "/no_config"}, "that transformers can load"),
    # Folders.
    ("finetune", {"output_dir": "/notes"}, "is not empty and holds no run"),
    ("finetune", {"output_dir": "/notes", "overwrite": True}, "is not empty and holds no run"),
    ("finetune", {"output_dir": "/notes/thesis.tex"}, "is a file"),
    ("finetune", {"output_dir": "/dense", "lr": 1e-3}, "lr 2e-05 then, 0.001 now"),
    ("finetune", {"output_dir": "/scores"}, "holds a run of stage scores"),
    ("finetune", {"output_dir": "/torn_run"}, "run.json is damaged"),
    # Search.
    ("search_ticket", {"sparsity": 1}, "'1' is not a fraction removed in [0, 1)"),
    ("search_ticket", {"sparsity": "nan"}, "not a fraction removed"),
    ("search_ticket", {"mask_p": 1}, "strictly between 0 and 1"),
    ("search_ticket", {"adv_steps": -1}, "'-1' is not a whole number >= 0"),
    ("search_ticket", {"keep_scores": "first"}, "not a list of epochs from 1 or best"),
    ("search_ticket", {"keep_scores": 7, "epochs": 3}, "beyond --epochs 3"),
    ("search_ticket", {"out_w_per_mask": 5}, "do not divide"),
    ("search_ticket", {"adv_gradient": "sum"}, "invalid choice"),
    ("search_ticket", {"adv_steps": 0, "clean_loss_weight": 1}, "not read with --adv_steps 0"),
    ("search_ticket", {"model_name": "/none"}, "is not a run folder of finetune.py"),
    ("search_ticket", {"model_name": "/nowhere"}, "is not a run folder of finetune.py"),
    ("search_ticket", {"model_name": "/scores"}, "is not a run folder of finetune.py"),
    ("search_ticket", {"model_name": "/unfinished"}, "is not finished"),
    ("search_ticket", {"model_name": "/torn_run"}, "run.json is damaged"),
    ("search_ticket", {"model_name": "/list_run"}, "run.json is damaged"),
    ("search_ticket", {"model_name": "/deep_run"}, "run.json is damaged"),
    ("search_ticket", {"model_name": "/no_checkpoint"}, "no checkpoint.json"),
    ("search_ticket", {"model_name": "/altered"}, "is missing or damaged"),
    ("search_ticket", {"model_name": "/other_tokenizer"}, "tokenizer.json is missing or damaged"),
    ("search_ticket", {"model_name": "/four_labels"}, "has 4 labels, sst2 has 2"),
    # Iterative pruning.
    ("prune_iteratively", {"to_sparsity": 1}, "strictly between 0 and 1"),
    ("prune_iteratively", {"to_sparsity": "nan"}, "strictly between 0 and 1"),
    ("prune_iteratively", {"share_per_round": 0}, "strictly between 0 and 1"),
    ("prune_iteratively", {"share_per_round": 1e-6}, "more than 1000 rounds"),
    ("prune_iteratively", {"share_of": "some"}, "invalid choice"),
    ("prune_iteratively", {"keep_epochs": 1}, "unrecognized arguments"),
    # Drawing and retraining.
    ("retrain_ticket", {"sparsity": 1.0}, "not a fraction removed"),
    ("retrain_ticket", {"sparsity": -0.1}, "not a fraction removed"),
    ("retrain_ticket", {"scores": "/nothing"}, "no score file"),
    ("retrain_ticket", {"scores": "/torn.safetensors"}, "damaged"),
    ("retrain_ticket", {"scores": "/text.safetensors"}, "damaged"),
    ("retrain_ticket", {"scores": "/altered.safetensors"}, "its checksum does not match"),
    ("retrain_ticket", {"scores": "/nan.safetensors"}, "not finite"),
    ("retrain_ticket", {"scores": "/dense/last/model.safetensors"}, "not a scores file"),
    ("retrain_ticket", {"scores": "/imp.safetensors"}, "only up to sparsity 0.2"),
    ("retrain_ticket", {"scores": "/rest.safetensors"}, "only from sparsity 0.8 on"),
    ("retrain_ticket", {"model_name": "/wider"}, "made for another encoder"),
    ("retrain_ticket", {"model_name": "/another"}, "is another one"),
    ("retrain_ticket", {"reinit_std": 0.1}, "needs --reinitialise"),
    (
        "retrain_ticket",
        {"reinitialise": "ticket", "reinit_law": "shuffled", "reinit_std": 1},
        "--reinit_std is not read",
    ),
    # Other scores.
    ("make_scores", {"kind": "best"}, "invalid choice"),
    ("make_scores", {"model_name": None}, "needs --model_name"),
    ("make_scores", {"kind": "random_matched", "model_name": None}, "needs --scores"),
    ("make_scores", {"kind": "complement", "scores": "/scores"}, "--model_name is not read"),
    ("make_scores", {"scores": "/scores"}, "--scores is not read by --kind random"),
    ("make_scores", {"finetuned": "/dense/last"}, "needs --kind magnitude, wanda, taylor"),
    ("make_scores", {"calibration_rows": 8}, "--calibration_rows is not read by --kind random"),
    ("make_scores", {"data_dir": "/data"}, "--data_dir is not read by --kind random"),
    ("make_scores", {"kind": "taylor"}, "--kind taylor needs --finetuned"),
    ("make_scores", {"kind": "wanda"}, "no task: give --task_name"),
    ("make_scores", TAYLOR | {"model_name": None}, "needs --model_name"),
    ("make_scores", TAYLOR | {"scores": "/scores"}, "--scores is not read by --kind taylor"),
    ("make_scores", TAYLOR | {"calibration_rows": 33}, "the training split has only 32 rows"),
    ("make_scores", TAYLOR | {"calibration_rows": 0}, "'0' is not a whole number >= 1"),
    ("make_scores", TAYLOR | {"model_name": "/another"}, "is another encoder: give the one"),
    ("make_scores", TAYLOR | {"finetuned": "/unfinished"}, "is not finished"),
    ("make_scores", TAYLOR | {"finetuned": "/altered"}, "is missing or damaged"),
    ("make_scores", TAYLOR | {"finetuned": "/four_labels"}, "has 4 labels, sst2 has 2"),
    ("make_scores", TAYLOR | {"finetuned": "/scores"}, "it has no checkpoint.json"),
    ("make_scores", TAYLOR | {"finetuned": "/nowhere"}, "it has no checkpoint.json"),
    ("make_scores", TAYLOR | {"finetuned": "/ticketed"}, "is not a run of finetune.py"),
    ("make_scores", TAYLOR | {"finetuned": "/no_gradient"}, "the scores add up to 0, so these"),
    ("make_scores", {"kind": "complement", "model_name": None, "scores": "/x"}, "no score file"),
    # The attack.
    ("attack", {"recipe": "guess"}, "invalid choice"),
    ("attack", {"model_name": "/nowhere"}, "no folder"),
    ("attack", {"model_name": "/none"}, "is not a checkpoint: it has no config.json"),
    ("attack", {"model_name": "/altered", "checkpoint": "best"}, "is missing or damaged"),
    ("attack", {"model_name": "/four_labels", "checkpoint": "best"}, "has 4 labels"),
    ("attack", {"model_name": "/torn_run"}, "run.json is damaged"),
    ("attack", {"model_name": "/encoder"}, "has no run.json; give --task_name"),
    ("attack", {"attack_epochs": 5}, "has no checkpoint of epoch 5"),
    ("attack", {"attack_epochs": ""}, "--attack_epochs is empty"),
    ("attack", {"num_examples": 0}, "whole number >= 1"),
    ("attack", {"similarity_threshold": 0.5}, "is not read by the recipe deepwordbug"),
    ("attack", {"recipe": "textfooler-neighbours"}, "give --neighbours FILE"),
    ("attack", {"recipe": "textfooler"}, "fetch_attack_resources.sh textfooler; or give"),
    ("attack", {"output_dir": "/notes"}, "is not empty and holds no attack"),
    ("attack", {"output_dir": "/notes/thesis.tex"}, "is a file"),
    ("attack", {"result_file": "/torn_run/run.json"}, "holds no records"),
    ("attack", {"result_file": "/data/dev.tsv"}, "line 1, is not JSON"),
    # The report.
    ("report", {"records": "/nowhere"}, "does not exist"),
    ("report", {"records": "/none"}, "no attack records"),
    ("report", {"records": "/bad/binary.tsv"}, "not UTF-8"),
    ("report", {"records": "/data/dev.tsv"}, "line 1, is not JSON"),
    ("report", {"make": "table9"}, "invalid choice: 'table9'"),
    ("report", {"make": "table1", "tasks": "sst3"}, "unknown task 'sst3'"),
]


def arguments(place: Path, out: Path, script: str, changes: dict) -> list[str]:
    flags = GOOD[script] | changes
    for name, value in flags.items():
        if value == OUT:
            flags[name] = out
        elif str(value).startswith("/"):
            flags[name] = place / value[1:]
    return words_of(flags)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "cache" not in p.parts
    }


def test_every_script_has_a_case():
    assert {script for script, _, _ in CASES} == GOOD.keys()


@pytest.mark.parametrize(
    ("script", "changes", "message"),
    CASES,
    ids=[f"{script}-{'-'.join(map(str, changes.values()))}"[:60] for script, changes, _ in CASES],
)
def test_one_line_status_2_nothing_written(
    place, tmp_path, capsys, monkeypatch, script, changes, message
):
    if script == "attack":
        skip_without_textattack()
    monkeypatch.delenv("NLTK_DATA", raising=False)
    before = contents(place)
    line = fails(capsys, script, *arguments(place, tmp_path / "out", script, changes))
    assert message in line, line
    assert "\n" not in line and len(line) < 700
    assert not (tmp_path / "out").exists() and contents(place) == before
    assert not (place / "RAN").exists()  # the code in a folder is never run


LAUNCHES = [  # variables, and those that the line tells to unset
    ({"PMI_SIZE": "2"}, "PMI_SIZE"),
    ({"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}, "LOCAL_RANK"),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_SIZE"),
    ({"MV2_COMM_WORLD_SIZE": "4", "MASTER_PORT": "29500"}, "MV2_COMM_WORLD_SIZE"),
    ({"WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": ""}, "WORLD_SIZE LOCAL_RANK"),
    ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "RANK": "first"}, "WORLD_SIZE"),
    ({"LOCAL_RANK": ""}, "LOCAL_RANK"),
    (
        {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        "WORLD_SIZE",
    ),
    ({"WORLD_SIZE": "2\r"}, "WORLD_SIZE"),
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED"),
]


@pytest.mark.parametrize(("variables", "named"), LAUNCHES, ids=[" ".join(v) for v, _ in LAUNCHES])
@pytest.mark.parametrize(
    "script", ["finetune", "search_ticket", "prune_iteratively", "retrain_ticket"]
)
def test_variables_that_a_launcher_left_behind(
    place, tmp_path, capsys, monkeypatch, script, variables, named
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = fails(capsys, script, *arguments(place, tmp_path / "out", script, {}))
    assert f"unset {named}" in line and list(variables)[0] + "=" in line
    assert not (tmp_path / "out").exists()
    for name in named.split():  # the remedy
        monkeypatch.delenv(name)
    launch.check()
    assert not launch.announced()


SHELL = [
    ("stage1-finetune.sh", {"TASKS": "sst3"}, "unknown task 'sst3'"),
    ("stage2-search-ticket.sh", {"TASKS": "sst3"}, "unknown task 'sst3'"),
    ("stage3-draw-retrain_ticket.sh", {"TASKS": "sst3"}, "unknown task 'sst3'"),
    ("stage1-finetune.sh", {"METHODS": "smart"}, "unknown method 'smart'"),
    ("stage2-search-ticket.sh", {"KINDS": "lucky"}, "unknown kind 'lucky'"),
    ("stage1-finetune.sh", {"TASKS": "sst2 sst3"}, "unknown task 'sst3'"),
    ("stage1-finetune.sh", {"METHODS": "plain smart"}, "unknown method 'smart'"),
    ("stage2-search-ticket.sh", {"KINDS": "robust imp_smart"}, "unknown kind 'imp_smart'"),
    ("stage3-draw-retrain_ticket.sh", {"REINIT": "nothing all"}, "unknown start 'all'"),
    ("stage3-draw-retrain_ticket.sh", {"KINDS": "lucky"}, "unknown kind 'lucky'"),
]


@pytest.mark.parametrize(("script", "variables", "message"), SHELL)
def test_shell_scripts_refuse_unknown_words(tmp_path, script, variables, message):
    python = tmp_path / "a 'quoted\" python"
    python.write_text('#!/bin/sh\necho called >> "$JOURNAL"\n')
    python.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHON": str(python),
        "TASKS": "sst2",
        "JOURNAL": str(tmp_path / "journal"),
    } | variables
    done = subprocess.run(
        ["sh", str(ROOT / script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and not (tmp_path / "journal").exists()
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.slow
def test_wrong_arguments_are_reported_before_torch_is_imported():
    """A broken torch comes first on the path, so an import before the error would fail."""
    code = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for script in (
        "finetune",
        "search_ticket",
        "prune_iteratively",
        "retrain_ticket",
        "make_scores",
        "attack",
        "reproduce",
    ):
        line = [sys.executable, "-c", code, str(ROOT / f"{script}.py"), "--nonsense", "1"]
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
        assert done.stderr.count("\n") == 1


def mutations(data: bytes, count: int, seed: int):
    """Flip, cut, repeat or replace bytes at random offsets."""
    draw = random.Random(seed)
    for _ in range(count):
        changed = bytearray(data)
        kind = draw.randrange(4)
        at = draw.randrange(len(data))
        if kind == 0:
            for _ in range(draw.randint(1, 8)):
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at:at] = changed[max(0, at - 50) : at] * draw.randint(1, 20)
        else:
            changed[at : at + 16] = draw.randbytes(16)
        yield bytes(changed)


def test_fuzzed_score_and_ticket_files(place, tmp_path):
    """A damaged file is refused by name, or its contents are exactly those that were written."""
    path = place / "scores" / "scores.safetensors"
    scores, shapes, _ = ticket_files.load_scores(path)
    masks = tickets.draw(scores, shapes, 0.3)
    ticket_files.save_ticket(tmp_path / "ticket.safetensors", masks, {"kind": "random"})
    of_ticket = (tmp_path / "ticket.safetensors", ticket_files.load_ticket, masks)
    for file, load, good in ((path, ticket_files.load_scores, scores), of_ticket):
        refused = 0
        for changed in mutations(file.read_bytes(), 150, 1):
            (tmp_path / "fuzzed.safetensors").write_bytes(changed)
            try:
                found = load(tmp_path / "fuzzed.safetensors")[0]
            except ValueError as e:
                assert "fuzzed.safetensors" in str(e)
                refused += 1
            else:
                assert all(torch.equal(found[n], good[n]) for n in good)
        assert refused > 100


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("x.jsonl", b'{"a": 1, "b": [1, 2]}\n' * 20, files.read_jsonl),
        ("x.json", b'{"stage": "x", "args": {"lr": 0.1, "l": [1, {"a": null}]}}', files.read_json),
        (
            "n.json",
            json.dumps({"good": ["fine", "great"], "bad": ["poor"]}).encode(),
            readers.read_neighbours,
        ),
        ("v.txt", b"good 0.1 0.2\nbad 0.3 -0.4\nfilm 1 2\n" * 1, readers.read_word_vectors),
        ("t.tsv", b"sentence\tlabel\n" + b"a fine film\t1\na dull one\t0\n" * 20, read_table),
        ("t.csv", b"sentence,label\n" + b'"a, fine film",1\na dull one,0\n' * 20, read_table),
        ("j.jsonl", b'{"sentence": "a fine film", "label": 1}\n' * 20, read_table),
    ],
)
def test_fuzzed_text_files(tmp_path, name, content, read):
    """The file is read, or refused by name. There is no other error."""
    refused = 0
    for changed in mutations(content, 300, 2):
        (tmp_path / name).write_bytes(changed)
        try:
            read(tmp_path / name)
        except UserError as e:
            assert name in str(e) and "\n" not in str(e)
            refused += 1
    assert refused > 20
    for hostile in (b"[" * 200_000, b'{"a":' * 100_000, b"\x00" * 1000, b"\n" * 1000, b"\xff" * 99):
        (tmp_path / name).write_bytes(hostile)
        try:
            read(tmp_path / name)
        except UserError as e:
            assert name in str(e)


@pytest.mark.slow
def test_fuzzed_and_oversized_parquet_files(tmp_path):
    import pandas as pd

    path = tmp_path / "t.parquet"
    texts = ["a fine film", "a dull one"] * 50
    pd.DataFrame({"sentence": texts, "label": [1, 0] * 50}).to_parquet(path)
    assert len(read_table(path)) == 100
    refused = 0
    for changed in mutations(path.read_bytes(), 200, 3):
        path.write_bytes(changed)
        try:
            read_table(path)
        except UserError as e:
            assert "t.parquet" in str(e)
            refused += 1
    assert refused > 50
    pd.DataFrame({"label": pd.Series([0], dtype="int8").repeat(21_000_000)}).to_parquet(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match="21000000 rows"):
        read_table(path)
