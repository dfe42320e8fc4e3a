"""Plans of reproduce.py at the mini scale, and runs as their jobs leave them."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from shell_tools import stages_of_variables

import reproduce
from experiments import planner
from experiments.jobs import Job
from utils.files import write_json


def shell_variables(*stages: str) -> list[str]:
    """Names of the variables that scripts/variables.sh documents for these stages."""
    return [name for name, own in stages_of_variables().items() if own & set(stages)]


@pytest.fixture
def plain_environment(monkeypatch):
    names = shell_variables("1a", "1", "2", "3")
    for name in (*names, "NLTK_DATA", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    if find_spec("nltk"):  # read the variable when it was imported, by another test perhaps
        monkeypatch.setattr("nltk.data.path", [])


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
