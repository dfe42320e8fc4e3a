"""Ways to train all weights (stages 1 and 3, rounds of IMP): plain, FreeLB, PGD, InfoBERT.

A method's settings are its authors' where they state any; the shell stages give those of each data
set. A flag overrides them; a flag that the method does not read is an error. Without torch.
"""

import dataclasses
from typing import Any

from utils import cli
from utils.cli import UserError
from utils.settings import setting


@dataclasses.dataclass(kw_only=True)
class AdversarySettings:
    """Adversary (Eqs. 6-7)."""

    adv_steps: int | None = setting(
        None,
        "K: passes of FreeLB, InfoBERT and the search, ascents of PGD; 0 for no adversary "
        "(default: the method's; 5 in the search)",
        cli.non_negative_int,
    )
    adv_lr: float | None = setting(
        None,
        "eta: size of an ascent (default: the method's; 0.03 in the search)",
        cli.non_negative_float,
    )
    adv_init_mag: float | None = setting(
        None,
        "eps_0: size of the initial perturbation (default: the method's; 0.05 in the search)",
        cli.non_negative_float,
    )
    adv_max_norm: float | None = setting(
        None,
        "bound on the perturbation's norm after an ascent, 0 for none (default: the method's; 0 in "
        "the search)",
        cli.non_negative_float,
    )
    adv_norm_type: str | None = setting(
        None, "norm of a sentence's perturbation (default: l2)", choices=("l2", "linf")
    )
    redraw: str | None = setting(
        None,
        "draw dropout (and gates) again in each pass, or once per optimizer step (default: the "
        "method's; each_pass in the search)",
        choices=("each_pass", "each_step"),
    )
    clean_loss_weight: float | None = setting(
        None,
        "weight of the loss without perturbation, which is added to the adversarial loss (default: "
        "0)",
        cli.non_negative_float,
    )


@dataclasses.dataclass(kw_only=True)
class MethodSettings(AdversarySettings):
    """Method (training/methods.py)."""

    method: str = setting(
        "plain", "how the weights are trained", choices=("plain", "freelb", "pgd", "infobert")
    )
    info_alpha: float | None = setting(
        None,
        "InfoBERT: weight of the anchored features (default: the method's)",
        cli.non_negative_float,
    )
    info_beta: float | None = setting(
        None,
        "InfoBERT: weight of the information bottleneck (default: the method's)",
        cli.non_negative_float,
    )
    anchor_low: float | None = setting(
        None, "InfoBERT: share of tokens below the anchors (default: the method's)", cli.fraction
    )
    anchor_high: float | None = setting(
        None,
        "InfoBERT: share of tokens up to the last anchor (default: the method's)",
        cli.fraction,
    )


_OFF: dict[str, Any] = {
    "adv_steps": 0,
    "adv_lr": 0.0,
    "adv_init_mag": 0.0,
    "adv_max_norm": 0.0,
    "adv_norm_type": "l2",
    # FreeLB's authors keep one dropout mask through a step, and InfoBERT's code does the same.
    "redraw": "each_step",
    "clean_loss_weight": 0.0,
    "info_alpha": 0.0,
    "info_beta": 0.0,
    "anchor_low": 0.0,
    "anchor_high": 0.0,
}
_INFOBERT_ONLY = {"info_alpha", "info_beta", "anchor_low", "anchor_high"}

METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    # Zhu et al. 2020, their SST-2.
    "freelb": {"adv_steps": 2, "adv_lr": 0.1, "adv_init_mag": 0.6},
    # Ours: FreeLB's settings with the gradient of the last pass alone (Madry et al. 2018, on
    # embeddings); no paper states settings for these tasks.
    "pgd": {"adv_steps": 2, "adv_lr": 0.1, "adv_init_mag": 0.6},
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


def apply_method(settings: MethodSettings) -> None:
    """Fill in the method's settings. UserError for a flag that the method does not read."""
    method = settings.method
    unread = set(_OFF) if method == "plain" else set() if method == "infobert" else _INFOBERT_ONLY
    for name in sorted(unread):
        if getattr(settings, name) is not None:
            raise UserError(f"--{name} has no effect with --method {method}: omit it")
    for name, value in (_OFF | METHODS[method]).items():
        if getattr(settings, name) is None:
            setattr(settings, name, value)
    if method == "plain":
        return
    if not settings.adv_steps or not settings.adv_lr:
        raise UserError(f"--method {method} needs --adv_steps and --adv_lr above 0")
    if method == "infobert" and not settings.anchor_low < settings.anchor_high:
        raise UserError(
            f"--anchor_low {settings.anchor_low} must be below --anchor_high {settings.anchor_high}"
        )
