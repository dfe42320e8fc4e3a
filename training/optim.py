"""Schedules, parameter groups and both forms of AdamW, the same in all stages."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from masking.surgery import is_norm
from utils.cli import UserError, warn


def linear_schedule(step: int, warmup_steps: float, total_steps: int) -> float:
    """Factor of the learning rate after `step` updates, in [0, 1].

    It rises linearly from 0 to 1 over the warm-up, then falls linearly to 0 at total_steps.
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def lr_at(step: int, peak: float, warmup_ratio: float, total_steps: int) -> float:
    """Learning rate of optimizer step `step`, counted from 1. `peak`: at the end of the warm-up."""
    return peak * linear_schedule(step - 1, warmup_ratio * total_steps, total_steps)


def lambda_at(count: float, total: int, amplitude: float, startup: float, warmup: float) -> float:
    """Weight lambda of R(m): 0 until `startup`, then linear up to `amplitude` during `warmup`.

    `count` and `total`: in the units of lambda's clock (D1). `startup`, `warmup`: fractions of
    `total`.
    """
    since_start = count - startup * total
    if warmup == 0:
        return amplitude if since_start >= 0 else 0.0
    return amplitude * min(1.0, max(0.0, since_start / (warmup * total)))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two parameter groups: with weight decay, and without it (biases and weights of norms)."""
    no_decay = {
        id(p)
        for module in model.modules()
        for name, p in module.named_parameters(recurse=False)
        if name.endswith("bias") or is_norm(module)
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) not in no_decay], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in no_decay], "weight_decay": 0.0},
    ]


def make_adamw(
    kind: str, parameters: list, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An AdamW. `kind` (D14): "torch"; or "released", the one in transformers of 2021."""
    if kind == "torch":
        return torch.optim.AdamW(parameters, lr, eps=1e-8, weight_decay=weight_decay, fused=True)
    return ReleasedAdamW(parameters, lr, weight_decay)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class ReleasedAdamW(torch.optim.Optimizer):
    """AdamW that adds eps to sqrt(v) *before* the bias correction and decays after the step.

    p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps), then p -= lr * weight_decay * p.
    torch adds eps after the correction. The difference matters if gradients are below eps, as those
    of the L0 penalty are.
    """

    def __init__(self, params, lr: float, weight_decay: float, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        )

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, **{k: v for k, v in group.items() if k != "params"})

    def _update(self, params: list[Tensor], lr, weight_decay, betas, eps) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": 0,
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
            self.state[p]["step"] += 1
        t = self.state[params[0]]["step"]
        beta1, beta2 = betas
        grads = [p.grad for p in params]
        m = [self.state[p]["exp_avg"] for p in params]
        v = [self.state[p]["exp_avg_sq"] for p in params]
        torch._foreach_mul_(m, beta1)
        torch._foreach_add_(m, grads, alpha=1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - beta2)
        denominators = torch._foreach_sqrt(v)
        torch._foreach_add_(denominators, eps)
        step_size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        torch._foreach_addcdiv_(params, m, denominators, value=-step_size)
        if weight_decay:
            torch._foreach_mul_(params, 1 - lr * weight_decay)


class Skips:
    """Counter of optimizer steps that are skipped because a loss or gradient is not finite."""

    LIMIT = 10

    def __init__(self, count: int = 0):
        self.count = count

    def admits(self, step: int, losses: Tensor, grad_norm: Tensor) -> bool:
        """Whether to make optimizer step `step`. Waits for the device.

        `losses`: float, any shape. `grad_norm`: scalar. Raises UserError at step number LIMIT that
        is skipped.
        """
        if bool(torch.isfinite(losses).all() & torch.isfinite(grad_norm).all()):
            return True
        self.count += 1
        warn(
            f"optimizer step {step} is skipped: its losses {losses.tolist()} or its gradient "
            f"norm {float(grad_norm)} are not finite"
        )
        if self.count >= self.LIMIT:
            raise UserError(
                f"{self.count} optimizer steps had a loss or gradient that is not finite (last: "
                f"step {step}, losses {losses.tolist()}, gradient norm {float(grad_norm)}); the "
                "run keeps its last resume point: lower --lr or --adv_lr, or use --precision "
                "fp32, with --overwrite or another --output_dir"
            )
        return False


def total_norm(tensors: list[Tensor]) -> Tensor:
    """Frobenius norm of all tensors together. Returns a scalar tensor without waiting for it."""
    return torch.nn.utils.get_total_norm(tensors)


def check_gradients(tensors: dict[str, Tensor]) -> None:
    """Raise UserError if a tensor, by the name of its matrix, got no gradient."""
    without = [name for name, tensor in tensors.items() if tensor.grad is None]
    if without:
        raise UserError(
            f"the loss does not depend on {without[0]} ({len(without)} such matrices), so its "
            "gates cannot be learned: choose another encoder, or see --exclude"
        )


def clip(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale the gradients in place to a total norm of at most max_norm; 0: do not scale.

    Returns the total norm before scaling, a scalar tensor.
    """
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm or float("inf"))
