"""What each table and figure of the paper is made of.

The one definition for reproduce.py, which runs it, and report.py, which fills it from records: a
row of a table is a Model, told from its records by their facts alone, never by where they lie.
"""

from dataclasses import dataclass, replace

from masking.tickets import GATE_KINDS
from training import deviations

# Sparsity of the paper's tickets (Tables 1 to 4); the built-in data take their kin's.
SPARSITY = {
    "imdb": 0.2,
    "ag_news": 0.4,
    "sst2": 0.3,
    "qnli": 0.3,
    "mnli": 0.3,
    "qqp": 0.3,
    "builtin/rotten_tomatoes": 0.3,
    "builtin/imdb": 0.2,
}

# The paper's name of a data set. Rotten Tomatoes is none of the paper's: the nearest is SST-2,
# whose sentences are a part of it, and whose values stand beside ours for orientation only.
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

# Of stage 2's blocks, for the controls with as many passes over the labels.
SEARCH_EPOCHS = {"builtin/rotten_tomatoes": 6}  # 20 elsewhere
IMP_EPOCHS = 3  # a round

SINGLE_TASKS = ("imdb", "ag_news", "sst2")
PAIR_TASKS = ("qnli", "mnli", "qqp")
LAMBDAS = (0.1, 0.5, 1.0)  # of Figure 5; ours: the paper's settings are 0.1 and 0.5
OWN_LAMBDA = {"qnli": 0.1, "mnli": 0.1, "qqp": 0.1}  # of stage 2's blocks; 0.5 elsewhere

# Which of our recipes fill a column of the paper. Its "BERT-Attack" is most likely the altered one
# of its code (D5), so both are run and told apart by name.
PAPER_ATTACKS = {
    "BERT-Attack": ("bertattack", "bertattack-released"),
    "TextFooler": ("textfooler",),
    "TextBugger": ("textbugger",),
}

# Recipes that need no hub; other attacks than the paper's, so they stand in columns of their own.
MINI_RECIPES = (
    "textfooler-neighbours",
    "textfooler-minilm",
    "textbugger-minilm",
    "pwws",
    "deepwordbug",
)


# What the re-initialised weights of Table 4 are drawn from, as far as the paper's text tells.
TABLE_4_NOISE = {"reinit_law": "normal", "reinit_std": 0.02, "reinit_scope": "matrices"}


@dataclass(frozen=True)
class Model:
    """One trained model: how it is made, and which records are its own.

    `method`: of training (plain, freelb, pgd, infobert). `kind`: of the score file that its ticket
    is drawn from; None for a dense model. `reinitialise`: nothing; ticket: the weights that the
    ticket keeps start from noise; rest: dense, the weights that the ticket removes start from
    noise. `epochs`: None for the usual number. `stop_at`: a ticket; this model, a dense one, is
    trained until its training loss is that ticket's, or for `epochs`. `search`: of a searched
    ticket the switches that were set (a flag and its value each; () is the default search); None
    where any search will do. `search_epoch`: whose scores it is drawn from; None: the last one's.
    """

    method: str = "plain"
    kind: str | None = None
    sparsity: float | None = None
    reinitialise: str = "nothing"
    epochs: int | None = None
    stop_at: "Model | None" = None
    search: tuple[tuple[str, str], ...] | None = None
    search_epoch: int | None = None

    @property
    def search_tag(self) -> str:
        """What its search folder's name ends with."""
        return "".join(f"-{name}_{value}" for name, value in self.search or ())

    @property
    def scores_tag(self) -> str:
        """What the place of its scores ends with, behind the name of their kind's folder."""
        epoch = f"/scores_epoch{self.search_epoch}.safetensors" if self.search_epoch else ""
        return self.search_tag + epoch

    @property
    def tag(self) -> str:
        """What its run folder's name ends with, behind kind and sparsity."""
        epoch = f"-search_epoch{self.search_epoch}" if self.search_epoch else ""
        return self.search_tag + epoch + (f"-epochs{self.epochs}" if self.epochs else "")

    @property
    def folder(self) -> str:
        """Name of its run folder below runs/ENCODER/TASK/seedN; the shell stages use the same."""
        name = "dense" if self.method == "plain" else f"dense-{self.method}"
        if self.kind is not None:
            name = f"ticket-{self.kind}-{self.sparsity:g}"
            name += "" if self.reinitialise == "nothing" else f"-reinit_{self.reinitialise}"
        if self.stop_at is not None:
            return f"{name}-loss_of-{self.stop_at.folder}"
        return name + self.tag

    def owns(self, record: dict, usual_epochs: int) -> bool:
        """Whether an attack or evaluation record is of this model."""
        ticket = record.get("ticket")
        if record.get("stop_at_loss") is not None:  # a control stands beside rows, it is none
            return False
        if (ticket is None) != (self.kind is None):
            return False
        if record.get("method", "plain") != self.method:
            return False
        if record.get("epochs") != (self.epochs or usual_epochs):
            return False
        return ticket is None or (
            ticket["kind"] == self.kind
            and abs(ticket["sparsity_asked"] - self.sparsity) < 1e-9
            and ticket.get("reinitialised", "nothing") == self.reinitialise
            and all(ticket.get(key, value) == value for key, value in TABLE_4_NOISE.items())
            and self.is_searched_as(ticket)
        )

    def is_searched_as(self, ticket: dict) -> bool:
        """Whether a ticket's scores are of this model's search and epoch."""
        if self.search is None or self.kind not in GATE_KINDS:
            return True
        found, switches = ticket.get("search") or {}, dict(self.search)
        wanted = deviations.SEARCH[switches.pop("protocol", "paper")] | switches
        epoch = self.search_epoch or found.get("epochs")
        return ticket.get("scores_epoch") == epoch and all(
            found.get(name) == value for name, value in wanted.items()
        )

    def at(self, task: str) -> "Model":
        """The same with the task's sparsity, where it is a ticket's and none is set."""
        if self.kind is None or self.sparsity is not None:
            return self
        return replace(self, sparsity=SPARSITY.get(task, 0.3))


