"""Estimates of how long a plan takes, and the folders of data that they look into."""

import pytest
from conftest import fails, sentences, write_tsv

from experiments import estimates
from utils.cli import UserError


def test_training_rows_are_counted_where_the_data_lie(tmp_path):
    write_tsv(tmp_path / "train.tsv", sentences(70, 1))
    write_tsv(tmp_path / "dev.tsv", sentences(20, 2))
    assert estimates.training_rows("sst2", tmp_path) == 70
    assert estimates.training_rows("sst2", None) == 60_000


def test_a_folder_without_a_train_file_is_one_line(tmp_path, capsys):
    write_tsv(tmp_path / "d" / "sst2" / "dev.tsv", sentences(20, 2))
    with pytest.raises(UserError, match="sst2 has no training file"):
        estimates.training_rows("sst2", tmp_path / "d" / "sst2")
    for task in ("imdb", "ag_news", "qnli", "qqp", "mnli"):
        write_tsv(tmp_path / "d" / task / "train.tsv", sentences(20, 2))
    flags = ("--scale", "paper", "--data", tmp_path / "d", "--runs", tmp_path / "r", "--dry_run")
    assert "sst2 has no training file" in fails(capsys, "reproduce", "table1", *flags)
