"""Figures 1, 3 and 5 as numbers: from the logs of searches, and from tickets' densities."""

import re
from collections.abc import Iterable
from pathlib import Path

from evaluation.records import Cell, largest_group
from experiments.paper import LAMBDAS, ROBUST
from experiments.scales import Scale
from reporting.figure_data import HeatMap, Panel, Point, Shown
from training.settings import recipe_in
from utils.cli import UserError
from utils.files import read_json, read_jsonl

PENALTY, DECIDED = "R(m)", "gates at 0 or 1"
MOST_POINTS = 200  # of a curve over optimizer steps; a column of print shows no more
Runs = list[tuple[Path, dict]]


def find_runs(paths: Iterable[str | Path]) -> Runs:
    """(folder, run.json) of every finished run below the folders."""
    files = [f for path in map(Path, paths) if path.is_dir() for f in path.rglob("run.json")]
    runs = [(file.parent, read_json(file)) for file in sorted(files)]
    return [(folder, run) for folder, run in runs if run.get("status") == "finished"]


def over_steps(runs: Runs, task: str, scale: Scale, lambdas: bool) -> Shown:
    """Figures 1 and 5: R(m) and the share of decided gates over the search, mean over seeds.

    `lambdas`: a curve for every lambda, rather than the search at the usual one alone.
    """
    pattern = r"search-robust(-lambda.*)?" if lambdas else "search-robust"
    found = [
        _search(folder, run)
        for folder, run in runs
        if run.get("stage") == "search"
        and run.get("task") == task
        and re.fullmatch(pattern, folder.name)
    ]
    may_differ = {"lambda_amp"} if lambdas else set()
    searches, notes = _alike(found, may_differ, scale, "search run")
    shown = Shown(remarks=[f"{task}: {note}" for note in notes])
    logs: dict[float, dict[int, dict]] = {}  # lambda -> seed -> log
    for search in sorted(searches, key=lambda s: (s["lambda_amp"], s["seed"])):
        logs.setdefault(search["lambda_amp"], {})[search["seed"]] = _log(search["folder"])
    for amp, seeds in logs.items():
        shown.remarks.append(
            f"{task}, {searches[0]['encoder']}, λ = {amp:g}: searches with "
            f"seeds {', '.join(map(str, seeds))}."
        )
    if lambdas and logs:
        shown.lacking += [f"{task}: no search at λ = {a:g}" for a in LAMBDAS if a not in logs]
    for quantity in (PENALTY, DECIDED) if logs else ():
        curves = {
            f"λ = {amp:g}": _over_seeds({seed: log[quantity] for seed, log in seeds.items()})
            for amp, seeds in logs.items()
        }
        shown.panels.append(Panel(task, None, quantity, curves))
    return shown


def _alike(
    found: list[dict], may_differ: set[str], scale: Scale, noun: str
) -> tuple[list[dict], list[str]]:
    """The largest group that has all settings in common but seed, place and `may_differ`."""
    own = {"seed", "folder", "density"} | may_differ
    keys = sorted({key for item in found for key in item} - own)
    return largest_group(found, keys, scale.encoder, noun)


def _plain(settings: dict) -> dict:
    return {key: str(v) if isinstance(v, list) else v for key, v in settings.items()}


def _search(folder: Path, run: dict) -> dict:
    try:
        args, seed = _plain(recipe_in(run)), run["args"]["seed"]
        return args | {
            "folder": folder,
            "encoder": run["encoder"]["name"],
            "seed": seed,
            "lambda_amp": args["lambda_amp"],
        }
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{folder}/run.json lacks {e}") from e


def _log(folder: Path) -> dict[str, dict[int, float]]:
    """Quantity -> optimizer step -> value; of a step, then of the epoch that ends with it."""
    found: dict[str, dict[int, float]] = {PENALTY: {}, DECIDED: {}}
    for number, line in enumerate(read_jsonl(folder / "log.jsonl"), 1):
        try:
            step = line["optimizer_step"]
            if "penalty" in line:
                found[PENALTY][step] = line["penalty"]
            shares = line.get("gate_shares") or line.get("dev", {}).get("gate_shares")
            if shares:
                found[DECIDED][step] = shares["at_zero"] + shares["at_one"]
        except (KeyError, TypeError, AttributeError) as e:
            raise UserError(f"{folder}/log.jsonl, line {number}, lacks {e}") from e
    return found


def _over_seeds(logs: dict[int, dict[int, float]]) -> list[Point]:
    """At the steps that all seeds logged, thinned to what a figure shows."""
    steps = sorted(set.intersection(*(set(log) for log in logs.values())))
    if len(steps) > MOST_POINTS:
        apart = (len(steps) - 1) / (MOST_POINTS - 1)
        steps = [steps[round(i * apart)] for i in range(MOST_POINTS)]
    return [Point(step, Cell({seed: log[step] for seed, log in logs.items()})) for step in steps]


def heat_maps(runs: Runs, task: str, scale: Scale) -> Shown:
    """Figure 3: what the robust tickets at the task's sparsity keep of each head and MLP."""
    sparsity = ROBUST.at(task).sparsity
    found = [
        _ticket(folder)
        for folder, run in runs
        if run.get("task") == task and (folder / "ticket.json").is_file()
    ]
    found = [
        t for t in found if t["kind"] == "robust" and abs(t["sparsity_asked"] - sparsity) < 1e-9
    ]
    known = [t for t in found if t["density"]]
    tickets, notes = _alike(known, set(), scale, "ticket")
    if len(known) < len(found):
        count = len(found) - len(known)
        notes.append(f"Left out: {count} without density_by_head in ticket.json (older runs).")
    shown = Shown(remarks=[f"{task}: {note}" for note in notes])
    by_seed = {t["seed"]: t for t in sorted(tickets, key=lambda t: t["seed"])}
    if by_seed:
        shown.maps.append(_heat_map(task, by_seed))
        shown.remarks.append(
            f"{task}: {tickets[0]['encoder']}, sparsity {100 * sparsity:g} %, "
            f"searches with seeds {', '.join(map(str, by_seed))}."
        )
    return shown


def _ticket(folder: Path) -> dict:
    """What tells a ticket from others: its search, not how it was retrained."""
    manifest = read_json(folder / "ticket.json")
    try:
        source = manifest["source"]
        return _plain(recipe_in(source)) | {
            "folder": folder,
            "kind": source["kind"],
            "seed": source["seed"],
            "sparsity_asked": manifest["sparsity_asked"],
            "encoder": manifest["rewound_to"]["name"],
            "density": manifest.get("density_by_head"),
        }
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{folder}/ticket.json lacks {e}") from e


def _heat_map(task: str, by_seed: dict[int, dict]) -> HeatMap:
    """Cell for cell over the seeds; UserError where a ticket has not the same layers and heads."""

    def cell(of) -> Cell:
        return Cell({seed: float(of(t["density"])) for seed, t in by_seed.items()})

    first = next(iter(by_seed.values()))["density"]
    try:
        heads = [
            [cell(lambda d, at=(i, j): d["heads"][at[0]][at[1]]) for j in range(len(row))]
            for i, row in enumerate(first["heads"])
        ]
        mlp = [cell(lambda d, i=i: d["mlp"][i]) for i in range(len(heads))]
    except (KeyError, IndexError, TypeError, ValueError) as e:
        folders = ", ".join(str(t["folder"]) for t in by_seed.values())
        raise UserError(f"density_by_head in ticket.json does not fit: {folders} ({e!r})") from e
    return HeatMap(task, heads, mlp)
