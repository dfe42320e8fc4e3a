"""The study's searches by epoch: kept beside its records, and as a table, a figure and numbers.

What a search's log tells before any ticket is retrained: R(m), and the accuracy on dev of the
ticket that is drawn there (not retrained). Kept because the runs are not.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from evaluation.records import Cell, largest_group, write_text
from experiments.paper import OWN_LAMBDA, Model
from experiments.scales import Scale
from experiments.study import STUDIES, STUDY
from masking.tickets import GATE_KINDS
from reporting import figures
from reporting.figure_data import Panel, Point, Shown, csv_text
from reporting.searches import PENALTY, Runs
from training.deviations import SEARCH
from training.settings import recipe_in
from utils.cli import UserError
from utils.files import read_jsonl

NAME = f"{STUDY.name}-searches"
QUANTITIES = {PENALTY: "open_gates_percent", "dev accuracy": "dev_accuracy_ticket_percent"}


def write(runs: Runs, scale: Scale, tasks: Iterable[str], folder: Path) -> list[Path]:
    """Add the runs' searches to those that are kept in the folder; then all of these tasks and the
    scale's encoder as a figure (mean and single seeds), CSV and Markdown. The paths written."""
    path, tasks = folder / f"{NAME}.jsonl", list(tasks)
    kept = read_jsonl(path) if path.is_file() else []
    for number, search in enumerate(kept, 1):
        _check(search, f"{path}, line {number}")
    found = [_search(run_of, run) for run_of, run in runs if run.get("stage") == "search"]
    found = [s for s in found if s["encoder"] == scale.encoder and s["task"] in tasks]
    searches = list({_identity(search): search for search in [*kept, *found]}.values())
    if found:
        write_text(path, "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in searches))
    shown, tables = Shown(), []
    for task in tasks:
        own = [s for s in searches if s["encoder"] == scale.encoder and s["task"] == task]
        curves, notes = _by_row(own, task)
        panels = [
            Panel(task, None, quantity, {label: _points(c, name) for label, c in curves.items()})
            for quantity, name in QUANTITIES.items()
        ]
        shown += Shown(panels if curves else [], remarks=[f"{task}: {note}" for note in notes])
        tables += _table(panels) if curves else []
    if shown.empty:
        return []
    notes = [*(f"- {remark}" for remark in shown.remarks), ""] if shown.remarks else []
    text = [
        "# The study: its searches by epoch",
        "",
        f"![R(m) and dev accuracy]({NAME}.png)",
        "",
        *tables,
        *notes,
        f"{scale.encoder}. R(m): expected share of open gates. Dev accuracy: of the ticket "
        "that is drawn there, not retrained. Both in percent, mean ± standard deviation "
        "(n - 1) over seeds; thin lines: single seeds.",
        "",
    ]
    return [
        *figures.draw(NAME, shown, folder),
        write_text(folder / f"{NAME}.csv", csv_text(NAME, "search_epoch", shown)),
        write_text(folder / f"{NAME}.md", "\n".join(text)),
    ]


def _search(folder: Path, run: dict) -> dict:
    """What is kept of a finished search: how it was made, and its epochs."""
    try:
        splits = run.get("data", {}).get("splits", {})
        data = {name: split.get("fingerprint") for name, split in sorted(splits.items())}
        search = {
            "encoder": run["encoder"]["name"],
            "task": run["task"],
            "seed": run["args"]["seed"],
            "search": recipe_in(run),
            "data": data | {"max_seq_length": run["args"].get("max_seq_length")},
            "epochs": [],
        }
        for line in read_jsonl(folder / "log.jsonl"):
            if dev := line.get("dev"):
                search["epochs"].append(
                    {
                        "epoch": line["finished_epochs"],
                        "open_gates_percent": 100 * dev["penalty_of_all_gates"],
                        "dev_accuracy_ticket_percent": dev["dev_accuracy_ticket_percent"],
                    }
                )
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"run.json or log.jsonl in {folder} lacks {e}") from e
    _check(search, f"the run in {folder}")
    return search


def _check(search: dict, where: str) -> None:
    """UserError where it is not what is kept of a search."""
    kinds = {"encoder": str, "task": str, "seed": int, "search": dict, "data": dict, "epochs": list}
    for name, kind in kinds.items():
        if not isinstance(search.get(name), kind) or not search[name] and kind is list:
            raise UserError(f"{where} is damaged: it lacks {name}")
    for name in ("epochs", "adv_steps"):
        if not isinstance(search["search"].get(name), int):
            raise UserError(f"{where} is damaged: the search's settings lack {name}")
    for epoch in search["epochs"]:
        for name in ("epoch", *QUANTITIES.values()):
            value = epoch.get(name) if isinstance(epoch, dict) else None
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"{where} is damaged: an epoch lacks {name}")


def _identity(search: dict) -> str:
    return json.dumps({k: v for k, v in search.items() if k != "epochs"}, sort_keys=True)


def _by_row(searches: list[dict], task: str) -> tuple[dict[str, list[dict]], list[str]]:
    """The searches of each row of the study's tables, by a short label. All rows have the settings
    in common that are no switches; what was searched with others is left out, with a note."""
    found, notes = {}, []
    rows = {row.model: row.label for table in STUDIES.values() for row in table.rows}
    for kind in GATE_KINDS:
        items = [
            {name: json.dumps(v) for name, v in (s["search"] | s["data"]).items()} | {"of": s}
            for s in searches
            if (kind == "robust") == (s["search"]["adv_steps"] > 0)
            and s["search"].get("lambda_amp", 0.5) == OWN_LAMBDA.get(task, 0.5)
        ]
        settings = {key for item in items for key in item} - {"of"}
        keys = sorted(settings - {"protocol", *SEARCH["paper"]})  # but for the switches
        alike, left_out = largest_group(items, keys, "", "search run")
        notes += left_out
        for model, label in rows.items():
            if model != Model(kind=kind, sparsity=0.3, search=model.search):
                continue  # of a search's tickets one stands for it
            own = [item["of"] for item in alike if _is_of(item["of"]["search"], model)]
            if own and _points(own, "epoch"):
                found[label.partition(" (")[0].removesuffix(" 30 %")] = own
    return found, notes


def _is_of(search: dict, model: Model) -> bool:
    return model.is_searched_as({"search": search, "scores_epoch": search["epochs"]})


def _points(searches: list[dict], quantity: str) -> list[Point]:
    """By epoch, as shares, over the seeds; epochs that all of them have."""
    by_seed = {
        s["seed"]: {e["epoch"]: e[quantity] / 100 for e in s["epochs"]}
        for s in sorted(searches, key=lambda s: s["seed"])
    }
    common = sorted(set.intersection(*map(set, by_seed.values())))
    return [
        Point(epoch, Cell({seed: of[epoch] for seed, of in by_seed.items()})) for epoch in common
    ]


def _table(panels: list[Panel]) -> list[str]:
    epochs = sorted({point.x for panel in panels for c in panel.curves.values() for point in c})
    rows = [
        ["search", "", *(f"epoch {epoch}" for epoch in epochs)],
        ["---", "---", *["---:"] * len(epochs)],
    ]
    for label in panels[0].curves:
        for panel in panels:
            cells = {point.x: _percent(point.cell) for point in panel.curves[label]}
            rows.append([label, f"{panel.quantity} %", *(cells.get(e, "—") for e in epochs)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [f"## {panels[0].task}", "", *lines, ""]


def _percent(cell: Cell) -> str:
    return str(Cell({seed: 100 * value for seed, value in cell.values.items()}))
