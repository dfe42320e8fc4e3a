"""Plans of tables and figures: what they need, what is reused, what runs in parallel."""

import hashlib
import json
import os
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import call, fails
from record_tools import attack as record

import reproduce
from evaluation import checkpoints, schema
from evaluation.records import AttackRecord, TicketFacts
from experiments import commands, planner, recorded, study
from experiments.jobs import Attack, Job
from experiments.models import Model
from experiments.paper import FIGURES, TABLES
from experiments.scales import SCALES
from utils.cli import UserError
from utils.files import write_json

ROOT = Path(__file__).resolve().parents[2]
OF_DATA_SETS = ("TEXT_COLUMNS", "LABEL_COLUMN", "TRAIN_SPLIT", "TEST_SPLIT")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    names = shell_variables("1a", "1", "2", "3")
    for name in (*names, "NLTK_DATA", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    if find_spec("nltk"):  # read the variable when it was imported, by another test perhaps
        monkeypatch.setattr("nltk.data.path", [])


def shell_variables(*stages: str) -> list[str]:
    """Names of the variables that scripts/variables.sh documents for these stages."""
    lines = (ROOT / "scripts" / "variables.sh").read_text().split("'")[1].strip().splitlines()
    return [line.split()[0] for line in lines if set(line[17:26].split()) & set(stages)]


def make_plan(*words: object) -> dict[str, Job]:
    """Planned jobs by the names of their folders: one task and seed."""
    args = reproduce.parse_args([str(word) for word in words])
    return {job.name.split("/")[-1]: job for job in planner.make_plan(args)}


def plan(target: str, folder: Path, *flags: str) -> dict[str, Job]:
    controls = [] if "--controls" in flags else ["--no-controls"]
    return make_plan(target, "--scale", "mini", "--runs", folder, *flags, *controls)


def plan_study(folder: Path, *rows: str) -> dict[str, Job]:
    of_task = ("--tasks", "builtin/rotten_tomatoes", "--seeds", 1, "--rows", *rows)
    return make_plan("study", "--runs", folder / "runs", "--output_dir", folder / "out", *of_task)


def finish(job: Job, attacks: bool = True) -> None:
    """What the job's scripts leave behind."""
    written = {"stage": "x", "status": "finished", "args": job.training.identity}
    write_json(job.folder / "run.json", written)
    for attack in job.attacks if attacks else ():
        args = attack.command.args
        for folder in attack.folders:
            rows = {"chosen": args.row_choice}
            settings = {"attack_seed": args.seed, "rows": rows, "precision": args.precision}
            settings |= {"score_with": args.score_with}
            if args.query_budget:
                settings["query_budget"] = args.query_budget
            write_json(folder / "attack.json", {"settings": settings})
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


def test_the_study_asks_only_for_what_its_records_lack(tmp_path, monkeypatch):
    assert reproduce.parse_args(["study"]).scale == "study"

    def planned() -> dict[str, list[str]]:
        jobs = plan_study(tmp_path, "Fine-tune", "RobustT 30 %")
        return {name: [folder.name for folder in job.attack_folders] for name, job in jobs.items()}

    first = planned()
    assert set(first) == {
        "dense",
        "search-robust",
        "ticket-robust-0.3",
        "dense-epochs12",
        "dense-loss_of-ticket-robust-0.3",
    }
    # Recorded: all attacks except that of the control with the same label passes.
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
        "LR": ("1e-3", "lr 5e-05, not 0.001"),
        "MAX_TRAIN_ROWS": ("500", "6716 training rows, not 500"),
    }
    for name, (value, told) in others.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(UserError, match=f"{told}.*choose another --output_dir"):
                planned()


