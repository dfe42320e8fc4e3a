"""Attack records: what is accepted, what earlier versions meant, and what is written today."""

import json
from dataclasses import fields, replace

import pytest
from record_tools import ROBUST_30, SEARCH, attack

from evaluation import schema
from evaluation.outcomes import FAILED, SKIPPED, SUCCESS
from evaluation.protocol import summary
from evaluation.records import (
    ROW_SETTINGS,
    STRICT_COMPARISON,
    AttackRecord,
    TicketFacts,
    read_records,
    search_settings,
)


def written_today() -> dict:
    """A record as evaluation/protocol.py composes it for attack.py."""
    raw = attack(ROBUST_30)
    ticket = raw["ticket"] | {"search": SEARCH | {"deviations": "paper"}, "scores_epoch": 6}
    facts = {
        "stage": "retrain",
        "task": raw["task"],
        "encoder": raw["encoder"],
        "ticket": ticket,
        "deviations": "paper",
        "preset": "balanced",
        "label_names": ["negative", "positive"],
        **{name: raw[name] for name in ("seed", "epochs", "method", "training_rows")},
        "classes_answered": 2,
    }
    settings = {
        **{name: raw[name] for name in ("recipe", "score_with", "similarity_threshold")},
        "checkpoint": "last",
        "max_seq_length": 64,
        "rows": raw["rows"] | {"rows_per_label": {"0": 2, "1": 1}},
        "data": {},
        "resources": {},
    }
    lines = [
        {
            "outcome": outcome,
            "label": label,
            "queries": 5,
            "words_changed": 1,
            "words_total": 4,
            "seconds": 0.1,
        }
        for outcome, label in ((FAILED, 0), (SUCCESS, 1), (SKIPPED, 0))
    ]
    return summary(facts, settings, lines, "an id", {"id": "p", "parts": []}, 50.0)


def test_what_an_attack_writes_is_read():
    raw = json.loads(json.dumps(written_today()))
    record = AttackRecord.read(raw)
    assert (record.row_outcomes, record.row_labels) == ("rfw", "010")
    assert (record.aua_percent, record.clean_percent) == pytest.approx((100 / 3, 200 / 3))
    assert (record.deviations, record.preset, record.protocol_id) == ("paper", "balanced", "p")
    assert (record.name, record.sparsity) == ("robust ticket", 0.3)
    assert record.raw is raw


def test_the_earlier_names_of_a_record_mean_the_same():
    today = written_today()
    earlier = today | {"protocol": today["deviations"], "attack_protocol": today["preset"]}
    del earlier["deviations"], earlier["preset"], earlier["row_labels"]
    search = today["ticket"]["search"] | {"protocol": "paper"}
    del search["deviations"]
    earlier["ticket"] = today["ticket"] | {"search": search | {"compile": None}}
    a, b = AttackRecord.read(today), AttackRecord.read(earlier)
    for name in (*STRICT_COMPARISON, *ROW_SETTINGS, "preset", "name"):
        assert getattr(a, name) == getattr(b, name), name
    older = attack(replace(ROBUST_30, kind="random_matched"))
    older["ticket"]["kind"] = "random matched"
    assert AttackRecord.read(older).ticket.kind == "random_matched"


@pytest.mark.parametrize(("deviations", "length"), [("paper", "steps"), ("released", "examples")])
def test_a_search_without_a_schedule_length_had_that_of_its_deviations(deviations, length):
    earlier = search_settings({"protocol": deviations, "lambda_clock": "steps"})
    assert earlier["schedule_length"] == length and earlier["deviations"] == deviations
    today = {"deviations": deviations, "lambda_clock": "steps", "schedule_length": length}
    assert earlier == search_settings(today) == search_settings(earlier)
    other = search_settings(today | {"schedule_length": "other"})
    assert other["schedule_length"] == "other"


@pytest.mark.parametrize("name", [*STRICT_COMPARISON, *ROW_SETTINGS])
def test_every_key_of_a_comparison_is_an_attribute(name):
    assert hasattr(AttackRecord.read(attack()), name)


def test_optional_keys_may_be_null_or_absent_and_required_ones_may_not():
    raw = attack()
    for field in fields(AttackRecord):
        names = [name for name in (field.name, *field.metadata.get("earlier", ())) if name in raw]
        needed = ("seed", "epochs", "checkpoint")  # of a checkpoint that a stage wrote
        if not names or field.name in needed:
            continue
        without = {k: v for k, v in raw.items() if k not in names}
        is_optional = field.default is None or isinstance(field.default, str)
        if is_optional and field.name != "ticket":
            assert getattr(AttackRecord.read(without), field.name) == field.default
            assert getattr(AttackRecord.read(raw | {names[0]: None}), field.name) == field.default
        else:
            with pytest.raises(ValueError, match=f"{names[0]} is missing"):
                AttackRecord.read(without)


def test_labels_must_fit_the_rows():
    raw = attack(row_outcomes="rrff", row_labels="0011")
    assert AttackRecord.read(raw).row_labels == "0011"
    with pytest.raises(ValueError, match="row_labels"):
        AttackRecord.read(raw | {"row_labels": "001"})


def test_a_path_names_the_key_inside_an_object():
    raw = attack(flags=[{"flag": "a", "why": "b"}, {"flag": "a", "why": 3}])
    with pytest.raises(ValueError, match=r"^flags\[1\]\.why must be a text, but is '3'$"):
        AttackRecord.read(raw)
    assert schema.WHOLE.admits(3) and not schema.WHOLE.admits(True)
    assert not schema.FINITE.admits(float("nan"))


def test_a_record_is_read_once_and_kept_as_it_is_in_its_file(tmp_path):
    first, again = attack(aua=10.0), attack(aua=10.0) | {"seconds": 2.0, "an unknown key": [1]}
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (first, again)))
    [record] = read_records([path])
    assert record.raw == again


def test_tickets_of_units_have_names_of_their_own():
    """The name is part of what makes records seeds of one model."""
    common = {"kind": "magnitude", "sparsity_asked": 0.5}
    tickets = [
        {},
        {"structure": ["ffn_neurons"]},
        {"structure": ["ffn_neurons"], "uniform": True},
        {"structure": ["ffn_neurons", "heads"], "uniform": True},
    ]
    names = [TicketFacts(**common | facts).name for facts in tickets]
    assert len(set(names)) == 4
    assert names[0] == "magnitude ticket"
    assert names[2] == "magnitude ticket of ffn neurons (uniform)"
