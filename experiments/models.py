"""A trained model of a table: how it is made, and which attack records belong to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments.hyperparameters import hyperparameters_of
from masking.kinds import GATE_KINDS
from training import deviations
from training.settings import recipe_in

if TYPE_CHECKING:  # records need numpy and scipy, which take a second
    from evaluation.records import AttackRecord, TicketFacts

# What the re-initialized weights of Table 4 are drawn from, as far as the paper's text says.
TABLE_4_NOISE = {"reinit_law": "normal", "reinit_std": 0.02, "reinit_scope": "matrices"}


@dataclass(frozen=True)
class Model:
    """One trained model.

    `method`: of training (plain, freelb, pgd, infobert). `kind`: of the score file that its ticket
    is drawn from; None for a dense model. `reinitialise`: nothing; ticket: the weights that the
    ticket keeps start from noise; rest: dense, the weights that the ticket removes start from
    noise. `epochs`: None for the usual number. `stop_at`: a ticket; this dense model is trained
    until its training loss is that ticket's, or for `epochs`. `search`: the switches of a ticket's
    search (flag and value; () is the default search); None accepts any search. `search_epoch`: the
    search epoch that the scores are from; None for the last. `structure`: units that the ticket
    removes whole, as many in every layer (--uniform); () for single weights. `runtime`: onnx or
    onnx-int8 for the export of the model; None for transformers.
    """

    method: str = "plain"
    kind: str | None = None
    sparsity: float | None = None
    reinitialise: str = "nothing"
    epochs: int | None = None
    stop_at: Model | None = None
    search: tuple[tuple[str, str], ...] | None = None
    search_epoch: int | None = None
    structure: tuple[str, ...] = ()
    runtime: str | None = None

    @property
    def search_tag(self) -> str:
        """End of its search folder's name."""
        return "".join(f"-{name}_{value}" for name, value in self.search or ())

    @property
    def units_tag(self) -> str:
        """End of the name of its folder of scores, and part of its own."""
        return "".join(f"-{name}" for name in self.structure)

    @property
    def folder(self) -> str:
        """Name of its run folder below runs/ENCODER/TASK/seedN, also in the shell stages; of the
        folder of its export."""
        if self.runtime is not None:
            return f"{replace(self, runtime=None).folder}-{self.runtime}"
        name = "dense" if self.method == "plain" else f"dense-{self.method}"
        if self.kind is not None:
            name = f"ticket-{self.kind}{self.units_tag}-{self.sparsity:g}"
            name += "" if self.reinitialise == "nothing" else f"-reinit_{self.reinitialise}"
        if self.stop_at is not None:
            return f"{name}-loss_of-{self.stop_at.folder}"
        epoch = f"-search_epoch{self.search_epoch}" if self.search_epoch else ""
        return name + self.search_tag + epoch + (f"-epochs{self.epochs}" if self.epochs else "")

    def owns(self, record: AttackRecord, usual_epochs: int) -> bool:
        """Whether the record is of this model. `usual_epochs`: those of a model without `epochs`.

        A model that stopped at a loss is a control of rows, never a row.
        """
        return (
            record.stop_at_loss is None
            and record.runtime == self.runtime
            and record.method == self.method
            and record.epochs == (self.epochs or usual_epochs)
            and (record.ticket is None) == (self.kind is None)
            and (record.ticket is None or self._owns_ticket(record.ticket))
        )

    def _owns_ticket(self, ticket: TicketFacts) -> bool:
        return (
            ticket.kind == self.kind
            and ticket.structure == self.structure
            and ticket.uniform == bool(self.structure)
            and abs(ticket.sparsity_asked - (self.sparsity or 0.0)) < 1e-9
            and ticket.reinitialised == self.reinitialise
            and all(getattr(ticket, key) in (None, v) for key, v in TABLE_4_NOISE.items())
            and self.is_searched_as(ticket.search, ticket.scores_epoch)
        )

    def is_searched_as(self, search: Mapping[str, Any] | None, scores_epoch: int | None) -> bool:
        """Whether scores of this search and epoch are those of this model's ticket."""
        if self.search is None or self.kind not in GATE_KINDS:
            return True
        settings, switches = recipe_in({"settings": search or {}}), dict(self.search)
        wanted = deviations.SEARCH[switches.pop("deviations", "paper")] | switches
        epoch = self.search_epoch or settings.get("epochs")
        return scores_epoch == epoch and all(settings.get(k) == v for k, v in wanted.items())

    def at(self, task: str) -> Model:
        """The same model; a ticket without a sparsity gets the task's."""
        if self.kind is None or self.sparsity is not None:
            return self
        return replace(self, sparsity=hyperparameters_of(task).sparsity)


DENSE = Model()
ROBUST = Model(kind="robust")


def assign(
    records: Iterable[AttackRecord], models: Mapping[Any, Model], usual_epochs: int
) -> dict[Any, list[AttackRecord]]:
    """The records of each model, in their order; the one place that matches records to models."""
    records = list(records)
    return {
        label: [record for record in records if model.owns(record, usual_epochs)]
        for label, model in models.items()
    }
