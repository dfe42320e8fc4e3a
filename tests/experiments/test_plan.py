"""Plans of the paper's tables and figures: the runs and attacks that they need."""

import csv
import json
import os
from pathlib import Path

import pytest
from plan_tools import plan

import reproduce
from experiments import planner
from experiments.paper import TABLES
from experiments.scales import SCALES

pytestmark = pytest.mark.usefixtures("plain_environment")

ROOT = Path(__file__).resolve().parents[2]


def test_table_1_needs_every_row_and_what_they_are_made_from(tmp_path):
    jobs = plan("table1", tmp_path)
    assert set(jobs) == {
        "dense",
        "scores-imp",
        "ticket-imp-0.3",
        "dense-freelb",
        "dense-infobert",
        "search-robust",
        "ticket-random_matched-0.3",
        "ticket-random-0.3",
        "ticket-robust-0.3",
    }
    order = list(jobs)
    for job in jobs.values():
        for need in job.needs:
            assert order.index(need.split("/")[-1]) < order.index(job.name.split("/")[-1])
    assert jobs["ticket-robust-0.3"].needs == ("builtin/rotten_tomatoes/seed42/search-robust",)
    assert jobs["search-robust"].needs == ("builtin/rotten_tomatoes/seed42/dense",)
    assert jobs["dense"].training.args.method == "plain" and len(jobs["dense"].attacks) == 3
    assert all(job.state == "missing" and job.seconds > 0 for job in jobs.values())


def test_a_ticket_is_planned_with_its_controls(tmp_path):
    jobs = plan("table1", tmp_path, "--rows", "RobustT", "LTH", "Rand (global)", "--controls")
    dense = {name: job for name, job in jobs.items() if name.startswith("dense")}
    # Robust: 3 epochs of stage 1, 4 of the search, 3 of retraining; IMP: 3 rounds of 1, and 3.
    assert set(dense) == {
        "dense",
        "dense-epochs10",
        "dense-epochs6",
        "dense-loss_of-ticket-robust-0.3",
        "dense-loss_of-ticket-imp-0.3",
        "dense-loss_of-ticket-random-0.3",
    }
    control = dense["dense-loss_of-ticket-robust-0.3"]
    place = "builtin/rotten_tomatoes/seed42"
    assert control.needs == (f"{place}/ticket-robust-0.3", f"{place}/dense-epochs10")
    folder = str(tmp_path / "minilm" / place / "ticket-robust-0.3")
    # It is an epoch of the control with the same label passes; random masks have no such control.
    args = {name: job.training.args for name, job in dense.items()}
    from_run = str(tmp_path / "minilm" / place / "dense-epochs10")
    assert control.training.args.from_run == from_run
    assert args["dense-epochs10"].keep_epochs == list(range(1, 11))
    for name in ("dense-loss_of-ticket-random-0.3", "dense"):
        assert args[name].from_run is None and args[name].keep_epochs == []
    assert control.training.args.stop_at_loss == folder and control.training.args.epochs == 10
    assert all(len(job.attacks) == 3 for job in dense.values())
    only_dense = plan("table1", tmp_path, "--rows", "FreeLB", "--controls")
    assert set(only_dense) == {"dense-freelb"}
    both = os.environ | {"CHECKPOINT": "both", "TEMPERATURE": "1,fitted"}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CHECKPOINT", "TEMPERATURE"):
            patch.setenv(name, both[name])
        attacks = plan("table1", tmp_path, "--rows", "FreeLB")["dense-freelb"].attack_folders
    assert len(attacks) == 12
    assert {"last", "best"} == {folder.name.split("_")[1] for folder in attacks}
    assert sum(folder.name.endswith("_Tfitted") for folder in attacks) == 6


