"""Make tables and figures from records, logs and tickets.

    python report.py --records runs --output_dir results/mine
    python report.py --make table1 figure2 --scale mini --records runs/mini \\
        --output_dir results/mini

The script reads every records.jsonl below the given folders, and single record files. Without
--make it writes table.md, table.csv, figure.png and the records that they were made from. Each
task, encoder, attack and set of attacked rows has its own table; records of two are never compared.
With --make it writes tables and figures of the paper, with the paper's values next to ours, and
prints the command for what was not run.
"""

import shlex
from dataclasses import replace
from pathlib import Path

from evaluation import records
from experiments.paper import FIGURES, TABLES
from experiments.scales import SCALES
from experiments.study import STUDIES
from reporting import build, summary_table
from utils import cli
from utils.files import public_name

ALL = (*TABLES, *FIGURES)


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--records", nargs="+", required=True, help="folders of runs, or record files")
    add("--output_dir", required=True, help="folder for the tables and figures")
    add(
        "--title",
        default="Accuracy under attack",
        help="title of the table without --make",
    )
    g = parser.add_argument_group("tables and figures of the paper")
    add = g.add_argument
    add(
        "--make",
        nargs="+",
        choices=[*ALL, "all", *STUDIES],
        metavar="NAME",
        help=f"what to make: {', '.join(ALL)}, all of these, or {', '.join(STUDIES)}",
    )
    add("--scale", choices=list(SCALES), default="paper", help="scale of the runs")
    add("--encoder", help="encoder of the runs, if it is not the scale's")
    add("--tasks", nargs="+", metavar="TASK", help="tasks to show (default: the scale's)")
    add(
        "--seeds",
        nargs="+",
        type=cli.non_negative_int,
        default=[],
        metavar="SEED",
        help="seeds that every row should have (default: those that any row has)",
    )
    add(
        "--further_flags",
        default="",
        help="flags of reproduce.sh to add to the printed commands, such as '--data folder'",
    )
    add(
        "--checkpoint",
        choices=["last", "best", "both"],
        default="last",
        help="checkpoints to show; both: those of best go to the folder best in --output_dir",
    )
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    folder = Path(args.output_dir)
    if args.make is None:
        attacks, files = records.read_records(args.records), records.record_files(args.records)
        print(summary_table.write(folder, args.title, attacks, files))
        print(f"written to {folder}: table.md, table.csv, figure.png, records.jsonl")
        return
    with cli.explain("--further_flags: "):
        further = tuple(shlex.split(args.further_flags))
    targets = ALL if "all" in args.make else dict.fromkeys(args.make)
    tasks = tuple(dict.fromkeys(args.tasks)) if args.tasks else None
    sources = build.Sources(args.records)
    scale = replace(SCALES[args.scale], further_flags=further, seeds=tuple(args.seeds))
    if args.encoder:
        scale = replace(scale, encoder=public_name(args.encoder))
    if args.scale != "study" and STUDIES.keys() & set(targets):
        raise cli.UserError("the study has a scale of its own: give --scale study")
    for rule in ("last", "best") if args.checkpoint == "both" else (args.checkpoint,):
        into = folder / "best" if args.checkpoint == "both" and rule == "best" else folder
        paths = build.make(targets, scale, sources, into, tasks, rule)
        print(f"written to {into}: {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    cli.run(main)
