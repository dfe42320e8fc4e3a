"""Ways to train all weights (stages 1 and 3, rounds of IMP): plain, FreeLB, PGD, InfoBERT.

Each method's settings are its authors' where they state any; the shell stages give those of each
data set. A flag overrides them; a flag that the method does not read is an error. Without torch:
flags are checked before it is imported.
"""

import argparse

from utils.cli import Parser, UserError, fraction, non_negative_float, positive_float, positive_int

_NONE = {
    "adv_steps": 0,
    "adv_lr": 0.0,
    "adv_init_mag": 0.0,
    "adv_max_norm": 0.0,
    "adv_norm_type": "l2",
    "adv_gradient": "mean",
    "redraw": "each_step",
    "clean_loss_weight": 0.0,
    "info_alpha": 0.0,
    "info_beta": 0.0,
    "anchor_low": 0.0,
    "anchor_high": 0.0,
}

# adv_gradient: the mean over all passes, or that of the last. redraw: FreeLB's authors keep one
# dropout mask through the passes of a step, and InfoBERT's code does the same.
METHODS = {
    "plain": {},
    # Zhu et al. 2020, their SST-2.
    "freelb": {"adv_steps": 2, "adv_lr": 0.1, "adv_init_mag": 0.6},
    # Ours: FreeLB's settings, with the gradient of the last pass alone (Madry et al. 2018, on
    # embeddings); no paper states settings for these tasks.
    "pgd": {"adv_steps": 2, "adv_lr": 0.1, "adv_init_mag": 0.6, "adv_gradient": "last"},
    # Wang et al. 2021, their ANLI.
    "infobert": {
        "adv_steps": 3,
        "adv_lr": 0.04,
        "adv_init_mag": 0.08,
        "info_alpha": 5e-3,
        "info_beta": 5e-3,
        "anchor_low": 0.5,
        "anchor_high": 0.9,
    },
}

_INFOBERT_FLAGS = ("info_alpha", "info_beta", "anchor_low", "anchor_high")


def add_flags(parser: Parser) -> None:
    g = parser.add_argument_group("method (defaults: the method's, see training/methods.py)")
    add = g.add_argument
    add("--method", choices=list(METHODS), default="plain", help="how the weights are trained")
    add("--adv_steps", type=positive_int, help="K: passes of FreeLB and InfoBERT, ascents of PGD")
    add("--adv_lr", type=positive_float, help="eta, size of an ascent")
    add("--adv_init_mag", type=non_negative_float, help="eps_0, size of delta_0")
    add(
        "--adv_max_norm",
        type=non_negative_float,
        help="its bound after an ascent, 0: none",
    )
    add("--adv_norm_type", choices=["l2", "linf"], help="norm of delta, a sentence")
    add(
        "--redraw",
        choices=["each_pass", "each_step"],
        help="draw dropout anew in each pass, or once per optimizer step",
    )
    add(
        "--clean_loss_weight",
        type=non_negative_float,
        help="weight of the loss without perturbation, added to the adversarial one",
    )
    add("--info_alpha", type=non_negative_float, help="InfoBERT: weight of the anchored features")
    add("--info_beta", type=non_negative_float, help="InfoBERT: weight of the bottleneck")
    add("--anchor_low", type=fraction, help="InfoBERT: share of a text's tokens below the anchors")
    add("--anchor_high", type=fraction, help="InfoBERT: share of tokens up to the last anchor")


def apply_method(args: argparse.Namespace) -> None:
    """Fill in the method's settings; UserError for a flag that it does not read."""
    unread = set(_NONE) if args.method == "plain" else set(_INFOBERT_FLAGS)
    if args.method == "infobert":
        unread = set()
    for name in sorted(unread):
        if getattr(args, name, None) is not None:
            raise UserError(f"--{name} is not read by --method {args.method}")
    for name, value in (_NONE | METHODS[args.method]).items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if args.method == "infobert" and not args.anchor_low < args.anchor_high:
        raise UserError(
            f"--anchor_low {args.anchor_low} must be below --anchor_high {args.anchor_high}"
        )
