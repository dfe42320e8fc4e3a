"""Which records are those of a model."""

from dataclasses import replace

from record_tools import attack as record

from evaluation import schema
from evaluation.records import AttackRecord, TicketFacts
from experiments.models import Model


def test_a_record_of_a_ticket_of_neurons_is_no_row_of_a_ticket_of_weights():
    of_neurons = Model(kind="magnitude", sparsity=0.5, structure=("ffn_neurons",))
    facts = {"kind": "magnitude", "sparsity_asked": 0.5}
    units = {"structure": ["ffn_neurons"], "uniform": True}
    for ticket, owner in ((facts, replace(of_neurons, structure=())), (facts | units, of_neurons)):
        read = schema.read(TicketFacts, ticket)
        owned = [m for m in (of_neurons, replace(of_neurons, structure=())) if m._owns_ticket(read)]
        assert owned == [owner]


def test_a_model_knows_its_records():
    robust = Model(kind="robust", sparsity=0.3)
    raw = record(robust)

    def owned(model: Model, epochs: int = 3, **changes) -> bool:
        return model.owns(AttackRecord.read(raw | changes), epochs)

    assert owned(robust) and not owned(robust, 4)
    assert not owned(Model()) and owned(Model(), ticket=None)
    for change in ({"kind": "imp"}, {"sparsity_asked": 0.5}, {"reinitialised": "rest"}):
        assert not owned(robust, ticket=raw["ticket"] | change)
    assert not owned(robust, method="freelb")
    assert owned(Model(method="freelb"), ticket=None, method="freelb")
