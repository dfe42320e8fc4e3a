"""The switches in which the released code departs from the paper, by protocol.

D numbers are those of README's table of differences. `--protocol` sets all of a stage's switches,
a switch's own flag then overrides it.
"""

import argparse

from utils.cli import Parser, non_negative_float

# Stages 1 and 3. D13: the paper clips (taken as total norm 1.0), the released code does not
# (0 = no clip). D14: AdamW as torch has it, or as transformers had it in 2021.
TRAINING = {
    "paper": {"max_grad_norm": 1.0, "adamw": "torch"},
    "released": {"max_grad_norm": 0.0, "adamw": "released"},
}

# Stage 2. D1: lambda's clock counts optimizer steps, or the tensors of the batches. D2: weights
# frozen and the clip over the scores' gradients with L0 included, or weights' gradients
# accumulated over the run and clipped along, L0 added behind the clip. D9: the mean in R(m).
# D10: both take the mean of the passes' gradients; "last" reads Eqs. 6-7 literally.
SEARCH = {
    "paper": {
        "lambda_clock": "steps",
        "clip_over": "scores",
        "penalty_mean": "entries",
        "adv_gradient": "mean",
        "adamw": "torch",
    },
    "released": {
        "lambda_clock": "tensors",
        "clip_over": "accumulated",
        "penalty_mean": "matrices",
        "adv_gradient": "mean",
        "adamw": "released",
    },
}


def add_training_flags(parser: Parser) -> None:
    g = parser.add_argument_group("protocol")
    _add_protocol(g)
    _add_adamw(g)
    g.add_argument(
        "--max_grad_norm",
        type=non_negative_float,
        help="D13: total gradient norm at which to clip, 0 for none (paper: 1.0, released: 0)",
    )


def add_search_flags(parser: Parser) -> None:
    g = parser.add_argument_group("protocol")
    _add_protocol(g)
    _add_adamw(g)
    g.add_argument(
        "--lambda_clock",
        choices=["steps", "tensors"],
        help="D1: lambda's start and warm-up counted in optimizer steps, or (released) in tensors "
        "of the batches, which run about three times as fast",
    )
    g.add_argument(
        "--clip_over",
        choices=["scores", "accumulated"],
        help="D2: frozen weights, and the clip over the scores' gradients, L0 included; or "
        "(released) the weights' gradients accumulate over the run and enter the clip",
    )
    g.add_argument(
        "--penalty_mean",
        choices=["entries", "matrices"],
        help="D9: R(m) as the mean over all gates, or (released) over the matrices' means",
    )
    g.add_argument(
        "--adv_gradient",
        choices=["mean", "last"],
        help="D10: the mean of the gradients of adv_steps passes, or the gradient at the last "
        "delta alone, after adv_steps ascents",
    )


def _add_protocol(group) -> None:
    group.add_argument(
        "--protocol",
        choices=["paper", "released"],
        default="paper",
        help="what the paper writes, or what its released code does (sets the switches below)",
    )


def _add_adamw(group) -> None:
    group.add_argument(
        "--adamw",
        choices=["torch", "released"],
        help="D14: torch's AdamW, or the transformers library's of 2021",
    )


def apply_protocol(args: argparse.Namespace, switches: dict[str, dict]) -> None:
    """Fill in the switches that no flag has set."""
    for name, value in switches[args.protocol].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
