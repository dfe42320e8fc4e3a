"""The scales at which the tables and figures of the paper and of the study are made."""

from dataclasses import dataclass
from typing import Any

from experiments.paper import (
    EPOCHS_FIGURE,
    FIGURE_TASKS,
    PAIR_TASKS,
    PAPER_ATTACKS,
    TABLES,
    Table,
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
    tasks: tuple[str, ...] | None  # None: the table's own
    settings: dict[str, dict[str, Any]]
    num_examples: int | None
    epochs: int
    sparsities: tuple[float, ...]
    attacked_epochs: tuple[int, ...]
    further_flags: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "paper",
            "bert-base-uncased",
            None,
            {},
            None,
            3,
            (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            tuple(range(1, EPOCHS_FIGURE + 1)),
        ),
        # Table 1 takes an hour on two cores. Chosen before any attack.
        Scale(
            "mini",
            "builtin/minilm",
            ("builtin/rotten_tomatoes",),
            {
                "all": {"max_train_rows": 2000, "max_eval_rows": 500},
                "finetune": {"lr": 1e-4},
                "search_ticket": {"epochs": 4, "adv_steps": 2},
                "prune_iteratively": {"epochs": 1, "lr": 1e-4},
                "retrain_ticket": {"lr": 1e-4},
            },
            100,
            3,
            (0.1, 0.3, 0.5, 0.7, 0.9),
            (1, 2, 3, 4, 6, 8, 10),
        ),
        # All rows of Rotten Tomatoes and the 6,920 whole sentences of SST-2. In a trial on the
        # latter a search of this length found a robust ticket. Chosen before any attack.
        Scale(
            "study",
            "builtin/minilm",
            ("builtin/rotten_tomatoes", "sst2"),
            {
                "finetune": {"lr": 5e-5},
                "search_ticket": {"epochs": STUDY_SEARCH_EPOCHS, "adv_steps": 3},
                "prune_iteratively": {"epochs": 1, "lr": 5e-5},
                "retrain_ticket": {"lr": 5e-5},
            },
            200,
            3,
            (0.3, 0.5, 0.8),
            (),
        ),
    )
}


def tables_of(target: str) -> tuple[Table, ...]:
    """The tables of a target: the study has several, a figure has none."""
    if target == STUDY.name:
        return tuple(STUDIES.values())
    table = STUDIES.get(target) or TABLES.get(target)
    return () if table is None else (table,)


def tasks_of(target: str, scale: Scale) -> tuple[str, ...]:
    """The tasks of a table or figure without --tasks."""
    tables = tables_of(target)
    own = tables[0].tasks if tables else FIGURE_TASKS[target]
    return own if scale.tasks is None or own == PAIR_TASKS else scale.tasks


def usual_recipes(target: str, scale_name: str) -> list[str]:
    """The attacks of a target without --recipes: its columns', or their replacements."""
    if target in STUDIES:
        return [STUDY_RECIPE]
    tables = tables_of(target)
    columns = tables[0].attacks if tables else ("TextFooler",)
    if scale_name != "paper":
        return mini_recipes(columns)
    return [recipe for column in columns for recipe in PAPER_ATTACKS[column]]
