"""Plans of the study: what its records lack, its variants, and its other kinds of tickets."""

import json
from pathlib import Path

import pytest
from conftest import fails
from plan_tools import plan_study
from record_tools import attack as record

import reproduce
from experiments import study
from utils.cli import UserError
from utils.files import write_json

pytestmark = pytest.mark.usefixtures("plain_environment")

ROOT = Path(__file__).resolve().parents[2]


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
