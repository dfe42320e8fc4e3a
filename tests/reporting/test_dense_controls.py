"""The dense controls that a ticket is compared with: same epochs, training loss, label passes."""

import re

import pytest
from record_tools import attack, aua_of, controlled, general, report, rows_of, write

from evaluation import records
from experiments.models import DENSE, Model
from reporting import comparisons

pytestmark = pytest.mark.usefixtures("undrawn")


def stopped(seed: int = 42, loss: float = 0.04, of: dict | None = None, **changes) -> dict:
    """A dense model that was trained until its loss was the ticket's."""
    ticket = of or controlled(seed)
    stop = {"loss": 0.05, "ticket": ticket["ticket"], "seed": seed, "epochs": ticket["epochs"]}
    return attack(
        DENSE, seed, 25.0, epochs=12, epoch=7, mean_training_loss=loss, stop_at_loss=stop, **changes
    )


def controls_in(tmp_path, *lines: dict) -> dict[str, str]:
    """Text of the controls' rows of the robust ticket in Table 1, by control."""
    text = (report(tmp_path, "table1", lines=list(lines)) / "table1.md").read_text()
    rows = re.findall(r"^\| RobustT \| (same [a-z ]+) \((.*)$", text, re.MULTILINE)
    assert len(rows) == 3
    return dict(rows)


def test_a_ticket_is_compared_with_its_matched_dense_controls(tmp_path):
    same = attack(DENSE, 42, 20.0, epoch=3, mean_training_loss=0.3, label_passes=3)
    longer = attack(DENSE, 42, 22.0, epochs=12, epoch=12, mean_training_loss=0.001)
    found = controls_in(tmp_path, controlled(), same, longer, stopped())
    assert "3 epochs) | 3 | 0.300 | 80.0" in found["same epochs"]
    assert "loss 0.050) | 7 | 0.040 | 80.0" in found["same training loss"]
    assert "25.0 (n=1)" in found["same training loss"]
    assert "12 epochs) | 12 | 0.001 | 80.0" in found["same label passes"]
    text = (tmp_path / "out" / "table1.md").read_text()
    assert "| RobustT |" in text and "RobustT (" not in text
    # The control does not get a row, although it is dense.
    dense = aua_of(tmp_path / "out", "Fine-tune")
    assert dense["ours_mean"] == "20" and dense["n"] == "1"
    kept = records.read_records([tmp_path / "out" / "table1-records.jsonl"])
    assert len(kept) == 4  # enough to make the same table again


def test_the_shortest_control_with_at_least_the_tickets_label_passes_counts(tmp_path):
    """A plan counts stage 1's epochs; the search may have started from an earlier one."""
    ticket = controlled() | {"label_passes": 11}
    longer = [attack(DENSE, 42, 20.0 + n, epochs=n, epoch=n) for n in (13, 12, 10)]
    found = controls_in(tmp_path, ticket, *longer)
    assert "| 12 |" in found["same label passes"] and "32.0" in found["same label passes"]


def test_a_best_checkpoint_s_control_may_be_of_an_earlier_epoch(tmp_path):
    """Both runs ended at a loss of 0.05 or less; their best epochs were before that."""
    ticket = controlled(checkpoint="best") | {"mean_training_loss": 0.2, "last_training_loss": 0.05}
    dense = stopped(loss=0.3, checkpoint="best", last_training_loss=0.04)
    report(tmp_path, "table1", further=("--checkpoint", "best"), lines=[ticket, dense])
    text = (tmp_path / "out" / "table1.md").read_text()
    assert (
        "| RobustT | same training loss (epoch of a longer schedule, loss 0.050) | 7 | 0.300 | 80.0"
        in text
    )


def test_a_ticket_of_the_same_scores_but_another_seed_has_another_loss(tmp_path):
    other = stopped(43)
    other["stop_at_loss"]["ticket"]["scores_sha256"] = "scores of seed 42"
    found = controls_in(tmp_path, controlled(), other | {"seed": 42, "attack_id": "x"})
    assert "**control missing**" in found["same training loss"]


@pytest.mark.parametrize(
    ("control", "lacking"),
    {
        "none was run": ("same training loss", None),
        "it never got there": ("same training loss", stopped(loss=0.06)),
        "another ticket's": ("same training loss", stopped(of=controlled(43))),
        "another attack": ("same training loss", stopped(score_with="softmax")),
        "another seed": ("same epochs", attack(DENSE, 43, 20.0)),
        "other settings": ("same epochs", attack(DENSE, 42, 20.0, training={"lr": 1.0})),
        "FreeLB": ("same epochs", attack(Model(method="freelb"), 42, 20.0)),
        "too few passes": ("same label passes", attack(DENSE, 42, 20.0, epochs=11)),
        "too many passes": ("same label passes", attack(DENSE, 42, 20.0, epochs=15)),
        "another checkpoint": ("same epochs", attack(DENSE, 42, 20.0, checkpoint="best")),
    }.values(),
)
def test_a_control_that_does_not_match_is_missing(tmp_path, control, lacking):
    found = controls_in(tmp_path, controlled(), *[lacking] * (lacking is not None))
    assert "**control missing**" in found[control]
    never = lacking is not None and lacking.get("mean_training_loss") == 0.06
    assert ("not reached in 12 epochs" in found["same training loss"]) == never
    text = (tmp_path / "out" / "table1.md").read_text()
    assert "| RobustT (control missing) |" in text and "Control missing: a matched" in text
    row = aua_of(tmp_path / "out", "RobustT")
    assert control in row["controls_missing"]
    general(tmp_path, "general")
    assert "| robust ticket (control missing) |" in (tmp_path / "general" / "table.md").read_text()


def test_one_epoch_may_be_the_control_of_two_tickets(tmp_path):
    """The same weights, so the same attack, and two records of it."""
    tickets = [controlled(), controlled(aua=61.0)]
    tickets[1]["ticket"] |= {"sparsity_asked": 0.5}
    lines = [*tickets, *(stopped(of=t, attack_id="one") for t in tickets)]
    write(tmp_path / "runs", lines)
    found = records.read_records([tmp_path / "runs"])
    assert len(found) == 4
    for ticket in found[:2]:
        controls = comparisons.controls_of([ticket], found)
        assert len(controls[1].records) == 1, controls[1].wanted


def test_a_control_that_lacks_a_seed_is_marked(tmp_path):
    tickets = [controlled(seed) for seed in (42, 43)]
    dense = [attack(DENSE, seed, 20.0, epochs=e, epoch=e) for seed in (42, 43) for e in (3, 12)]
    controls_in(tmp_path, *tickets, *dense, stopped(42))
    row = aua_of(tmp_path / "out", "RobustT")
    assert row["controls_missing"] == "same training loss"


def test_a_dense_model_that_ends_at_a_loss_is_not_the_one_with_the_same_epochs(tmp_path):
    longer = attack(DENSE, 42, 20.0, epochs=12, epoch=12)
    by_number = stopped() | {"stop_at_loss": {"loss": 0.2, "ticket": None}, "attack_id": "number"}
    write(tmp_path / "runs", [longer, stopped(), by_number, controlled()])
    rows = rows_of(general(tmp_path) / "table.csv", epochs="12")
    assert {r["model"]: r["aua_percent"] for r in rows} == {
        "dense fine-tuned": "20.0",
        "dense fine-tuned, until a loss of 0.2": "25.0",
        "dense fine-tuned, until the loss of the robust ticket (30 %, 3 epochs)": "25.0",
    }