def test_the_studys_variants_have_folders_and_searches_of_their_own(tmp_path):
    rows = ("D9, mean in R(m)", "search epoch 2", "w/o Structure + Longer", "w/o Adv")
    jobs = plan_study(tmp_path, *rows)
    assert set(jobs) == {
        *("dense", "search-robust", "search-robust-penalty_mean_matrices", "search-no_adversary"),
        *("ticket-robust-0.3-penalty_mean_matrices", "ticket-robust-0.3-search_epoch2"),
        *("ticket-robust-0.3-reinit_rest-epochs10", "ticket-no_adversary-0.3"),
    }
    search = jobs["search-robust-penalty_mean_matrices"]
    assert search.training.args.penalty_mean == "matrices"
    assert jobs["search-robust"].training.args.penalty_mean == "entries"
    jobs_released = plan_study(tmp_path, "released search (D1, D2, D9, D14, D17)")
    released = jobs_released["search-robust-deviations_released"]
    assert released.training.args.deviations == "released"
    ticket = jobs["ticket-robust-0.3-penalty_mean_matrices"]
    assert ticket.training.args.scores == str(search.folder)
    assert ticket.needs == ("builtin/rotten_tomatoes/seed1/search-robust-penalty_mean_matrices",)
    epoch = jobs["ticket-robust-0.3-search_epoch2"].training.args
    default_search = jobs["search-robust"]
    assert epoch.scores == str(default_search.folder / "scores_epoch2.safetensors")
    assert default_search.training.args.keep_scores == [1, 2, 3, 4, 5]
    rest = jobs["ticket-robust-0.3-reinit_rest-epochs10"].training.args
    assert rest.epochs == 10 and rest.reinitialise == "rest"
    # All sparsities and lengths that the main table has not; their masks are one search's.
    grid = [row.label for row in study.STUDIES["study-grid"].rows if row.model.kind]
    main = [row.label for row in study.STUDY.rows if row.model.kind == "robust"]
    assert len({*grid, *main}) == 9 * 3 == len(grid) + len(main)
    jobs = plan_study(tmp_path, "RobustT 90 %, 20 epochs")
    assert jobs["ticket-robust-0.9-epochs20"].training.args.epochs == 20
    assert {"search-robust", "dense-epochs20", "dense-epochs29"} < set(jobs)
    with pytest.raises(UserError, match="study has no row 'search epoch 9'"):
        plan_study(tmp_path, "search epoch 9")


def test_tickets_without_a_search_are_planned_with_their_scores_and_label_passes(
    tmp_path, monkeypatch
):
    for name in ("MAX_TRAIN_ROWS", "CALIBRATION_ROWS"):
        monkeypatch.setenv(name, "64")
    rows = [row.label for row in study.STUDIES["study-rivals"].rows if "RobustT" not in row.label]
    jobs = plan_study(tmp_path, *rows)
    assert not any(name.startswith("search") for name in jobs)
    dense = "builtin/rotten_tomatoes/seed1/dense"
    expected = {"magnitude": 0, "magnitude_finetuned": 3, "wanda": 3, "taylor": 4}
    for kind, passes in expected.items():
        job = jobs[f"ticket-{kind}-0.3-epochs10"]
        args = job.prepare.args
        assert args.kind == kind.removesuffix("_finetuned") and args.max_train_rows is None
        assert job.training.args.scores == args.output_dir
        assert args.calibration_rows == (64 if kind in ("wanda", "taylor") else None)
        assert job.needs == ((dense,) if passes else ())
        if passes:
            assert args.finetuned.endswith(f"{dense}/best") and args.finetuned in job.prepare.words
        # The control with the same label passes, of which the one at the same loss is an epoch.
        control = jobs[f"dense-loss_of-ticket-{kind}-0.3-epochs10"].training.args
        assert control.epochs == 10 + passes


def test_tickets_of_neurons_are_planned_with_scores_of_neurons(tmp_path):
    rows = [row.label for row in study.STUDIES["study-units"].rows if "neurons" in row.label]
    jobs = plan_study(tmp_path, *rows)
    assert jobs["search-robust-ffn_neurons"].training.args.structure == ["ffn_neurons"]
    for kind in ("robust", "magnitude", "random", "taylor"):
        ticket = jobs[f"ticket-{kind}-ffn_neurons-0.5-epochs10"]
        assert ticket.training.args.uniform and ticket.training.args.shrink
        scores = "search" if kind == "robust" else "scores"
        assert ticket.training.args.scores.endswith(f"seed1/{scores}-{kind}-ffn_neurons")
        assert kind == "robust" or ticket.prepare.args.structure == ["ffn_neurons"]


