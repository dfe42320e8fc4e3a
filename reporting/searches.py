"""The numbers of Figures 1, 3 and 5: from the logs of searches, and from tickets' densities."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.models import ROBUST
from experiments.paper import LAMBDAS
from reporting.cells import largest_group
from reporting.figure_data import Shown
from training.settings import recipe_in
from utils.cli import UserError
from utils.files import read_json, read_jsonl

PENALTY, DECIDED = "R(m)", "gates at 0 or 1"
AT_ZERO, AT_ONE = "gates at 0", "gates at 1"
MLP = "MLP"
MOST_POINTS = 200  # on a curve over optimizer steps; a column of print shows no more
Runs = list[tuple[Path, dict]]


@dataclass(frozen=True)
class Source:
    """A search, or a ticket drawn from one: what a figure's seeds must have in common."""

    folder: Path
    encoder: str
    seed: int
    settings: dict  # of the search
    density: dict | None = None  # of a ticket, by head: {"heads": [[...]], "mlp": [...]}


def find_runs(paths: Iterable[str | Path]) -> Runs:
    """(folder, run.json) of every finished run below the folders."""
    files = [f for path in map(Path, paths) if path.is_dir() for f in path.rglob("run.json")]
    runs = [(file.parent, read_json(file)) for file in sorted(files)]
    return [(folder, run) for folder, run in runs if run.get("status") == "finished"]


def curve_of_lambda(amplitude: float) -> str:
    """Name of a curve in Figure 5."""
    return f"λ = {amplitude:g}"


def over_steps(
    runs: Runs,
    task: str,
    encoder: str,
    lambdas: bool,
    quantities: tuple[str, ...] = (PENALTY, DECIDED),
) -> Shown:
    """Figures 1 and 5: R(m) and the share of decided gates over the search.

    `encoder`: its searches come first. `lambdas`: show a curve for every lambda, not only the
    search with the usual one.
    """
    pattern = r"search-robust(-lambda.*)?" if lambdas else "search-robust"
    of_task = [(f, r) for f, r in runs if (r.get("stage"), r.get("task")) == ("search", task)]
    candidates = [_search(f, run) for f, run in of_task if re.fullmatch(pattern, f.name)]
    searches, shown = _alike(candidates, task, encoder, "search run", *["lambda_amp"] * lambdas)
    by_lambda: dict[float, dict[int, dict]] = {}  # lambda -> seed -> log
    for search in sorted(searches, key=lambda s: (s.settings["lambda_amp"], s.seed)):
        by_lambda.setdefault(search.settings["lambda_amp"], {})[search.seed] = _log(search.folder)
    for amplitude, logs in by_lambda.items():
        shown.remarks.append(
            f"{task}, {searches[0].encoder}, {curve_of_lambda(amplitude)}: searches with "
            f"seeds {', '.join(map(str, logs))}."
        )
    if lambdas and by_lambda:
        missing = [a for a in LAMBDAS if a not in by_lambda]
        shown.lacking += [f"{task}: no search at {curve_of_lambda(a)}" for a in missing]
    for quantity in quantities:
        panel = {"task": task, "recipe": None, "quantity": quantity}
        for amplitude, logs in by_lambda.items():
            place = panel | {"curve": curve_of_lambda(amplitude), "x_name": "optimizer_step"}
            of_seeds = {seed: log[quantity] for seed, log in logs.items()}
            shown.rows += [
                place | {"x": step, "seed": seed, "value": values[step]}
                for step in _thinned(set.intersection(*map(set, of_seeds.values())))
                for seed, values in of_seeds.items()
            ]
    return shown


def _alike(
    candidates: list[Source], task: str, encoder: str, noun: str, *may_differ: str
) -> tuple[list[Source], Shown]:
    """The largest group whose encoder and settings agree, except `may_differ`; remarks."""
    items = [
        {key: str(v) if isinstance(v, list) else v for key, v in c.settings.items()}
        | {"encoder": c.encoder, "source": c}
        for c in candidates
    ]
    keys = sorted({key for item in items for key in item} - {"source", *may_differ})
    group, notes = largest_group(items, keys, encoder, noun)
    return [item["source"] for item in group], Shown(remarks=[f"{task}: {n}" for n in notes])


