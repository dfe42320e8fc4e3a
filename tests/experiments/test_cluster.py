"""Plans on Slurm: the batch scripts, and submission, state and cancelling with a fake Slurm."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import call, fails, sentences, write_tsv
from fake_slurm import FakeSlurm

import reproduce
from experiments import batch_scripts, cluster_settings, planner, slurm
from experiments.lanes import Lanes
from experiments.paper import FIGURES, TABLES
from experiments.units import Unit, arrays_of, cost_of, units_of
from utils.cli import UserError
from utils.files import write_json


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """A folder whose name has spaces, quotes and a percent sign, with data and an encoder."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = tmp_path / 'it\'s "my" 100% folder'
    for name in ("train", "dev"):
        write_tsv(folder / "data" / "sst2" / f"{name}.tsv", sentences(20, 1))
    (folder / "tiny").mkdir()
    return folder


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin", monkeypatch)


def words(ground: Path, *more: object, rows: tuple = ("RobustT", "Rand (global)")) -> list[str]:
    flags = ["table1", "--scale", "mini", "--tasks", "sst2", "--rows", *rows, "--no-controls"]
    flags += ["--data", ground / "data", "--encoder", ground / "tiny", "--runs", ground / "runs"]
    flags += ["--recipes", "deepwordbug", "pwws", "--output_dir", ground / "out"]
    return [str(word) for word in [*flags, "--cluster", "slurm", *more]]


def run(capsys, ground: Path, *more: object, **options) -> str:
    """What the command prints."""
    capsys.readouterr()
    call("reproduce", *words(ground, *more, **options))
    return capsys.readouterr().out


def scripts_of(ground: Path) -> dict[str, str]:
    folder = ground / "runs" / "slurm"
    return {path.name: path.read_text() for path in folder.glob("*.sh")}


def jobs_of(ground: Path, **options) -> list:
    return planner.make_plan(reproduce.parse_args(words(ground, **options)))


def finish(job, attacks: bool = False) -> None:
    """What the scripts of a job leave behind."""
    written = {"stage": "x", "status": "finished", "args": job.training.identity}
    write_json(job.folder / "run.json", written)
    for folder in job.attack_folders if attacks else ():
        write_json(folder / "attack.json", {})
        write_json(folder / "summary.json", {})


# Of the keys of 9 units: the random scores and ticket, its 2 attacks; dense, search, ticket, its 2.
FIRST = "tiny/sst2/seed42/"


def test_training_attacks_and_shared_scores_are_units(ground):
    rows = ("Rand (global)", "RobustT")
    units = units_of(jobs_of(ground, rows=rows), ground / "runs")
    keys = [unit.key.removeprefix(FIRST) for unit in units]
    assert keys[:2] == ["scores-random", "ticket-random-0.3"]
    assert [key.split("_")[0] for key in keys[2:4]] == [
        "ticket-random-0.3/attacks/deepwordbug",
        "ticket-random-0.3/attacks/pwws",
    ]
    needs = {unit.key.removeprefix(FIRST): unit.needs for unit in units}
    assert needs["ticket-random-0.3"] == (f"{FIRST}scores-random",)
    assert needs["search-robust"] == (f"{FIRST}dense",)  # the model, not its attacks
    assert all(needs[keys[i]] == (f"{FIRST}ticket-random-0.3",) for i in (2, 3))
    order = [unit.key for unit in units]
    for unit in units:
        assert all(order.index(need) < order.index(unit.key) for need in unit.needs)
    # Tickets at several sparsities share their scores.
    flags = [word if word != "table1" else "figure2" for word in words(ground)]
    flags = [w for w in flags if w not in ("--rows", "RobustT", "Rand (global)")]
    figure = units_of(planner.make_plan(reproduce.parse_args(flags)), ground / "runs")
    assert len({unit.key for unit in figure}) == len(figure)


def test_what_is_finished_is_not_a_job(ground):
    jobs = jobs_of(ground)
    for job in jobs:
        finish(job)
        job.look()
    units = units_of(jobs, ground / "runs")
    assert {unit.kind for unit in units if not unit.finished} == {"attack"}
    count, hours, gigabytes = cost_of(units, "mini")
    assert count == 5 and hours > 0 == gigabytes  # four attacks and the report