def test_the_dense_int8_model_is_exported_and_attacked(tmp_path):
    row = "Fine-tune, 10 epochs, int8 (ONNX)"
    jobs = plan_study(tmp_path, row)
    assert list(jobs) == ["dense-epochs10", "dense-epochs10-onnx-int8"]
    dense, job = jobs.values()
    assert dense.attacks == () and job.needs == (dense.name,)
    args = job.training.args
    assert (args.run, args.to, args.output_dir) == (str(dense.folder), "onnx-int8", str(job.folder))
    attacked = job.attacks[0].command.args
    assert attacked.model_name == str(job.folder) and attacked.num_examples == 200
    for name in ("task_name", "max_seq_length", "split_seed"):  # the rows of the original's attack
        assert getattr(attacked, name) == getattr(dense.training.args, name) is not None
    assert [command.script for command in job.commands_left] == ["export", "attack"]
    write_json(job.folder / "export.json", {})
    job = plan_study(tmp_path, row)[job.folder.name]
    assert job.state == "unattacked" and [c.script for c in job.commands_left] == ["attack"]
    # A record of the export is one of this row, and one of the original is not.
    (tmp_path / "out").mkdir()
    facts = {"stage": "finetune", "training": {"lr": 5e-5}, "training_rows": 6716, "seed": 1}
    facts |= {"epochs": 10, "trained_max_seq_length": 64}
    for run, runtime, planned in ((dense, None, 2), (job, "onnx-int8", 0)):
        made_in = [run.folder.name, job.attack_folders[0].name]
        line = record(made_in=made_in, runtime=runtime, **facts)
        (tmp_path / "out" / "study-records.jsonl").write_text(json.dumps(line) + "\n")
        assert len(plan_study(tmp_path, row)) == planned


def test_a_record_of_a_ticket_of_neurons_is_no_row_of_a_ticket_of_weights():
    of_neurons = Model(kind="magnitude", sparsity=0.5, structure=("ffn_neurons",))
    facts = {"kind": "magnitude", "sparsity_asked": 0.5}
    units = {"structure": ["ffn_neurons"], "uniform": True}
    for ticket, owner in ((facts, replace(of_neurons, structure=())), (facts | units, of_neurons)):
        read = schema.read(TicketFacts, ticket)
        owned = [m for m in (of_neurons, replace(of_neurons, structure=())) if m._owns_ticket(read)]
        assert owned == [owner]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_study_makes_its_tables_before_it_asks_for_data(tmp_path, capsys):
    flags = ("--runs", tmp_path / "runs", "--output_dir", tmp_path / "out", "--rows", "FreeLB")
    (tmp_path / "out").mkdir()
    records = (ROOT / "results/study/study-records.jsonl").read_text().splitlines()
    (tmp_path / "out" / "study-records.jsonl").write_text("\n".join(records[::8]) + "\n")
    said = fails(capsys, "reproduce", "study", *flags)
    assert "NEIGHBOURS=FILE" in said and "--data FOLDER" in said
    for name in study.STUDIES:
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
    recorded.keep_tickets(tmp_path / "runs", tmp_path / "kept")
    kept = {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()}
    early = "imdb/seed2/ticket-robust-0.5"
    assert kept == {
        "builtin-imdb-seed2-robust-0.3.safetensors": "builtin/imdb/seed2/ticket-robust-0.3",
        "imdb-seed2-robust-0.3.safetensors": "imdb/seed2/ticket-robust-0.3",
        "imdb-seed2-robust-0.5-search_epoch2.safetensors": f"{early}-search_epoch2",
    }
    (tmp_path / "runs/imdb/seed2/ticket-robust-0.3/ticket.safetensors").write_text("another")
    recorded.keep_tickets(tmp_path / "runs", tmp_path / "kept")
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == kept
    assert "is another ticket than" in capsys.readouterr().err


def test_epochs_are_kept_until_all_controls_are_taken_from_them(tmp_path, monkeypatch):
    def planned() -> dict[str, Job]:
        return plan_study(tmp_path, "RobustT 30 %", "RobustT 50 %")

    def trained(job: Job) -> None:
        finish(job, attacks=False)
        job.look()

    jobs = planned()
    source = jobs["dense-epochs12"]
    taken = [jobs[f"dense-loss_of-ticket-robust-{s}"] for s in (0.3, 0.5)]
    trained(source)
    for epoch in range(1, 13):
        (source.folder / f"epoch{epoch}").mkdir()
    trained(taken[0])
    recorded.drop_epochs(list(jobs.values()))
    assert (source.folder / "epoch1").is_dir()
    trained(taken[1])
    recorded.drop_epochs(list(jobs.values()))
    assert not list(source.folder.glob("epoch*")) and source.folder.is_dir()
    # Without its epochs, or begun without keeping them, nothing can be taken from it any more.
    for status in ("finished", "running"):
        about = {"stage": "finetune", "status": status, "args": {"keep_epochs": []}}
        write_json(source.folder / "run.json", about)
        again = planned()
        assert again["dense-epochs12"].training.args.keep_epochs == []
        assert again["dense-loss_of-ticket-robust-0.3"].training.args.from_run is None
    # Killed before the end of its first epoch, it resumes with the same settings.
    about = {"stage": "finetune", "status": "running", "args": {"keep_epochs": [*range(1, 13)]}}
    write_json(source.folder / "run.json", about)
    assert planned()["dense-epochs12"].training == source.training