@contextmanager
def reading(where: str) -> Iterator[None]:
    """UserError if what is read in the block lacks a key, or is of another kind."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{where} lacks {e}") from e


def _search(folder: Path, run: dict) -> Source:
    with reading(f"{folder}/run.json"):
        settings = recipe_in(run)
        if "lambda_amp" not in settings:
            raise KeyError("lambda_amp")
        return Source(folder, run["encoder"]["name"], run["args"]["seed"], settings)


def _log(folder: Path) -> dict[str, dict[int, float]]:
    """Quantity -> optimizer step -> value; of a step, then of the epoch that ends with it."""
    values: dict[str, dict[int, float]] = {name: {} for name in (PENALTY, DECIDED, AT_ZERO, AT_ONE)}
    for number, line in enumerate(read_jsonl(folder / "log.jsonl"), 1):
        with reading(f"{folder}/log.jsonl, line {number},"):
            step = line["optimizer_step"]
            if "penalty" in line:
                values[PENALTY][step] = line["penalty"]
            shares = line.get("gate_shares") or line.get("dev", {}).get("gate_shares")
            if shares:
                values[AT_ZERO][step], values[AT_ONE][step] = shares["at_zero"], shares["at_one"]
                values[DECIDED][step] = shares["at_zero"] + shares["at_one"]
    return values


def _thinned(steps: set[int]) -> list[int]:
    """In order, at most MOST_POINTS of them."""
    ordered = sorted(steps)
    if len(ordered) <= MOST_POINTS:
        return ordered
    apart = (len(ordered) - 1) / (MOST_POINTS - 1)
    return [ordered[round(i * apart)] for i in range(MOST_POINTS)]


def heat_maps(runs: Runs, task: str, encoder: str) -> Shown:
    """Figure 3: what the robust tickets at the task's sparsity keep of each head and MLP."""
    sparsity = ROBUST.at(task).sparsity
    folders = [f for f, run in runs if run.get("task") == task and (f / "ticket.json").is_file()]
    robust = [t for folder in folders if (t := _robust_ticket(folder, sparsity))]
    known = [ticket for ticket in robust if ticket.density]
    tickets, shown = _alike(known, task, encoder, "ticket")
    if len(known) < len(robust):
        shown.remarks.append(
            f"{task}: Skipped: {len(robust) - len(known)} without density_by_head in ticket.json "
            "(older runs)."
        )
    by_seed = {t.seed: t for t in sorted(tickets, key=lambda t: t.seed)}
    if by_seed:
        shown.rows = _densities(task, by_seed)
        shown.remarks.append(
            f"{task}: {tickets[0].encoder}, sparsity {100 * sparsity:g} %, "
            f"searches with seeds {', '.join(map(str, by_seed))}."
        )
    return shown


def _robust_ticket(folder: Path, sparsity: float) -> Source | None:
    """A robust ticket of this sparsity, identified by its search, not by its retraining."""
    manifest = read_json(folder / "ticket.json")
    with reading(f"{folder}/ticket.json"):
        source, encoder = manifest["source"], manifest["rewound_to"]["name"]
        settings, density = recipe_in(source), manifest.get("density_by_head")
        wanted = source["kind"] == "robust" and abs(manifest["sparsity_asked"] - sparsity) < 1e-9
        return Source(folder, encoder, source["seed"], settings, density) if wanted else None


def _densities(task: str, by_seed: dict[int, Source]) -> list[dict]:
    """Rows of a heat map. UserError if two tickets have other layers or heads."""
    try:
        layers = [zip(t.density["heads"], t.density["mlp"], strict=True) for t in by_seed.values()]
        values = np.array([[[*heads, mlp] for heads, mlp in of_seed] for of_seed in layers], float)
        if np.isnan(values).any():
            raise ValueError("a value is missing")
    except (KeyError, TypeError, ValueError) as e:
        folders = ", ".join(str(t.folder) for t in by_seed.values())
        raise UserError(f"density_by_head in ticket.json does not fit: {folders} ({e!r})") from e
    columns = [*(f"head {i}" for i in range(1, values.shape[2])), MLP]
    return [
        {"task": task, "layer": layer, "column": column, "seed": seed, "value": float(value)}
        for layer, of_layer in enumerate(values.transpose(1, 2, 0), 1)
        for column, of_column in zip(columns, of_layer, strict=True)
        for seed, value in zip(by_seed, of_column, strict=True)
    ]
