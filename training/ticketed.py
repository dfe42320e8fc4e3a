"""A stock classifier with a ticket in it, for your own training loop."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from masking import encoders, structures, surgery, ticket_files, unit_gates
from masking.tickets import shapes_of
from training import models
from training.tasks import TASKS
from utils.cli import UserError, explain


def load_ticketed(
    ticket: str | Path,
    encoder: str,
    label_names: Sequence[str] | None = None,
    seed: int | None = None,
    allow_other_encoder: bool = False,
) -> PreTrainedModel:
    """A pre-trained encoder with the ticket's mask and a new classifier, ready to be trained.

    The model is that of AutoModelForSequenceClassification, in float32. Its pruned weights are 0.0,
    and so are their gradients, whenever one is accumulated. They stay 0.0 under SGD, Adam, AdamW
    and every other optimizer that does not move a zero weight whose gradient is zero; also after
    `model.to(device)`. `save_pretrained` writes an ordinary checkpoint with these zeros.

    `ticket`: ticket file, or the folder of a stage 3 run. `encoder`: the one that the ticket was
    found in: builtin/minilm, a hub name, or a local folder. `label_names`: one per logit; by
    default those of the ticket's task. `seed`: of the classifier; by default that of the ticket.
    `allow_other_encoder`: accept another encoder of the same shape.
    Raises UserError if the file is missing or damaged, or does not belong to the encoder.
    """
    path = ticket_files.ticket_file(ticket)
    with explain():
        masks, manifest = ticket_files.load_ticket(path)
        ticket_files.check_origin(manifest.get("source", {}), path)
    source = manifest["source"]
    task = TASKS.get(source.get("task", ""))
    names = tuple(label_names or (task.label_names if task else ()))
    if not names:
        raise UserError(
            f"{path} was found on the task {source.get('task')!r}, whose labels are not known: "
            "give label_names"
        )
    seed = source["seed"] if seed is None else seed
    model = models.load_pretrained(encoder, names, seed, None, "sdpa")
    units: list[structures.Units] = []
    with explain():
        encoders.select(model, source.get("matrices"))
        if structure := source.get("structure"):
            units = structures.find_units(model, structure)
    if "layers" in source.get("structure", ()):
        raise UserError(
            f"{path} removes whole layers, which a stock model cannot hold at zero: load a "
            "checkpoint that retrain_ticket.py has written"
        )
    learned_for, shapes = source["encoder"], shapes_of(masks)
    masks, _ = models.tensors_for(
        model, encoder, path, masks, shapes, learned_for, allow_other_encoder
    )
    surgery.apply_ticket(model, masks)
    unit_gates.hold_at_zero(model, units, masks)
    return model
