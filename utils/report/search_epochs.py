"""The study's searches by epoch: kept beside its records, and as a table, a figure and numbers.

What a search's log tells before any ticket is retrained: R(m), and the accuracy on dev of the
ticket that is drawn there (not retrained). Kept because the runs are not.
"""

import json
from pathlib import Path

from utils.cli import UserError, settings_of_search
from utils.experiments import Model
from utils.files import read_jsonl, write_atomically
from utils.report import figures
from utils.report.records import Cell, largest_group, write_text
from utils.report.searches import PENALTY, Runs
from utils.report.shown import Panel, Point, Shown, csv_text
from utils.scales import Scale
from utils.studies import STUDIES, STUDY

NAME = f"{STUDY.name}-searches"
DEV = "dev accuracy"
QUANTITIES = {PENALTY: lambda dev: dev["penalty_of_all_gates"],
              DEV: lambda dev: dev["dev_accuracy_ticket_percent"] / 100}  # fmt: skip


def write(runs: Runs, scale: Scale, folder: Path) -> list[Path]:
    """Add the runs' searches to those that are kept in the folder; then all of them as a figure
    (mean and single seeds), CSV and Markdown. The paths written; none where there is no search."""
    lines = _keep(runs, folder / f"{NAME}.jsonl")
    shown, tables = Shown(), []
    for task in dict.fromkeys(line["task"] for line in lines):
        variants, notes = _by_variant([x for x in lines if x["task"] == task], scale)
        panels = [Panel(task, None, quantity, {
            label: _points(of_variant, read) for label, of_variant in variants.items()
        }) for quantity, read in QUANTITIES.items()]  # fmt: skip
        shown.panels += panels if variants else []
        shown.remarks += [f"{task}: {note}" for note in notes]
        tables += _table(panels) if variants else []
    if shown.empty:
        return []
    remarks = [f"- {remark}" for remark in shown.remarks]
    text = ["# The study: its searches by epoch", "", f"![R(m) and dev accuracy]({NAME}.png)", "",
            *tables, *remarks, *[""] * bool(remarks),
            "R(m): expected share of open gates. Dev accuracy: of the ticket that is drawn there, "
            "not retrained. Both in percent, mean ± standard deviation (n - 1) over seeds; thin "
            "lines: single seeds.", ""]  # fmt: skip
    return [*figures.draw(NAME, shown, folder),
            write_text(folder / f"{NAME}.csv", csv_text(NAME, "search_epoch", shown)),
            write_text(folder / f"{NAME}.md", "\n".join(text))]  # fmt: skip


def _keep(runs: Runs, path: Path) -> list[dict]:
    """A line for each epoch of each search: those of the file, and of the finished runs."""
    lines = read_jsonl(path) if path.is_file() else []
    found = [line for folder, run in runs if run.get("stage") == "search"
             for line in _epochs(folder, run)]  # fmt: skip
    try:
        kept = {(x["encoder"], x["task"], x["seed"], json.dumps(x["search"], sort_keys=True),
                 x["epoch"]): x for x in [*lines, *found]}  # fmt: skip
        lines = [kept[key] for key in sorted(kept)]
        for line in lines:
            [read(line["dev"]) for read in QUANTITIES.values()]
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} or a search's log.jsonl is damaged: it lacks {e}") from e
    if found:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
    return lines


def _epochs(folder: Path, run: dict) -> list[dict]:
    try:
        search = settings_of_search(run["args"])
        own = {"encoder": run["encoder"]["name"], "task": run["task"],
               "seed": run["args"]["seed"], "search": search}  # fmt: skip
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{folder}/run.json lacks {e}") from e
    return [own | {"epoch": line["finished_epochs"], "dev": line["dev"]}
            for line in read_jsonl(folder / "log.jsonl") if line.get("dev")]  # fmt: skip


def _by_variant(lines: list[dict], scale: Scale) -> tuple[dict[str, list[dict]], list[str]]:
    """Of one task the lines of each row that the study's tables have, by its label; what was
    searched with other settings than the rest of its row is left out, with a note."""
    rows = {row.model: row.label for table in STUDIES.values() for row in table.rows}
    found, notes = {}, []
    for model, label in rows.items():
        if model != Model(kind=model.kind, sparsity=0.3, search=model.search):
            continue  # of a search's tickets one stands for it
        own = [x | x["search"] for x in lines if _is_of(x["search"], model)]
        keys = sorted({key for line in own for key in line["search"]} | {"encoder"})
        alike, left_out = largest_group(own, keys, scale.encoder, "epoch")
        found |= {label.removesuffix(" 30 %"): alike} if alike else {}
        notes += left_out
    return found, notes


def _is_of(search: dict, model: Model) -> bool:
    kind = "robust" if search.get("adv_steps") else "no_adversary"
    last = {"search": search, "scores_epoch": search.get("epochs")}
    return kind == model.kind and model.is_searched_as(last)


def _points(lines: list[dict], read) -> list[Point]:
    """By epoch a value for every seed that all epochs have."""
    epochs = {}
    for line in lines:
        epochs.setdefault(line["epoch"], {})[line["seed"]] = read(line["dev"])
    seeds = set.intersection(*map(set, epochs.values()))
    return [Point(epoch, Cell({seed: values[seed] for seed in sorted(seeds)}))
            for epoch, values in sorted(epochs.items())]  # fmt: skip


def _table(panels: list[Panel]) -> list[str]:
    lines = [f"## {panels[0].task}", ""]
    epochs = sorted({point.x for panel in panels for c in panel.curves.values() for point in c})
    lines += ["| " + " | ".join(["search", "", *(f"epoch {epoch}" for epoch in epochs)]) + " |",
              "| --- | --- |" + " ---: |" * len(epochs)]  # fmt: skip
    for label in panels[0].curves:
        for panel in panels:
            cells = {point.x: _percent(point.cell) for point in panel.curves[label]}
            lines.append("| " + " | ".join(
                [label, f"{panel.quantity} %", *(cells.get(epoch, "—") for epoch in epochs)]
            ) + " |")  # fmt: skip
    return [*lines, ""]


def _percent(cell: Cell) -> str:
    return str(Cell({seed: 100 * value for seed, value in cell.values.items()}))
