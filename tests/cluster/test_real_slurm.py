"""Plans on a real Slurm of one machine, to their end and through what clusters do to jobs."""

import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
import slurm_here
import torch
from conftest import call, sentences, write_tsv
from slurm_here import output_of, wait_for

import reproduce
from experiments import cluster_status, commands, planner, slurm
from experiments.batch_scripts import BatchScripts
from experiments.cluster_settings import ClusterSettings
from experiments.commands import Command
from experiments.jobs import Job
from experiments.submission import Submission, submit
from training.settings import FolderSettings
from utils.cli import UserError
from utils.files import read_jsonl

reason = slurm_here.why_not()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(reason is not None, reason=reason or ""),
]

# Counts to a number, one step in 0.2 s. Saves where it is on TERM, as a training does.
COUNTS = """\
import fcntl, os, pathlib, signal, sys, time
folder, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
lock = open(folder / "run.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
with open(folder / "steps", "a+") as journal:
    journal.seek(0)
    done = len(journal.readlines())
    print("from step", done, flush=True)
    while done < steps:
        time.sleep(0.2)
        done += 1
        journal.write(f"{done} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")
        journal.flush()
        if asked:
            sys.exit(143)
if steps < 0:
    sys.exit("error: it fails")
(folder / "run.json").write_text('{"stage": "x", "status": "finished"}')
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        with slurm_here.running(folder) as machine:
            yield machine


@pytest.fixture
def counting(tmp_path, monkeypatch):
    """Makes a plan of jobs that count: (name, steps, needs)."""
    (tmp_path / "count.py").write_text(COUNTS)
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    runs = tmp_path / "it's my runs"

    def plan(*jobs: tuple, name: str = "report-x", **flags) -> Submission:
        made = []
        for job, steps, *needs in jobs:
            folder = runs / job
            command = Command("count", (str(folder), str(steps)), FolderSettings(output_dir="x"))
            made.append(Job(job, "sst2", 1, folder, command, 2.0, needs=tuple(needs)))
        args = Namespace(**vars(ClusterSettings(cluster="slurm", **flags)))
        line = ["touch", str(runs / name)]
        return Submission(BatchScripts(args, runs), made, name, line)

    return plan, runs


def submitted(plan: Submission) -> int:
    with plan.opened():
        return submit(plan)


def state_of(number: str) -> str:
    return output_of("squeue", "-h", "-t", "all", "-j", number, "-o", "%T").strip()


def wait_for_jobs(plan: Submission, seconds: float = 60) -> None:
    """Until none is in the queue; a job that was requeued need not wait for its two minutes."""

    def is_over() -> bool:
        lines = output_of("squeue", "-h", "-r", "-o", "%i %r").splitlines()
        for number, reason in (line.split(" ", 1) for line in lines):
            if reason == "BeginTime":
                output_of("scontrol", "update", f"JobId={number}", "StartTime=now")
        return not lines

    wait_for(is_over, "the jobs", seconds)


def steps_of(folder: Path) -> list[int]:
    return [int(line.split()[0]) for line in (folder / "steps").read_text().splitlines()]


def test_a_failed_training_ends_only_what_needs_it_and_is_submitted_again(
    machine, counting, capsys
):
    make, runs = counting
    jobs = [("bad", -1), ("x", 1, "bad"), ("good", 1), ("y", 1, "good")]
    plan = make(*jobs)
    assert submitted(plan) == 4
    wait_for_jobs(plan)
    assert (runs / "y" / "run.json").is_file() and not (runs / "x").exists()
    assert (runs / "report-x").is_file()  # however the others end
    assert "None" not in (runs / "y" / "steps").read_text()  # each has its GPU
    # The cause is away: only what is missing runs again.
    capsys.readouterr()
    plan = make(("bad", 1), *jobs[1:])
    assert submitted(plan) == 2
    out = capsys.readouterr().out
    assert "error: it fails" in out and "not run, because it needs bad" in out
    wait_for_jobs(plan)
    assert (runs / "x" / "run.json").is_file() and steps_of(runs / "y") == [1]


def test_the_same_plan_twice_and_cancelling(machine, counting, capsys):
    make, runs = counting
    jobs = [("a", 300), ("b", 1, "a")]
    plan = make(*jobs)
    assert submitted(plan) == 2
    other = subprocess.run(
        ["sbatch", "--parsable", "--output=/dev/null", "--wrap", "sleep 100"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert submitted(make(*jobs)) == 0
    wait_for((runs / "a" / "steps").is_file, "the first step")
    plan = make(*jobs)
    with plan.opened():
        cluster_status.show_status(plan)
        out = capsys.readouterr().out
        assert "1 running, 2 waiting" in out
        assert cluster_status.cancel(plan) == 3
    wait_for(
        lambda: output_of("squeue", "-h", "-o", "%i").split() == [other], "the end of the jobs"
    )
    assert state_of(other) == "RUNNING"
    output_of("scancel", other)
    # It has saved, and was not put back into the queue.
    log = (runs / "slurm/logs/a.log").read_text()
    assert "resubmitted" not in log
    done = steps_of(runs / "a")
    assert submitted(make(("a", len(done) + 2), ("b", 1, "a"))) == 2
    wait_for_jobs(plan)
    assert steps_of(runs / "a") == [*range(1, len(done) + 3)]


def test_a_job_outlives_its_time_limit_and_keeps_its_id(machine, counting):
    make, runs = counting
    plan = make(("long", 200), ("after", 1, "long"), time="1")
    assert submitted(plan) == 2
    number = plan.jobs["long"]["id"]
    wait_for((runs / "long" / "steps").is_file, "the first step")
    wait_for(lambda: state_of(number) == "PENDING", "the limit", 90)
    assert "resubmitted" in (runs / "slurm/logs/long.log").read_text()
    assert not (runs / "after").exists() and 0 < len(steps_of(runs / "long")) < 200
    wait_for_jobs(plan)
    assert steps_of(runs / "long") == [*range(1, 201)]
    assert (runs / "after" / "run.json").is_file()


def test_a_job_survives_the_loss_of_its_node(machine, counting):
    make, runs = counting
    plan = make(("long", 250))
    assert submitted(plan) == 1
    number = plan.jobs["long"]["id"]
    wait_for((runs / "long" / "steps").is_file, "the first step")
    machine.kill("slurmd")  # what it has started is still at work, and holds the lock
    wait_for(lambda: state_of(number) == "PENDING", "the loss of the node")
    machine.start_node()  # Slurm now ends what the node still runs of a job that is in the queue
    lock = ["flock", "--nonblock", str(runs / "long" / "run.lock"), "true"]
    wait_for(lambda: subprocess.run(lock).returncode == 0, "the end of the lost process")
    wait_for(lambda: not output_of("pgrep", "slurmstepd"), "the end of the lost step")
    wait_for_jobs(plan)
    assert steps_of(runs / "long") == [*range(1, 251)]
    assert (runs / "report-x").is_file()


def test_a_run_folder_that_another_node_does_not_see(machine, tmp_path, monkeypatch):
    """tmp_path is on a local disk. `two` has a node of another name."""
    monkeypatch.setattr(slurm, "file_system", lambda _: "ext4")
    slurm.check_places([tmp_path], None)
    slurm.check_places([tmp_path], "main")
    with pytest.raises(UserError, match="which the node far does not see"):
        slurm.check_places([tmp_path], "two")


def test_an_unknown_partition_is_slurms_own_message(machine, counting):
    make, runs = counting
    with pytest.raises(UserError, match=r"invalid partition|Invalid partition"):
        submitted(make(("a", 1), partition="nope"))


def test_records_equal_those_of_the_same_plan_run_here(
    machine, tmp_path, encoder, monkeypatch, textattack
):
    for name, count in (("train", 40), ("dev", 20)):
        write_tsv(tmp_path / "my data" / "sst2" / f"{name}.tsv", sentences(count, 1))
    for name, value in {"SEARCH_EPOCHS": "1", "ADV_STEPS": "1"}.items():
        monkeypatch.setenv(name, value)
    flags = ["table1", "--scale", "mini", "--tasks", "sst2", "--rows", "RobustT"]
    flags += ["--data", tmp_path / "my data", "--encoder", encoder, "--no-controls"]
    flags += ["--recipes", "deepwordbug", "--num_examples", 4, "--output_dir", tmp_path / "out"]

    call("reproduce", *flags, "--runs", tmp_path / "there", "--cluster", "slurm")
    # The same commands, in this process, which has imported everything already.
    args = reproduce.parse_args([str(w) for w in [*flags, "--runs", tmp_path / "here"]])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for job in planner.make_plan(args):
            for command in job.commands_left:
                call(command.script, *command.words)
    finally:
        torch.set_num_threads(threads)
    wait_for(lambda: not output_of("squeue", "-h"), "the jobs", 420)
    assert "RobustT" in (tmp_path / "out" / "table1.md").read_text()
    files = sorted(
        p.relative_to(tmp_path / "here") for p in (tmp_path / "here").rglob("records.jsonl")
    )
    assert len(files) == 3
    for file in files:
        here, there = (read_jsonl(tmp_path / side / file) for side in ("here", "there"))
        assert len(here) == len(there)
        for one, other in zip(here, there, strict=True):
            differing = {k for k in one if one[k] != other.get(k)}
            differing -= {"seconds", "seconds_of_training"}
            if "environment" in differing:  # the commit is another one if somebody edits a file
                assert one["environment"]["threads"] == other["environment"]["threads"]
                differing.remove("environment")
            assert not differing, {k: (one[k], other.get(k)) for k in differing}


def test_max_jobs_caps_the_plan(machine, counting):
    """Two CPUs are free, but one job runs at a time: arrays and jobs that need nothing, too."""
    make, runs = counting
    plan = make(("a", 3), ("b", 3), ("c", -1), ("d", 3, "a"), max_jobs=1)
    assert submitted(plan) == 4
    starts = output_of("squeue", "-h", "-r", "-o", "%i %E").splitlines()
    assert sum("afterany" in line for line in starts) >= 1
    most = 0

    def is_over() -> bool:
        nonlocal most
        lines = output_of("squeue", "-h", "-r", "-o", "%T").split()
        most = max(most, lines.count("RUNNING"))
        return not lines

    wait_for(is_over, "the jobs")
    assert most == 1 and (runs / "d" / "run.json").is_file() and (runs / "report-x").is_file()
