"""Wrong input to each script: one line with the error and its fix, status 2, nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest
from bad_inputs import VALID, arguments
from conftest import fails, skip_without_textattack

ROOT = Path(__file__).resolve().parents[2]

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
    ("finetune", {"adv_steps": 2}, "no effect with --method plain"),
    ("finetune", {"method": "freelb", "adv_steps": 0}, "needs --adv_steps and --adv_lr above 0"),
    ("finetune", {"method": "pgd", "info_beta": 1}, "no effect with --method pgd"),
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
    ("search_ticket", {"adv_steps": 0, "clean_loss_weight": 1}, "no effect with --adv_steps 0"),
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
    ("retrain_ticket", {"scores": "/dense/last/model.safetensors"}, "not a score file"),
    ("retrain_ticket", {"scores": "/imp.safetensors"}, "only up to sparsity 0.2"),
    ("retrain_ticket", {"scores": "/rest.safetensors"}, "only from sparsity 0.8 on"),
    ("retrain_ticket", {"model_name": "/wider"}, "made for another encoder"),
    ("retrain_ticket", {"model_name": "/another"}, "is another one"),
    ("retrain_ticket", {"reinit_std": 0.1}, "needs --reinitialise"),
    (
        "retrain_ticket",
        {"reinitialise": "ticket", "reinit_law": "shuffled", "reinit_std": 1},
        "--reinit_std has no effect",
    ),
    # Other scores.
    ("make_scores", {"kind": "best"}, "invalid choice"),
    ("make_scores", {"model_name": None}, "needs --model_name"),
    ("make_scores", {"kind": "random_matched", "model_name": None}, "needs --scores"),
    ("make_scores", {"kind": "complement", "scores": "/scores"}, "--model_name has no effect"),
    ("make_scores", {"scores": "/scores"}, "--scores has no effect with --kind random"),
    ("make_scores", {"finetuned": "/dense/last"}, "needs --kind magnitude, wanda, taylor"),
    ("make_scores", {"calibration_rows": 8}, "--calibration_rows has no effect with --kind random"),
    ("make_scores", {"data_dir": "/data"}, "--data_dir has no effect with --kind random"),
    ("make_scores", {"kind": "taylor"}, "--kind taylor needs --finetuned"),
    ("make_scores", {"kind": "wanda"}, "no task: give --task_name"),
    ("make_scores", TAYLOR | {"model_name": None}, "needs --model_name"),
    ("make_scores", TAYLOR | {"scores": "/scores"}, "--scores has no effect with --kind taylor"),
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
    ("attack", {"similarity_threshold": 0.5}, "has no effect with the recipe deepwordbug"),
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


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "cache" not in p.parts
    }


def test_every_script_has_a_case():
    assert {script for script, _, _ in CASES} == VALID.keys()


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