def unit(key: str, *needs: str, kind: str = "attack", seconds: float = 60) -> Unit:
    return Unit(key, None, kind, needs, seconds, (), False)


def test_short_units_of_one_kind_that_wait_for_the_same_form_an_array():
    units = [unit("a", kind="train"), unit("b", kind="train"), unit("c", "a"), unit("d", "b")]
    units += [unit("e", "a"), unit("long", "a", seconds=7200), unit("f", "gone")]
    arrays = arrays_of(units, {u.key for u in units})
    assert [[u.key for u in array.units] for array in arrays] == [
        ["a", "b"],
        ["c", "e"],
        ["d"],
        ["long"],
        ["f"],
    ]
    assert arrays[-1].needs == ()
    many = arrays_of([unit(str(i)) for i in range(2500)], set())
    assert [len(array.units) for array in many] == [1000, 1000, 500]


def test_no_more_jobs_run_at_once_than_there_are_lanes():
    """Whatever the jobs take; and with enough lanes, each waits only for what it needs."""
    draw = random.Random(0)
    for count in (1, 2, 3, 5, 40):
        units: list[Unit] = []
        for i in range(40):
            needs = draw.sample([u.key for u in units], k=min(i, draw.choice((0, 0, 1, 1, 2))))
            kind = draw.choice(("train", "attack"))
            units.append(unit(str(i), *needs, kind=kind, seconds=draw.choice((60, 600, 9000))))
        lanes, ends, spans = Lanes(count), {}, []
        for number, array in enumerate(arrays_of(units, {u.key for u in units}), 1):
            chosen = lanes.choose(array)
            needs = [ends[need] for need in array.needs]
            begin = max([*needs, *(ends[f"job {n}"] for n in lanes.waits_for(chosen))], default=0)
            assert count < 40 or begin == max(needs, default=0)
            lanes.put(array, str(number), chosen)
            free = [begin] * min(len(array.units), count)  # of the tasks, as %count lets them
            for task in array.units:
                start = min(free)
                ends[task.key] = free[free.index(start)] = start + draw.random()
                spans.append((start, ends[task.key]))
            ends[f"job {number}"] = max(free)
        most = max(sum(a <= start < b for a, b in spans) for start, _ in spans)
        assert most == count if count < 5 else most <= count


def test_max_jobs_is_a_cap_on_the_whole_plan(ground, fake, capsys):
    run(capsys, ground, "--max_jobs", 1)
    waits = [[w for w in words if "dep" in w] for words in fake.calls[:-1]]
    assert waits[0] == [] and len(waits) == 7
    for number, found in enumerate(waits[1:], 1):  # an array has two tasks, one after the other
        conditions = dict(x.split(":") for x in found[0].removeprefix("--dependency=").split(","))
        assert str(number) in (conditions.get("afterany"), conditions.get("afterok", "")[:1])
    # What waits already keeps its place, also for a larger plan.
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    fake.queue(*(f"{job['id']} PENDING" for job in state.values()))
    before = len(fake.calls)
    run(capsys, ground, "--max_jobs", 1, rows=("RobustT", "Rand (global)", "Fine-tune"))
    [attacks, _] = fake.calls[before:]
    [wait] = [word for word in attacks if word.startswith("--dependency=")]
    *_, last = wait.partition("afterany:")
    assert "7" in last.split(":")


def test_dry_run_writes_and_prints_the_scripts_and_submits_nothing(ground, fake, capsys):
    out = run(
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
    run(capsys, ground, "--dry_run", "--gpus_per_job", 4, "--time", "2")
    scripts = scripts_of(ground)
    dense = scripts["tiny-sst2-seed42-dense.sh"]
    assert "--gres=gpu:4" in dense and "--nproc_per_node 4" in dense
    assert "--signal=B:TERM@30" in dense  # of two minutes
    attack = next(text for name, text in scripts.items() if "pwws" in name)
    assert "--gres=gpu:1" in attack and "nproc" not in attack
    [report] = [text for name, text in scripts.items() if name.startswith("report")]
    assert "--gres" not in report and "--only_report" in report
    run(capsys, ground, "--dry_run", "--gpus_per_job", 0)
    assert not any("--gres" in text for text in scripts_of(ground).values())


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("1:30", 90), ("08:00:00", 28800), ("1-12", 129600), ("1-00:30", 88200)],
)
def test_time_limits_as_slurm_reads_them(time, seconds):
    assert cluster_settings.seconds_of(cluster_settings.slurm_time(time)) == seconds


