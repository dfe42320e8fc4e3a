"""Run what a table or figure of the paper lacks, then write it (see reproduce.sh).

    sh reproduce.sh table1 --scale mini [--tasks sst2 --seeds 1 2 3] [--dry_run]

Prints a plan first. Finished runs are reused, also by other tables, and interrupted runs resume. An
environment variable such as LR or SEARCH_EPOCHS overrides a setting of the scripts
(experiments/commands.py). With --cluster slurm, Slurm runs the plan (docs/cluster.md).
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from evaluation import availability
from evaluation.settings import AttackSettings
from experiments import cluster, planner, recorded
from experiments.cluster_settings import ClusterSettings, check_flags
from experiments.jobs import Job, duration
from experiments.paper import FIGURES, TABLES
from experiments.runner import execute
from experiments.scales import SCALES, ChoiceOfRuns, tables_of, tasks_of
from experiments.study import STUDIES, STUDY_RECORDS
from experiments.units import cost_of, units_of
from training.settings import FolderSettings, SessionSettings
from utils import cli, interrupts
from utils.settings import add_flags, changed, setting

ROOT = Path(__file__).resolve().parent


@dataclass(kw_only=True)
class Settings(ChoiceOfRuns, ClusterSettings):
    """Runs."""

    rows: list | None = setting(None, "names of the rows of a table", nargs="+", unset="all")
    recipes: list | None = setting(
        None,
        "attack recipes",
        nargs="+",
        unset="those of the table; at mini scale those that can run",
    )
    num_examples: int | None = changed(
        AttackSettings, "num_examples", None, unset="that of the scale"
    )
    runs: str | None = setting(None, "folder of the runs", unset="runs, or runs/SCALE")
    output_dir: str | None = changed(
        FolderSettings,
        "output_dir",
        None,
        unset="results/SCALE; results/study-ENCODER for the study with --encoder",
    )
    controls: bool = setting(True, "also train and attack the dense controls of a table's tickets")
    gpus: str | None = setting(
        None, "CUDA ids such as 0,1, with one run on each at a time", unset="all visible"
    )
    jobs: int = setting(1, "number of parallel runs on a CPU", cli.positive_int)
    time_budget: float | None = changed(SessionSettings, "time_budget", None)
    dry_run: bool = setting(
        False, "only print the plan; for a cluster, also write and print the scripts of the jobs"
    )
    only_report: bool = setting(False, "run nothing, and write the table from what is finished")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(__doc__.split("\n")[0])
    targets = [*TABLES, *FIGURES, *STUDIES]
    parser.add_argument("target", choices=targets, help="table, figure or study to make")
    add_flags(parser, Settings)
    args = parser.parse_args(argv)
    check_flags(args, Settings)
    if args.rows and not tables_of(args.target):
        raise cli.UserError(f"--rows chooses rows of a table, but {args.target} has none")
    is_study = args.target in STUDIES
    args.scale = args.scale or ("study" if is_study else None)
    if is_study and args.scale != "study":
        raise cli.UserError(f"--scale {args.scale}: the study has its own scale; omit --scale")
    if args.scale is None:
        raise cli.UserError(f"--scale is missing: choose one of {', '.join(SCALES)}")
    # The commands that the report prints need them: without them the runs would be others.
    args.further_flags = [
        word
        for name in ("recipes", "data", "encoder", "num_examples", "runs", "output_dir")
        if (given := getattr(args, name)) is not None
        for word in (f"--{name}", *map(str, given if isinstance(given, list) else [given]))
    ]
    args.tasks = args.tasks or list(tasks_of(args.target, SCALES[args.scale]))
    args.seeds = args.seeds or ([1, 2, 3] if is_study else [42])
    args.runs = args.runs or str(ROOT / ("runs" if args.scale == "paper" else f"runs/{args.scale}"))
    # The study in the repository is that of the scale's encoder.
    of_encoder = f"-{Path(args.encoder).name}" if is_study and args.encoder else ""
    args.output_dir = args.output_dir or str(ROOT / "results" / (args.scale + of_encoder))
    return args


def show(jobs: list[Job], args) -> None:
    """The plan: every run, its state, and its expected time."""
    recorded_attacks = recorded.attacks_of(args) if args.target in STUDIES else {}
    if recorded_attacks:
        print(
            f"{len(recorded_attacks)} attacks are recorded in {args.output_dir}; the plan holds "
            "what rows and controls without a record need"
        )
    if not jobs:
        print("nothing is missing")
        return
    print(f"{'run':58} {'state':10} expected")
    for job in jobs:
        left = "-" if job.finished else duration(job.seconds_left)
        print(f"{job.name:58} {job.state:10} {left}")
    missing = [job for job in jobs if not job.finished]
    total = duration(sum(job.seconds_left for job in missing))
    print(
        f"{len(jobs)} runs, {len(jobs) - len(missing)} finished; the others take about "
        f"{total} one after the other"
    )
    if args.cluster:
        units, size = units_of(jobs, Path(args.runs)), SCALES[args.scale].size
        count, hours, gigabytes = cost_of(units, size)
        what = "GPU hours" if args.gpus_per_job else "hours"
        print(f"on the cluster: {count} jobs, {hours:.1f} {what}, {gigabytes:.1f} GB on the disk")


def warn_about_resources(jobs: list[Job]) -> None:
    """Warn about all that the attacks of the plan lack, before anything runs."""
    attacks = [attack.command.args for job in jobs for attack in job.attacks if attack.missing]
    if attacks:
        try:
            # The variables of the resources are the same for all attacks.
            availability.check(dict.fromkeys(args.recipe for args in attacks), vars(attacks[0]))
        except cli.UserError as e:
            cli.warn(f"{e}; without it these attacks fail, and everything else runs")


def write_report(args) -> int:
    """Tables and figures from the records; the exit status."""
    is_study = args.target in STUDIES
    output = Path(args.output_dir)
    places, tasks = [args.runs], args.tasks
    if is_study:  # the tables keep what was recorded before, whatever runs now
        tasks = list(dict.fromkeys([*tasks_of(args.target, SCALES[args.scale]), *tasks]))
        if (output / STUDY_RECORDS).is_file():
            runs = [args.runs] if Path(args.runs).is_dir() else []
            places = [str(output / STUDY_RECORDS), *runs]
    words = ["--html", "--make", args.target, "--scale", args.scale, "--tasks", *tasks]
    words += ["--records", *places, "--output_dir", args.output_dir]
    words += ["--checkpoint", os.environ.get("CHECKPOINT") or "last"]
    words += ["--encoder", args.encoder] if args.encoder else []
    words += ["--seeds", *map(str, args.seeds)]
    words += ["--further_flags", shlex.join(args.further_flags)]
    status = subprocess.run([sys.executable, str(ROOT / "report.py"), *words]).returncode
    if is_study:
        encoder = Path(args.encoder or SCALES[args.scale].encoder).name
        recorded.keep_tickets(Path(args.runs) / encoder, output / "tickets")
        status = compare_kept_tickets(output) or status
    return status


def compare_kept_tickets(folder: Path) -> int:
    """How far the tickets kept with the study agree across seeds, epochs and tasks."""
    files = sorted(map(str, (folder / "tickets").glob("*-robust-0.*.safetensors")))
    sparsities = Counter(re.search(r"-robust-(0\.\d+)", Path(file).name)[1] for file in files)
    if not sparsities or max(sparsities.values()) < 2:
        return 0
    script, output = ROOT / "analysis" / "compare_tickets.py", folder / "agreement-of-tickets"
    words = ["--tickets", *files, "--output_dir", str(output)]
    return subprocess.run(
        [sys.executable, str(script), *words], stdout=subprocess.DEVNULL
    ).returncode


def report_words(args: argparse.Namespace) -> list[str]:
    """The arguments of reproduce.py that make the report of this plan."""
    words = [args.target, "--only_report", "--scale", args.scale, "--tasks", *args.tasks]
    words += ["--seeds", *map(str, args.seeds)]
    words += ["--rows", *args.rows] if args.rows else []
    words += [] if args.controls else ["--no-controls"]
    return words + args.further_flags


def main() -> None:
    args = parse_args()
    if args.only_report:
        sys.exit(write_report(args))
    interrupts.limit_time(args.time_budget)
    jobs = planner.make_plan(args)
    if not args.status and not args.cancel:
        show(jobs, args)
        warn_about_resources(jobs)
    is_left = any(not job.finished for job in jobs)
    if args.cluster and (is_left or args.status or args.cancel or args.dry_run):
        return cluster.run(args, jobs, report_words(args))
    if args.dry_run:
        return
    if not jobs:
        sys.exit(write_report(args))
    interrupts.raise_on_signals("when it is run again")
    if args.target in STUDIES:  # the report takes seconds; what is missing can take days
        if (Path(args.output_dir) / STUDY_RECORDS).is_file():
            write_report(args)
        recorded.check_inputs([job for job in jobs if not job.finished])
    failed = execute(jobs, args.gpus, args.jobs, recorded.drop_epochs)
    status = write_report(args)
    if failed:
        names = ", ".join(job.name for job in failed)
        cli.fail(f"failed or not run: {names}; fix what the lines above report and run this again")
    sys.exit(status)


if __name__ == "__main__":
    cli.run(main)