def test_built_in_tasks_of_a_plan_need_no_folder_of_data(tmp_path):
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for part in ("train", "dev"):
        (tmp_path / "data" / "sst2" / f"{part}.tsv").write_text("sentence\tlabel\ngood\t1\n")
    words = ["study", "--runs", tmp_path / "runs", "--output_dir", tmp_path]
    words += ["--data", tmp_path / "data", "--seeds", "1", "--rows", "Fine-tune"]
    args = reproduce.parse_args([str(word) for word in words])
    data = {job.task: job.training.args.data_dir for job in planner.make_plan(args)}
    assert data == {"builtin/rotten_tomatoes": None, "sst2": str(tmp_path / "data" / "sst2")}


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


# Each: a run of Table 1, a variable, a value that makes another run of it, and what differs.
OTHER_SETTINGS = [
    ("dense", "WEIGHT_DECAY", "0.5", "weight_decay 0.01, not 0.5"),
    ("dense", "PRECISION", "bf16", "precision auto, not bf16"),
    ("dense", "WARMUP_RATIO", "0.5", "warmup_ratio 0.1, not 0.5"),
    ("dense", "MAX_SEQ_LENGTH", "32", "max_seq_length 64, not 32"),
    ("dense", "GROUP_BY_LENGTH", "no", "group_by_length True, not False"),
    ("dense-freelb", "FREELB_ADV_LR", "0.3", "adv_lr 0.1, not 0.3"),
    ("search-robust", "ADV_LR", "0.3", "adv_lr 0.03, not 0.3"),
    ("search-robust", "ADV_INIT", "0.3", "adv_init_mag 0.05, not 0.3"),
    ("search-robust", "MASK_LR", "0.3", "lr 0.1, not 0.3"),
    ("search-robust", "LAMBDA", "0.3", "lambda_amp 0.5, not 0.3"),
    ("search-robust", "SEARCH_WEIGHT_DECAY", "0.5", "weight_decay 1e-06, not 0.5"),
    ("search-robust", "PENALTY_MEAN", "matrices", "penalty_mean entries, not matrices"),
    ("scores-imp", "IMP_LR", "0.3", "lr 0.0001, not 0.3"),
    ("scores-imp", "IMP_SHARE", "0.2", "share_per_round 0.1, not 0.2"),
    ("dense", "QUERY_BUDGET", "20", "query_budget None, not 20"),
    ("dense", "SIMILARITY_THRESHOLD", "0.5", "not read by the recipe"),
    ("dense", "ATTACK_PRECISION", "bf16", "precision fp32, not bf16"),
]


@pytest.mark.parametrize(("run", "variable", "value", "difference"), OTHER_SETTINGS)
def test_a_finished_run_with_other_settings_is_not_the_planned_one(
    tmp_path, monkeypatch, run, variable, value, difference
):
    for job in plan("table1", tmp_path).values():
        finish(job)
    assert all(job.finished for job in plan("table1", tmp_path).values())
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=difference) as refusal:
        plan("table1", tmp_path)
    assert f"/{run} was made with other settings" in str(refusal.value) or "not read" in difference


def test_runs_may_move_and_keep_more_than_the_plan_needs(tmp_path, monkeypatch):
    for job in plan("table1", tmp_path / "runs").values():
        finish(job)
        run = json.loads((job.folder / "run.json").read_text())
        if "keep_scores" in run["args"]:
            run["args"]["keep_scores"] = [1, 2]
        del run["args"]["warmup_ratio"]  # of a version that did not have it
        write_json(job.folder / "run.json", run)
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert all(job.finished for job in plan("table1", tmp_path / "moved").values())
    monkeypatch.chdir(tmp_path)
    assert all(job.finished for job in plan("table1", Path("moved")).values())