def test_jobs_wait_for_what_they_need_and_the_report_for_all(ground, fake, capsys):
    out = run(capsys, ground)
    assert "9 jobs submitted" in out
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    ids = {key.removeprefix(FIRST): job["id"] for key, job in state.items()}
    calls = {Path(words[-1]).stem: words for words in fake.calls}
    after = {name: [w for w in words if "dep" in w] for name, words in calls.items()}
    search = after["tiny-sst2-seed42-search-robust"]
    assert search == [f"--dependency=afterok:{ids['dense']}", "--kill-on-invalid-dep=yes"]
    array = next(
        words for name, words in calls.items() if "ticket-robust" in name and "more" in name
    )
    assert f"--dependency=afterok:{ids['ticket-robust-0.3']}" in array
    folder = str(ground / "runs/slurm/logs").replace("%", "%%")
    [output] = [word for word in array if word.startswith("--output=")]
    assert output.startswith(f"--output={folder}/") and output.endswith("-%a.log")
    attacks = [number for key, number in ids.items() if "ticket-robust-0.3/attacks" in key]
    assert [number[-2:] for number in attacks] == ["_0", "_1"]
    last = fake.calls[-1]
    assert last[0] == "--parsable" and "report" in last[-1]
    [report] = [word for word in last if word.startswith("--dependency=afterany:")]
    assert set(report.split(":")[1:]) == {
        n.split("_")[0] for k, n in ids.items() if "report" not in k
    }
    assert (ground / "runs/slurm/logs").is_dir()


def test_a_submission_that_fails_is_completed_by_the_same_command(ground, fake, capsys):
    fake.fail_at(4, "sbatch: error: Batch job submission failed: Socket timed out on send/recv\n")
    line = fails(capsys, "reproduce", *words(ground))
    assert "Socket timed out" in line and "same command submits the others" in line
    fake.fail_at(0, "")
    first = [words[-1] for words in fake.calls[:3]]
    fake.queue("1 RUNNING", "2 PENDING", "3_0 PENDING", "3_1 PENDING")
    run(capsys, ground)
    again = [words[-1] for words in fake.calls[4:]]
    assert fake.calls[3][-1] == again[0] and not {*first} & {*again}
    assert len({*first, *again}) == len(scripts_of(ground)) - 4  # without the tasks of two arrays
    everything = [
        f"{job['id']} PENDING"
        for job in json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"].values()
    ]
    fake.queue(*everything)
    before = len(fake.calls)
    assert "0 jobs submitted" in run(capsys, ground) and len(fake.calls) == before


@pytest.mark.parametrize("at", [1, 2, 5, 7, 8])
def test_whichever_call_fails_each_unit_is_submitted_once(at, ground, fake, capsys):
    """Eight calls: seven jobs and arrays, and the report. Lanes hold across the two commands."""
    fake.fail_at(at, "sbatch: error: Socket timed out\n")
    assert "Socket timed out" in fails(capsys, "reproduce", *words(ground, "--max_jobs", 2))
    fake.fail_at(0, "")
    file = ground / "runs/slurm/submitted.json"
    state = json.loads(file.read_text())["jobs"]
    fake.queue(*(f"{job['id']} PENDING" for job in state.values()))
    run(capsys, ground, "--max_jobs", 2)
    names = [words[-1] for number, words in enumerate(fake.calls, 1) if number != at]
    assert len(names) == len({*names}) == 8 and "report" in names[-1]
    state = json.loads(file.read_text())["jobs"]
    assert len(state) == 10 and all({*job.get("lanes", [])} <= {0, 1} for job in state.values())


