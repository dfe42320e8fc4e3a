"""The columns of the table of a page, and what they mean."""

from typing import NamedTuple


class Column(NamedTuple):
    """A column: its heading, its definition, and whether it sorts as numbers."""

    name: str
    heading: str
    definition: str
    is_number: bool = True


COLUMNS = (
    Column(
        "model",
        "Model",
        "Name of the row. Below it: what the model is, its training epochs, and its checkpoint (of "
        "the last epoch, or with the best dev accuracy).",
        False,
    ),
    Column(
        "task",
        "Data, attack",
        "The task. Below it: the attack recipe, the number of seeds, and of attacked rows.",
        False,
    ),
    Column("sparsity", "Sparsity", "Share of the prunable weights that are removed."),
    Column(
        "clean",
        "Clean %",
        "Accuracy before the attack, over all attacked rows. Mean ± standard deviation (n - 1) "
        "over seeds. Brackets and line: 95 % interval; for one seed over rows, for several over "
        "new rows and new seeds.",
    ),
    Column(
        "aua",
        "Aua %",
        "Accuracy under attack: share of all attacked rows that the model still gets right after "
        "the attack. Mean, deviation and interval as for Clean.",
    ),
    Column(
        "classes",
        "Aua by class %",
        "Accuracy under attack on the rows of each class. Sorts by the worst class.",
    ),
    Column(
        "delta",
        "Δ Aua vs. dense",
        "Aua of a ticket minus that of dense models with the same training epochs, the same "
        "training loss, or the same passes over the labels, in points, on the same rows. Filled "
        "mark: beyond noise. Sorts by the first.",
    ),
    Column("suc", "Suc %", "Success of the attack: 100 (1 - Aua / Clean)."),
    Column("queries", "#Query", "Queries of the model per row that was right before the attack."),
    Column(
        "doubts",
        "Doubts",
        "Why to read this row with care: warnings of its records, missing controls, and what is "
        "missing with the command that runs it.",
    ),
)
OF_SUITES = Column(
    "equalized",
    "Aua class-equalized %",
    "Accuracy under the union of a suite's attacks, at the bias at which all classes of the "
    "attacked dev rows survive alike. A default answer cannot raise it.",
)
OF_PAPER = Column("paper", "Paper's Aua %", "The paper's number for this row, and ours minus it.")
