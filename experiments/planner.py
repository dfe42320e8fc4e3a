"""From a table or figure to the runs that it needs."""

import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from evaluation.presets import RECIPES
from experiments import recorded
from experiments.hyperparameters import HYPERPARAMETERS
from experiments.jobs import Job
from experiments.models import ROBUST
from experiments.paper import CURVES, EPOCHS_FIGURE, LAMBDAS, Row, Table
from experiments.pipeline import Pipeline, Place
from experiments.scales import SCALES, can_run, tables_of, usual_recipes
from experiments.study import STUDIES
from training.tasks import TASKS, known_or_open
from utils.cli import UserError

BUILTIN = "builtin/"  # prefix of the tasks whose data are in packages

# Flags of reproduce.py, and the variables of the stage scripts that you use them instead of.
VARIABLES = {
    "--tasks": ("TASKS",),
    "--seeds": ("SEEDS",),
    "--encoder": ("MODEL",),
    "--data": ("DATA",),
    "--runs": ("RUNS", "TAG", "SCORES_TAG"),
    "--gpus": ("GPUS",),
    "--recipes": ("RECIPES",),
    "--num_examples": ("NUM_EXAMPLES",),
    "--rows": ("METHODS", "KINDS", "REINIT", "SPARSITIES", "IMP_SPARSITY"),
    "--controls or --no-controls": ("STOP_AT_LOSS",),
    "--scale": ("EPOCHS", "ATTACK_EPOCHS"),
}
FLAG_OF = {variable: flag for flag, variables in VARIABLES.items() for variable in variables}


def make_plan(args: Namespace) -> list[Job]:
    """The jobs of reproduce.py's arguments in an order in which they can run, each once.

    Raises UserError for arguments that fit no run, and if a run exists with other settings.
    """
    check(args)
    is_study = args.target in STUDIES
    records = recorded.attacks_of(args) if is_study else {}
    scale = SCALES[args.scale]
    recipes = usual_recipes(args.target, args.scale)
    if args.scale == "mini":
        recipes = [recipe for recipe in recipes if can_run(recipe)]
    pipeline = Pipeline(
        replace(scale, encoder=args.encoder or scale.encoder),
        Path(args.runs),
        args.recipes or recipes,
        args.data,
        args.num_examples,
        {r.task: r.training_rows for r in records.values() if r.training_rows},
        keep_search_epochs=is_study,
        device="cuda" if args.cluster and args.gpus_per_job else None,
    )
    for seed in args.seeds:
        for task in args.tasks:
            add_target(args, Place(pipeline, task, seed))
    jobs = list(pipeline.jobs.values())
    if is_study:  # the repository keeps its records, not its runs
        recorded.refuse_other_settings(jobs, records, pipeline, args.output_dir)
        jobs = recorded.without_recorded(jobs, records)
    for job in jobs:
        job.look()
        if job.state == "differs":
            raise UserError(
                f"{job.folder} was made with other settings "
                f"({', '.join(job.differing(job.written))}): choose another --runs"
            )
    return jobs


def check(args: Namespace) -> None:
    """Raise UserError for a variable that the plan decides, an unknown task or recipe, and missing
    data."""
    for name, flag in FLAG_OF.items():
        if os.environ.get(name):
            raise UserError(f"{name} is set in the environment: unset it, and give {flag}")
    for task in args.tasks:
        if task not in HYPERPARAMETERS and (task in TASKS or not known_or_open(task)):
            raise UserError(
                f"unknown task {task!r}; known are {', '.join(HYPERPARAMETERS)}, data sets of the "
                "hub as OWNER/NAME, and local folders"
            )
    for recipe in args.recipes or []:
        if recipe not in RECIPES:
            raise UserError(f"unknown recipe {recipe!r}; known are {', '.join(RECIPES)}")
    if not args.data:
        return
    if not Path(args.data).is_dir():
        raise UserError(f"--data {args.data}: no folder there")
    for task in args.tasks:
        has_blocks = task in HYPERPARAMETERS and not task.startswith(BUILTIN)
        if has_blocks and not (Path(args.data) / task).is_dir():
            raise UserError(f"--data {args.data}: no folder {task} in it")


def add_target(args: Namespace, place: Place) -> None:
    """What the table or figure needs of one task and seed."""
    if tables := tables_of(args.target):
        for table, row in rows_of(args, tables):
            model = row.model.at(place.task)
            place.add_model(model)
            is_ticket = model.kind and model.reinitialise == "nothing"
            if args.controls and table.controls and is_ticket:
                place.add_controls(model)
    elif args.target == "figure1":
        place.add_search("robust")
    elif args.target == "figure2":  # every curve's tickets at all sparsities; dense models once
        sparsities = sorted({*place.scale.sparsities, place.tuned.sparsity})
        for model in CURVES.values():
            for sparsity in sparsities if model.kind else (None,):
                place.add_model(replace(model, sparsity=sparsity))
    elif args.target == "figure3":
        place.add_model(ROBUST.at(place.task), attacked=False)
    elif args.target == "figure4":
        for model in CURVES.values():
            place.add_model(replace(model.at(place.task), epochs=EPOCHS_FIGURE), every_epoch=True)
    else:  # figure5
        place.add_search("robust")
        for value in LAMBDAS:
            if value != place.tuned.search.lambda_amp:
                place.add_search("robust", f"-lambda{value:g}", {"lambda_amp": value})


def rows_of(args: Namespace, tables: tuple[Table, ...]) -> list[tuple[Table, Row]]:
    """The rows of the tables, or those of them that --rows names."""
    rows = [(table, row) for table in tables for row in table.rows]
    names = dict.fromkeys(row.label for _, row in rows)
    for name in args.rows or ():
        if name not in names:
            raise UserError(f"{args.target} has no row {name!r}; it has {', '.join(names)}")
    return [(table, row) for table, row in rows if row.label in (args.rows or names)]
