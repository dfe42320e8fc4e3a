"""Predictions of a classifier on a split, and the measures that records hold."""

import time

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from training.batching import Encoded, batches_in_order, collate
from training.metrics import classification_measures, wilson_interval
from utils import interrupts
from utils.devices import gather_rows

NOT_INPUTS = ("labels", "row_weight")


def inputs_of(batch: dict) -> dict:
    """The arguments of the encoder: ids, mask and, if it has them, token types."""
    return {name: value for name, value in batch.items() if name not in NOT_INPUTS}


@torch.inference_mode()
def predict(
    model: nn.Module, encoded: Encoded, batch_size: int, accelerator: Accelerator
) -> np.ndarray:
    """Logits of all rows, in their order: float32, (rows, labels).

    Runs without dropout and restores the training mode at the end.
    """
    was_training = model.training
    model.eval()
    batches = list(batches_in_order(encoded, batch_size))
    batches = batches[accelerator.process_index :: accelerator.num_processes]
    pairs = []  # (position, logits) of each row
    for positions in batches:
        if accelerator.num_processes == 1:  # several processes must exit together
            interrupts.leave_if_requested()
        batch = {
            name: torch.from_numpy(values).to(accelerator.device)
            for name, values in inputs_of(collate(encoded, positions)).items()
        }
        with accelerator.autocast():
            logits = model(**batch).logits.float().cpu().numpy()
        pairs += list(zip(positions, logits, strict=True))
    model.train(was_training)
    pairs = sorted(gather_rows(accelerator, pairs), key=lambda pair: pair[0])
    return np.stack([logits for _, logits in pairs])


def accuracy_percent(
    model: nn.Module, encoded: Encoded, batch_size: int, accelerator: Accelerator
) -> float:
    """Percentage of rows whose label has the highest logit."""
    logits = predict(model, encoded, batch_size, accelerator)
    return 100 * float((logits.argmax(1) == np.array(encoded.labels)).mean())


def evaluation_record(
    model: nn.Module, encoded: Encoded, batch_size: int, accelerator: Accelerator
) -> dict:
    """Record of a split: clean accuracy and its interval, precision, recall, F1, mean loss."""
    start = time.monotonic()
    logits = predict(model, encoded, batch_size, accelerator).astype(np.float64)
    labels = np.array(encoded.labels)
    predictions = logits.argmax(1)
    log_sums = np.logaddexp.reduce(logits, axis=1)
    correct = int((predictions == labels).sum())
    measures = classification_measures(encoded.labels, predictions.tolist(), logits.shape[1])
    return {
        "rows_evaluated": len(labels),
        "rows_correct": correct,
        "clean_percent": 100 * correct / len(labels),
        "clean_interval_95_percent": wilson_interval(correct, len(labels)),
        "mean_loss": float((log_sums - logits[np.arange(len(labels)), labels]).mean()),
        "truncated_rows": encoded.truncated_rows,
        "measures": measures,
        "seconds": time.monotonic() - start,
    }
