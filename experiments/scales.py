"""At what size tables and figures are made, the paper's and the study's."""

from dataclasses import dataclass

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
    """At what size a table is made.

    `settings`: variables that a stage's shell script takes, by stage ("all": every one's).
    `epochs`: the usual number of training epochs at this scale. `num_examples`: attacked rows,
    None for the paper's. `sparsities`: of Figure 2; `attacked_epochs`: of Figure 4's
    EPOCHS_FIGURE, those that are kept and attacked. `further_flags`: with which reproduce.sh was
    called, for the commands that a report prints, and `seeds` that were asked for.
    """

    name: str
    encoder: str
    tasks: tuple[str, ...] | None  # None: the table's own
    settings: dict[str, dict[str, str]]
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
        # Sized for an hour on two cores (Table 1), before any attack was looked at.
        Scale(
            "mini",
            "builtin/minilm",
            ("builtin/rotten_tomatoes",),
            {
                "all": {"MAX_TRAIN_ROWS": "2000", "MAX_EVAL_ROWS": "500"},
                "finetune": {"LR": "1e-4"},
                "search": {"SEARCH_EPOCHS": "4", "ADV_STEPS": "2", "IMP_EPOCHS": "1", "IMP_LR": "1e-4"},
                "retrain": {"LR": "1e-4"},
            },
            100,
            3,
            (0.1, 0.3, 0.5, 0.7, 0.9),
            (1, 2, 3, 4, 6, 8, 10),
        ),
        # All rows of Rotten Tomatoes and the 6,920 whole sentences of SST-2; the searches' length
        # is what a trial on the latter took to a robust ticket. Set before any attack.
        Scale(
            "study",
            "builtin/minilm",
            ("builtin/rotten_tomatoes", "sst2"),
            {
                "finetune": {"LR": "5e-5"},
                "search": {
                    "SEARCH_EPOCHS": str(STUDY_SEARCH_EPOCHS),
                    "ADV_STEPS": "3",
                    "IMP_EPOCHS": "1",
                    "IMP_LR": "5e-5",
                },
                "retrain": {"LR": "5e-5"},
            },
            200,
            3,
            (0.3, 0.5, 0.8),
            (),
        ),
    )
}


def tables_of(target: str) -> tuple[Table, ...]:
    """The tables that a target stands for: the study's is all of its own; none for a figure."""
    if target == STUDY.name:
        return tuple(STUDIES.values())
    table = STUDIES.get(target) or TABLES.get(target)
    return () if table is None else (table,)


def tasks_of(target: str, scale: Scale) -> tuple[str, ...]:
    """The tasks that a table or figure is made for where none are named."""
    tables = tables_of(target)
    own = tables[0].tasks if tables else FIGURE_TASKS[target]
    return own if scale.tasks is None or own == PAIR_TASKS else scale.tasks


def usual_recipes(target: str, scale_name: str) -> list[str]:
    """The attacks that a target runs where none are named: its columns', or their stand-ins."""
    if target in STUDIES:
        return [STUDY_RECIPE]
    tables = tables_of(target)
    columns = tables[0].attacks if tables else ("TextFooler",)
    if scale_name != "paper":
        return mini_recipes(columns)
    return [recipe for column in columns for recipe in PAPER_ATTACKS[column]]
