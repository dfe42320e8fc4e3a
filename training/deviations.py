"""The switches in which the released code departs from the paper, by their D numbers.

docs/deviations.md explains each number. `--deviations` sets all switches of a stage; a switch's own
flag overrides it.
"""

import dataclasses
from typing import Any

from utils import cli
from utils.settings import setting

# Stages 1 and 3. D13: the paper clips (read as total norm 1.0), the released code does not (0 means
# no clip). D14: AdamW as torch has it, or as the transformers library had it in 2021.
TRAINING = {
    "paper": {"max_grad_norm": 1.0, "adamw": "torch"},
    "released": {"max_grad_norm": 0.0, "adamw": "released"},
}

# Stage 2. D1: lambda's clock counts optimizer steps, or the tensors of the batches. D2: the weights
# are frozen and the clip covers the scores' gradients, L0 included; or the weights' gradients
# accumulate over the run and enter the clip, and L0 is added after it. D9: the mean in R(m). D10:
# both take the mean of the passes' gradients; "last" reads Eqs. 6-7 literally. D17: the length of
# the learning-rate schedule.
SEARCH = {
    "paper": {
        "lambda_clock": "steps",
        "clip_over": "scores",
        "penalty_mean": "entries",
        "adv_gradient": "mean",
        "adamw": "torch",
        "max_grad_norm": 1.0,
        "schedule_length": "steps",
    },
    "released": {
        "lambda_clock": "tensors",
        "clip_over": "accumulated",
        "penalty_mean": "matrices",
        "adv_gradient": "mean",
        "adamw": "released",
        "max_grad_norm": 1.0,
        "schedule_length": "examples",
    },
}


@dataclasses.dataclass(kw_only=True)
class Deviations:
    """Deviations from the paper (docs/deviations.md)."""

    deviations: str = setting(
        "paper",
        "do what the paper writes, or what its released code does; sets the switches of this group",
        choices=("paper", "released"),
    )
    adamw: str | None = setting(
        None,
        "D14: torch's AdamW, or the transformers library's of 2021 (default: by --deviations)",
        choices=("torch", "released"),
    )
    max_grad_norm: float | None = setting(
        None,
        "D13: total gradient norm at which to clip, 0 for none (default: 1.0; with --deviations "
        "released 0 in stages 1 and 3)",
        cli.non_negative_float,
    )


@dataclasses.dataclass(kw_only=True)
class SearchDeviations(Deviations):
    """Deviations of the search (docs/deviations.md)."""

    lambda_clock: str | None = setting(
        None,
        "D1: count lambda's start and warm-up in optimizer steps, or in tensors of the batches, "
        "which run about three times as fast (default: by --deviations)",
        choices=("steps", "tensors"),
    )
    clip_over: str | None = setting(
        None,
        "D2: freeze the weights and clip the scores' gradients with L0; or let the weights' "
        "gradients accumulate over the run and enter the clip (default: by --deviations)",
        choices=("scores", "accumulated"),
    )
    penalty_mean: str | None = setting(
        None,
        "D9: take R(m) as the mean over all gates, or over the matrices' means (default: by "
        "--deviations)",
        choices=("entries", "matrices"),
    )
    adv_gradient: str | None = setting(
        None,
        "D10: take the mean of the gradients of K passes, or the gradient at the last perturbation "
        "alone, after K ascents (default: mean)",
        choices=("mean", "last"),
    )
    schedule_length: str | None = setting(
        None,
        "D17: let the learning rate fall over the optimizer steps that are made, or over "
        "floor(examples * epochs / batch) steps (default: by --deviations)",
        choices=("steps", "examples"),
    )


def apply_deviations(settings: Deviations, switches: dict[str, dict[str, Any]]) -> None:
    """Fill in the switches that no flag sets. `switches`: TRAINING or SEARCH."""
    for name, value in switches[settings.deviations].items():
        if getattr(settings, name) is None:
            setattr(settings, name, value)
