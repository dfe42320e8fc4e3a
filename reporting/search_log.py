"""The study's log of its searches: one line per search, kept because the runs are not."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation import schema
from evaluation.records import search_settings
from evaluation.schema import FINITE, MAPPING, OBJECTS, TEXT, WHOLE, Rule, key
from reporting.render import write_text
from reporting.searches import Runs
from training.settings import recipe_in
from utils.cli import UserError
from utils.files import read_jsonl

SETTINGS = Rule(
    "the settings of a search, with epochs and adv_steps",
    lambda v: MAPPING.admits(v) and all(WHOLE.admits(v.get(k)) for k in ("epochs", "adv_steps")),
)


@dataclass(frozen=True)
class SearchEpoch:
    """The ticket that is drawn after an epoch, before any retraining."""

    epoch: int = key(WHOLE)
    open_gates_percent: float = key(FINITE)  # R(m) over all gates
    dev_accuracy_ticket_percent: float = key(FINITE)


@dataclass(frozen=True)
class Search:
    """A finished search: its settings and data, and what it reached after each epoch.

    `data`: fingerprint of each split, and max_seq_length.
    """

    encoder: str = key(TEXT)
    task: str = key(TEXT)
    seed: int = key(WHOLE)
    search: dict = key(SETTINGS, convert=search_settings)  # in today's names
    data: dict = key(MAPPING)
    epochs: list[SearchEpoch] = key(OBJECTS, kind=SearchEpoch)

    @classmethod
    def read(cls, raw: dict) -> "Search":
        """From a line of the log. ValueError names what is missing or wrong."""
        search = schema.read(cls, raw)
        if not search.epochs:
            raise ValueError("epochs is empty")
        return search

    @property
    def identity(self) -> str:
        """Equal for two lines about the same search."""
        facts = {name: value for name, value in asdict(self).items() if name != "epochs"}
        return json.dumps(facts, sort_keys=True)

    @property
    def kind(self) -> str:
        """Kind of its scores."""
        return "robust" if self.search["adv_steps"] > 0 else "no_adversary"


def update(path: Path, runs: Runs, encoder: str, tasks: Iterable[str]) -> list[Search]:
    """Add the runs' searches with this encoder and these tasks to the log; all that it then has.

    The log is not written if the runs hold no such search.
    """
    lines = read_jsonl(path) if path.is_file() else []
    known = [_read(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    added = [_of_run(folder, run) for folder, run in runs if run.get("stage") == "search"]
    added = [s for s in added if s.encoder == encoder and s.task in tasks]
    searches = list({search.identity: search for search in [*known, *added]}.values())
    if added:
        texts = [json.dumps(asdict(s), ensure_ascii=False) + "\n" for s in searches]
        write_text(path, "".join(texts))
    return searches


def _read(raw: dict, where: str) -> Search:
    try:
        return Search.read(raw)
    except ValueError as e:
        raise UserError(f"{where} is damaged: {e}") from e


def _of_run(folder: Path, run: dict) -> Search:
    try:
        splits = run.get("data", {}).get("splits", {})
        data = {name: split.get("fingerprint") for name, split in sorted(splits.items())}
        raw = {
            "encoder": run["encoder"]["name"],
            "task": run["task"],
            "seed": run["args"]["seed"],
            "search": recipe_in(run),
            "data": data | {"max_seq_length": run["args"].get("max_seq_length")},
            "epochs": [
                {
                    "epoch": line["finished_epochs"],
                    "open_gates_percent": 100 * dev["penalty_of_all_gates"],
                    "dev_accuracy_ticket_percent": dev["dev_accuracy_ticket_percent"],
                }
                for line in read_jsonl(folder / "log.jsonl")
                if (dev := line.get("dev"))
            ],
        }
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"run.json or log.jsonl in {folder} lacks {e}") from e
    return _read(raw, f"the run in {folder}")
