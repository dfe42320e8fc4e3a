"""What the study keeps of its runs, and when it deletes the epochs that controls come from."""

import pytest
from plan_tools import finish, plan_study

from experiments import recorded
from experiments.jobs import Job
from utils.files import write_json

pytestmark = pytest.mark.usefixtures("plain_environment")


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


def test_epochs_are_kept_until_all_controls_are_taken_from_them(tmp_path):
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
