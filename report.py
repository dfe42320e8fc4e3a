"""Make tables and figures from records, logs and tickets.

    python report.py --records runs --output_dir results/mine
    python report.py --make table1 figure2 --scale mini --records runs/mini \\
        --output_dir results/mini

The script reads every records.jsonl below the given folders, and single record files. Without
--make it writes table.md, table.csv, figure.png and the records that they were made from. It then
reads every suites.jsonl as well, and shows each suite as the union of its attacks. Each task,
encoder, attack and set of attacked rows has its own table; records of two are never compared. With
--make it writes tables and figures of the paper, with the paper's values next to ours, and
prints the command for what was not run. With --checkpoint both, those of the checkpoints with the
best dev accuracy go to the folder best in --output_dir. --html adds report.html, one page to look
at. With --gallery it writes a gallery of tickets (tickets.md and tickets.html) instead. With
--watch it only shows the runs below folders while they are going.
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation import records
from evaluation.settings import AttackSettings, RecordFiles
from experiments.paper import FIGURES, TABLES
from experiments.scales import SCALES, ChoiceOfRuns
from experiments.study import STUDIES
from training.settings import FolderSettings
from training.tasks import name_in_records
from utils import cli
from utils.files import public_name
from utils.settings import Role, changed, parse, setting

ALL = (*TABLES, *FIGURES)


@dataclass(kw_only=True)
class PaperSettings:
    """Tables and figures of the paper."""

    make: list | None = setting(
        None,
        f"what to make: {', '.join(ALL)}, all of these, or {', '.join(STUDIES)}",
        choices=(*ALL, "all", *STUDIES),
        role=Role.MEASURE,
        nargs="+",
        metavar="NAME",
    )
    scale: str = changed(ChoiceOfRuns, "scale", "paper")
    encoder: str | None = changed(ChoiceOfRuns, "encoder", None, unset="that of the scale")
    tasks: list | None = changed(ChoiceOfRuns, "tasks", None, unset="those of the scale")
    seeds: list = changed(ChoiceOfRuns, "seeds", [], unset="those that any row has")
    further_flags: str = setting(
        "",
        "flags of reproduce.sh to add to the printed commands, such as '--data folder'",
        role=Role.OUTPUT,
    )
    checkpoint: str = changed(AttackSettings, "checkpoint", "last")


@dataclass(kw_only=True)
class PageSettings:
    """Pages to look at."""

    html: bool = setting(
        False, "also write report.html, one page to look at and to send", role=Role.OUTPUT
    )
    gallery: list | None = setting(
        None,
        "ticket files, or folders of them: write a gallery of these tickets, tickets.md and "
        "tickets.html, instead of a table",
        role=Role.PLACE,
        nargs="+",
    )
    watch: list | None = setting(
        None,
        "folders of runs: only show a table of their stage, progress, last loss, dev accuracy and "
        "expected end, and refresh it until Ctrl-C",
        role=Role.PLACE,
        nargs="+",
        metavar="RUNS",
    )


@dataclass(kw_only=True)
class Settings(RecordFiles, PaperSettings, PageSettings):
    """Report."""

    records: list = changed(RecordFiles, "records", [], unset="required without --watch")
    output_dir: str | None = changed(
        FolderSettings, "output_dir", None, unset="required without --watch"
    )
    title: str = setting(
        "Accuracy under attack", "title of the table without --make", role=Role.OUTPUT
    )


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    for name in ("records", "output_dir"):
        if not args.watch and not getattr(args, name):
            raise cli.UserError(f"the following arguments are required: --{name}")
    for name in ("make", "html"):
        if args.gallery and getattr(args, name):
            raise cli.UserError(f"--gallery writes a gallery only: omit --{name}")
    return args


def main() -> None:
    args = parse_args()
    if args.watch:
        from reporting.watch import watch

        watch(args.watch)
        return
    from reporting import build, summary_table  # matplotlib reads its settings when it is imported

    folder = Path(args.output_dir)
    if args.gallery:
        from reporting.page import gallery  # here: it imports torch, which takes seconds

        paths = gallery.write(folder, args.gallery, records.read_records(args.records))
        print(f"written to {folder}: {', '.join(path.name for path in paths)}")
        return
    if args.make is None:
        from reporting.suite_records import read_attacks

        attacks, files = read_attacks(args.records), records.record_files(args.records)
        print(summary_table.write(folder, args.title, attacks, files))
        names = "table.md, table.csv, figure.png, records.jsonl"
        if args.html:
            from reporting.page import report as page  # here: torch and more, which take seconds
            from reporting.page.blocks import of_tables

            blocks = of_tables(summary_table.make_tables(attacks), args.title)
            names += f", {page.write(folder, args.title, blocks, args.records).name}"
        print(f"written to {folder}: {names}")
        return
    with cli.explain("--further_flags: "):
        further = tuple(shlex.split(args.further_flags))
    targets = ALL if "all" in args.make else dict.fromkeys(args.make)
    tasks = tuple(dict.fromkeys(map(name_in_records, args.tasks))) if args.tasks else None
    scale = replace(SCALES[args.scale], further_flags=further, seeds=tuple(args.seeds))
    if args.encoder:
        scale = replace(scale, encoder=public_name(args.encoder))
    if args.scale != "study" and STUDIES.keys() & set(targets):
        raise cli.UserError("the study has a scale of its own: give --scale study")
    for rule in ("last", "best") if args.checkpoint == "both" else (args.checkpoint,):
        into = folder / "best" if args.checkpoint == "both" and rule == "best" else folder
        request = build.Request(targets, args.records, scale, into, tasks, rule, args.html)
        paths = build.make(request)
        print(f"written to {into}: {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    cli.run(main)
