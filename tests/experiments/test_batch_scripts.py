"""Batch scripts: their text, and what they do when Slurm signals, restarts or misplaces them."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fake_slurm import plan_words, run_plan, scripts_of

import reproduce
from experiments import batch_scripts, cluster_settings


def test_dry_run_writes_and_prints_the_scripts_and_submits_nothing(ground, fake, capsys):
    out = run_plan(
        capsys,
        ground,
        "--dry_run",
        "--time",
        "08:00:00",
        "--partition",
        "gpu",
        "--account",
        "me",
        "--sbatch_args",
        "--mem=8G --comment='a \"b\" \\c'",
        "--max_jobs",
        7,
    )
    assert not fake.calls and "on the cluster: 10 jobs" in out
    scripts = scripts_of(ground)
    assert all(text in out for text in scripts.values())
    text = scripts["tiny-sst2-seed42-search-robust.sh"]
    head = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert [line.removeprefix("#SBATCH ") for line in head] == [
        "--job-name=tiny/sst2/seed42/search-robust",
        "--requeue",
        "--open-mode=append",
        "--signal=B:TERM@300",
        "--partition=gpu",
        "--account=me",
        "--time=08:00:00",
        "--gres=gpu:1",
        "--mem=8G",
        "'--comment=a \"b\" \\\\c'",  # sbatch reads \\\\ as \\
    ]
    assert "After these jobs: tiny/sst2/seed42/dense" in text and "HF_HUB_OFFLINE=1" in text
    assert any("--array=0-1%7" in text for text in scripts.values())
    for name in scripts:
        subprocess.run(["bash", "-n", ground / "runs" / "slurm" / name], check=True)


def test_several_gpus_of_a_job_are_for_its_training(ground, fake, capsys):
    run_plan(capsys, ground, "--dry_run", "--gpus_per_job", 4, "--time", "2")
    scripts = scripts_of(ground)
    dense = scripts["tiny-sst2-seed42-dense.sh"]
    assert "--gres=gpu:4" in dense and "--nproc_per_node 4" in dense
    assert "--signal=B:TERM@30" in dense  # of two minutes
    attack = next(text for name, text in scripts.items() if "pwws" in name)
    assert "--gres=gpu:1" in attack and "nproc" not in attack
    [report] = [text for name, text in scripts.items() if name.startswith("report")]
    assert "--gres" not in report and "--only_report" in report
    run_plan(capsys, ground, "--dry_run", "--gpus_per_job", 0)
    assert not any("--gres" in text for text in scripts_of(ground).values())


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("1:30", 90), ("08:00:00", 28800), ("1-12", 129600), ("1-00:30", 88200)],
)
def test_time_limits_as_slurm_reads_them(time, seconds):
    assert cluster_settings.seconds_of(cluster_settings.slurm_time(time)) == seconds


@pytest.fixture
def batch_job(ground, tmp_path, monkeypatch):
    """Starts the script of a unit whose command is a small program."""
    args = reproduce.parse_args(plan_words(ground))
    scripts = batch_scripts.BatchScripts(args, ground / "runs")
    commands = tmp_path / "commands"
    commands.mkdir()
    log = tmp_path / "requeued"
    (commands / "scontrol").write_text(f"#!/bin/sh\necho \"$@\" >>'{log}'; kill -TERM $PPID\n")
    (commands / "squeue").write_text("#!/bin/sh\necho ${STATE:-RUNNING}\n")
    for path in commands.iterdir():
        path.chmod(0o755)

    def start(program: str, lock: Path | None = None, **variables: str) -> subprocess.Popen:
        line = ["bash", "-c", program]
        path = scripts.write_one("a/job", line, "", 1, (lock,) if lock else ())
        environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}"} | variables
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["bash", path], env=environment, stdout=pipe, stderr=pipe, text=True
        )

    return start, log


SAVES = "trap 'echo saved; exit 143' TERM; echo ready; while :; do sleep 0.05; done"


def until_ready(job: subprocess.Popen) -> None:
    while job.stdout.readline() != "ready\n":
        pass


def test_a_job_saves_and_puts_itself_back_into_the_queue(batch_job):
    start, requeued = batch_job
    array = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "3"}
    for ids, name in (({"SLURM_JOB_ID": "7"}, "7"), (array, "8_3")):
        job = start(SAVES, **ids)
        until_ready(job)
        job.send_signal(signal.SIGTERM)
        out, _ = job.communicate(timeout=120)
        assert "saved" in out and "resubmitted" in out
        assert requeued.read_text().splitlines()[-1] == f"requeue {name}"


@pytest.mark.parametrize("variables", [{"STATE": "COMPLETING"}, {"SLURM_RESTART_COUNT": "100"}])
def test_a_job_that_is_cancelled_or_gives_up_stays_away(batch_job, variables):
    start, requeued = batch_job
    job = start(SAVES, SLURM_JOB_ID="7", **variables)
    until_ready(job)
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=120)
    assert job.returncode and not requeued.exists()
    assert ("--max_resubmits" in err) == ("STATE" not in variables)


def test_a_job_ends_with_the_status_of_its_command_and_its_threads(batch_job):
    start, requeued = batch_job
    job = start("echo $OMP_NUM_THREADS $HF_HUB_OFFLINE; exit 3", SLURM_CPUS_PER_TASK="5")
    out, _ = job.communicate(timeout=120)
    assert job.returncode == 3 and out.endswith("5 1\n") and not requeued.exists()


def test_a_job_waits_for_a_process_that_still_holds_the_lock(batch_job, tmp_path):
    start, _ = batch_job
    lock = tmp_path / "run.lock"
    holder = subprocess.Popen(
        ["flock", lock, "sh", "-c", "echo held; sleep 0.4; echo free >x"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    begin = time.monotonic()
    out, _ = start(f"cat '{tmp_path}/x'", lock).communicate(timeout=120)
    holder.wait()
    assert out.endswith("free\n") and time.monotonic() - begin < 120


def test_a_node_that_does_not_see_the_folder_says_so(batch_job, ground):
    start, _ = batch_job
    job = start("exit 0")
    job.communicate()
    assert job.returncode == 0
    script = ground / "runs/slurm/a-job.sh"
    text = script.read_text()
    script.unlink()
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True)
    assert done.returncode == 2 and "does not see" in done.stderr
