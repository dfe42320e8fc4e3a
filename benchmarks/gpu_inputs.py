"""What benchmarks/gpu.py is given, checked before the first part by the readers of the stages."""

import argparse
import re
from pathlib import Path

import gpu_job
import torch

from training import settings, tasks
from utils import cli

# Rows after dev is split off with which gpu_checks.deterministic makes its steps; at toy size.
LEAST_ROWS = {False: 480, True: 96}
HINTS = {
    "data": "give a folder with sst2/train.tsv and dev.tsv, with the columns sentence and label",
    "minilm": "give a folder with config.json, model.safetensors and the tokenizer's files",
}


def check(args: argparse.Namespace) -> dict[str, object]:
    """The inputs of the parts, in the words of a record: names and fingerprints, without paths.

    UserError if a part would fail with them.
    """
    on_gpu = args.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise cli.UserError(
            "--device cuda, but torch sees no CUDA device here; --device cpu --toy shows that the "
            "parts run"
        )
    inputs: dict[str, object] = {"gpus": torch.cuda.device_count() if on_gpu else 0}
    for name, identify in (("data", _data), ("minilm", _encoder)):
        path = getattr(args, name)
        if path is not None and not path.is_dir():
            raise cli.UserError(f"--{name} {path} is not a folder")
        try:
            inputs[name] = path and f"{path.resolve().name}, {identify(path, args.toy)}"
        except cli.UserError as e:
            # Some errors name flags of the stages, which this command lacks.
            reason = re.sub(r"[:;] (see|give) .*--.*", "", str(e))
            raise cli.UserError(f"--{name} {path}: {reason}; {HINTS[name]}") from e
    return inputs


def _data(path: Path, toy: bool) -> str:
    """Fingerprints of the training and test rows."""
    from training.splits import load_splits  # imports transformers, which takes seconds

    folder = gpu_job.sst2_in(path)
    args = settings.data_settings_in({"task_name": "sst2", "data_dir": str(folder)})
    splits = load_splits(args, tasks.TASKS["sst2"])
    rows, least = len(splits["train"]), LEAST_ROWS[toy]
    if rows < least:
        raise cli.UserError(f"{rows} training rows without those of dev, which are under {least}")
    return " ".join(splits[name].fingerprint for name in ("train", "test"))


def _encoder(path: Path, toy: bool) -> str:
    """The encoder's fingerprint."""
    from masking import encoders  # with the next, some seconds
    from training import models, tokenizers

    tokenizer = tokenizers.load_tokenizer(str(path))
    model = models.load_pretrained(str(path), ("0", "1"), 0, None, "sdpa")
    models.check_length(model, tasks.TASKS["sst2"].max_seq_length)
    tokenizers.fit_tokenizer(model, tokenizer)
    with cli.explain():
        return encoders.encoder_fingerprint(model)
