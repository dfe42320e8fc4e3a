"""Expected times of runs, for plans only."""

import functools
from pathlib import Path
from typing import Any

from training.tasks import TASKS
from utils.cli import UserError

# Times of MiniLM on two cores are measured, the others are estimates.
ROWS_AND_TOKENS = {  # training rows, and tokens of a mean row
    "sst2": (60_000, 14),
    "imdb": (22_500, 230),
    "ag_news": (108_000, 55),
    "qnli": (94_000, 50),
    "qqp": (327_000, 30),
    "mnli": (353_000, 40),
    "builtin/rotten_tomatoes": (6_700, 27),
    "builtin/imdb": (19_600, 230),
}
ANY_OTHER = ROWS_AND_TOKENS["sst2"]  # a data set is not read for a plan
SECONDS_PER_TOKEN = {  # to train on it, and to attack it
    ("cpu", "mini"): (7e-4, 0.02),
    ("cuda", "mini"): (2e-5, 0.01),
    ("cpu", "paper"): (7e-3, 0.2),
    ("cuda", "paper"): (2e-5, 0.02),
}
START_SECONDS = 12  # imports and loading, per script
# Of a checkpoint, and of the scores of its prunable weights: 109.5 and 22.7 M parameters.
BYTES = {"mini": (91_000_000, 43_000_000), "paper": (438_000_000, 342_000_000)}


@functools.cache
def training_rows(task: str, folder: Path | None) -> int:
    """Number of a task's training rows, in `folder` if it is given.

    Raises UserError if the folder has no training file.
    """
    if not folder or task not in TASKS:
        return ROWS_AND_TOKENS.get(task, ANY_OTHER)[0]
    from training.data_sources import files_in, read_table  # here: this import takes seconds

    files = files_in(folder, TASKS[task])
    if "train" not in files:
        raise UserError(f"{folder} has no training file: add train.tsv, .csv, .jsonl or .parquet")
    return len(read_table(files["train"]))


def seconds_per_row(task: str, size: str, device: str | None = None) -> tuple[float, float]:
    """To train on a row once, and to attack it. `size`: of the encoder, mini or paper. `device`:
    cpu or cuda; None: that of this machine."""
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    to_train, to_attack = SECONDS_PER_TOKEN[device, size]
    tokens = ROWS_AND_TOKENS.get(task, ANY_OTHER)[1]
    return tokens * to_train, tokens * to_attack


def disk_bytes(script: str, args: Any, size: str) -> int:
    """What a script leaves on the disk: the last and the best checkpoint and the kept ones, or
    scores."""
    checkpoint, scores = BYTES[size]
    if script == "attack":
        return 0  # a megabyte at most
    if script == "export":
        return checkpoint  # a quarter of it in int8
    if script in ("finetune", "retrain_ticket"):
        return (2 + len(args.keep_epochs)) * checkpoint
    return (1 + len(getattr(args, "keep_scores", ()))) * scores
