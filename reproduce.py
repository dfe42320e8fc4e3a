"""Run what a table or figure of the paper still lacks, then write it (see reproduce.sh).

    sh reproduce.sh table1 --scale mini [--tasks sst2 --seeds 1 2 3] [--dry_run]

Prints a plan first. What is finished is reused, what several tables share is run once, and
interrupted runs go on where they were stopped. How a run is made is in the stage scripts alone.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import BooleanOptionalAction
from collections import Counter
from pathlib import Path

from experiments.paper import FIGURES, TABLES
from experiments.scales import SCALES, tables_of, tasks_of
from experiments.study import STUDIES, STUDY_RECIPE, STUDY_RECORDS
from utils import cli, interrupts

ROOT = Path(__file__).resolve().parent


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("target", choices=[*TABLES, *FIGURES, *STUDIES], help="what to make")
    add(
        "--scale",
        choices=list(SCALES),
        help="paper: BERT-base, hub data; mini: MiniLM, built-in "
        "or local data; study: the study's (its default)",
    )
    add("--tasks", nargs="+", help="tasks (default: the table's, or the scale's)")
    add(
        "--seeds",
        nargs="+",
        type=cli.non_negative_int,
        help="seeds of all stages (default: 42; of the study 1 2 3)",
    )
    add("--rows", nargs="+", help="only these rows of a table, by their labels")
    add(
        "--recipes",
        nargs="+",
        help="attacks (default: the paper's columns; at mini scale those that can be run here)",
    )
    add("--data", help="folder with a folder per task, such as DATA/sst2/train.tsv")
    add("--encoder", help="another encoder than the scale's: hub name or local folder")
    add("--num_examples", type=cli.positive_int, help="attacked rows (default: the scale's)")
    add("--runs", help="folder of the runs (default: runs, or runs/mini)")
    add(
        "--output_dir",
        help="where tables and figures go (default: results/SCALE, of the "
        "study with another --encoder results/study-ENCODER)",
    )
    add(
        "--controls",
        action=BooleanOptionalAction,
        default=True,
        help="train and attack the matched dense models beside every ticket of a table, too",
    )
    add("--gpus", help="CUDA ids such as 0,1, one run on each at a time (default: all visible)")
    add("--jobs", type=cli.positive_int, default=1, help="runs at a time on a CPU")
    add(
        "--time_budget",
        type=cli.duration,
        help="save and stop after this time, such as 45m or 8h; the same command resumes",
    )
    add("--dry_run", action=BooleanOptionalAction, default=False, help="print the plan only")
    args = parser.parse_args(argv)
    if args.rows and not tables_of(args.target):
        parser.error(f"--rows chooses rows of a table, and {args.target} has none")
    if args.target in STUDIES:
        args.scale = args.scale or "study"
        if args.scale != "study":
            parser.error(f"--scale {args.scale}: the study has a scale of its own, study")
    if args.scale is None:
        parser.error("the following arguments are required: --scale")
    scale = SCALES[args.scale]
    # For the commands that the report prints: without them the runs would be others.
    args.further_flags = [
        word
        for name in ("recipes", "data", "encoder", "num_examples", "runs", "output_dir")
        if (given := getattr(args, name)) is not None
        for word in (f"--{name}", *(map(str, given) if isinstance(given, list) else [str(given)]))
    ]
    args.tasks = args.tasks or list(tasks_of(args.target, scale))
    args.seeds = args.seeds or ([1, 2, 3] if args.target in STUDIES else [42])
    args.runs = args.runs or str(ROOT / ("runs" if args.scale == "paper" else f"runs/{args.scale}"))
    # The study that the repository keeps is its scale's encoder's.
    is_other = args.target in STUDIES and args.encoder
    of_encoder = f"-{Path(args.encoder).name}" if is_other else ""
    args.output_dir = args.output_dir or str(ROOT / "results" / (args.scale + of_encoder))
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds

from experiments.jobs import Job, duration
from experiments.planning import can_run, make_plan, recorded_attacks
from experiments.runner import execute
from utils.files import write_atomically


def show(jobs: list[Job], args) -> None:
    """The plan: every run, whether it is there already, and about how long it takes."""
    kept = recorded_attacks(args) if args.target in STUDIES else {}
    if kept:
        print(
            f"{len(kept)} attacks are recorded in {args.output_dir}; the runs below are those "
            "that rows and controls without a record need"
        )
    if not jobs:
        print("nothing is missing")
        return
    print(f"{'run':58} {'state':9} expected")
    for job in jobs:
        left = "-" if job.finished else duration(job.seconds_left)
        print(f"{job.name:58} {job.state:9} {left}")
    missing = [job for job in jobs if not job.finished]
    total = duration(sum(job.seconds_left for job in missing))
    print(
        f"{len(jobs)} runs, {len(jobs) - len(missing)} finished; the others take about "
        f"{total} one after the other"
    )


def records_of(args) -> list[str]:
    """Where records lie: the runs, and for the study those that are kept in its results."""
    kept = Path(args.output_dir) / STUDY_RECORDS
    places = [str(kept)] if args.target in STUDIES and kept.is_file() else []
    return [*places, args.runs] if Path(args.runs).is_dir() or not places else places


def write_report(args) -> int:
    tasks = args.tasks
    if args.target in STUDIES:  # whatever is run now, what was recorded before stays in the tables
        tasks = list(dict.fromkeys([*tasks_of(args.target, SCALES[args.scale]), *tasks]))
    command = [
        sys.executable,
        str(ROOT / "report.py"),
        "--make",
        args.target,
        "--scale",
        args.scale,
        "--tasks",
        *tasks,
        "--records",
        *records_of(args),
        "--output_dir",
        args.output_dir,
        "--checkpoint",
        os.environ.get("CHECKPOINT", "last"),
        *(["--encoder", args.encoder] if args.encoder else []),
        "--seeds",
        *map(str, args.seeds),
        "--further_flags",
        shlex.join(args.further_flags),
    ]
    status = subprocess.run(command).returncode
    if args.target in STUDIES:
        encoder = Path(args.encoder or SCALES[args.scale].encoder).name
        keep_tickets(Path(args.runs) / encoder, Path(args.output_dir) / "tickets")
        status = compare_kept_tickets(Path(args.output_dir)) or status
    return status


def check_study(jobs: list[Job]) -> None:
    """Said before the first of many trainings, not at its attack."""
    lacks = []
    recipes = {recipe for job in jobs for recipe in job.variables["RECIPES"].split()}
    if STUDY_RECIPE in recipes and not can_run(STUDY_RECIPE):
        lacks.append("NEIGHBOURS=FILE and NLTK_DATA=FOLDER in the environment")
    if any(job.variables["TASKS"] == "sst2" and "DATA" not in job.variables for job in jobs):
        lacks.append("--data FOLDER with the whole sentences in sst2/train.tsv and sst2/dev.tsv")
    if lacks:
        cli.fail(
            f"the tables are made from what is recorded; to run what is missing give "
            f"{' and '.join(lacks)} (docs/study.md says where they come from)"
        )


def drop_epochs(jobs: list[Job]) -> None:
    """Remove the epochs that a run has kept once nothing is left to be taken from them: a hundred
    megabytes each of the small encoder, a hundred of them for each task and seed."""
    for source in (job for job in jobs if "--keep_epochs" in job.flags and job.trained):
        taken = [job for job in jobs if str(source.folder) in job.flags]
        if taken and all(job.trained for job in taken):
            for epoch in source.folder.glob("epoch[0-9]*"):
                shutil.rmtree(epoch)


def keep_tickets(runs: Path, folder: Path) -> None:
    """Copies of the robust tickets' files beside the study's records: runs are kept nowhere, and
    these are small. Trained longer or from other weights a ticket is the same one."""
    for file in sorted(runs.glob("**/ticket-robust-*/ticket.safetensors")):
        *task, seed, name = file.parent.relative_to(runs).parts
        if not re.search(r"-epochs\d+$|-reinit_", name):
            kept = folder / f"{'-'.join((*task, seed, name.removeprefix('ticket-')))}.safetensors"
            if kept.is_file() and kept.read_bytes() != file.read_bytes():
                print(f"{file} is another ticket than {kept}, which stays", file=sys.stderr)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, lambda p, file=file: shutil.copyfile(file, p))


def compare_kept_tickets(folder: Path) -> int:
    """How far the tickets beside the study's records agree, across seeds, epochs and tasks."""
    files = sorted(map(str, (folder / "tickets").glob("*-robust-0.*.safetensors")))
    sparsities = Counter(re.search(r"-robust-(0\.\d+)", Path(file).name)[1] for file in files)
    if not sparsities or max(sparsities.values()) < 2:
        return 0
    command = [
        sys.executable,
        str(ROOT / "analysis" / "compare_tickets.py"),
        "--tickets",
        *files,
        "--output_dir",
        str(folder / "agreement-of-tickets"),
    ]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    jobs = make_plan(args)
    show(jobs, args)
    if args.dry_run:
        return
    if not jobs:
        sys.exit(write_report(args))
    interrupts.raise_on_signals("when it is run again")
    if args.target in STUDIES:  # takes seconds; what is missing can take days
        if (Path(args.output_dir) / STUDY_RECORDS).is_file():
            write_report(args)
        check_study([job for job in jobs if not job.finished])
    failed = execute(jobs, args.gpus, args.jobs, drop_epochs)
    status = write_report(args)
    if failed:
        names = ", ".join(job.name for job in failed)
        cli.fail(f"not run or failed: {names}; mend what the lines above say and run this again")
    sys.exit(status)


if __name__ == "__main__":
    cli.run(main)