def test_a_plan_larger_than_the_limit_leaves_nothing(ground, fake, capsys):
    fake.write("limit", "\n8\n")
    line = fails(capsys, "reproduce", *words(ground))
    assert "the plan has 10 jobs, but Slurm lets you submit 8" in line and not fake.calls
    fake.write("limit", "")
    limit = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    fake.fail_at(3, f"sbatch: error: Batch job submission failed: {limit}\n")
    line = fails(capsys, "reproduce", *words(ground))
    assert "job submit limit" in line and "none is submitted" in line
    assert fake.cancelled == ["1", "2"]
    assert json.loads((ground / "runs/slurm/submitted.json").read_text()) == {"jobs": {}}


def test_slurms_own_message_is_the_error(ground, fake, capsys):
    fake.fail_at(
        1,
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
    )
    line = fails(capsys, "reproduce", *words(ground, "--partition", "nope"))
    assert line.endswith("Invalid partition name specified")


def test_what_failed_is_listed_and_submitted_again(ground, fake, capsys):
    run(capsys, ground)
    logs = ground / "runs/slurm/logs"
    (logs / "tiny-sst2-seed42-dense.log").write_text("=== job\nerror: the disk is full\n\n")
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    ids = {key.removeprefix(FIRST): job["id"] for key, job in state.items()}
    random = {key: number for key, number in ids.items() if "random" in key}
    # The dependants wait in vain, until Slurm notices it.
    stale = [ids["search-robust"], ids["ticket-robust-0.3"]]
    fake.queue(f"{ids['dense']} FAILED", *(f"{n} PENDING" for n in [*random.values(), *stale]))
    before = len(fake.calls)
    out = run(capsys, ground)
    assert "dense: job" in out and "FAILED: error: the disk is full" in out
    assert set(stale) <= {*fake.cancelled}
    again = [Path(words[-1]).stem for words in fake.calls[before:]]
    assert again[:3] == [
        f"tiny-sst2-seed42-{n}" for n in ("dense", "search-robust", "ticket-robust-0.3")
    ]
    assert len(again) == 5  # with an array of attacks and the report
    # A finished run needs no job, whatever became of its job.
    jobs = {job.folder.name: job for job in jobs_of(ground)}
    finish(jobs["dense"])
    before = len(fake.calls)
    out = run(capsys, ground)
    assert "seed42/dense:" not in out
    assert not any("dense" in words[-1] for words in fake.calls[before:])


def test_status(ground, fake, capsys):
    assert "10 not submitted" in run(capsys, ground, "--status")
    run(capsys, ground)
    jobs = {job.folder.name: job for job in jobs_of(ground)}
    finish(jobs["ticket-random-0.3"])
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    ids = {key.removeprefix(FIRST): job["id"] for key, job in state.items()}
    fake.queue(f"{ids['dense']} RUNNING", f"{ids['search-robust']} PENDING")
    out = run(capsys, ground, "--status").splitlines()
    shown = {line.split()[0].removeprefix(FIRST): line.split()[1] for line in out[1:]}
    assert shown["dense"] == "running" and shown["search-robust"] == "waiting"
    assert shown["ticket-random-0.3"] == "finished" and shown["ticket-robust-0.3"] == "failed"
    assert "1 running, 1 waiting" in out[-1] and "expected end 20" in out[-1]


def test_cancel_ends_what_this_plan_submitted_and_no_other_plan_needs(ground, fake, capsys):
    run(capsys, ground, rows=("RobustT",))
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    first = {job["id"] for job in state.values()}
    fake.queue(*(f"{number} PENDING" for number in first))
    run(capsys, ground, rows=("Fine-tune",))  # its training is in the queue, its attacks are not
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    fake.queue("999 RUNNING", *(f"{job['id']} PENDING" for job in state.values()))
    assert f"cancelled {len(first) - 1} jobs" in run(capsys, ground, "--cancel", rows=("RobustT",))
    assert {*fake.cancelled} == first - {state[f"{FIRST}dense"]["id"]}
    run(capsys, ground, "--cancel", rows=("Fine-tune",))
    assert {*fake.cancelled} == {job["id"] for job in state.values()}
    assert "cancelled 0 jobs" in run(capsys, ground, "--cancel", rows=("Fine-tune",))


