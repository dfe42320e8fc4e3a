"""Compare tickets across seeds, epochs, tasks and kinds, and what gates expect with what is drawn.

    python analysis/compare_tickets.py --scores SEARCH_A SEARCH_B --sparsity 0.3 \\
        --output_dir FOLDER
    python analysis/compare_tickets.py --tickets RUN_A RUN_B --output_dir FOLDER
    python analysis/compare_tickets.py --scores SEARCH --epochs all --sparsity 0.3 0.5 \\
        --output_dir FOLDER

Scores are drawn at each --sparsity; only tickets of one sparsity are compared. agreement.csv, .md,
.png and .pdf: Jaccard indices of every pair, over all weights and by matrix, beside what chance
gives (masking/overlap.py). density.csv, .md, .png and .pdf: of hard-concrete scores the expected
density of every matrix beside that of the ticket drawn. Shorter names tell what differs; no paths.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from masking.tickets import GATE_KINDS
from utils import cli

KINDS = ("csv", "md", "png", "pdf")  # of files written


def epochs_of_scores(text: str) -> list:
    """'all', or a list like '1,3,last'."""
    return ["all"] if text.strip() == "all" else cli.epochs_or_words("last")(text)


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--tickets", nargs="+", default=[], help="ticket files, or runs of retrain_ticket.py")
    add(
        "--scores",
        nargs="+",
        default=[],
        help="score files, or folders holding scores.safetensors, to draw tickets from",
    )
    add(
        "--sparsity",
        nargs="+",
        type=cli.sparsity,
        default=[],
        help="fraction of weights removed from --scores; a comparison for each",
    )
    add(
        "--epochs",
        type=epochs_of_scores,
        help="of the folders in --scores: search epochs such as "
        "1,3,last (kept by --keep_scores), or all that are there (default: last)",
    )
    add("--output_dir", required=True, help="folder for agreement.* and density.*")
    args = parser.parse_args(argv)
    if not args.tickets and not args.scores:
        parser.error("nothing to compare: give --tickets or --scores")
    if args.scores and not args.sparsity:
        parser.error("--scores are drawn at a --sparsity, which is missing")
    for flag in ("sparsity", "epochs"):
        if getattr(args, flag) and not args.scores:
            parser.error(f"--{flag} is read with --scores only")
    args.sparsity = list(dict.fromkeys(args.sparsity))
    args.epochs = args.epochs or ["last"]
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds

import torch

from evaluation.records import write_text
from masking import encoders, hard_concrete, overlap, ticket_files, tickets
from reporting import densities, overlap_figure, ticket_names
from reporting import overlap_tables as tables

Drawn = tuple[ticket_names.Item, float, overlap.Packed]  # what it is, sparsity, bits


def score_files(folder: Path, epochs: list) -> list[Path]:
    """Score files of a search folder; of `epochs` "all", those of each epoch, the last included."""
    last = folder / "scores.safetensors"
    if epochs != ["all"]:
        return [last if e == "last" else folder / f"scores_epoch{e}.safetensors" for e in epochs]
    kept = {
        int(found[1]): path
        for path in folder.glob("scores_epoch*.safetensors")
        if (found := re.fullmatch(r"scores_epoch(\d+)\.safetensors", path.name))
    }
    paths = [kept[epoch] for epoch in sorted(kept)]
    if last.is_file() or not paths:
        with cli.explain():
            _, _, manifest = ticket_files.load_scores(last)
        paths = [path for epoch, path in sorted(kept.items()) if epoch != manifest.get("epoch")]
        paths.append(last)
    return paths


def read_tickets(paths: list[str]) -> Iterator[tuple[Path, Drawn]]:
    for given in map(Path, paths):
        path = given / "ticket.safetensors" if given.is_dir() else given
        with cli.explain():
            masks, manifest = ticket_files.load_ticket(path)
        source = manifest.get("source")
        asked = manifest.get("sparsity_asked", manifest.get("sparsity"))
        if not isinstance(source, dict) or not isinstance(asked, int | float):
            raise cli.UserError(f"{path}: its manifest does not say what it was drawn from")
        item = ticket_names.read_item(source, manifest["sha256"], str(path))
        yield path, (item, asked, overlap.pack(masks))


def draw_from_scores(args, gates: list[densities.Gates]) -> Iterator[tuple[Path, Drawn]]:
    """A ticket for every score file and sparsity; densities of hard-concrete scores to `gates`."""
    for given in map(Path, args.scores):
        for path in score_files(given, args.epochs) if given.is_dir() else [given]:
            with cli.explain():
                scores, shapes, manifest = ticket_files.load_scores(path)
            item = ticket_names.read_item(manifest, manifest["sha256"], str(path))
            drawn = {}
            for sparsity in args.sparsity:
                with cli.explain():
                    ticket_files.check_order(manifest, sparsity, path)
                masks = tickets.draw(scores, shapes, sparsity)
                drawn[sparsity] = tickets.density_by(masks, {name: name for name in masks})
                yield path, (item, sparsity, overlap.pack(masks))
            if item.kind in GATE_KINDS:
                expected = {n: mean(hard_concrete.open_probability(s)) for n, s in scores.items()}
                soft = {n: mean(hard_concrete.soft_gate(s)) for n, s in scores.items()}
                gates.append(densities.Gates(item, expected, soft, drawn))


def mean(values: torch.Tensor) -> float:
    return float(values.mean(dtype=torch.float64))


def read_all(args) -> tuple[list[Drawn], list[densities.Gates]]:
    """All tickets, of one encoder, and the densities of what was learnt by gates."""
    found: list[Drawn] = []
    gates: list[densities.Gates] = []
    for read in (read_tickets(args.tickets), draw_from_scores(args, gates)):
        for path, drawn in read:
            found.append(drawn)
            item, first = drawn[0], found[0][0]
            with cli.explain(f"{path} cannot be compared with the first: "):
                overlap.check_same_matrices(found[0][2], drawn[2])
            if item.fingerprint != first.fingerprint:
                raise cli.UserError(
                    f"{path} was made for the encoder {item.encoder} ({item.fingerprint}), the "
                    f"first for {first.encoder} ({first.fingerprint}): they cannot be compared"
                )
    return found, gates


def compare(found: list[Drawn], alone: bool) -> tuple[list[tables.Section], list[str]]:
    """A section for each sparsity of which there are two tickets, and notes on the others.

    `alone`: one ticket may stand alone, since its densities say something by themselves.
    """
    sections, notes = [], []
    for sparsity in sorted({sparsity for _, sparsity, _ in found}):
        members = [(item, packed) for item, of, packed in found if of == sparsity]
        if len(members) == 1:
            notes.append(f"Left out: the only ticket at sparsity {100 * sparsity:g} %.")
            continue
        items = [item for item, _ in members]
        pairs = []
        for second, (item, packed) in enumerate(members):
            for first, (other, other_packed) in enumerate(members[:second]):
                measures = overlap.measures(overlap.overlaps(other_packed, packed))
                pairs.append(
                    tables.Pair(first, second, ticket_names.differ_in(other, item), *measures)
                )
        sections.append(tables.Section(sparsity, items, ticket_names.labels(items), pairs))
    if not sections and not alone:
        raise cli.UserError(
            "nothing to compare: of no sparsity there are two tickets; give two or more "
            "--tickets or --scores, or --epochs"
        )
    return sections, notes


def matrices_of(packed: overlap.Packed) -> list[tables.Matrix]:
    names = list(packed.shapes)
    kinds, layers = encoders.matrix_kinds(names), encoders.matrix_layers(names)
    return [
        tables.Matrix(n, kinds[n], layers[n], out * into)
        for n, (out, into) in packed.shapes.items()
    ]


def density_notes(args, found: list[Drawn]) -> list[str]:
    """What has no expected density, and why."""
    notes = []
    if args.tickets:
        notes.append(
            f"{len(args.tickets)} of the tickets were given without scores: what their gates "
            "expect stands in the score file (--scores)."
        )
    drawn_kinds = {item.kind for item, _, _ in found[len(args.tickets) :]}
    others = sorted(drawn_kinds - set(GATE_KINDS))
    if others:
        notes.append(f"No expected density: {', '.join(others)} (no hard-concrete gates).")
    return notes


def main() -> None:
    args = parse_args()
    found, gates = read_all(args)
    sections, notes = compare(found, alone=bool(gates))
    matrices = matrices_of(found[0][2])

    folder, paths, text = Path(args.output_dir), [], "One ticket: nothing to compare it with.\n"
    if sections:
        text = tables.markdown(sections, notes)
        paths = [
            write_text(folder / "agreement.csv", tables.csv_text(sections, matrices)),
            write_text(folder / "agreement.md", text),
            *overlap_figure.draw(sections, matrices, folder),
        ]
    density_text = densities.markdown(gates, matrices, density_notes(args, found))
    paths.append(write_text(folder / "density.md", density_text))
    if gates:
        paths.append(write_text(folder / "density.csv", densities.csv_text(gates, matrices)))
        paths += densities.draw(gates, matrices, folder)
    # What an earlier comparison left there would be taken for this one's.
    written = {path.name for path in paths}
    for name in (f"{stem}.{kind}" for stem in ("agreement", "density") for kind in KINDS):
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    print(text)
    print(f"written to {folder}: {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    cli.run(main)
