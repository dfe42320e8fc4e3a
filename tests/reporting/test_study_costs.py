"""What the study's models cost: epochs times the measured time of an epoch."""

import json

import pytest
from record_tools import SEARCH, TASK, attack, controlled, rows_of, study, write

from evaluation import records
from experiments.models import DENSE, Model
from reporting import costs
from utils.cli import UserError

pytestmark = pytest.mark.usefixtures("undrawn")


def test_costs_are_epochs_times_what_an_epoch_costs(tmp_path):
    """1,800 rows. Dense: 3 epochs of 2 s per 1,000 rows. The ticket: 3 of fine-tuning, 6 of a
    search at 10 s, 3 of retraining at 3 s; 20 points more, none of them by chance."""
    ways = {"plain": (2.0, 2**30), "search": (10.0, 3 * 2**30), "retrain": (3.0, 2**30)}
    named = {
        name: {"seconds_per_1000_rows": seconds, "peak_memory_bytes": held}
        for name, (seconds, held) in ways.items()
    }
    measured = {
        "row": {"adv_steps": 3, "encoder": "builtin/minilm"},
        "device": "d",
        "threads": 2,
        "ways": named,
    }
    told = {"recipe": "textfooler-neighbours", "rows_attacked": 100}
    ticket = controlled(aua=40.0, row_outcomes="r" * 40 + "f" * 60, **told)
    ticket["ticket"] |= {"search": SEARCH | {"adv_steps": 3}, "scores_epoch": 6}
    dense = attack(DENSE, 42, 20.0, row_outcomes="r" * 20 + "f" * 80, training_rows=1800, **told)
    freelb = attack(Model(method="freelb"), 42, 30.0, **told)  # its epochs were not measured
    # Two seeds of a longer training, a little above: an interval, and a gain that may be noise.
    again = [attack(DENSE, 43, 20.0, row_outcomes="r" * 20 + "f" * 80, **told)]
    again += [
        attack(Model(epochs=10), s, 22.0, row_outcomes="r" * 22 + "f" * 78, **told)
        for s in (42, 43)
    ]
    write(tmp_path / "runs", [ticket, dense, freelb, *again])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "costs.jsonl").write_text(json.dumps(measured) + "\n")
    study(tmp_path, "--tasks", TASK)
    first, longer, second = rows_of(tmp_path / "out" / "study-costs.csv")
    assert longer["model"] == "Fine-tune, 10 epochs"
    assert longer["aua_minus_fine_tune"] == "2" and longer["low_95"]
    assert [first[k] for k in ("model", "label passes", "minutes", "peak GiB")] == [
        *("Fine-tune", "3", f"{1.8 * 3 * 2 / 60:.6g}", "1")
    ]
    before, own = 1.8 * (6 * 10 + 3 * 2) / 60, 1.8 * 3 * 3 / 60
    assert second["model"] == "RobustT 30 %" and second["label passes"] == "12"
    assert second["gradient passes"] == str(3 + 6 * 3 + 3)
    assert second["minutes before its training"] == f"{before:.6g}"
    assert second["minutes"] == f"{before + own:.6g}" and second["peak GiB"] == "3"
    further = before + own - 1.8 * 3 * 2 / 60
    assert float(second["further_minutes_per_point"]) == pytest.approx(further / 20, rel=1e-5)
    other = measured | {"row": {"adv_steps": 5}}  # a search of other passes costs something else
    assert costs.cost_of(records.read_records([tmp_path / "runs"])[0], other) is None
    assert costs.read(tmp_path / "out", "another encoder") is None
    (tmp_path / "out" / "costs.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="is damaged"):
        costs.read(tmp_path / "out", "builtin/minilm")
