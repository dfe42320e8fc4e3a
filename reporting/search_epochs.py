"""The study's searches by epoch: their log, and a figure, a table and numbers of it.

The log has one line per search, because the runs are not kept. It shows what a search reaches
before any ticket is retrained: R(m), and the accuracy on dev of the ticket drawn after the epoch.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation import schema
from evaluation.records import search_settings
from evaluation.schema import MAPPING, WHOLE, Rule, key
from experiments.models import Model
from experiments.paper import OWN_LAMBDA
from experiments.scales import Scale
from experiments.study import STUDIES, STUDY
from masking.kinds import GATE_KINDS
from reporting import figures, render
from reporting.cells import Cell, grouped, largest_group, one_per_seed
from reporting.figure_data import Shown, csv_text
from reporting.render import write_text
from reporting.searches import PENALTY, Runs, reading
from training.deviations import SEARCH
from training.settings import recipe_in
from utils.cli import explain
from utils.files import read_jsonl

NAME = f"{STUDY.name}-searches"
QUANTITIES = {PENALTY: "open_gates_percent", "dev accuracy": "dev_accuracy_ticket_percent"}
# The settings in which the rows of the study's tables may differ.
SWITCHES = {"deviations", *SEARCH["paper"]}
SETTINGS = Rule(
    "the settings of a search, with epochs and adv_steps",
    lambda v: MAPPING.admits(v) and all(WHOLE.admits(v.get(k)) for k in ("epochs", "adv_steps")),
)


@dataclass(frozen=True)
class SearchEpoch:
    """The ticket that is drawn after an epoch, before any retraining."""

    epoch: int
    open_gates_percent: float  # R(m) over all gates
    dev_accuracy_ticket_percent: float


@dataclass(frozen=True)
class Search:
    """A finished search: its settings and data, and what it reached after each epoch.

    `data`: fingerprint of each split, and max_seq_length.
    """

    encoder: str
    task: str
    seed: int
    search: dict = key(SETTINGS, convert=search_settings)  # in today's names
    data: dict
    epochs: list[SearchEpoch]

    @classmethod
    def read(cls, raw: dict, where: str) -> "Search":
        """From a line of the log. UserError names what is missing or wrong."""
        with explain(f"{where} is damaged: "):
            search = schema.read(cls, raw)
            if not search.epochs:
                raise ValueError("epochs is empty")
            return search

    @property
    def identity(self) -> str:
        """Equal for two lines about the same search."""
        return json.dumps(asdict(self) | {"epochs": None}, sort_keys=True)

    @property
    def kind(self) -> str:
        """Kind of its scores."""
        return "robust" if self.search["adv_steps"] > 0 else "no_adversary"


def update(path: Path, runs: Runs, encoder: str, tasks: Iterable[str]) -> list[Search]:
    """Add the runs' searches with this encoder and these tasks to the log; all that it then has.

    The log is not written if the runs hold no such search.
    """
    searches, added = read(path, runs, encoder, tasks)
    if added:
        texts = [json.dumps(asdict(s), ensure_ascii=False) + "\n" for s in searches]
        write_text(path, "".join(texts))
    return searches


def read(
    path: Path, runs: Runs, encoder: str, tasks: Iterable[str]
) -> tuple[list[Search], list[Search]]:
    """(searches of the log and of the runs, those of the runs)."""
    lines = read_jsonl(path) if path.is_file() else []
    known = [Search.read(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    added = [_of_run(folder, run) for folder, run in runs if run.get("stage") == "search"]
    added = [s for s in added if s.encoder == encoder and s.task in tasks]
    return list({search.identity: search for search in [*known, *added]}.values()), added


def _of_run(folder: Path, run: dict) -> Search:
    with reading(f"run.json or log.jsonl in {folder}"):
        splits = run.get("data", {}).get("splits", {})
        data = {name: split.get("fingerprint") for name, split in sorted(splits.items())}
        finished = [line for line in read_jsonl(folder / "log.jsonl") if line.get("dev")]
        raw = {
            "encoder": run["encoder"]["name"],
            "task": run["task"],
            "seed": run["args"]["seed"],
            "search": recipe_in(run),
            "data": data | {"max_seq_length": run["args"].get("max_seq_length")},
            "epochs": [
                {
                    "epoch": line["finished_epochs"],
                    "open_gates_percent": 100 * line["dev"]["penalty_of_all_gates"],
                    "dev_accuracy_ticket_percent": line["dev"]["dev_accuracy_ticket_percent"],
                }
                for line in finished
            ],
        }
    return Search.read(raw, f"the run in {folder}")


def shown_epochs(searches: Iterable[Search], encoder: str, tasks: Iterable[str]) -> Shown:
    """R(m) and dev accuracy of the searches with this encoder, by epoch."""
    searches, shown = list(searches), Shown()
    for task in tasks:
        of_task = [s for s in searches if s.encoder == encoder and s.task == task]
        by_row, notes = _by_row(of_task, task)
        rows = [
            {"task": task, "recipe": None, "quantity": quantity, "curve": name}
            | {"x_name": "search_epoch", "x": epoch.epoch, "seed": search.seed}
            | {"value": getattr(epoch, measure) / 100}
            for quantity, measure in QUANTITIES.items()
            for name, of_row in by_row.items()
            for number in _common_epochs(of_row)
            for search in of_row
            for epoch in search.epochs
            if epoch.epoch == number
        ]
        shown += Shown(rows, remarks=[f"{task}: {note}" for note in notes])
    return shown


def write(runs: Runs, scale: Scale, tasks: Iterable[str], folder: Path) -> list[Path]:
    """Add the runs' searches to the folder's log, and show all of these tasks; the paths written.

    The log is NAME.jsonl; NAME.png, .pdf, .csv and .md show its searches with the scale's encoder.
    """
    tasks = list(tasks)
    searches = update(folder / f"{NAME}.jsonl", runs, scale.encoder, tasks)
    shown, tables = shown_epochs(searches, scale.encoder, tasks), []
    for task, rows in grouped(shown.rows, lambda row: row["task"]).items():
        tables += [f"## {task}", _table(rows)]
    if not shown.rows:
        return []
    text = [
        "# The study: its searches by epoch",
        f"![R(m) and dev accuracy]({NAME}.png)",
        *tables,
        "\n".join(f"- {remark}" for remark in shown.remarks),
        f"Encoder: {scale.encoder}. R(m): expected share of open gates. Dev accuracy: accuracy on "
        "the dev rows of the ticket that is drawn after the epoch, before retraining. Both in "
        "percent, mean ± standard deviation (n - 1) over seeds. Thin lines: single seeds.",
    ]
    return [
        *figures.draw(NAME, shown, folder),
        write_text(folder / f"{NAME}.csv", csv_text(NAME, shown)),
        write_text(folder / f"{NAME}.md", render.paragraphs(text)),
    ]


def _by_row(searches: list[Search], task: str) -> tuple[dict[str, list[Search]], list[str]]:
    """The searches of each row of the study's tables, by the row's short name, and notes.

    All rows agree in the settings that are not switches. A note reports each search that does not.
    """
    by_row, notes = {}, []
    rows = {row.model: row.label for table in STUDIES.values() for row in table.rows}
    for kind in GATE_KINDS:
        items = [
            {name: json.dumps(v) for name, v in (s.search | s.data).items()} | {"of": s}
            for s in searches
            if s.kind == kind and s.search.get("lambda_amp", 0.5) == OWN_LAMBDA.get(task, 0.5)
        ]
        keys = sorted({key for item in items for key in item} - {"of"} - SWITCHES)
        alike, skipped = largest_group(items, keys, "", "search run")
        notes += skipped
        for model, name in rows.items():
            if model != Model(kind=kind, sparsity=0.3, search=model.search):
                continue  # one of a search's tickets represents it
            of_kind = sorted((item["of"] for item in alike), key=lambda s: s.seed)
            of_row = [s for s in of_kind if model.is_searched_as(s.search, s.search["epochs"])]
            if _common_epochs(of_row):
                by_row[name.partition(" (")[0].removesuffix(" 30 %")] = one_per_seed(of_row)
    return by_row, notes


def _common_epochs(searches: list[Search]) -> list[int]:
    """The epochs that all of them have."""
    epochs = [{epoch.epoch for epoch in search.epochs} for search in searches]
    return sorted(set.intersection(*epochs)) if epochs else []


def _table(rows: list[dict]) -> str:
    epochs = sorted({row["x"] for row in rows})
    body = []
    for curve in dict.fromkeys(row["curve"] for row in rows):
        for quantity in QUANTITIES:
            own = [r for r in rows if (r["curve"], r["quantity"]) == (curve, quantity)]
            at = {e: {r["seed"]: 100 * r["value"] for r in own if r["x"] == e} for e in epochs}
            body.append([curve, f"{quantity} %", *(render.cell(Cell(at[e])) for e in epochs)])
    header = ["search", "", *(f"epoch {epoch}" for epoch in epochs)]
    return render.markdown_table(header, body, left=2)
