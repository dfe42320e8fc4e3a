"""Tables and figures from records, logs and tickets alone.

    python report.py --records runs --output_dir results/mine
    python report.py --make table1 figure2 --scale mini --records runs/mini \\
        --output_dir results/mini

Reads every records.jsonl below the given folders (and single record files). Without --make it
writes table.md, table.csv, figure.png and the records that they were made from: a table per task,
encoder, attack and set of attacked rows, never two of them in one comparison. With --make it
writes tables and figures of the paper, its values beside ours, and says what has not been run.
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
    add("--records", nargs="+", required=True, help="folders holding runs, or record files")
    add("--output_dir", required=True, help="where the tables and figures go")
    add("--title", default="Accuracy under attack", help="title of the table without --make")
    g = parser.add_argument_group("tables and figures of the paper")
    add = g.add_argument
    add(
        "--make",
        nargs="+",
        choices=[*ALL, "all", *STUDIES],
        metavar="NAME",
        help=f"which: {', '.join(ALL)}, all of these, or {', '.join(STUDIES)}",
    )
    add("--scale", choices=list(SCALES), default="paper", help="at which size they were run")
    add("--encoder", help="another encoder than the scale's, as it was given to reproduce.sh")
    add("--tasks", nargs="+", metavar="TASK", help="of these tasks (default: the scale's)")
    add(
        "--seeds",
        nargs="+",
        type=cli.non_negative_int,
        default=[],
        metavar="SEED",
        help="seeds that every row should have (default: those that any has)",
    )
    add(
        "--further_flags",
        default="",
        help="flags of reproduce.sh for the commands that are printed, such as '--data folder'",
    )
    add(
        "--checkpoint",
        choices=["last", "best", "both"],
        default="last",
        help="whose attacks count; both: those of best go to a folder best in --output_dir",
    )
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    folder = Path(args.output_dir)
    if args.make is None:
        found = records.read_records(args.records)
        print(summary_table.write(folder, args.title, found, records.record_files(args.records)))
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
