"""What each table and figure of the paper consists of.

The one definition for reproduce.py, which runs it, and report.py, which fills it from records. A
row of a table is a Model. Its records are found by their facts, never by their paths.
"""

from dataclasses import dataclass, replace
from typing import Any

from experiments.hyperparameters import HYPERPARAMETERS
from experiments.models import DENSE, ROBUST, Model

# The paper's name of a data set. The paper does not have Rotten Tomatoes. The nearest data set is
# SST-2, whose sentences come from it; its values are shown for orientation only.
PAPER_DATASET = {
    "imdb": "IMDB",
    "ag_news": "AGNEWS",
    "sst2": "SST-2",
    "qnli": "QNLI",
    "mnli": "MNLI",
    "qqp": "QQP",
    "builtin/rotten_tomatoes": "SST-2",
    "builtin/imdb": "IMDB",
}

SINGLE_TASKS = ("imdb", "ag_news", "sst2")
PAIR_TASKS = ("qnli", "mnli", "qqp")
LAMBDAS = (0.1, 0.5, 1.0)  # of Figure 5; ours: the paper's settings are 0.1 and 0.5
OWN_LAMBDA = {task: tuned.search.lambda_amp for task, tuned in HYPERPARAMETERS.items()}

# Our recipes for a column of the paper. Its "BERT-Attack" is most likely the altered one of its
# code (D5), so both are run, each under its name.
PAPER_ATTACKS = {
    "BERT-Attack": ("bertattack", "bertattack-released"),
    "TextFooler": ("textfooler",),
    "TextBugger": ("textbugger",),
}

# Recipes that need no hub. They are not the paper's attacks, so they have columns of their own.
MINI_RECIPES = (
    "textfooler-neighbours",
    "textfooler-minilm",
    "textbugger-minilm",
    "pwws",
    "deepwordbug",
)
# Those that a table shows if they were run: one of them only runs if you ask for it.
OWN_RECIPES = (*MINI_RECIPES, "textfooler-use3")


def replacing(attacks: tuple[str, ...], recipes: tuple[str, ...] = MINI_RECIPES) -> list[str]:
    """The recipes that replace a table's columns: all for a table with all three."""
    if len(attacks) == len(PAPER_ATTACKS):
        return list(recipes)
    names = tuple(attack.lower() for attack in attacks)
    return [recipe for recipe in recipes if recipe.startswith(names)]


@dataclass(frozen=True)
class Row:
    """A row of a table: our name, the model, the paper's name (None: the paper lacks it)."""

    label: str
    model: Model
    paper_method: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of the paper or of the study.

    `metrics`: next to Clean. `attacks`: names of the paper's columns. `controls`: whether its
    tickets are compared with matched dense models (else with its first row).
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    attacks: tuple[str, ...]
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = ("aua",)
    controls: bool = True


def by_name(*items: Any) -> dict[str, Any]:
    return {item.name: item for item in items}


def _of_paper(label: str, model: Model) -> Row:
    return Row(label, model, label)


DENSE_ROW = _of_paper("Fine-tune", DENSE)
FREELB = _of_paper("FreeLB", Model(method="freelb"))
INFOBERT = _of_paper("InfoBERT", Model(method="infobert"))
ROBUST_ROW = _of_paper("RobustT", ROBUST)

TABLES = by_name(
    Table(
        "table1",
        "Table 1: tickets and baselines under three attacks",
        SINGLE_TASKS,
        tuple(PAPER_ATTACKS),
        (
            DENSE_ROW,
            _of_paper("LTH", Model(kind="imp")),
            FREELB,
            INFOBERT,
            # The paper does not say which of the two its Rand is.
            Row("Rand (matched)", Model(kind="random_matched"), "Rand"),
            Row("Rand (global)", Model(kind="random"), "Rand"),
            ROBUST_ROW,
        ),
        metrics=("aua", "suc", "queries"),
    ),
    Table(
        "table2",
        "Table 2: pair tasks",
        PAIR_TASKS,
        ("TextFooler", "TextBugger"),
        (DENSE_ROW, FREELB, INFOBERT, ROBUST_ROW),
    ),
    Table(
        "table3",
        "Table 3: without mask learning, without the adversary",
        SINGLE_TASKS,
        ("TextFooler",),
        (
            ROBUST_ROW,
            _of_paper("w/o Mask Learning", Model(kind="imp_freelb")),
            _of_paper("w/o Adv", Model(kind="no_adversary")),
            Row("Fine-tune", DENSE),  # ours: the paper has it in Table 1 only
        ),
    ),
    Table(
        "table4",
        "Table 4: initialization or structure",
        SINGLE_TASKS,
        ("TextFooler",),
        (
            ROBUST_ROW,
            _of_paper("w/o Initialization", replace(ROBUST, reinitialise="ticket")),
            _of_paper("w/o Structure", replace(ROBUST, reinitialise="rest")),
            _of_paper("w/o Structure + Longer", replace(ROBUST, reinitialise="rest", epochs=10)),
        ),
    ),
)


FIGURES = {
    "figure1": "Figure 1: R(m) and the share of gates at 0 or 1 over the search",
    "figure2": "Figure 2: Clean and Aua against sparsity",
    "figure3": "Figure 3: surviving weights per head and MLP, by layer",
    "figure4": "Figure 4: Clean and Aua over retraining epochs",
    "figure5": "Figure 5: R(m) and the share of gates at 0 or 1 for several lambda",
}
FIGURE_TASKS = dict.fromkeys(FIGURES, SINGLE_TASKS) | {"figure3": SINGLE_TASKS + PAIR_TASKS}

# The curves of Figures 2 and 4; in Figure 2 the dense ones are drawn at every sparsity.
CURVES = {
    "RobustT": ROBUST,
    "LTH": Model(kind="imp"),
    "FreeLB": Model(method="freelb"),
    "Fine-tune": DENSE,
}
EPOCHS_FIGURE = 10  # retraining epochs in Figure 4
