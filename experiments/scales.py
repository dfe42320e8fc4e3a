"""The scales at which the tables and figures of the paper and of the study are made."""

from dataclasses import dataclass, field
from typing import Any

from experiments.paper import (
    EPOCHS_FIGURE,
    FIGURE_TASKS,
    PAIR_TASKS,
    PAPER_ATTACKS,
    TABLES,
    Table,
    by_name,
    mini_recipes,
)
from experiments.study import STUDIES, STUDY, STUDY_RECIPE, STUDY_SEARCH_EPOCHS


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


SCALES = by_name(
    Scale(
        "paper",
        "bert-base-uncased",
        sparsities=tuple(i / 10 for i in range(1, 10)),
        attacked_epochs=tuple(range(1, EPOCHS_FIGURE + 1)),
    ),
    # Table 1 takes an hour on two cores. Chosen before any attack.
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
        return mini_recipes(columns)
    return [recipe for column in columns for recipe in PAPER_ATTACKS[column]]
