"""The tables of the study (docs/study.md); the paper has none of them.

They show what robust tickets gain over their controls, and how the settings of the search change
this gain.
"""

from dataclasses import replace

from experiments.models import Model
from experiments.paper import DENSE_ROW, FREELB, INFOBERT, Row, Table, by_name

STUDY_SEARCH_EPOCHS = 6
STUDY_RECIPE = "textfooler-neighbours"
STUDY_ROBUST = Row("RobustT 30 %", Model(kind="robust", sparsity=0.3, search=()))


def _ticket(label: str, kind: str, percent: int, epochs: int | None) -> Row:
    model = Model(kind=kind, sparsity=percent / 100, epochs=epochs, search=())
    return Row(_with_length(f"{label} {percent} %", epochs), model)


def _with_length(name: str, epochs: int | None) -> str:
    return name + (f", {epochs} epochs" if epochs else "")


def _study_rows() -> tuple[Row, ...]:
    """Dense models, then each kind of ticket at three sparsities; 3 retraining epochs, and 10."""
    dense = [DENSE_ROW, Row("Fine-tune, 10 epochs", Model(epochs=10)), FREELB, INFOBERT]
    tickets = [
        _ticket(label, kind, percent, epochs)
        for label, kind in (
            ("RobustT", "robust"),
            ("Rand (matched)", "random_matched"),
            ("LTH", "imp"),
            ("w/o Adv", "no_adversary"),
        )
        for percent in (30, 50, 80)
        for epochs in (None, 10)
    ]
    return (*(replace(row, paper_method=None) for row in dense), *tickets)


def _grid_rows() -> tuple[Row, ...]:
    """Robust tickets at every sparsity, retrained for 3, 10 and 20 epochs, without STUDY's rows."""
    lengths = (None, 10, 20)
    dense = [Row(_with_length("Fine-tune", n), Model(epochs=n)) for n in lengths]
    percents = range(10, 100, 10)
    tickets = [_ticket("RobustT", "robust", percent, n) for percent in percents for n in lengths]
    main = {row.model for row in STUDY.rows}
    return (*dense, *(row for row in tickets if row.model not in main))


def _rival_rows() -> tuple[Row, ...]:
    """Tickets that need no search, next to robust ones; 10 retraining epochs."""
    kinds = {
        "RobustT": "robust",
        "Magnitude": "magnitude",
        "Magnitude, fine-tuned": "magnitude_finetuned",
        "Wanda": "wanda",
        "Taylor": "taylor",
    }
    tickets = [_ticket(label, kind, n, 10) for label, kind in kinds.items() for n in (30, 50)]
    return (Row("Fine-tune, 10 epochs", Model(epochs=10)), *tickets)


def _unit_rows() -> tuple[Row, ...]:
    """Tickets of FFN neurons, as many in each layer; 10 retraining epochs.

    For 25 and 50 % of the neurons, the robust ticket of as many single weights of MiniLM. The dense
    int8 model shows what quantization alone costs and gains.
    """
    kinds = {
        "RobustT": "robust",
        "Magnitude": "magnitude",
        "Random": "random",
        "Taylor": "taylor",
    }
    rows = [
        Row("Fine-tune, 10 epochs", Model(epochs=10)),
        Row("Fine-tune, 10 epochs, int8 (ONNX)", Model(epochs=10, runtime="onnx-int8")),
    ]
    for neurons, weights in ((0.25, 0.164), (0.5, 0.329)):
        for label, kind in kinds.items():
            model = Model(kind=kind, sparsity=neurons, epochs=10, search=())
            of_neurons = replace(model, structure=("ffn_neurons",))
            rows.append(Row(f"{label}, {100 * neurons:g} % of neurons", of_neurons))
        of_weights = Model(kind="robust", sparsity=weights, epochs=10, search=())
        rows.append(Row(f"RobustT, {100 * weights:g} % of weights", of_weights))
    return tuple(rows)


def _table(name: str, title: str, rows: tuple[Row, ...], controls: bool = False) -> Table:
    # For variants of the search, also measures that could predict the robust ticket unattacked.
    metrics = ("aua", "suc", "queries") if controls else ("aua", "dev", "open")
    tasks = ("builtin/rotten_tomatoes", "sst2")
    return Table(f"study{name}", f"The study: {title}", tasks, (), rows, metrics, controls)


def _variant(label: str, **changes) -> Row:
    """A robust ticket of STUDY_ROBUST's sparsity with changes."""
    return Row(label, replace(STUDY_ROBUST.model, **changes))


def _switched(label: str, **switches: str) -> Row:
    """A robust ticket of a search with other settings."""
    return _variant(label, search=tuple(switches.items()))


STUDY = _table("", "tickets and matched dense models", _study_rows(), controls=True)
STUDIES = by_name(
    STUDY,
    _table(
        "-switches",
        "the search as the paper writes it, as its code does it, and each difference alone",
        (
            STUDY_ROBUST,
            _switched("released search (D1, D2, D9, D14, D17)", deviations="released"),
            _switched("D1, lambda's clock", lambda_clock="tensors"),
            _switched("D2, what is clipped", clip_over="accumulated"),
            _switched("D9, mean in R(m)", penalty_mean="matrices"),
            _switched("D10, the last pass alone", adv_gradient="last"),
            _switched("D14, AdamW", adamw="released"),
            _switched("D17, length of the schedule", schedule_length="examples"),
        ),
    ),
    _table(
        "-epochs",
        "tickets drawn from earlier search epochs",
        (
            STUDY_ROBUST,
            *(_variant(f"search epoch {n}", search_epoch=n) for n in range(1, STUDY_SEARCH_EPOCHS)),
        ),
    ),
    _table(
        "-ablations",
        "Tables 3 and 4, without adversary, mask learning, initialization, structure",
        (
            STUDY_ROBUST,
            _variant("w/o Adv", kind="no_adversary"),
            _variant("w/o Mask Learning", kind="imp_freelb"),
            _variant("w/o Initialization", reinitialise="ticket"),
            _variant("w/o Structure", reinitialise="rest"),
            _variant("w/o Structure + Longer", reinitialise="rest", epochs=10),
        ),
    ),
    _table("-grid", "the other sparsities, and 20 epochs", _grid_rows(), controls=True),
    _table("-units", "tickets of neurons", _unit_rows(), controls=True),
    _table("-rivals", "tickets without a search", _rival_rows(), controls=True),
)
STUDY_RECORDS = f"{STUDY.name}-records.jsonl"  # of all its tables, in their folder
