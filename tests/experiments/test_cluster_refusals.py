"""What is not submitted to a cluster: the message, and nothing left behind."""

import json

import pytest
from conftest import fails
from fake_slurm import plan_words, run_plan

from experiments import slurm
from utils.cli import UserError


def test_a_plan_larger_than_the_limit_leaves_nothing(ground, fake, capsys):
    fake.write("limit", "\n8\n")
    line = fails(capsys, "reproduce", *plan_words(ground))
    assert "the plan has 10 jobs, but Slurm lets you submit 8" in line and not fake.calls
    fake.write("limit", "")
    limit = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    fake.fail_at(3, f"sbatch: error: Batch job submission failed: {limit}\n")
    line = fails(capsys, "reproduce", *plan_words(ground))
    assert "job submit limit" in line and "none is submitted" in line
    assert fake.cancelled == ["1", "2"]
    assert json.loads((ground / "runs/slurm/submitted.json").read_text()) == {"jobs": {}}


def test_slurms_own_message_is_the_error(ground, fake, capsys):
    fake.fail_at(
        1,
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
    )
    line = fails(capsys, "reproduce", *plan_words(ground, "--partition", "nope"))
    assert line.endswith("Invalid partition name specified")


def test_a_queued_job_with_other_settings_is_refused(ground, fake, capsys, monkeypatch):
    run_plan(capsys, ground)
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    fake.queue(*(f"{job['id']} PENDING" for job in state.values()))
    monkeypatch.setenv("LR", "0.5")
    line = fails(capsys, "reproduce", *plan_words(ground))
    assert "in the queue with other settings" in line


def test_a_run_folder_on_a_local_disk_of_another_machine_is_refused(
    ground, fake, capsys, monkeypatch
):
    fake.write("nodes", "localhost main*\nnode17 main*\n")
    monkeypatch.setattr(slurm, "file_system", lambda _: "ext4")
    line = fails(capsys, "reproduce", *plan_words(ground))
    assert "is on a local disk (ext4), which the node node17 does not see" in line
    assert not fake.calls
    fake.write("nodes", "localhost main*\nnode17 another\n")
    slurm.check_places([ground], None)  # the jobs do not go there
    with pytest.raises(UserError, match="node17"):
        slurm.check_places([ground], "another")
    fake.write("nodes", "localhost main*\nnode17 main*\n")
    monkeypatch.setattr(slurm, "file_system", lambda _: "nfs4")
    run_plan(capsys, ground)


def test_without_sbatch(ground, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(ground))
    assert "no sbatch on the PATH" in fails(capsys, "reproduce", *plan_words(ground))
    assert not (ground / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--status", "--cancel"], "one of --status, --cancel"),
        (["--time", "8h"], "'8h' is not a time limit"),
        (["--gpus", "0"], "--gpus is not for a cluster"),
        (["--time_budget", "8h"], "--time_budget is not for a cluster"),
        (["--sbatch_args", "it's"], "--sbatch_args it's: No closing quotation"),
    ],
)
def test_wrong_flags(ground, fake, capsys, flags, message):
    assert message in fails(capsys, "reproduce", *plan_words(ground, *flags))
    assert not fake.calls and not (ground / "runs").exists()


def test_flags_of_a_cluster_need_one(tmp_path, capsys):
    flags = ("table1", "--scale", "mini", "--runs", tmp_path, "--partition", "gpu", "--dry_run")
    assert "--partition is for a cluster" in fails(capsys, "reproduce", *flags)
