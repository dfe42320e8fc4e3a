"""The scales at which the tables and figures are made, and their attacks on this machine."""

import os
from dataclasses import dataclass, field
from typing import Any

from evaluation.availability import missing
from experiments.paper import (
    EPOCHS_FIGURE,
    FIGURE_TASKS,
    PAIR_TASKS,
    PAPER_ATTACKS,
    TABLES,
    Table,
    by_name,
    replacing,
)
from experiments.study import STUDIES, STUDY, STUDY_RECIPE, STUDY_SEARCH_EPOCHS
from utils import cli
from utils.settings import Role, setting


@dataclass(frozen=True)
class Scale:
    """The size at which a table is made.

    `settings`: hyper-parameters that replace those of the task, by script ("all": every script).
    `epochs`: the usual number of training epochs at this scale. `num_examples`: attacked rows,
    None for the paper's. `sparsities`: of Figure 2; `attacked_epochs`: those of Figure 4's
    EPOCHS_FIGURE that are kept and attacked. `further_flags` of reproduce.sh, and `seeds`: for the
    commands that a report prints.
    """

    name: str
    encoder: str
    sparsities: tuple[float, ...]
    attacked_epochs: tuple[int, ...] = ()
    num_examples: int | None = None
    tasks: tuple[str, ...] | None = None  # None: the table's own
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    epochs: int = 3
    further_flags: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()

    @property
    def size(self) -> str:
        """Of the encoder, for estimates: mini or paper."""
        return "paper" if self.name == "paper" else "mini"


SCALES = by_name(
    Scale(
        "paper",
        "bert-base-uncased",
        sparsities=tuple(i / 10 for i in range(1, 10)),
        attacked_epochs=tuple(range(1, EPOCHS_FIGURE + 1)),
    ),
    # Chosen before any attack.
    Scale(
        "mini",
        "builtin/minilm",
        sparsities=(0.1, 0.3, 0.5, 0.7, 0.9),
        attacked_epochs=(1, 2, 3, 4, 6, 8, 10),
        num_examples=100,
        tasks=("builtin/rotten_tomatoes",),
        settings={
            "all": {"max_train_rows": 2000, "max_eval_rows": 500},
            "finetune": {"lr": 1e-4},
            "search_ticket": {"epochs": 4, "adv_steps": 2},
            "prune_iteratively": {"epochs": 1, "lr": 1e-4},
            "retrain_ticket": {"lr": 1e-4},
        },
    ),
    # All rows of Rotten Tomatoes and the 6,920 whole sentences of SST-2. In a trial on the latter
    # a search of this length found a robust ticket. Chosen before any attack.
    Scale(
        "study",
        "builtin/minilm",
        sparsities=(0.3, 0.5, 0.8),
        num_examples=200,
        tasks=STUDY.tasks,
        settings={
            "finetune": {"lr": 5e-5},
            "search_ticket": {"epochs": STUDY_SEARCH_EPOCHS, "adv_steps": 3},
            "prune_iteratively": {"epochs": 1, "lr": 5e-5},
            "retrain_ticket": {"lr": 5e-5},
        },
    ),
)


@dataclass(kw_only=True)
class ChoiceOfRuns:
    """Choice of runs."""

    scale: str | None = setting(
        None,
        "paper: BERT-base and hub data; mini: MiniLM and built-in or local data; study: the "
        "study's own",
        choices=tuple(SCALES),
        role=Role.MEASURE,
        unset="study for the study, which has no other",
    )
    tasks: list | None = setting(
        None,
        "names of tasks, such as sst2, data sets OWNER/NAME[:CONFIG] of the hub, or local folders",
        role=Role.DATA,
        nargs="+",
        unset="those of the table or of the scale",
    )
    seeds: list | None = setting(
        None,
        "seeds of the runs",
        cli.non_negative_int,
        role=Role.SEED,
        nargs="+",
        unset="42; 1 2 3 for the study",
    )
    encoder: str | None = setting(
        None,
        "encoder of the runs: hub name or local folder",
        role=Role.PLACE,
        unset="that of the scale",
    )
    data: str | None = setting(
        None, "folder with a folder per task, such as DATA/sst2/train.tsv", role=Role.DATA_PLACE
    )


def tables_of(target: str) -> tuple[Table, ...]:
    """The tables of a target: the study has several, a figure has none."""
    if target == STUDY.name:
        return tuple(STUDIES.values())
    table = STUDIES.get(target) or TABLES.get(target)
    return () if table is None else (table,)


def tasks_of(target: str, scale: Scale) -> tuple[str, ...]:
    """The tasks of a table or figure without --tasks."""
    tables = tables_of(target)
    usual = tables[0].tasks if tables else FIGURE_TASKS[target]
    return usual if scale.tasks is None or usual == PAIR_TASKS else scale.tasks


def usual_recipes(target: str, scale_name: str) -> list[str]:
    """The attacks of a target without --recipes: its columns', or their replacements."""
    if target in STUDIES:
        return [STUDY_RECIPE]
    tables = tables_of(target)
    columns = tables[0].attacks if tables else ("TextFooler",)
    if scale_name != "paper":
        return replacing(columns)
    return [recipe for column in columns for recipe in PAPER_ATTACKS[column]]


def can_run(recipe: str) -> bool:
    """Whether the files that one of the mini scale's recipes needs are here."""
    given = {"neighbours": os.environ.get("NEIGHBOURS")}
    if recipe == "textfooler-neighbours" and not given["neighbours"]:
        return False
    return not missing(recipe, given).keys() & {"tagger", "wordnet"}
