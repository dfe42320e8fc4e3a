"""Submission to a fake Slurm: dependencies, lanes, and commands that fail midway."""

import json
from pathlib import Path

import pytest
from conftest import call, fails
from fake_slurm import FIRST, jobs_of, plan_words, run_plan, scripts_of
from plan_tools import finish

import reproduce
from experiments import planner
from utils.cli import UserError


def test_max_jobs_is_a_cap_on_the_whole_plan(ground, fake, capsys):
    run_plan(capsys, ground, "--max_jobs", 1)
    waits = [[w for w in words if "dep" in w] for words in fake.calls[:-1]]
    assert waits[0] == [] and len(waits) == 7
    for number, found in enumerate(waits[1:], 1):  # an array has two tasks, one after the other
        conditions = dict(x.split(":") for x in found[0].removeprefix("--dependency=").split(","))
        assert str(number) in (conditions.get("afterany"), conditions.get("afterok", "")[:1])
    # What waits already keeps its place, also for a larger plan.
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    fake.queue(*(f"{job['id']} PENDING" for job in state.values()))
    before = len(fake.calls)
    run_plan(capsys, ground, "--max_jobs", 1, rows=("RobustT", "Rand (global)", "Fine-tune"))
    [attacks, _] = fake.calls[before:]
    [wait] = [word for word in attacks if word.startswith("--dependency=")]
    *_, last = wait.partition("afterany:")
    assert "7" in last.split(":")


def test_jobs_wait_for_what_they_need_and_the_report_for_all(ground, fake, capsys):
    out = run_plan(capsys, ground)
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
    line = fails(capsys, "reproduce", *plan_words(ground))
    assert "Socket timed out" in line and "same command submits the others" in line
    fake.fail_at(0, "")
    first = [words[-1] for words in fake.calls[:3]]
    fake.queue("1 RUNNING", "2 PENDING", "3_0 PENDING", "3_1 PENDING")
    run_plan(capsys, ground)
    again = [words[-1] for words in fake.calls[4:]]
    assert fake.calls[3][-1] == again[0] and not {*first} & {*again}
    assert len({*first, *again}) == len(scripts_of(ground)) - 4  # without the tasks of two arrays
    everything = [
        f"{job['id']} PENDING"
        for job in json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"].values()
    ]
    fake.queue(*everything)
    before = len(fake.calls)
    assert "0 jobs submitted" in run_plan(capsys, ground) and len(fake.calls) == before


@pytest.mark.parametrize("at", [1, 2, 5, 7, 8])
def test_whichever_call_fails_each_unit_is_submitted_once(at, ground, fake, capsys):
    """Eight calls: seven jobs and arrays, and the report. Lanes hold across the two commands."""
    fake.fail_at(at, "sbatch: error: Socket timed out\n")
    assert "Socket timed out" in fails(capsys, "reproduce", *plan_words(ground, "--max_jobs", 2))
    fake.fail_at(0, "")
    file = ground / "runs/slurm/submitted.json"
    state = json.loads(file.read_text())["jobs"]
    fake.queue(*(f"{job['id']} PENDING" for job in state.values()))
    run_plan(capsys, ground, "--max_jobs", 2)
    names = [words[-1] for number, words in enumerate(fake.calls, 1) if number != at]
    assert len(names) == len({*names}) == 8 and "report" in names[-1]
    state = json.loads(file.read_text())["jobs"]
    assert len(state) == 10 and all({*job.get("lanes", [])} <= {0, 1} for job in state.values())


def test_what_failed_is_listed_and_submitted_again(ground, fake, capsys):
    run_plan(capsys, ground)
    logs = ground / "runs/slurm/logs"
    (logs / "tiny-sst2-seed42-dense.log").write_text("=== job\nerror: the disk is full\n\n")
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    ids = {key.removeprefix(FIRST): job["id"] for key, job in state.items()}
    random = {key: number for key, number in ids.items() if "random" in key}
    # The dependants wait in vain, until Slurm notices it.
    stale = [ids["search-robust"], ids["ticket-robust-0.3"]]
    fake.queue(f"{ids['dense']} FAILED", *(f"{n} PENDING" for n in [*random.values(), *stale]))
    before = len(fake.calls)
    out = run_plan(capsys, ground)
    assert "dense: job" in out and "FAILED: error: the disk is full" in out
    assert set(stale) <= {*fake.cancelled}
    again = [Path(words[-1]).stem for words in fake.calls[before:]]
    assert again[:3] == [
        f"tiny-sst2-seed42-{n}" for n in ("dense", "search-robust", "ticket-robust-0.3")
    ]
    assert len(again) == 5  # with an array of attacks and the report
    # A finished run needs no job, whatever became of its job.
    jobs = {job.folder.name: job for job in jobs_of(ground)}
    finish(jobs["dense"], attacks=False)
    before = len(fake.calls)
    out = run_plan(capsys, ground)
    assert "seed42/dense:" not in out
    assert not any("dense" in words[-1] for words in fake.calls[before:])


def test_data_and_models_are_fetched_once_before_anything_is_submitted(
    ground, fake, capsys, monkeypatch
):
    fetched = []

    def refuse(args, task):
        fetched.append((task.name, args.max_train_rows))
        raise UserError("cannot load nyu-mll/glue")

    monkeypatch.setattr("training.splits.load_splits", refuse)
    flags = [word for word in plan_words(ground) if word not in ("--data", str(ground / "data"))]
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
        finish(job, attacks=False)
    call("reproduce", *flags)
    assert not fetched