def test_the_models_of_an_intersection_are_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTACK_PRESET", "intersection")
    for name, weights in (("a", b"1"), ("b", b"2"), ("dense", b"3")):
        (tmp_path / name / "last").mkdir(parents=True)
        (tmp_path / name / "last" / "config.json").write_text("{}")
        (tmp_path / name / "last" / "model.safetensors").write_bytes(weights)
        write_json(tmp_path / name / "run.json", {"stage": "finetune", "status": "finished"})
    digests = {
        name: checkpoints.weights_digest(checkpoints.find_targets(tmp_path / name, "last", None)[0])
        for name in ("a", "b", "dense")
    }

    def differing(*compared: str) -> list[str]:
        monkeypatch.setenv("COMPARED_WITH", " ".join(str(tmp_path / name) for name in compared))
        planned = {"model_name": tmp_path / "dense", "recipe": "pwws", "num_examples": 9}
        attack = Attack(commands.make("attack", planned), tmp_path / "dense")
        rows = {"chosen": "intersection", "right_for": sorted([digests["a"], digests["dense"]])}
        return attack.differing({"attack_seed": 42, "rows": rows})

    assert differing("a") == []
    assert differing("b")[0].startswith("compared_with other models, not")
    assert differing("a", "b")


def test_the_length_and_the_resources_of_an_attack_are_compared(tmp_path, monkeypatch):
    tables = [tmp_path / "a" / "table.json", tmp_path / "b" / "table.json"]
    for text, path in zip(("{}", '{"good": ["fine"]}'), tables, strict=True):
        path.parent.mkdir()
        path.write_text(text)
    table = {"name": "table.json", "sha256": hashlib.sha256(b"{}").hexdigest()[:16]}
    settings = {"max_seq_length": 64, "resources": {"neighbours": table}}

    def differing(recipe: str = "textfooler-neighbours", **variables) -> list[str]:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, str(value))
            command = commands.make("attack", {"model_name": "run", "recipe": recipe})
        return Attack(command, tmp_path).differing(settings)

    assert differing() == differing(NEIGHBOURS=tables[0], ATTACK_MAX_SEQ_LENGTH="64") == []
    assert differing(ATTACK_MAX_SEQ_LENGTH="128") == ["max_seq_length 64, not 128"]
    other = f"neighbours table.json (another file), not {tables[1]}"
    assert differing(NEIGHBOURS=tables[1]) == [other]
    # A file that is gone is compared by its name; another recipe does not read it.
    assert differing(NEIGHBOURS="gone/table.json") == []
    assert len(differing(NEIGHBOURS="gone/others.json")) == 1
    assert differing("textfooler-minilm", NEIGHBOURS=tables[1]) == []


def test_an_attack_without_its_settings_is_not_finished(tmp_path):
    job = plan("table1", tmp_path)["dense"]
    finish(job)
    (job.attack_folders[0] / "attack.json").unlink()
    job.look()
    assert job.state == "unattacked" and job.missing_attacks == job.attack_folders[:1]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WEIGHT_DECAY", "-1", "not a number >= 0"),
        ("PRECISION", "fp8", "invalid choice: 'fp8'"),
        ("CHECKPOINT", "first", "invalid choice: 'first'"),
        ("TEMPERATURE", "warm", "a number above 0"),
        ("ATTACK_PRESET", "mine", "invalid choice: 'mine'"),
        ("QUERY_BUDGET", "0", "whole number >= 1"),
        ("COMPARED_WITH", "runs/a", "--compared_with"),
        ("MAX_TRAIN_ROWS", "2e3", "not a whole number"),
        ("SEARCH_EPOCHS", "0", "whole number >= 1"),
        ("LAMBDA", "x", "not a number >= 0"),
        ("GROUP_BY_LENGTH", "maybe", "yes or no"),
        ("LAMBDA", "0.5\r", "contains a carriage return"),
        ("PRECISION", "fp32\r", "contains a carriage return"),
    ],
)
def test_nonsense_in_the_environment_is_refused_by_its_name(
    tmp_path, capsys, monkeypatch, variable, value, message
):
    monkeypatch.setenv(variable, value)
    flags = ("table1", "--scale", "mini", "--runs", tmp_path / "r", "--dry_run")
    line = fails(capsys, "reproduce", *flags)
    assert line.startswith(f"error: {variable} in the environment: ") and message in line


