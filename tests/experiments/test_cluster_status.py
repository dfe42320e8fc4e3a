"""reproduce.py --status and --cancel, with a fake Slurm."""

import json

from fake_slurm import FIRST, jobs_of, run_plan
from plan_tools import finish


def test_status(ground, fake, capsys):
    assert "10 not submitted" in run_plan(capsys, ground, "--status")
    run_plan(capsys, ground)
    jobs = {job.folder.name: job for job in jobs_of(ground)}
    finish(jobs["ticket-random-0.3"], attacks=False)
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    ids = {key.removeprefix(FIRST): job["id"] for key, job in state.items()}
    fake.queue(f"{ids['dense']} RUNNING", f"{ids['search-robust']} PENDING")
    out = run_plan(capsys, ground, "--status").splitlines()
    shown = {line.split()[0].removeprefix(FIRST): line.split()[1] for line in out[1:]}
    assert shown["dense"] == "running" and shown["search-robust"] == "waiting"
    assert shown["ticket-random-0.3"] == "finished" and shown["ticket-robust-0.3"] == "failed"
    assert "1 running, 1 waiting" in out[-1] and "expected end 20" in out[-1]


def test_cancel_ends_what_this_plan_submitted_and_no_other_plan_needs(ground, fake, capsys):
    run_plan(capsys, ground, rows=("RobustT",))
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    first = {job["id"] for job in state.values()}
    fake.queue(*(f"{number} PENDING" for number in first))
    # Its training is in the queue, its attacks are not.
    run_plan(capsys, ground, rows=("Fine-tune",))
    state = json.loads((ground / "runs/slurm/submitted.json").read_text())["jobs"]
    fake.queue("999 RUNNING", *(f"{job['id']} PENDING" for job in state.values()))
    assert f"cancelled {len(first) - 1} jobs" in run_plan(
        capsys, ground, "--cancel", rows=("RobustT",)
    )
    assert {*fake.cancelled} == first - {state[f"{FIRST}dense"]["id"]}
    run_plan(capsys, ground, "--cancel", rows=("Fine-tune",))
    assert {*fake.cancelled} == {job["id"] for job in state.values()}
    assert "cancelled 0 jobs" in run_plan(capsys, ground, "--cancel", rows=("Fine-tune",))
