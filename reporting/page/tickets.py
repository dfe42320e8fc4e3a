"""The tickets of a page: where they lie, what they keep of each matrix, and how far they agree."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from masking import parts, ticket_files
from reporting import overlap_tables
from reporting.cells import grouped
from reporting.render import decimals
from reporting.ticket_files import matrices_of, read_all

MOST_COMPARED = 12  # tickets of one sparsity; the pairs of more would take minutes


@dataclass(frozen=True)
class TicketFile:
    """A ticket and its manifest; its masks are not read."""

    path: Path
    manifest: dict

    @cached_property
    def source(self) -> dict:
        source = self.manifest.get("source")
        return source if isinstance(source, dict) else {}

    @property
    def kind(self) -> str:
        return str(self.source.get("kind", "?")).replace("_", " ")

    @property
    def task(self) -> str | None:
        return self.source.get("task")

    @property
    def seed(self) -> int | None:
        return self.source.get("seed")

    @property
    def sparsity(self) -> float:
        return self.manifest.get("sparsity_asked", self.manifest.get("sparsity", 0.0))

    @property
    def encoder(self) -> str:
        return str(self.source.get("encoder", {}).get("name", "?"))

    @property
    def sha256(self) -> str:
        return str(self.manifest.get("sha256", ""))


def find(paths: Iterable[str | Path]) -> list[TicketFile]:
    """Ticket files, those below folders, and those in a folder `tickets` next to a file of another
    kind; each once."""
    found: dict[str, TicketFile] = {}
    for path in map(Path, paths):
        folder = path if path.is_dir() else path.parent / "tickets"
        files = [path] if path.suffix == ".safetensors" else sorted(folder.rglob("*.safetensors"))
        for file in files:
            if file.parent.name in ("best", "last") or file.name.startswith("scores"):
                continue  # checkpoints are large, and no tickets
            manifest = ticket_files.read_manifest(file)
            if manifest and manifest.get("what") == "ticket":
                found.setdefault(str(manifest.get("sha256")), TicketFile(file, manifest))
    return list(found.values())


@dataclass(frozen=True)
class HeatMap:
    """Values by row and column. `shades`: 0 to 1, None where there is no value."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[tuple[str, float | None]]]]
    remark: str = ""

    @classmethod
    def of(
        cls, title: str, columns: Sequence[str], names: Sequence[str], values: np.ndarray, remark=""
    ) -> "HeatMap":
        """`values`: (rows, columns); NaN where there is none."""
        low, high = np.nanmin(values), np.nanmax(values)
        span = max(high - low, 0.02)  # smaller differences are noise
        rows = []
        for name, of_row in zip(names, values, strict=True):
            cells: list[tuple[str, float | None]] = [
                ("", None) if np.isnan(v) else (decimals(v, 2), round(float((v - low) / span), 3))
                for v in of_row
            ]
            rows.append((name, cells))
        return cls(title, list(columns), rows, remark)


def densities(tickets: Sequence[TicketFile]) -> list[HeatMap]:
    """Shares of weights that tickets keep, by layer and head and by layer and matrix: means over
    the seeds of one task, kind and sparsity."""
    maps = []
    for (task, kind, sparsity, _), of_one in grouped(
        tickets, lambda t: (t.task, t.kind, t.sparsity, t.encoder)
    ).items():
        seeds = f"seed{'s' * (len(of_one) > 1)} {', '.join(str(t.seed) for t in of_one)}"
        words = [f"{kind} ticket", f"{100 * sparsity:g} % removed", *[task] * bool(task), seeds]
        title = ", ".join(words)
        for of_ticket, what in ((_by_head, "heads and MLP"), (_by_matrix, "kind of matrix")):
            tables = [table for t in of_one if (table := of_ticket(t.manifest))]
            shapes = {table[1].shape for table in tables}
            if len(shapes) == 1:
                columns, first = tables[0]
                mean = np.mean([values for _, values in tables], axis=0)
                layers = [f"layer {i}" for i in range(1, len(first) + 1)]
                maps.append(HeatMap.of(f"{title}: by {what}", columns, layers, mean))
    return maps


Grid = tuple[list[str], np.ndarray]  # columns, and values by layer


def _by_head(manifest: dict) -> Grid | None:
    density = manifest.get("density_by_head")
    if not density:
        return None
    values = np.column_stack([np.array(density["heads"]), density["mlp"]])
    return [*map(str, range(1, values.shape[1])), "MLP"], values


def _by_matrix(manifest: dict) -> Grid | None:
    """The pooler belongs to no layer, so it is not shown."""
    density = manifest.get("density_by_matrix")
    if not density:
        return None
    kinds = {name: ", ".join(parts.kinds_of(name)).replace("_", " ") for name in density}
    layers = parts.layers_of(name for name in manifest["order"] if name in density)
    columns = list(dict.fromkeys(kinds[name] for name, layer in layers.items() if layer))
    values = np.full((max(layer or 0 for layer in layers.values()), len(columns)), np.nan)
    for name, layer in layers.items():
        if layer:
            values[layer - 1, columns.index(kinds[name])] = density[name]
    return (columns, values) if values.size else None


def agreement(tickets: Sequence[TicketFile]) -> tuple[list[HeatMap], list[str]]:
    """Jaccard indices of the removed weights of every two tickets of one encoder and sparsity, and
    notes on what was skipped."""
    maps, notes = [], []
    alike = grouped(tickets, lambda t: (t.source.get("encoder", {}).get("fingerprint"), t.sparsity))
    for members in alike.values():
        if len(members) > MOST_COMPARED:
            rest = len(members) - MOST_COMPARED
            notes.append(
                f"{rest} further tickets of {100 * members[0].sparsity:g} % were not compared; "
                "analysis/compare_tickets.py compares any number."
            )
        if len(members) > 1:
            maps.append(_agreement([str(t.path) for t in members[:MOST_COMPARED]]))
    return maps, notes


def _agreement(paths: list[str]) -> HeatMap:
    tickets, _ = read_all(paths, [], [], [])
    (section,), _ = overlap_tables.compare(
        tickets, matrices_of(tickets[0].bits), may_be_alone=False
    )
    position = {name: i for i, name in enumerate(section.names)}
    values = np.full((len(position), len(position)), np.nan)
    for pair in section.whole.to_dict("records"):
        first, second = position[pair["first"]], position[pair["second"]]
        values[second, first] = pair["removed_jaccard"]
        values[first, second] = pair["removed_chance_by_matrix"]
    names = [f"{i}. {name}" for i, name in enumerate(section.names, 1)]
    remark = (
        "Below the diagonal: Jaccard index of the removed weights. Above it: what two random "
        "tickets with the same density in each matrix would have."
    )
    title = f"{100 * section.sparsity:g} % removed, {tickets[0].origin.encoder}"
    return HeatMap.of(title, [str(i) for i in range(1, len(names) + 1)], names, values, remark)