DENSE = Model()
ROBUST = Model(kind="robust")


def controls_of(ticket: Model, usual_epochs: int, label_passes: int) -> tuple[Model, ...]:
    """The dense models that a ticket is compared with, trained with the same settings.

    For as many epochs as it was retrained; until the training loss at which it ended; for as many
    passes over the labels as it and its mask have seen.
    """
    own = ticket.epochs or usual_epochs
    longer = () if label_passes == own else (replace(DENSE, epochs=label_passes),)
    return (
        replace(DENSE, epochs=ticket.epochs),
        *longer,
        Model(epochs=label_passes, stop_at=ticket),
    )


def mini_recipes(attacks: tuple[str, ...]) -> list[str]:
    """Of MINI_RECIPES those that stand for a table's columns: all where it has all three."""
    if len(attacks) == len(PAPER_ATTACKS):
        return list(MINI_RECIPES)
    kin = tuple(attack.lower() for attack in attacks)
    return [recipe for recipe in MINI_RECIPES if recipe.startswith(kin)]


@dataclass(frozen=True)
class Row:
    """A line of a table: our label, the paper's name of it (None: it has none), the model."""

    label: str
    paper_method: str | None
    model: Model


@dataclass(frozen=True)
class Table:
    """`metrics` besides Clean; `attacks`: names of the paper's columns; `controls`: whether its
    tickets stand beside matched dense models (else beside its first row)."""

    name: str
    title: str
    tasks: tuple[str, ...]
    attacks: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    controls: bool = True


DENSE_ROW = Row("Fine-tune", "Fine-tune", DENSE)
FREELB = Row("FreeLB", "FreeLB", Model(method="freelb"))
INFOBERT = Row("InfoBERT", "InfoBERT", Model(method="infobert"))
ROBUST_ROW = Row("RobustT", "RobustT", ROBUST)

TABLES = {
    table.name: table
    for table in (
        Table(
            "table1",
            "Table 1: tickets and baselines under three attacks",
            SINGLE_TASKS,
            ("BERT-Attack", "TextFooler", "TextBugger"),
            ("aua", "suc", "queries"),
            (
                DENSE_ROW,
                Row("LTH", "LTH", Model(kind="imp")),
                FREELB,
                INFOBERT,
                # Which of the two the paper's Rand is, its text does not say.
                Row("Rand (matched)", "Rand", Model(kind="random_matched")),
                Row("Rand (global)", "Rand", Model(kind="random")),
                ROBUST_ROW,
            ),
        ),
        Table(
            "table2",
            "Table 2: pair tasks",
            PAIR_TASKS,
            ("TextFooler", "TextBugger"),
            ("aua",),
            (DENSE_ROW, FREELB, INFOBERT, ROBUST_ROW),
        ),
        Table(
            "table3",
            "Table 3: without mask learning, without the adversary",
            SINGLE_TASKS,
            ("TextFooler",),
            ("aua",),
            (
                ROBUST_ROW,
                Row("w/o Mask Learning", "w/o Mask Learning", Model(kind="imp_freelb")),
                Row("w/o Adv", "w/o Adv", Model(kind="no_adversary")),
                Row("Fine-tune", None, DENSE),  # ours: the paper has it in Table 1 alone
            ),
        ),
        Table(
            "table4",
            "Table 4: initialisation or structure",
            SINGLE_TASKS,
            ("TextFooler",),
            ("aua",),
            (
                ROBUST_ROW,
                Row(
                    "w/o Initialization",
                    "w/o Initialization",
                    replace(ROBUST, reinitialise="ticket"),
                ),
                Row("w/o Structure", "w/o Structure", replace(ROBUST, reinitialise="rest")),
                Row(
                    "w/o Structure + Longer",
                    "w/o Structure + Longer",
                    replace(ROBUST, reinitialise="rest", epochs=10),
                ),
            ),
        ),
    )
}


FIGURES = {
    "figure1": "Figure 1: R(m) and the share of gates at 0 or 1 over the search",
    "figure2": "Figure 2: Clean and Aua against sparsity",
    "figure3": "Figure 3: surviving weights per head and MLP, by layer",
    "figure4": "Figure 4: Clean and Aua over retraining epochs",
    "figure5": "Figure 5: R(m) and the share of gates at 0 or 1 for several lambda",
}
FIGURE_TASKS = {
    "figure1": SINGLE_TASKS,
    "figure2": SINGLE_TASKS,
    "figure3": SINGLE_TASKS + PAIR_TASKS,
    "figure4": SINGLE_TASKS,
    "figure5": SINGLE_TASKS,
}

# The curves of Figures 2 and 4; in Figure 2 the dense ones are drawn at every sparsity.
CURVES = {
    "RobustT": ROBUST,
    "LTH": Model(kind="imp"),
    "FreeLB": Model(method="freelb"),
    "Fine-tune": DENSE,
}
EPOCHS_FIGURE = 10  # retraining epochs in Figure 4


def scores_folder(kind: str) -> str:
    """Run folder of a kind of scores; the shell stages use the same."""
    return ("search-" if kind in GATE_KINDS else "scores-") + kind