def test_a_queued_job_with_other_settings_is_refused(ground, fake, capsys, monkeypatch):
    run(capsys, ground)
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    fake.queue(*(f"{job['id']} PENDING" for job in state.values()))
    monkeypatch.setenv("LR", "0.5")
    line = fails(capsys, "reproduce", *words(ground))
    assert "in the queue with other settings" in line


def test_a_run_folder_on_a_local_disk_of_another_machine_is_refused(
    ground, fake, capsys, monkeypatch
):
    fake.write("nodes", "localhost main*\nnode17 main*\n")
    monkeypatch.setattr(slurm, "file_system", lambda _: "ext4")
    line = fails(capsys, "reproduce", *words(ground))
    assert "is on a local disk (ext4), which the node node17 does not see" in line
    assert not fake.calls
    fake.write("nodes", "localhost main*\nnode17 another\n")
    slurm.check_places([ground], None)  # the jobs do not go there
    with pytest.raises(UserError, match="node17"):
        slurm.check_places([ground], "another")
    fake.write("nodes", "localhost main*\nnode17 main*\n")
    monkeypatch.setattr(slurm, "file_system", lambda _: "nfs4")
    run(capsys, ground)


def test_without_sbatch(ground, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(ground))
    assert "no sbatch on the PATH" in fails(capsys, "reproduce", *words(ground))
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
    assert message in fails(capsys, "reproduce", *words(ground, *flags))
    assert not fake.calls and not (ground / "runs").exists()


def test_flags_of_a_cluster_need_one(tmp_path, capsys):
    flags = ("table1", "--scale", "mini", "--runs", tmp_path, "--partition", "gpu", "--dry_run")
    assert "--partition is for a cluster" in fails(capsys, "reproduce", *flags)


def test_data_and_models_are_fetched_once_before_anything_is_submitted(
    ground, fake, capsys, monkeypatch
):
    fetched = []

    def refuse(args, task):
        fetched.append((task.name, args.max_train_rows))
        raise UserError("cannot load nyu-mll/glue")

    monkeypatch.setattr("training.splits.load_splits", refuse)
    flags = [word for word in words(ground) if word not in ("--data", str(ground / "data"))]
    assert "cannot load" in fails(capsys, "reproduce", *flags)
    assert not fake.calls and fetched == [("sst2", 2000)]
    monkeypatch.setattr("training.splits.load_splits", lambda *_: fetched.append("data"))
    for name in ("tokenizers.load_tokenizer", "models.load_pretrained"):
        monkeypatch.setattr(f"training.{name}", lambda *given: fetched.append(given[0]))
    flags[flags.index("--encoder") + 1] = "some/encoder"
    call("reproduce", *flags)
    assert fetched[1:] == ["data", "some/encoder", "some/encoder"] and fake.calls
    # A finished training needs nothing.
    fetched.clear()
    args = reproduce.parse_args(flags)
    for job in planner.make_plan(args):
        finish(job)
    call("reproduce", *flags)
    assert not fetched


@pytest.fixture
def batch_job(ground, tmp_path, monkeypatch):
    """Starts the script of a unit whose command is a small program."""
    args = reproduce.parse_args(words(ground))
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


PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"


def costs(target: str) -> str:
    """The row of a target on the page, for one and for five seeds."""
    cells = [target]
    for seeds in ("42", "1 2 3 4 5"):
        flags = f"{target} --scale paper --cluster slurm --runs /nowhere --seeds {seeds}".split()
        args = reproduce.parse_args(flags)
        units = units_of(planner.make_plan(args), Path(args.runs))
        count, hours, gigabytes = cost_of(units, "paper")
        cells += [f"{count:,}", f"{hours:,.0f}", f"{gigabytes:,.0f}"]
    return f"| {' | '.join(cells)} |"


def test_the_costs_of_the_page_are_those_of_the_planner(request):
    rows = "\n".join(costs(target) for target in [*TABLES, *FIGURES])
    before, start, rest = PAGE.read_text().partition(
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    written, end, after = rest.partition("\n\n")
    if request.config.getoption("--write_tables"):
        PAGE.write_text(before + start + rows + end + after)
    else:
        assert written == rows, "run the tests with --write_tables"
