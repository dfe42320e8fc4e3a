"""Which runs the study still needs: the repository keeps its records, not its runs."""

from __future__ import annotations

import re
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.jobs import Attack, Job, differences
from experiments.pipeline import Pipeline
from experiments.scales import SCALES, can_run
from experiments.study import STUDY_RECIPE, STUDY_RECORDS
from utils.cli import UserError
from utils.files import public_name, write_atomically

if TYPE_CHECKING:  # records need numpy and scipy, which take seconds
    from evaluation.records import AttackRecord

Key = tuple[str, int, str, str]  # task, seed, names of the folders of the run and of the attack


def attacks_of(args: Namespace) -> dict[Key, AttackRecord]:
    """The kept records of the encoder's attacks."""
    from evaluation.records import read_records

    path = Path(args.output_dir) / STUDY_RECORDS
    if not path.is_file() or not path.stat().st_size:
        return {}
    encoder = public_name(args.encoder or SCALES[args.scale].encoder)
    return {
        # Earlier versions wrote protocol for deviations.
        (r.task, r.seed, r.made_in[0].replace("-protocol_", "-deviations_"), r.made_in[1]): r
        for r in read_records([path])
        if r.made_in and r.encoder == encoder
    }


def _attacks(job: Job) -> dict[Key, Attack]:
    return {
        (job.task, job.seed, job.folder.name, folder.name): attack
        for attack in job.attacks
        for folder in attack.folders
    }


def refuse_other_settings(
    jobs: list[Job], records: dict[Key, AttackRecord], pipeline: Pipeline, output_dir: str
) -> None:
    """UserError if a record has other settings: such a record is neither skipped nor mixed with new
    ones."""
    for job in jobs:
        for key, attack in _attacks(job).items():
            differing = key in records and _differing(records[key], job, attack, pipeline)
            if differing:
                raise UserError(
                    f"{job.name} is recorded in {output_dir} with other settings "
                    f"({', '.join(differing)}): choose another --output_dir and another --runs"
                )


def _differing(record: AttackRecord, job: Job, attack: Attack, pipeline: Pipeline) -> list[str]:
    """Differences of the plan from a record, as far as the record shows them."""
    run = (record.training or {}) | {"epochs": record.epochs, "deviations": record.deviations}
    run["max_seq_length"] = record.raw.get("trained_max_seq_length")
    run = {name: value for name, value in run.items() if value is not None}
    differing = differences(job.training.identity, run) + attack.differing(record.raw)
    here, there = pipeline.training_rows(job.task, job.training), record.training_rows
    # A tenth of a task's rows may become dev rows, and rows that are in test are dropped.
    if there is not None and not 0.85 * here <= there <= here:
        differing.append(f"{there} training rows, not {here}")
    for before in (pipeline.jobs[name].training for name in job.needs):
        if before.script in ("search_ticket", "prune_iteratively") and record.ticket:
            differing += differences(before.identity, record.ticket.search or {})
    return differing


def without_recorded(jobs: list[Job], records: dict[Key, AttackRecord]) -> list[Job]:
    """The jobs with an attack that is not recorded, and the jobs that they need."""
    wanted: set[str] = set()
    for job in reversed(jobs):  # a job comes after those that it needs
        if job.name in wanted or _attacks(job).keys() - records.keys():
            wanted |= {job.name, *job.needs}
    return [job for job in jobs if job.name in wanted]


def check_inputs(jobs: list[Job]) -> None:
    """UserError before the first of many trainings, not at its attack, if the study lacks files."""
    lacking = []
    recipes = {attack.command.args.recipe for job in jobs for attack in job.attacks}
    if STUDY_RECIPE in recipes and not can_run(STUDY_RECIPE):
        lacking.append("NEIGHBOURS=FILE and NLTK_DATA=FOLDER in the environment")
    if any(job.task == "sst2" and job.training.args.data_dir is None for job in jobs):
        lacking.append("--data FOLDER with the whole sentences in sst2/train.tsv and sst2/dev.tsv")
    if lacking:
        raise UserError(
            "the tables are made from the records; to run what is missing, give "
            f"{' and '.join(lacking)} (docs/study.md says where to get them)"
        )


def drop_epochs(jobs: list[Job]) -> None:
    """Remove the kept epochs of a run once no planned run takes one of them.

    An epoch of the small encoder is a hundred megabytes, and a task and seed have a hundred.
    """
    controls = [job for job in jobs if job.training.script == "finetune"]
    for source in controls:
        takers = [c for c in controls if c.training.args.from_run == str(source.folder)]
        if source.trained and takers and all(job.trained for job in takers):
            for epoch in source.folder.glob("epoch[0-9]*"):
                shutil.rmtree(epoch)


def keep_tickets(runs: Path, folder: Path) -> None:
    """Copy the robust tickets next to the study's records; the runs are not kept.

    A ticket that is trained longer or from other weights is the same ticket.
    """
    for file in sorted(runs.glob("**/ticket-robust-*/ticket.safetensors")):
        *task, seed, name = file.parent.relative_to(runs).parts
        if re.search(r"-epochs\d+$|-reinit_", name):
            continue
        copy = folder / f"{'-'.join((*task, seed, name.removeprefix('ticket-')))}.safetensors"
        if copy.is_file() and copy.read_bytes() != file.read_bytes():
            print(f"{file} is another ticket than {copy}, which stays", file=sys.stderr)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(copy, lambda p, file=file: shutil.copyfile(file, p))