@pytest.mark.slow
def test_the_variables_of_the_stages_work_in_a_plan(tmp_path, monkeypatch):
    """A variable that the plan does not decide changes the commands of its stages."""
    usual = plan("table1", tmp_path)
    values = {
        "PRECISION": "fp32",
        "DEVIATIONS": "released",
        "CHECKPOINT": "best",
        "ATTACK_PRESET": "paper",
        "ROW_CHOICE": "random",
        "SCORE_WITH": "softmax",
        "LR": "0.5",
        "MASK_LR": "0.5",
        "IMP_LR": "0.5",
        "IMP_SHARE": "0.05",
    }
    stages = {"1": "dense", "2": "search-robust", "3": "ticket-robust-0.3"}
    checked = 0
    for stage, name in stages.items():
        for variable in shell_variables(stage, f"{stage}a"):
            # ATTACK is not read; COMPARED_WITH needs another preset; the rest is for data sets.
            if variable in (*planner.FLAG_OF, "ATTACK", "COMPARED_WITH", *OF_DATA_SETS):
                continue
            run = "scores-imp" if variable.startswith("IMP_") else name
            with monkeypatch.context() as patch:
                patch.setenv(variable, values.get(variable, "7"))
                job = plan("table1", tmp_path)[run]
            assert (job.training, job.attacks) != (usual[run].training, usual[run].attacks), (
                variable
            )
            checked += 1
    assert checked > 40


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


def test_the_seed_and_the_resources_of_attacks_may_be_set(monkeypatch):
    monkeypatch.setenv("SEED", "5")  # the plan decides the seed of the stages
    monkeypatch.setenv("ATTACK_SEED", "7")
    monkeypatch.setenv("NEIGHBOURS", "table.json")
    args = commands.make("attack", {"model_name": "run", "recipe": "textfooler-neighbours"}).args
    assert (args.seed, args.neighbours, args.data_dir) == (7, "table.json", None)


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


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("--tasks", "TASKS"),
        ("--seeds", "SEEDS"),
        ("--encoder", "MODEL"),
        ("--data", "DATA"),
        ("--runs", "RUNS TAG SCORES_TAG"),
        ("--gpus", "GPUS"),
        ("--recipes", "RECIPES"),
        ("--num_examples", "NUM_EXAMPLES"),
        ("--rows", "METHODS KINDS REINIT SPARSITIES IMP_SPARSITY"),
        ("--controls or --no-controls", "STOP_AT_LOSS"),
        ("--scale", "EPOCHS ATTACK_EPOCHS"),
    ],
)
def test_a_variable_that_the_plan_decides_is_refused_with_its_flag(
    tmp_path, capsys, monkeypatch, flag, names
):
    flags = ("table1", "--scale", "mini", "--runs", tmp_path / "r")
    for name in names.split():
        with monkeypatch.context() as patch:
            patch.setenv(name, "7")
            for dry_run in ([], ["--dry_run"]):
                line = fails(capsys, "reproduce", *flags, *dry_run)
                assert line == f"error: {name} is set in the environment: unset it, and give {flag}"
    assert not (tmp_path / "r").exists()


def test_a_task_without_a_training_file_is_an_error(tmp_path, capsys):
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    (tmp_path / "data" / "sst2" / "dev.tsv").write_text("sentence\tlabel\ngood\t1\n")
    flags = ("--scale", "mini", "--tasks", "sst2", "--data", tmp_path / "data", "--dry_run")
    line = fails(capsys, "reproduce", "table1", *flags)
    assert "sst2 has no training file: add train.tsv" in line


def test_the_scales_and_the_papers_data_agree():
    import csv

    with open(ROOT / "results" / "paper_tables.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    for table in TABLES.values():
        methods = {r["method"] for r in rows if r["table"] == table.name[-1]}
        named = {row.paper_method for row in table.rows}
        assert methods <= named
    assert SCALES["paper"].epochs == 3 and json.dumps(SCALES["mini"].settings)


def test_what_the_attacks_lack_is_listed_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    flags = ("table1", "--tasks", "sst2", "--rows", "Fine-tune", "--no-controls", "--dry_run")
    call("reproduce", *flags, "--scale", "paper", "--runs", tmp_path / "r")
    [warning] = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning")]
    command = "sh scripts/fetch_attack_resources.sh bertattack bertattack-released textfooler"
    assert command in warning and "word vectors" in warning and "these attacks fail" in warning
    call("reproduce", *flags, "--scale", "mini", "--runs", tmp_path / "r")
    assert "missing" not in capsys.readouterr().err


def test_every_target_also_has_a_page(monkeypatch):
    words = []

    def run(line):
        words.extend(line)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    assert reproduce.write_report(reproduce.parse_args(["table1", "--scale", "mini"])) == 0
    assert "--html" in words
