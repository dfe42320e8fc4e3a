"""From a table or figure to the runs that it needs: what exists, what is missing, how long."""

import importlib.util
import os
from argparse import Namespace
from pathlib import Path

from evaluation.presets import RECIPES
from evaluation.records import read_records
from experiments import estimates
from experiments.jobs import Job
from experiments.models import SPARSITY
from experiments.planner import BUILTIN, Planner
from experiments.scales import SCALES, usual_recipes
from experiments.study import STUDIES, STUDY_RECORDS
from masking.tickets import GATE_KINDS
from training.tasks import TASKS
from utils.cli import UserError
from utils.files import public_name
from utils.runs import read_run


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
    kept = recorded_attacks(args) if args.target in STUDIES else {}
    rows = {record["task"]: record.get("training_rows") for record in kept.values()}
    planner = Planner(args, recipes_of(args), rows)
    for seed in args.seeds:
        for task in args.tasks:
            planner.add_target(task, seed)
    jobs = list(planner.jobs.values())
    if args.target in STUDIES:  # its records are kept with the repository, its runs are not
        refuse_other_settings(jobs, kept, args.output_dir)
        jobs = needed(jobs, kept)
    for job in jobs:
        job.look()
        if job.state == "differs":
            raise UserError(
                f"{job.folder} was made with other settings "
                f"({', '.join(job.differing(read_run(job.folder)))}): choose another --runs"
            )
    return jobs


def recorded_attacks(args: Namespace) -> dict[tuple, dict]:
    """The study's kept records of the encoder by (task, seed, run, attack): names of folders."""
    path = Path(args.output_dir) / STUDY_RECORDS
    if not path.is_file() or not path.stat().st_size:
        return {}
    encoder = public_name(args.encoder or SCALES[args.scale].encoder)
    return {
        (r.task, r.seed, *r.made_in): r.raw
        for r in read_records([path])
        if r.made_in and r.encoder == encoder
    }


def refuse_other_settings(jobs: list[Job], recorded: dict[tuple, dict], folder: str) -> None:
    """Neither skip what was recorded with other settings, nor mix both in one file."""
    by_name = {job.name: job for job in jobs}
    for job in jobs:
        for attack in job.attacks:
            record = recorded.get(_record_of(job, attack))
            if record is None:
                continue
            of_mask = (record["ticket"] or {}).get("search") or {}
            stage = "search" if (record["ticket"] or {}).get("kind") in GATE_KINDS else "imp"
            before = [by_name[name] for name in job.needs if "search" in by_name[name].script]
            differing = [
                *job.differing({"stage": record.get("stage"), "args": _arguments(record)}),
                *(
                    text
                    for other in before
                    for text in other.differing({"stage": stage, "args": of_mask})
                ),
                *_other_rows(record, job),
            ]
            if differing:
                raise UserError(
                    f"{job.name} is recorded in {folder} with other settings "
                    f"({', '.join(differing)}): choose another --output_dir and "
                    "another --runs"
                )


def _arguments(record: dict) -> dict:
    """Of a record what run.json would hold."""
    training = record.get("training") or {}
    held = {name: training.get(name) for name in ("bsz", "lr")}
    held |= {
        "epochs": record["epochs"],
        "protocol": record.get("protocol"),
        "max_seq_length": record.get("trained_max_seq_length"),
    }
    return {name: value for name, value in held.items() if value is not None}


def _other_rows(record: dict, job: Job) -> list[str]:
    """Whether --data or MAX_TRAIN_ROWS give other training rows than the record's."""
    there, data = record.get("training_rows"), job.variables.get("DATA")
    bound = int(job.variables.get("MAX_TRAIN_ROWS", 10**9))
    here = min(estimates.training_rows(record["task"], data) if data else there or 0, bound)
    # A tenth of a task's rows may be split off as dev, and rows are dropped that are in test.
    is_same = there is None or 0.85 * here <= there <= here
    return [] if is_same else [f"{there} training rows, not {here}"]


def _record_of(job: Job, attack: Path) -> tuple:
    return job.variables["TASKS"], int(job.variables["SEEDS"]), job.folder.name, attack.name


def needed(jobs: list[Job], recorded: dict[tuple, dict]) -> list[Job]:
    """The jobs with an attack that is not recorded, and those that they need."""
    wanted: set[str] = set()
    for job in reversed(jobs):  # what a job needs stands before it
        lacking = [_record_of(job, attack) not in recorded for attack in job.attacks]
        if any(lacking) or job.name in wanted:
            wanted |= {job.name, *job.needs}
    return [job for job in jobs if job.name in wanted]
