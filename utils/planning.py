"""From a table or figure to the runs that it needs: what exists, what is missing, how long."""

import importlib.util
import os
from argparse import Namespace
from pathlib import Path

from utils.attack import RECIPES
from utils.cli import UserError
from utils.experiments import SPARSITY
from utils.files import read_jsonl
from utils.jobs import Job
from utils.planner import BUILTIN, Planner
from utils.runs import read_run
from utils.scales import usual_recipes
from utils.studies import STUDIES, STUDY_RECORDS
from utils.tasks import TASKS


def recipes_of(args: Namespace) -> list[str]:
    """The attacks to run: those asked for, else the target's, of which mini runs what it can."""
    if args.recipes:
        return args.recipes
    usual = usual_recipes(args.target, args.scale)
    return [recipe for recipe in usual if args.scale != "mini" or can_run(recipe)]


def can_run(recipe: str) -> bool:
    """Whether what a recipe needs beside the packages is here, of the mini recipes."""
    if recipe == "textfooler-neighbours":
        return bool(os.environ.get("NEIGHBOURS")) and _nltk_has(
            "taggers/averaged_perceptron_tagger_eng"
        )
    return recipe != "pwws" or _nltk_has("corpora/wordnet")


def _nltk_has(package: str) -> bool:
    if importlib.util.find_spec("nltk") is None:
        return False
    import nltk

    for name in (package, f"{package}.zip"):
        try:
            nltk.data.find(name)
            return True
        except LookupError:
            pass
    return False


def make_plan(args: Namespace) -> list[Job]:
    """Jobs in an order in which they can be run; each stands once."""
    if os.environ.get("MODEL"):
        raise UserError("MODEL is set in the environment: give the encoder by --encoder")
    unknown = [t for t in args.tasks if t not in TASKS or t == "custom"]
    if unknown:
        raise UserError(f"unknown task {unknown[0]!r}; known are {', '.join(SPARSITY)}")
    unknown = [r for r in args.recipes or [] if r not in RECIPES]
    if unknown:
        raise UserError(f"unknown recipe {unknown[0]!r}; known are {', '.join(RECIPES)}")
    if args.data and not Path(args.data).is_dir():
        raise UserError(f"--data {args.data}: no folder there")
    for task in args.tasks if args.data else []:
        if not task.startswith(BUILTIN) and not (Path(args.data) / task).is_dir():
            raise UserError(f"--data {args.data}: no folder {task} in it")
    planner = Planner(args, recipes_of(args))
    for seed in args.seeds:
        for task in args.tasks:
            planner.add_target(task, seed)
    jobs = list(planner.jobs.values())
    if args.target in STUDIES:  # its records are kept with the repository, its runs are not
        kept = Path(args.output_dir) / STUDY_RECORDS
        jobs = needed(jobs, recorded_attacks(kept, planner.scale.encoder))
    for job in jobs:
        job.look()
        if job.state == "differs":
            raise UserError(
                f"{job.folder} was made with other settings "
                f"({', '.join(job.differing(read_run(job.folder)))}): choose another --runs"
            )
    return jobs


def recorded_attacks(path: Path, encoder: str) -> set[tuple]:
    """(task, seed, run, attack) of each attack on the encoder in a file: names of folders."""
    lines = read_jsonl(path) if path.is_file() else []
    return {(r.get("task"), r.get("seed"), *r["made_in"]) for r in lines
            if r.get("made_in") and r.get("encoder", {}).get("name") == encoder}  # fmt: skip


def needed(jobs: list[Job], recorded: set[tuple]) -> list[Job]:
    """The jobs with an attack that is not recorded, and those that they need."""
    wanted: set[str] = set()
    for job in reversed(jobs):  # what a job needs stands before it
        task, seed = job.variables["TASKS"], int(job.variables["SEEDS"])
        lacking = [(task, seed, job.folder.name, a.name) not in recorded for a in job.attacks]
        if any(lacking) or job.name in wanted:
            wanted |= {job.name, *job.needs}
    return [job for job in jobs if job.name in wanted]
