"""The penalty of the search: lambda R(m), or one that ends at a target.

For a target, lambda R(m) of Eq. 8 becomes first * gap + second * gap^2 with gap = cost(m) - wanted,
maximized over the two multipliers while the scores minimize it (Wang, Wohlwend and Lei, EMNLP 2020;
CoFiPruning: Xia, Zhong and Chen, ACL 2022). The cost is R(m), or the expected time of the model as
a share of the dense model's (training/latency.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from masking import hard_concrete, unit_tickets
from masking.structures import Units
from training import optim
from training.latency import LatencyTable
from utils.cli import UserError

# The drawn ticket has to be this near to the target (of sparsity, or of 1 / speed-up).
TOLERANCE = 0.01


class Multipliers:
    """The multipliers of the gap, and the scale in which they count.

    A slope of 1 is a penalty whose gradient is as long as the loss's: how long that is depends on
    model, units and data by orders of magnitude. `second` starts at 60: a gap of one point then has
    a slope of 1.2, so the gates follow what is wanted closely; `first` takes up what remains.
    """

    MOST = 5.0  # largest slope: longer gradients would only fill AdamW's second moments

    def __init__(self, wanted: float, rate: float, device: torch.device):
        """`wanted`: cost at the end, in (0, 1]. `rate`: step size of the ascent."""
        self.wanted, self.rate = wanted, rate
        self.both = torch.tensor([0.0, 60.0], device=device)  # first, second
        self.scale = torch.zeros((), device=device)  # moving mean of the ratio of the lengths

    def slope(self, cost: Tensor, progress: float) -> Tensor:
        """d(first gap + second gap^2) / d(cost) in this step; then one step of ascent.

        `cost`: float32 scalar. `progress`: 0 while the cost is free, then linear up to 1, at which
        it must be as wanted. Returns a float32 scalar.
        """
        if progress <= 0:
            return torch.zeros_like(cost)
        gap = cost - (1 - progress * (1 - self.wanted))
        slope = (self.both[0] + 2 * self.both[1] * gap).clamp(-self.MOST, self.MOST)
        self.both += self.rate * torch.stack([gap, gap**2])
        return slope

    def update_scale(self, of_loss: Tensor, of_cost: Tensor) -> Tensor:
        """The scale, after the lengths of both gradients in this step (float32 scalars)."""
        ratio = of_loss / of_cost.clamp_min(1e-30)
        mean = torch.where(self.scale > 0, 0.9 * self.scale + 0.1 * ratio, ratio)
        self.scale = torch.where(torch.isfinite(mean), mean, self.scale)
        return self.scale


class Penalty:
    """lambda R(m), the second term of Eq. 8, with a lambda that is given."""

    def __init__(self, units: list[Units], mean_over: str):
        """`units`: empty for a gate per weight, with the mean over `mean_over` (D9)."""
        self.units, self.mean_over = units, mean_over

    @torch.no_grad()
    def density(self, scores: list[Tensor]) -> float:
        """R(m), with a mean over the weights."""
        if not self.units:
            return float(hard_concrete.penalty(scores))
        return float(unit_tickets.density(self.units, unit_tickets.opened_by(self.units, scores)))

    def snapshot(self) -> dict:
        """What changes from step to step."""
        return {}

    def load(self, snapshot: dict) -> None:
        """Resume from a snapshot."""

    def gradients(self, scores: list[Tensor], lambda_reg: float) -> tuple[dict, list[Tensor]]:
        """What is logged, as tensors, and the gradients of lambda R(m) by the scores."""
        density, gradients = self._density(scores, lambda_reg)
        return {"penalty": density}, gradients

    def _density(self, scores: list[Tensor], weight: float) -> tuple[Tensor, list[Tensor]]:
        if not self.units:
            return hard_concrete.penalty_and_gradients(scores, self.mean_over, weight)
        density = unit_tickets.density(self.units, unit_tickets.opened_by(self.units, scores))
        return density.detach(), list(torch.autograd.grad(weight * density, scores))


class TargetPenalty(Penalty):
    """A penalty that leads to a target: a sparsity, or a speed-up of the drawn ticket."""

    def __init__(
        self,
        units: list[Units],
        wanted: float,
        rate: float,
        table: LatencyTable | None,
        device: torch.device,
    ):
        """`wanted`, `rate`: as of Multipliers. `table`: None if the cost is R(m).

        Raises UserError for a cost that no ticket has, with the nearest that one has.
        """
        super().__init__(units, "entries")
        self.table = table
        self.multipliers = Multipliers(wanted, rate, device)
        if table is not None:
            table.check_fits(units)
        if units:
            if table is None:
                cost = 1 - unit_tickets.nearest_sparsity(units, 1 - wanted)
            else:
                costs = table.reachable_shares(units)
                cost = float(costs[(costs - wanted).abs().argmin()])
            if abs(cost - wanted) > TOLERANCE:
                of_sparsity = f"--target_sparsity {1 - wanted:g}: the nearest is {1 - cost:.3f}"
                of_speed = f"--target_speedup {1 / wanted:g}: the nearest is {1 / cost:.2f}"
                raise UserError(
                    "no ticket of these units has "
                    + (of_speed if table else of_sparsity)
                    + "; ask for that, or for smaller units"
                )
        if table is not None:
            table.to(device)

    def gradients(self, scores: list[Tensor], lambda_reg: float) -> tuple[dict, list[Tensor]]:
        """As of Penalty; `lambda_reg` is the progress towards the target, from 0 to 1."""
        if self.table is None:
            density, gradients = self._density(scores, 1.0)
            cost = density
        else:
            opened = unit_tickets.opened_by(self.units, scores)
            density = unit_tickets.density(self.units, opened).detach()
            expected = self._cost(opened)
            cost, gradients = expected.detach(), list(torch.autograd.grad(expected, scores))
        of_loss = optim.total_norm([s.grad for s in scores if s.grad is not None])
        scale = self.multipliers.update_scale(of_loss, optim.total_norm(gradients))
        slope = self.multipliers.slope(cost, lambda_reg)
        torch._foreach_mul_(gradients, scale * slope)
        logged = {"penalty": density, "cost": cost, "cost_slope": slope}
        return logged | {"multipliers": self.multipliers.both.clone()}, gradients

    def snapshot(self) -> dict:
        """The multipliers."""
        return {"multipliers": self.multipliers.both, "scale": self.multipliers.scale}

    def load(self, snapshot: dict) -> None:
        """Resume from a snapshot."""
        self.multipliers.both.copy_(snapshot["multipliers"])
        self.multipliers.scale.copy_(snapshot["scale"])

    @torch.no_grad()
    def reached(self, scores: dict[str, Tensor]) -> dict:
        """How near the scores are to the target: costs as shares of the weights (of the time)."""
        wanted = self.multipliers.wanted
        sparsity, drawn = self.draw(scores)
        values = list(scores.values())
        is_sparsity = self.table is None
        if self.units:
            expected = float(self._cost(unit_tickets.opened_by(self.units, values)))
        else:
            expected = self.density(values)
        return {
            "asked": f"sparsity {1 - wanted:g}" if is_sparsity else f"speed-up {1 / wanted:g}",
            "wanted_cost": wanted,
            "expected_cost": expected,
            "drawn_cost": drawn,
            "sparsity": sparsity,
            "uniform": not is_sparsity,
        }

    def _cost(self, opened: dict[str, Tensor]) -> Tensor:
        """Share of the weights, or of the time, that is left. `opened`: as in density."""
        if self.table is not None:
            return self.table.share_of_dense_time(self.units, opened)
        return unit_tickets.density(self.units, opened)

    def draw(self, scores: dict[str, Tensor]) -> tuple[float, float]:
        """The sparsity at which these scores come nearest to the target, and the ticket's cost."""
        wanted = self.multipliers.wanted
        if not self.units:
            return 1 - wanted, wanted
        if self.table is None:
            return 1 - wanted, self._drawn_cost(scores, 1 - wanted)
        low, high = 0.0, 0.999  # the cost falls as the sparsity rises
        for _ in range(12):
            middle = (low + high) / 2
            above = self._drawn_cost(scores, middle) > wanted
            low, high = (middle, high) if above else (low, middle)
        costs = {sparsity: self._drawn_cost(scores, sparsity) for sparsity in (low, high)}
        return min(costs.items(), key=lambda item: abs(item[1] - wanted))

    def _drawn_cost(self, scores: dict[str, Tensor], sparsity: float) -> float:
        uniform = self.table is not None  # a checkpoint has one number of neurons
        kept = unit_tickets.draw(self.units, scores, sparsity, uniform)
        return float(self._cost({name: k.float() for name, k in kept.items()}))
