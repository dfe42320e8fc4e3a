"""Tickets to compare, read from their files or drawn from score files, and their densities."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from masking import overlap, parts, ticket_files, tickets
from masking.hard_concrete import open_probability, soft_gate
from masking.kinds import GATE_KINDS
from reporting.ticket_names import Origin
from utils.cli import UserError, explain


@dataclass(frozen=True)
class Ticket:
    origin: Origin
    sparsity: float  # as asked for
    bits: overlap.Packed


@dataclass(frozen=True)
class Gates:
    """Densities of one file of hard-concrete scores.

    `densities`: a row per matrix; columns expected, soft_gate, and one for each sparsity.
    """

    origin: Origin
    sparsities: tuple[float, ...]
    densities: pd.DataFrame


def drawn_column(sparsity: float) -> str:
    """Column of the densities that a ticket of this sparsity keeps."""
    return f"drawn_at_{sparsity:g}"


def matrices_of(bits: overlap.Packed) -> pd.DataFrame:
    """Matrices of a ticket: their names as index; kind, layer (from 1, NaN: pooler), weights."""
    names = list(bits.shapes)
    columns = {
        "kind": {name: "+".join(parts.kinds_of(name)) for name in names},
        "layer": parts.layers_of(names),
        "weights": {name: out * into for name, (out, into) in bits.shapes.items()},
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="matrix"))


def read_all(
    ticket_paths: Sequence[str],
    score_paths: Sequence[str],
    epochs: list,
    sparsities: Sequence[float],
) -> tuple[list[Ticket], list[Gates]]:
    """The given tickets, then those drawn from scores; and the densities of learned gates.

    `epochs`: of each search folder, see score_files. UserError if two are for other encoders.
    """
    all_tickets: list[Ticket] = []
    gates: list[Gates] = []
    for path, ticket in (*_read(ticket_paths), *_draw(score_paths, epochs, sparsities, gates)):
        all_tickets.append(ticket)
        origin, first = ticket.origin, all_tickets[0].origin
        with explain(f"{path} cannot be compared with the first ticket: "):
            overlap.check_same_matrices(all_tickets[0].bits, ticket.bits)
        if origin.fingerprint != first.fingerprint:
            raise UserError(
                f"{path} was made for the encoder {origin.encoder} ({origin.fingerprint}), the "
                f"first ticket for {first.encoder} ({first.fingerprint}): compare tickets of one "
                "encoder"
            )
    return all_tickets, gates


def score_files(folder: Path, epochs: list) -> list[Path]:
    """Score files of a search folder: those of `epochs` (numbers or "last"), or of ["all"]."""
    last = folder / "scores.safetensors"
    if epochs != ["all"]:
        return [last if e == "last" else folder / f"scores_epoch{e}.safetensors" for e in epochs]
    by_epoch = {
        int(match[1]): path
        for path in folder.glob("scores_epoch*.safetensors")
        if (match := re.fullmatch(r"scores_epoch(\d+)\.safetensors", path.name))
    }
    if by_epoch and not last.is_file():
        return [path for _, path in sorted(by_epoch.items())]
    with explain():
        _, _, manifest = ticket_files.load_scores(last)
    by_epoch.pop(manifest.get("epoch"), None)  # the last epoch counts once
    return [*(path for _, path in sorted(by_epoch.items())), last]


def _read(paths: Iterable[str]) -> Iterator[tuple[Path, Ticket]]:
    for given in map(Path, paths):
        path = given / "ticket.safetensors" if given.is_dir() else given
        with explain():
            masks, manifest = ticket_files.load_ticket(path)
        source = manifest.get("source")
        sparsity = manifest.get("sparsity_asked", manifest.get("sparsity"))
        if not isinstance(source, dict) or not isinstance(sparsity, int | float):
            raise UserError(f"{path}: its manifest does not say which scores it was drawn from")
        origin = Origin.read(source, manifest["sha256"], str(path))
        yield path, Ticket(origin, sparsity, overlap.pack(_parts(masks, source)))


def _parts(tensors: dict, source: dict) -> dict:
    """Fused matrices in their parts, so that each counts as its kind."""
    return parts.split_fused(tensors, source["encoder"].get("heads"))


def _draw(
    paths: Iterable[str], epochs: list, sparsities: Sequence[float], gates: list[Gates]
) -> Iterator[tuple[Path, Ticket]]:
    """A ticket for each score file and sparsity; appends to `gates`."""
    for given in map(Path, paths):
        for path in score_files(given, epochs) if given.is_dir() else [given]:
            with explain():
                scores, shapes, manifest = ticket_files.load_scores(path)
            if manifest.get("structure"):
                raise UserError(
                    f"{path} ranks {', '.join(manifest['structure'])}, not weights: compare the "
                    "tickets that retrain_ticket.py draws from it"
                )
            origin = Origin.read(manifest, manifest["sha256"], str(path))
            columns = {}
            if origin.kind in GATE_KINDS:
                functions = {"expected": open_probability, "soft_gate": soft_gate}
                for column, f in functions.items():
                    of_kinds = _parts(scores, manifest)
                    means = {n: f(s).mean(dtype=torch.float64) for n, s in of_kinds.items()}
                    columns[column] = {name: float(mean) for name, mean in means.items()}
            for sparsity in sparsities:
                with explain():
                    ticket_files.check_order(manifest, sparsity, path)
                masks = _parts(tickets.draw(scores, shapes, sparsity), manifest)
                columns[drawn_column(sparsity)] = tickets.density_by(masks, {n: n for n in masks})
                yield path, Ticket(origin, sparsity, overlap.pack(masks))
            if origin.kind in GATE_KINDS:
                densities = pd.DataFrame(columns, index=list(_parts(scores, manifest)))
                gates.append(Gates(origin, tuple(sparsities), densities))
