"""The tables of the study (docs/study.md); the paper has none of them.

What robust tickets gain over their controls, and how much of it the choices of the search decide.
"""

from dataclasses import replace

from experiments.models import Model
from experiments.paper import DENSE_ROW, FREELB, INFOBERT, Row, Table

STUDY_SEARCH_EPOCHS = 6
STUDY_RECIPE = "textfooler-neighbours"
STUDY_ROBUST = Row("RobustT 30 %", None, Model(kind="robust", sparsity=0.3, search=()))


def _study_rows() -> tuple[Row, ...]:
    """Dense models, then each kind of ticket at three sparsities; 3 retraining epochs, and 10."""
    rows = [DENSE_ROW, Row("Fine-tune, 10 epochs", None, Model(epochs=10)), FREELB, INFOBERT]
    for label, kind in (
        ("RobustT", "robust"),
        ("Rand (matched)", "random_matched"),
        ("LTH", "imp"),
        ("w/o Adv", "no_adversary"),
    ):
        for sparsity in (0.3, 0.5, 0.8):
            for epochs in (None, 10):
                name = _with_length(f"{label} {100 * sparsity:g} %", epochs)
                model = Model(kind=kind, sparsity=sparsity, epochs=epochs, search=())
                rows.append(Row(name, None, model))
    return tuple(replace(row, paper_method=None) for row in rows)


def _grid_rows() -> tuple[Row, ...]:
    """Robust tickets at every sparsity, retrained for 3, 10 and 20 epochs, without STUDY's rows."""
    lengths = (None, 10, 20)
    dense = [Row(_with_length("Fine-tune", n), None, Model(epochs=n)) for n in lengths]
    tickets = [
        Row(
            _with_length(f"RobustT {percent} %", n),
            None,
            Model(kind="robust", sparsity=percent / 100, epochs=n, search=()),
        )
        for percent in range(10, 100, 10)
        for n in lengths
    ]
    main = {row.model for row in STUDY.rows}
    return (*dense, *(row for row in tickets if row.model not in main))


def _with_length(name: str, epochs: int | None) -> str:
    return name + (f", {epochs} epochs" if epochs else "")


def _study_table(name: str, title: str, rows: tuple[Row, ...], controls: bool = False) -> Table:
    # For variants of the search, also measures that could predict the robust ticket unattacked.
    metrics = ("aua", "suc", "queries") if controls else ("aua", "dev", "open")
    return Table(
        f"study{name}",
        f"The study: {title}",
        ("builtin/rotten_tomatoes", "sst2"),
        (),
        metrics,
        rows,
        controls,
    )


def _as_robust(label: str, **changes) -> Row:
    return Row(label, None, replace(STUDY_ROBUST.model, **changes))


STUDY = _study_table("", "tickets and matched dense models", _study_rows(), controls=True)
STUDIES = {
    table.name: table
    for table in (
        STUDY,
        _study_table(
            "-switches",
            "the search as the paper writes it, as its code does it, and each difference alone",
            (
                STUDY_ROBUST,
                _as_robust(
                    "released search (D1, D2, D9, D14, D17)", search=(("deviations", "released"),)
                ),
                _as_robust("D1, lambda's clock", search=(("lambda_clock", "tensors"),)),
                _as_robust("D2, what is clipped", search=(("clip_over", "accumulated"),)),
                _as_robust("D9, mean in R(m)", search=(("penalty_mean", "matrices"),)),
                _as_robust("D10, the last pass alone", search=(("adv_gradient", "last"),)),
                _as_robust("D14, AdamW", search=(("adamw", "released"),)),
                _as_robust(
                    "D17, length of the schedule", search=(("schedule_length", "examples"),)
                ),
            ),
        ),
        _study_table(
            "-epochs",
            "tickets drawn from earlier search epochs",
            (
                STUDY_ROBUST,
                *(
                    _as_robust(f"search epoch {epoch}", search_epoch=epoch)
                    for epoch in range(1, STUDY_SEARCH_EPOCHS)
                ),
            ),
        ),
        _study_table(
            "-ablations",
            "Tables 3 and 4, without adversary, mask learning, initialization, structure",
            (
                STUDY_ROBUST,
                _as_robust("w/o Adv", kind="no_adversary"),
                _as_robust("w/o Mask Learning", kind="imp_freelb"),
                _as_robust("w/o Initialization", reinitialise="ticket"),
                _as_robust("w/o Structure", reinitialise="rest"),
                _as_robust("w/o Structure + Longer", reinitialise="rest", epochs=10),
            ),
        ),
        _study_table("-grid", "the other sparsities, and 20 epochs", _grid_rows(), controls=True),
    )
}


STUDY_RECORDS = f"{STUDY.name}-records.jsonl"  # of all its tables, in their folder
