"""Plans of tables and figures: what they need, what is reused, what runs beside what."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import call, fails
from record_tools import attack as record

import reproduce
from evaluation.records import AttackRecord
from experiments import paper, planning, runner, study
from experiments.jobs import Job
from experiments.models import Model
from experiments.paper import FIGURES, TABLES
from experiments.scales import SCALES
from utils.cli import UserError
from utils.files import write_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    names = "MODEL LR BSZ CHECKPOINT ROWS SCORE_WITH NEIGHBOURS NLTK_DATA MAX_TRAIN_ROWS ADV_STEPS"
    for name in (*names.split(), "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def plan(target: str, folder: Path, *flags: str) -> dict[str, Job]:
    flags = (*flags, *["--no-controls"] * ("--controls" not in flags))
    args = reproduce.parse_args([target, "--scale", "mini", "--runs", str(folder), *flags])
    return {job.name.split("/")[-1]: job for job in planning.make_plan(args)}


def finish(job: Job, attacks: bool = True) -> None:
    write_json(job.folder / "run.json", {"stage": "x", "status": "finished"})
    for folder in job.attacks if attacks else ():
        write_json(folder / "summary.json", {})


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
    assert jobs["dense"].variables["METHODS"] == "plain" and len(jobs["dense"].attacks) == 3
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
    # It is an epoch of the control with as many passes; random masks have no such control.
    assert control.flags == ("--from_run", str(tmp_path / "minilm" / place / "dense-epochs10"))
    assert dense["dense-epochs10"].flags == ("--keep_epochs", "1,2,3,4,5,6,7,8,9,10")
    assert dense["dense-loss_of-ticket-random-0.3"].flags == dense["dense"].flags == ()
    assert control.variables["STOP_AT_LOSS"] == folder and control.variables["EPOCHS"] == "10"
    assert all(len(job.attacks) == 3 for job in dense.values())
    only_dense = plan("table1", tmp_path, "--rows", "FreeLB", "--controls")
    assert set(only_dense) == {"dense-freelb"}
    both = os.environ | {"CHECKPOINT": "both", "TEMPERATURE": "1,fitted"}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CHECKPOINT", "TEMPERATURE"):
            patch.setenv(name, both[name])
        attacks = plan("table1", tmp_path, "--rows", "FreeLB")["dense-freelb"].attacks
    assert len(attacks) == 12
    assert {"last", "best"} == {folder.name.split("_")[1] for folder in attacks}
    assert sum(folder.name.endswith("_Tfitted") for folder in attacks) == 6


def test_the_study_asks_only_for_what_its_records_lack(tmp_path, monkeypatch):
    def planned() -> dict[str, list[str]]:
        flags = [
            "study",
            "--runs",
            str(tmp_path / "runs"),
            "--output_dir",
            str(tmp_path / "out"),
            "--tasks",
            "builtin/rotten_tomatoes",
            "--seeds",
            "1",
            "--rows",
            "Fine-tune",
            "RobustT 30 %",
        ]
        args = reproduce.parse_args(flags)
        assert args.scale == "study"
        jobs = planning.make_plan(args)
        return {job.name.split("/")[-1]: [a.name for a in job.attacks] for job in jobs}

    first = planned()
    assert set(first) == {
        "dense",
        "search-robust",
        "ticket-robust-0.3",
        "dense-epochs12",
        "dense-loss_of-ticket-robust-0.3",
    }
    # Recorded: all attacks but that of the control with as many passes.
    facts = {"stage": "finetune", "training": {"lr": 5e-5}, "training_rows": 6716}
    lines = [
        record(seed=1, made_in=[run, attack], epochs=12 if "loss_of" in run else 3, **facts)
        for run, attacks in first.items()
        for attack in attacks
        if run != "dense-epochs12"
    ]
    (tmp_path / "out").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "out" / "study-records.jsonl").write_text(text)
    assert set(planned()) == {"dense-epochs12"}
    # A control at the ticket's loss needs the ticket, its search and the search's start.
    text = "".join(json.dumps(x) + "\n" for x in lines if "loss_of" not in x["made_in"][0])
    (tmp_path / "out" / "study-records.jsonl").write_text(text)
    assert set(planned()) == set(first)
    # Neither skipped nor mixed where it would be made in another way.
    others = {
        "LR": ("1e-3", "lr 5e-05, not 1e-3"),
        "MAX_TRAIN_ROWS": ("500", "6716 training rows, not 500"),
    }
    for name, (value, told) in others.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(UserError, match=f"{told}.*choose another --output_dir"):
                planned()


def test_the_studys_variants_have_folders_and_searches_of_their_own(tmp_path):
    def planned(*rows: str, seeds: tuple[str, ...] = ("1",)) -> dict[str, Job]:
        args = reproduce.parse_args(
            [
                "study",
                "--runs",
                str(tmp_path / "runs"),
                "--output_dir",
                str(tmp_path),
                "--tasks",
                "builtin/rotten_tomatoes",
                "--seeds",
                *seeds,
                "--rows",
                *rows,
            ]
        )
        return {job.name.split("/")[-1]: job for job in planning.make_plan(args)}

    jobs = planned("D9, mean in R(m)", "search epoch 2", "w/o Structure + Longer", "w/o Adv")
    assert set(jobs) == {
        *("dense", "search-robust", "search-robust-penalty_mean_matrices", "search-no_adversary"),
        *("ticket-robust-0.3-penalty_mean_matrices", "ticket-robust-0.3-search_epoch2"),
        *("ticket-robust-0.3-reinit_rest-epochs10", "ticket-no_adversary-0.3"),
    }
    search = jobs["search-robust-penalty_mean_matrices"]
    assert search.variables["TAG"] == "-penalty_mean_matrices"
    assert search.flags == ("--penalty_mean", "matrices")
    released = planned("released search (D1, D2, D9, D14, D17)")[
        "search-robust-deviations_released"
    ]
    assert released.variables["PROTOCOL"] == "released" and released.flags == ()
    ticket = jobs["ticket-robust-0.3-penalty_mean_matrices"]
    assert ticket.variables["SCORES_TAG"] == ticket.variables["TAG"] == "-penalty_mean_matrices"
    assert ticket.needs == ("builtin/rotten_tomatoes/seed1/search-robust-penalty_mean_matrices",)
    epoch = jobs["ticket-robust-0.3-search_epoch2"].variables
    assert epoch["SCORES_TAG"] == "/scores_epoch2.safetensors" and epoch["TAG"] == "-search_epoch2"
    assert jobs["search-robust"].flags == ("--keep_scores", "1,2,3,4,5")
    rest = jobs["ticket-robust-0.3-reinit_rest-epochs10"].variables
    assert rest["TAG"] == "-epochs10" and rest["EPOCHS"] == "10" and rest["REINIT"] == "rest"
    # All sparsities and lengths that the main table has not; their masks are one search's.
    grid = [row.label for row in study.STUDIES["study-grid"].rows if row.model.kind]
    main = [row.label for row in study.STUDY.rows if row.model.kind == "robust"]
    assert len({*grid, *main}) == 9 * 3 == len(grid) + len(main)
    jobs = planned("RobustT 90 %, 20 epochs")
    assert jobs["ticket-robust-0.9-epochs20"].variables["EPOCHS"] == "20"
    assert {"search-robust", "dense-epochs20", "dense-epochs29"} < set(jobs)
    with pytest.raises(UserError, match="study has no row 'search epoch 9'"):
        planned("search epoch 9")


def test_the_study_makes_its_tables_before_it_asks_for_data(tmp_path, capsys):
    flags = ("--runs", tmp_path / "runs", "--output_dir", tmp_path / "out", "--rows", "FreeLB")
    (tmp_path / "out").mkdir()
    shutil.copy(ROOT / "results/study/study-records.jsonl", tmp_path / "out")
    said = fails(capsys, "reproduce", "study", *flags)
    assert "NEIGHBOURS=FILE" in said and "--data FOLDER" in said
    for name in ("study", "study-switches", "study-epochs", "study-ablations", "study-grid"):
        assert (tmp_path / "out" / f"{name}.md").is_file()
    assert not (tmp_path / "runs").exists()


def test_the_study_keeps_its_robust_tickets(tmp_path, capsys):
    for name in (
        "builtin/imdb/seed2/ticket-robust-0.3",
        "imdb/seed2/ticket-robust-0.3",
        "imdb/seed2/ticket-robust-0.3-epochs10",
        "imdb/seed2/ticket-imp-0.3",
        "imdb/seed2/ticket-robust-0.3-reinit_rest",
        "imdb/seed2/ticket-robust-0.5-search_epoch2",
    ):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "ticket.safetensors").write_text(name)
    reproduce.keep_tickets(tmp_path / "runs", tmp_path / "kept")
    kept = {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()}
    early = "imdb/seed2/ticket-robust-0.5"
    assert kept == {
        "builtin-imdb-seed2-robust-0.3.safetensors": "builtin/imdb/seed2/ticket-robust-0.3",
        "imdb-seed2-robust-0.3.safetensors": "imdb/seed2/ticket-robust-0.3",
        "imdb-seed2-robust-0.5-search_epoch2.safetensors": f"{early}-search_epoch2",
    }
    (tmp_path / "runs/imdb/seed2/ticket-robust-0.3/ticket.safetensors").write_text("another")
    reproduce.keep_tickets(tmp_path / "runs", tmp_path / "kept")
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == kept
    assert "is another ticket than" in capsys.readouterr().err


def test_epochs_are_kept_until_all_controls_are_taken_from_them(tmp_path, monkeypatch):
    place = tmp_path / "runs" / "minilm" / "builtin" / "rotten_tomatoes" / "seed1"

    def planned() -> dict[str, Job]:
        args = reproduce.parse_args(
            [
                "study",
                "--runs",
                str(tmp_path / "runs"),
                "--output_dir",
                str(tmp_path),
                "--tasks",
                "builtin/rotten_tomatoes",
                "--seeds",
                "1",
                "--rows",
                "RobustT 30 %",
                "RobustT 50 %",
            ]
        )
        return {job.folder.name: job for job in planning.make_plan(args)}

    def trained(job: Job, **args) -> None:
        about = {"stage": "finetune", "status": "finished", "args": args}
        write_json(job.folder / "run.json", about)
        job.look()

    jobs = planned()
    source = jobs["dense-epochs12"]
    taken = [jobs[f"dense-loss_of-ticket-robust-{s}"] for s in (0.3, 0.5)]
    trained(source, keep_epochs=list(range(1, 13)))
    for epoch in range(1, 13):
        (source.folder / f"epoch{epoch}").mkdir()
    trained(taken[0])
    reproduce.drop_epochs(list(jobs.values()))
    assert (source.folder / "epoch1").is_dir()
    trained(taken[1])
    reproduce.drop_epochs(list(jobs.values()))
    assert not list(source.folder.glob("epoch*")) and source.folder.is_dir()
    # Without its epochs, or begun without keeping them, nothing can be taken from it any more.
    for status in ("finished", "running"):
        about = {"stage": "finetune", "status": status, "args": {"keep_epochs": []}}
        write_json(place / "dense-epochs12" / "run.json", about)
        again = planned()
        assert again["dense-epochs12"].flags == taken[0].flags[:0]
        assert again["dense-loss_of-ticket-robust-0.3"].flags == ()
    # Killed before its first epoch's end, it goes on as it was begun.
    about = {"stage": "finetune", "status": "running", "args": {"keep_epochs": [*range(1, 13)]}}
    write_json(place / "dense-epochs12" / "run.json", about)
    assert planned()["dense-epochs12"].flags == source.flags


def test_built_in_tasks_of_a_plan_need_no_folder_of_data(tmp_path):
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for part in ("train", "dev"):
        (tmp_path / "data" / "sst2" / f"{part}.tsv").write_text("sentence\tlabel\ngood\t1\n")
    args = reproduce.parse_args(
        [
            "study",
            "--runs",
            str(tmp_path / "runs"),
            "--output_dir",
            str(tmp_path),
            "--data",
            str(tmp_path / "data"),
            "--seeds",
            "1",
            "--rows",
            "Fine-tune",
        ]
    )
    data = {job.variables["TASKS"]: job.variables.get("DATA") for job in planning.make_plan(args)}
    assert data == {"builtin/rotten_tomatoes": None, "sst2": str(tmp_path / "data" / "sst2")}


def test_the_searches_epochs_are_those_of_the_stage_script(tmp_path):
    text = (ROOT / "stage2-search-ticket.sh").read_text()
    for block in re.findall(r"^ {12}(\S.*)\)(?: #.*)?\n((?: {16}.*\n)+)", text, re.MULTILINE):
        epochs = int(re.search(r"(?<!_)\bepochs=(\d+)", block[1])[1])
        assert f"imp_epochs={paper.IMP_EPOCHS}" in block[1]
        for task in block[0].split(" | "):
            assert epochs == paper.SEARCH_EPOCHS.get(task, 20)


def test_what_is_finished_is_reused_and_tables_share_runs(tmp_path):
    for job in plan("table1", tmp_path).values():
        finish(job)
    assert all(job.finished for job in plan("table1", tmp_path).values())
    third = plan("table3", tmp_path)
    missing = {name for name, job in third.items() if not job.finished}
    assert missing == {
        "scores-imp_freelb",
        "ticket-imp_freelb-0.3",
        "search-no_adversary",
        "ticket-no_adversary-0.3",
    }
    assert {n for n, j in plan("table4", tmp_path).items() if not j.finished} == {
        "ticket-robust-0.3-reinit_ticket",
        "ticket-robust-0.3-reinit_rest",
        "ticket-robust-0.3-reinit_rest-epochs10",
    }


def test_a_run_without_its_attacks_is_not_finished(tmp_path):
    job = plan("table1", tmp_path)["dense"]
    finish(job, attacks=False)
    job.look()
    assert job.state == "unattacked" and not job.finished
    write_json(job.folder / "run.json", {"stage": "x", "status": "running"})
    job.look()
    assert job.state == "begun"


def test_a_run_made_with_other_settings_is_named(tmp_path, monkeypatch):
    job = plan("table1", tmp_path)["search-robust"]
    args = {"epochs": 4, "adv_steps": 2, "max_train_rows": 2000, "seed": 42, "lr": 0.1}
    write_json(job.folder / "run.json", {"stage": "search", "status": "finished", "args": args})
    assert plan("table1", tmp_path)["search-robust"].finished
    monkeypatch.setenv("MAX_TRAIN_ROWS", "50")
    with pytest.raises(UserError, match="max_train_rows 2000, not 50"):
        plan("table1", tmp_path)
    monkeypatch.delenv("MAX_TRAIN_ROWS")
    monkeypatch.setenv("MODEL", "x")
    with pytest.raises(UserError, match="--encoder"):
        plan("table1", tmp_path)


@pytest.mark.parametrize("value", ["2.5", "0", "x"])
def test_numbers_in_the_environment_are_checked(tmp_path, capsys, monkeypatch, value):
    monkeypatch.setenv("ADV_STEPS", value)
    line = fails(capsys, "reproduce", "table1", "--scale", "mini", "--runs", tmp_path, "--dry_run")
    assert "ADV_STEPS in the environment" in line and "whole number" in line


def test_what_is_left_of_an_unattacked_run_is_its_attacks(tmp_path):
    job = plan("table1", tmp_path)["dense"]
    assert job.seconds_left == pytest.approx(job.seconds + 3 * job.attack_seconds)
    finish(job, attacks=False)
    job.look()
    assert job.seconds_left == pytest.approx(3 * job.attack_seconds)


def test_seeds_tasks_and_rows_choose(tmp_path):
    args = [
        "table1",
        "--scale",
        "paper",
        "--runs",
        str(tmp_path),
        "--seeds",
        "1",
        "2",
        "--tasks",
        "sst2",
        "--rows",
        "LTH",
        "FreeLB",
        "--no-controls",
    ]
    jobs = planning.make_plan(reproduce.parse_args(args))
    assert [job.name for job in jobs] == [
        f"sst2/seed{seed}/{name}"
        for seed in (1, 2)
        for name in ("scores-imp", "ticket-imp-0.3", "dense-freelb")
    ]
    assert jobs[0].variables["NUM_EXAMPLES"] == "872" and "MAX_TRAIN_ROWS" not in jobs[0].variables
    assert [p.name.split("_")[0] for p in jobs[1].attacks] == [
        "bertattack",
        "bertattack-released",
        "textfooler",
        "textbugger",
    ]


def test_figure_2_prunes_once_for_all_sparsities(tmp_path):
    jobs = plan("figure2", tmp_path)
    assert jobs["scores-imp-to0.9"].variables["IMP_SPARSITY"] == "0.9"
    assert jobs["ticket-imp-0.7"].needs[0].endswith("scores-imp-to0.9")
    assert jobs["ticket-imp-0.7"].variables["SCORES_TAG"] == "-to0.9"
    assert jobs["ticket-imp-0.1"].variables["SCORES_TAG"] == ""
    assert sum(name.startswith("ticket-robust") for name in jobs) == 5


def test_figures_4_and_5(tmp_path):
    jobs = plan("figure4", tmp_path)
    job = jobs["ticket-robust-0.3-epochs10-kept"]
    assert job.flags == ("--keep_epochs", "1,2,3,4,6,8,10") and len(job.attacks) == 7
    assert job.variables["EPOCHS"] == "10" and job.variables["TAG"] == "-epochs10-kept"
    jobs = plan("figure5", tmp_path)
    assert {"search-robust", "search-robust-lambda0.1", "search-robust-lambda1"} <= set(jobs)
    assert jobs["search-robust-lambda1"].variables["LAMBDA"] == "1"
    assert not jobs["dense"].attacks


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    for target in [*TABLES, *FIGURES]:
        call("reproduce", target, "--scale", "mini", "--runs", tmp_path / "r", "--dry_run")
        out = capsys.readouterr().out
        assert re.search(r"\d+ runs, 0 finished; the others take about", out)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["table5", "--scale", "mini"], "invalid choice: 'table5'"),
        (["table1"], "--scale"),
        (["table1", "--scale", "huge"], "invalid choice: 'huge'"),
        (["table1", "--scale", "mini", "--tasks", "sst3"], "unknown task 'sst3'"),
        (["table1", "--scale", "mini", "--rows", "LHT"], "has no row 'LHT'"),
        (["figure1", "--scale", "mini", "--rows", "LTH"], "--rows chooses rows of a table"),
        (["table1", "--scale", "mini", "--seeds", "x"], "not a whole number"),
        (["table1", "--scale", "mini", "--recipes", "x"], "unknown recipe 'x'"),
        (["table1", "--scale", "mini", "--data", "nowhere"], "no folder"),
    ],
)
def test_reproduce_refuses(tmp_path, capsys, flags, message):
    line = fails(capsys, "reproduce", *flags, "--runs", tmp_path / "r", "--dry_run")
    assert message in line and not (tmp_path / "r").exists()


def test_a_model_knows_its_records():
    robust = Model(kind="robust", sparsity=0.3)
    raw = record(robust)

    def owned(model: Model, epochs: int = 3, **changes) -> bool:
        return model.owns(AttackRecord.read(raw | changes), epochs)

    assert owned(robust) and not owned(robust, 4)
    assert not owned(Model()) and owned(Model(), ticket=None)
    for change in ({"kind": "imp"}, {"sparsity_asked": 0.5}, {"reinitialised": "rest"}):
        assert not owned(robust, ticket=raw["ticket"] | change)
    assert not owned(robust, method="freelb")
    assert owned(Model(method="freelb"), ticket=None, method="freelb")


def test_shell_stages_use_the_folders_of_the_plan(tmp_path):
    """Each job's variables make its stage script write into the very folder that the plan names."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done\necho\n')
    python.chmod(0o755)
    checked = 0
    for target in [*TABLES, *FIGURES]:
        for job in plan(target, tmp_path / "my runs", "--seeds", "7").values():
            environment = {"PATH": os.environ["PATH"], "PYTHON": str(python)} | job.variables
            done = subprocess.run(
                ["sh", str(ROOT / job.script), *job.flags],
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            trained = [
                line
                for line in done.stdout.splitlines()
                if "attack.py" not in line and "make_scores" not in line
            ]
            assert len(trained) == 1 and f"<--output_dir><{job.folder}>" in trained[0]
            attacks = [line for line in done.stdout.splitlines() if "attack.py" in line]
            assert bool(attacks) == bool(job.attacks)
            checked += 1
    assert checked > 50


@pytest.fixture
def fake_stages(tmp_path, monkeypatch):
    """Stage scripts that only note their start and end, and finish the run; one fails."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "stage.sh").write_text(
        'echo "start $NAME ${GPUS:-cpu}" >> "$JOURNAL"\nsleep 0.05\n'
        '[ "$NAME" != bad ] || exit 3\n'
        'mkdir -p "$FOLDER"\necho \'{"stage": "x", "status": "finished"}\' > "$FOLDER/run.json"\n'
        'echo "end $NAME" >> "$JOURNAL"\n'
    )
    monkeypatch.setattr(runner, "ROOT", root)
    monkeypatch.setattr(runner, "visible_gpus", lambda: ["0", "1", "2"])
    journal = tmp_path / "journal"
    journal.touch()

    def make(name: str, *needs: str) -> Job:
        variables = {"NAME": name, "FOLDER": str(tmp_path / "runs" / name), "JOURNAL": str(journal)}
        return Job(name, tmp_path / "runs" / name, "stage.sh", variables, 1.0, needs=needs)

    return make, lambda: journal.read_text().splitlines()


@pytest.mark.parametrize("gpus", ["", "0,1"])
def test_jobs_run_after_what_they_need_and_once(fake_stages, gpus):
    make, journal = fake_stages
    jobs = [make("a"), make("b", "a"), make("c", "b"), make("d")]
    assert runner.execute(jobs, gpus, 1) == []
    lines = [line.split()[:2] for line in journal()]
    for earlier, later in (("a", "b"), ("b", "c")):
        assert lines.index(["end", earlier]) < lines.index(["start", later])
    assert sorted(name for what, name in lines if what == "start") == ["a", "b", "c", "d"]
    if gpus:
        assert {line.split()[2] for line in journal() if line.startswith("start")} == {"0", "1"}
    assert runner.execute(jobs, gpus, 1) == [] and len(journal()) == 8  # nothing runs again


def test_a_failed_attack_does_not_stop_what_needs_the_training(fake_stages, tmp_path):
    make, journal = fake_stages
    dense, search = make("dense"), make("search", "dense")
    dense.attacks = (tmp_path / "runs" / "dense" / "attacks" / "x",)  # whose summary never comes
    assert runner.execute([dense, search], "", 1) == [dense]
    assert "end search" in journal() and dense.state == "unattacked"


def test_variables_of_the_shell_do_not_reach_a_job(fake_stages, monkeypatch, tmp_path):
    make, _ = fake_stages
    monkeypatch.setenv("TAG", "-mine")
    monkeypatch.setenv("EPOCHS", "7")
    script = runner.ROOT / "stage.sh"
    script.write_text('echo "$TAG|$EPOCHS|$LR" > "$JOURNAL"\n' + script.read_text())
    monkeypatch.setenv("LR", "1")
    runner.execute([make("a")], "", 1)
    assert (tmp_path / "journal").read_text().startswith("||1\n")


def test_what_failed_stops_only_what_needs_it(fake_stages, capsys):
    make, journal = fake_stages
    jobs = [make("bad"), make("x", "bad"), make("y", "x")]
    assert {job.name for job in runner.execute(jobs, "", 1)} == {"bad", "x", "y"}
    jobs.append(make("z"))
    assert {job.name for job in runner.execute(jobs, "", 1)} == {"bad", "x", "y"}
    assert "end z" in journal() and not any("start x" in line for line in journal())
    assert "failed  bad (status 3)" in capsys.readouterr().err


def test_devices(monkeypatch):
    assert runner.devices(None, 1) == [{"CUDA_VISIBLE_DEVICES": ""}]
    two = runner.devices("", 2)
    assert len(two) == 2 and int(two[0]["OMP_NUM_THREADS"]) >= 1
    with pytest.raises(UserError, match="sees no GPU '1'"):
        runner.devices("1", 1)
    monkeypatch.setattr(runner, "visible_gpus", lambda: ["0", "1", "2"])
    assert runner.devices("0, 2", 1) == [{"GPUS": "0"}, {"GPUS": "2"}]
    assert len(runner.devices(None, 1)) == 3


def test_the_scales_and_the_papers_data_agree():
    import csv

    with open(ROOT / "results" / "paper_tables.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    for table in TABLES.values():
        methods = {r["method"] for r in rows if r["table"] == table.name[-1]}
        named = {row.paper_method for row in table.rows}
        assert methods <= named
    assert SCALES["paper"].epochs == 3 and json.dumps(SCALES["mini"].settings)
