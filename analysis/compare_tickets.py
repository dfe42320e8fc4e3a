"""Compare tickets across seeds, epochs, tasks and kinds, and expected with drawn densities.

    python analysis/compare_tickets.py --scores SEARCH_A SEARCH_B --sparsity 0.3 \\
        --output_dir FOLDER
    python analysis/compare_tickets.py --tickets RUN_A RUN_B --output_dir FOLDER
    python analysis/compare_tickets.py --scores SEARCH --search_epochs all --sparsity 0.3 0.5 \\
        --output_dir FOLDER

A ticket is drawn from each score file at each --sparsity. Only tickets of the same sparsity are
compared. The script writes:

agreement.csv, .md, .png, .pdf  Jaccard indices of every pair, over all weights and by matrix, and
                                what is expected by chance (masking/overlap.py)
density.csv, .md, .png, .pdf    expected density of every matrix, and that of the ticket drawn
                                (hard-concrete scores only)

Tickets have short names that show what differs between them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from training.settings import FolderSettings, TicketSettings
from utils import cli
from utils.settings import REQUIRED, Role, changed, parse, setting

OUTPUTS = [
    f"{stem}.{end}" for stem in ("agreement", "density") for end in ("csv", "md", "png", "pdf")
]


def epochs_of_scores(text: str) -> list:
    """'all', or a list such as '1,3,last'."""
    return ["all"] if text.strip() == "all" else cli.epochs_or_words("last")(text)


@dataclass(kw_only=True)
class Settings:
    """Tickets."""

    tickets: list = setting(
        [], "ticket files, or run folders of retrain_ticket.py", role=Role.PLACE, nargs="+"
    )
    scores: list = changed(TicketSettings, "scores", [], nargs="+")
    sparsity: list = changed(TicketSettings, "sparsity", [], nargs="+")
    search_epochs: list | None = setting(
        None,
        "search epochs to read from folders in --scores, such as 1,3,last (see --keep_scores), or "
        "all",
        epochs_of_scores,
        role=Role.MEASURE,
        unset="last",
    )
    output_dir: str = changed(FolderSettings, "output_dir", REQUIRED)


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    if not args.tickets and not args.scores:
        raise cli.UserError("nothing to compare: give --tickets or --scores")
    if args.scores and not args.sparsity:
        raise cli.UserError("--scores needs --sparsity: give the fractions of weights to remove")
    for flag in ("sparsity", "search_epochs"):
        if getattr(args, flag) and not args.scores:
            raise cli.UserError(f"--{flag} needs --scores: a ticket file has its own")
    args.sparsity = list(dict.fromkeys(args.sparsity))
    args.search_epochs = args.search_epochs or ["last"]
    return args


def main() -> None:
    args = parse_args()  # before the imports, which take seconds
    from reporting import densities, overlap_figure, overlap_tables, ticket_files
    from reporting.render import write_text

    tickets, gates = ticket_files.read_all(
        args.tickets, args.scores, args.search_epochs, args.sparsity
    )
    matrices = ticket_files.matrices_of(tickets[0].bits)
    sections, notes = overlap_tables.compare(tickets, matrices, may_be_alone=bool(gates))

    folder, paths, text = Path(args.output_dir), [], "One ticket: nothing to compare it with.\n"
    if sections:
        text = overlap_tables.markdown(sections, notes)
        paths = [
            write_text(folder / "agreement.csv", overlap_tables.csv_text(sections)),
            write_text(folder / "agreement.md", text),
            *overlap_figure.draw(sections, folder),
        ]
    searches = densities.by_search(gates, matrices)
    notes = densities.notes_on(tickets, given=len(args.tickets))
    density_text = densities.markdown(gates, searches, notes)
    paths.append(write_text(folder / "density.md", density_text))
    if gates:
        paths.append(write_text(folder / "density.csv", densities.csv_text(gates, matrices)))
        paths += densities.draw(searches, folder)
    for name in set(OUTPUTS) - {path.name for path in paths}:  # from an earlier comparison
        (folder / name).unlink(missing_ok=True)
    print(text)
    print(f"written to {folder}: {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    cli.run(main)
