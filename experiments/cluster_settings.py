"""The flags of a submission to a cluster."""

import argparse
import re
import shlex
from dataclasses import dataclass

from utils import cli
from utils.settings import Role, setting


def slurm_time(text: str) -> str:
    """Type of a flag: a time limit as Slurm reads it, such as 08:00:00, 90 (minutes) or 1-12."""
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", text) or not seconds_of(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time limit such as 08:00:00 or 1-12")
    return text


def seconds_of(time: str) -> int:
    """Of a limit: minutes[:seconds], hours:minutes:seconds or days-hours[:minutes[:seconds]]."""
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if not days and len(parts) < 3:
        parts = [0, *parts]
    hours, minutes, seconds = (*parts, 0, 0)[:3]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


@dataclass(kw_only=True)
class ClusterSettings:
    """Cluster (docs/cluster.md)."""

    cluster: str | None = setting(
        None, "submit the plan to this batch system", choices=("slurm",), role=Role.OUTPUT
    )
    partition: str | None = setting(None, "partition of the jobs", role=Role.OUTPUT)
    account: str | None = setting(None, "account of the jobs", role=Role.OUTPUT)
    gpus_per_job: int = setting(
        1,
        "GPUs of a training, with one process on each; 0: none. An attack has one",
        cli.non_negative_int,
        role=Role.OUTPUT,
    )
    time: str | None = setting(
        None,
        "time limit of a job, such as 08:00:00; a job that needs longer resubmits itself",
        slurm_time,
        role=Role.OUTPUT,
        unset="that of the partition",
    )
    max_jobs: int = setting(
        50, "jobs of the plan that run at the same time", cli.positive_int, role=Role.OUTPUT
    )
    max_resubmits: int = setting(
        100, "restarts of a job until it gives up", cli.non_negative_int, role=Role.OUTPUT
    )
    sbatch_args: str | None = setting(
        None,
        "further arguments of sbatch, such as '--mem=32G --cpus-per-task=8'",
        role=Role.OUTPUT,
    )
    status: bool = setting(False, "show the state of the submitted jobs", role=Role.OUTPUT)
    cancel: bool = setting(False, "cancel the jobs that this plan submitted", role=Role.OUTPUT)


def check_flags(args: argparse.Namespace, settings: type) -> None:
    """Raise UserError for flags that a cluster, or this machine, does not read.

    `settings`: those of the whole command.
    """
    fields = settings.__dataclass_fields__
    names = fields if args.cluster else ClusterSettings.__dataclass_fields__
    given = [name for name in names if getattr(args, name) != fields[name].default]
    if not args.cluster and given:
        raise cli.UserError(f"--{given[0]} is for a cluster: add --cluster slurm, or omit it")
    for name in ("gpus", "jobs", "time_budget", "only_report"):
        if name in given:
            raise cli.UserError(f"--{name} is not for a cluster: omit it (docs/cluster.md)")
    if args.status + args.cancel + args.dry_run > 1 and args.cluster:
        raise cli.UserError("give one of --status, --cancel and --dry_run")
    try:
        shlex.split(args.sbatch_args or "")
    except ValueError as e:
        raise cli.UserError(f"--sbatch_args {args.sbatch_args}: {e}") from e
