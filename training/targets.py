"""Settings of a search that ends at a target. Without torch, which takes seconds to import."""

import dataclasses
from typing import Any

from utils import cli
from utils.cli import UserError
from utils.settings import Role, setting


@dataclasses.dataclass(kw_only=True)
class TargetSettings:
    """Target of the search, in place of a fixed lambda."""

    target_sparsity: float | None = setting(
        None,
        "end at this sparsity; --lambda_amp and --sparsity have no effect then",
        cli.sparsity,
        role=Role.TICKET,
    )
    target_speedup: float | None = setting(
        None,
        "end at units whose removal makes the model faster by this factor, by --latency_table; "
        "--lambda_amp and --sparsity have no effect then",
        cli.positive_float,
        role=Role.TICKET,
    )
    latency_table: str | None = setting(
        None,
        "measured times for --target_speedup, written by benchmarks/latency_table.py",
        role=Role.PLACE,
    )
    multiplier_lr: float | None = setting(
        None,
        "with a target: growth of the multipliers over the run, per unit of the gap (default: 20)",
        cli.positive_float,
        role=Role.TICKET,
    )

    @property
    def has_target(self) -> bool:
        return self.target_sparsity is not None or self.target_speedup is not None


def check_target(settings: Any) -> None:
    """Set --multiplier_lr. UserError for settings that do not go with --structure or a target."""
    unread: list[str] = []
    if settings.structure:
        blocks = (settings.out_w_per_mask, settings.in_w_per_mask) != (1, 1)
        unread += ["blocks of weights (--out_w_per_mask, --in_w_per_mask) have"] if blocks else []
        unread += ["--compile has"] if settings.compile else []
    if settings.structure or settings.has_target:
        over_matrices = settings.penalty_mean == "matrices"
        unread += ["--penalty_mean matrices has"] if over_matrices else []
    if unread:
        raise UserError(f"{unread[0]} no effect with --structure or a target: omit it")
    if settings.target_sparsity is not None and settings.target_speedup is not None:
        raise UserError("give --target_sparsity or --target_speedup, not both")
    if (settings.latency_table is None) != (settings.target_speedup is None):
        raise UserError("--target_speedup and --latency_table need each other")
    if settings.target_speedup is not None and not settings.structure:
        raise UserError(
            "removing single weights makes no model faster: --target_speedup needs --structure"
        )
    if settings.target_speedup is not None and "heads" in settings.structure:
        raise UserError(
            "removing heads makes few stock checkpoints faster, so --target_speedup counts neurons "
            "and layers only: omit heads from --structure"
        )
    if settings.multiplier_lr is not None and not settings.has_target:
        raise UserError("--multiplier_lr needs --target_sparsity or --target_speedup")
    settings.multiplier_lr = settings.multiplier_lr or (20.0 if settings.has_target else None)