def test_built_in_tasks_of_a_plan_need_no_folder_of_data(tmp_path):
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for part in ("train", "dev"):
        (tmp_path / "data" / "sst2" / f"{part}.tsv").write_text("sentence\tlabel\ngood\t1\n")
    words = ["study", "--runs", tmp_path / "runs", "--output_dir", tmp_path]
    words += ["--data", tmp_path / "data", "--seeds", "1", "--rows", "Fine-tune"]
    args = reproduce.parse_args([str(word) for word in words])
    data = {job.task: job.training.args.data_dir for job in planner.make_plan(args)}
    assert data == {"builtin/rotten_tomatoes": None, "sst2": str(tmp_path / "data" / "sst2")}


def test_any_data_set_is_a_task(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT_COLUMNS", "my text")
    monkeypatch.setenv("TEST_SPLIT", "validation")
    jobs = plan("table1", tmp_path, "--tasks", "owner/name:config")
    dense, ticket = (jobs[run].training.args for run in ("dense", "ticket-robust-0.3"))
    assert Path(dense.output_dir).parts[-3:] == ("owner--name--config", "seed42", "dense")
    for args in (dense, ticket):
        assert args.task_name == "owner/name:config" and args.max_seq_length == 128
        assert (args.text_columns, args.test_split) == ("my text", "validation")
    assert jobs["dense"].training.args.text_columns == "my text"
    jobs = plan("table1", tmp_path, "--tasks", "builtin/rotten_tomatoes")
    assert jobs["dense"].training.args.text_columns is None  # its columns are known


def test_seeds_tasks_and_rows_choose(tmp_path):
    words = f"table1 --scale paper --runs {tmp_path} --seeds 1 2 --tasks sst2 --rows LTH FreeLB"
    args = [*words.split(), "--no-controls"]
    jobs = planner.make_plan(reproduce.parse_args(args))
    assert [job.name for job in jobs] == [
        f"sst2/seed{seed}/{name}"
        for seed in (1, 2)
        for name in ("scores-imp", "ticket-imp-0.3", "dense-freelb")
    ]
    assert jobs[1].attacks[0].command.args.num_examples == 872
    assert [p.name.split("_")[0] for p in jobs[1].attack_folders] == [
        "bertattack",
        "bertattack-released",
        "textfooler",
        "textbugger",
    ]


def test_figure_2_prunes_once_for_all_sparsities(tmp_path):
    jobs = plan("figure2", tmp_path)
    assert jobs["scores-imp-to0.9"].training.args.to_sparsity == 0.9
    assert jobs["ticket-imp-0.7"].needs[0].endswith("scores-imp-to0.9")
    assert jobs["ticket-imp-0.7"].training.args.scores.endswith("/scores-imp-to0.9")
    assert jobs["ticket-imp-0.1"].training.args.scores.endswith("/scores-imp")
    assert sum(name.startswith("ticket-robust") for name in jobs) == 5


def test_figures_4_and_5(tmp_path):
    jobs = plan("figure4", tmp_path)
    job = jobs["ticket-robust-0.3-epochs10-kept"]
    assert (
        job.training.args.keep_epochs == [1, 2, 3, 4, 6, 8, 10] and job.training.args.epochs == 10
    )
    assert [folder.name.split("_")[1] for folder in job.attack_folders] == [
        f"epoch{epoch}" for epoch in (1, 2, 3, 4, 6, 8, 10)
    ]
    jobs = plan("figure5", tmp_path)
    assert {"search-robust", "search-robust-lambda0.1", "search-robust-lambda1"} <= set(jobs)
    assert jobs["search-robust-lambda1"].training.args.lambda_amp == 1
    assert not jobs["dense"].attacks


def test_the_scales_and_the_papers_data_agree():
    with open(ROOT / "results" / "paper_tables.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    for table in TABLES.values():
        methods = {r["method"] for r in rows if r["table"] == table.name[-1]}
        named = {row.paper_method for row in table.rows}
        assert methods <= named
    assert SCALES["paper"].epochs == 3 and json.dumps(SCALES["mini"].settings)
