"""The released code's search step, written anew from its description: the yardstick for speed.

Plain PyTorch from the formulas alone, without masking/ or training/, so that its equality with
`--deviations released` (tests/benchmarks/test_benchmarks.py) is one of two independent programs.
What makes it slow and different: eager gates in fp32; weights that are never frozen, whose
gradients accumulate over the run and enter the clip norm; the L0 gradient added after the clip;
R(m) as the mean of the matrices' means; a clock of lambda that counts the tensors of the batches;
the transformers library's AdamW of 2021; new gates and dropout in every pass; shuffled batches
padded to their longest row. D1 and so on are the rows of docs/deviations.md.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# Hard concrete: temperature, and the stretch of (0, 1) to (LOW, HIGH) before the clamp.
TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1

# The gated matrices of a BERT: six in every layer and the pooler's.
_GATED = re.compile(
    r"encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|attention\.output\.dense|"
    r"intermediate\.dense|output\.dense)$|pooler\.dense$"
)


@dataclass
class Settings:
    """The flags of the released script that the step reads; the defaults are those for SST-2."""

    adv_steps: int = 5
    adv_lr: float = 0.03
    adv_init_mag: float = 0.05
    lr: float = 0.1
    weight_decay: float = 1e-6
    warmup_ratio: float = 0.1
    lambda_amp: float = 0.5
    lambda_startup_frac: float = 0.1
    lambda_warmup_frac: float = 0.3
    max_grad_norm: float = 1.0
    mask_p: float = 0.9
    epochs: int = 20
    batch_size: int = 32
    tensors_per_batch: int = 3  # D1: ids, mask and labels


class Gate(nn.Module):
    """A linear layer with its weights times hard-concrete samples, drawn at each call."""

    def __init__(self, linear: nn.Linear, initial_gate: float, draw: Callable[[tuple], Tensor]):
        super().__init__()
        self.weight, self.bias, self.draw = linear.weight, linear.bias, draw
        share = (initial_gate - LOW) / (HIGH - LOW)
        start = torch.full_like(linear.weight, math.log(share / (1 - share)))
        self.log_alpha = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        u = self.draw(tuple(self.weight.shape))
        s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + self.log_alpha) / TEMPERATURE)
        mask = torch.clamp(s * (HIGH - LOW) + LOW, 0, 1)
        return nn.functional.linear(x, self.weight * mask, self.bias)

    def open_probability(self) -> Tensor:
        """Scalar: mean probability that a gate of this matrix is not zero."""
        return torch.sigmoid(self.log_alpha - TEMPERATURE * math.log(-LOW / HIGH)).mean()


class ReleasedSearch:
    """Model, gates and optimizer state of the released search; `step` is one optimizer step.

    `draw_uniform(shape)` returns U(0, 1) noise for one matrix, once per matrix and pass.
    `start_pass(k)` is called before pass k; a test seeds dropout and noise there.
    `draw_delta(shape)` returns U(-1, 1) noise of the first delta, (sentences, tokens, hidden).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        settings: Settings,
        examples: int,
        draw_uniform: Callable[[tuple], Tensor],
        start_pass: Callable[[int], None] = lambda k: None,
        draw_delta: Callable[[tuple], Tensor] | None = None,
    ):
        self.model, self.settings = model.train(), settings
        self.start_pass = start_pass
        self.draw_delta = draw_delta or (
            lambda shape: torch.zeros(shape, device=model.device).uniform_(-1, 1)
        )
        self.gates: dict[str, Gate] = {}
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and _GATED.search(name):
                parent, _, child = name.rpartition(".")
                self.gates[name] = Gate(module, settings.mask_p, draw_uniform)
                setattr(model.get_submodule(parent), child, self.gates[name])
        self.scores = [gate.log_alpha for gate in self.gates.values()]
        self.moments = [(torch.zeros_like(s), torch.zeros_like(s)) for s in self.scores]
        self.batches = settings.epochs * math.ceil(examples / settings.batch_size)
        # The released schedule counts examples, not batches: it ends a little early.
        self.schedule_end = examples * settings.epochs // settings.batch_size
        self.steps = 0

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor | float]:
        """One optimizer step on input_ids, attention_mask and labels; returns what it logs."""
        s = self.settings
        lr = s.lr * self._lr_factor(self.steps)
        self.steps += 1
        lambda_reg = self._lambda(self.steps * s.tensors_per_batch)  # D1
        losses, sizes = self._adversarial_passes(batch)
        logged = {"loss_per_pass": torch.stack(losses), "delta_norm_per_pass": torch.stack(sizes)}
        logged["score_grad_norm"] = _norm(g.log_alpha.grad for g in self.gates.values())
        logged["clip_norm"] = self._clip()  # D2: before the L0 gradient, over all parameters
        penalty = torch.stack([g.open_probability() for g in self.gates.values()]).mean()  # D9
        (lambda_reg * penalty).backward()
        self._adamw(lr)
        for score in self.scores:  # D2: the scores' gradients alone
            score.grad = None
        return logged | {"penalty": penalty.detach(), "lr": lr, "lambda_reg": lambda_reg}

    def _adversarial_passes(self, batch: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """FreeLB: mean gradient of all passes, with an ascent after each pass but the last."""
        s = self.settings
        mask, words = batch["attention_mask"], self.model.get_input_embeddings()
        shape = (*mask.shape, words.embedding_dim)
        tokens = mask.sum(1).float()
        size = s.adv_init_mag / torch.sqrt(tokens * shape[2])
        delta = self.draw_delta(shape) * mask[:, :, None] * size[:, None, None]
        losses, sizes = [], []
        for k in range(s.adv_steps):
            self.start_pass(k)
            delta = delta.detach().requires_grad_()
            embedded = words(batch["input_ids"]) + delta
            out = self.model(inputs_embeds=embedded, attention_mask=mask, labels=batch["labels"])
            (out.loss / s.adv_steps).backward()
            losses.append(out.loss.detach())
            sizes.append(torch.linalg.vector_norm(delta.detach(), dim=(1, 2)).mean())
            length = torch.linalg.vector_norm(delta.grad, dim=(1, 2), keepdim=True)
            delta = delta.detach() + s.adv_lr * delta.grad / torch.clamp(length, min=1e-8)
        return losses, sizes

    def _clip(self) -> Tensor:
        """Rescale all gradients, the accumulated ones too; returns the norm before."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = _norm(gradients)
        factor = torch.clamp(self.settings.max_grad_norm / (norm + 1e-6), max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
        return norm

    @torch.no_grad()
    def _adamw(self, lr: float) -> None:
        """The library of 2021 (D14): eps before the bias correction, decay after the step."""
        correction = math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for score, (first, second) in zip(self.scores, self.moments, strict=True):
            first.mul_(0.9).add_(score.grad, alpha=0.1)
            second.mul_(0.999).addcmul_(score.grad, score.grad, value=0.001)
            score.addcdiv_(first, second.sqrt().add_(1e-8), value=-lr * correction)
            score.add_(score, alpha=-lr * self.settings.weight_decay)

    def _lr_factor(self, finished: int) -> float:
        warmup = self.settings.warmup_ratio * self.schedule_end
        if finished < warmup:
            return finished / max(1, warmup)
        return max(0.0, (self.schedule_end - finished) / max(1, self.schedule_end - warmup))

    def _lambda(self, count: int) -> float:
        s = self.settings
        since_start = count - s.lambda_startup_frac * self.batches
        share = since_start / (s.lambda_warmup_frac * self.batches)
        return s.lambda_amp * min(1.0, max(0.0, share))


def _norm(tensors) -> Tensor:
    """Scalar: Euclidean norm of all entries of all tensors."""
    return torch.stack([torch.linalg.vector_norm(t) for t in tensors]).norm()


def shuffled_batches(
    rows: list[np.ndarray], labels: list[int], batch_size: int, seed: int
) -> Iterator[dict[str, Tensor]]:
    """One epoch in random order, each batch padded with 0 to its longest row."""
    order = np.random.default_rng(seed).permutation(len(rows))
    for start in range(0, len(rows), batch_size):
        chosen = order[start : start + batch_size]
        ids = [torch.as_tensor(rows[i], dtype=torch.int64) for i in chosen]
        masks = [torch.ones_like(row) for row in ids]
        pad = nn.utils.rnn.pad_sequence
        yield {
            "input_ids": pad(ids, batch_first=True),
            "attention_mask": pad(masks, batch_first=True),
            "labels": torch.tensor([labels[i] for i in chosen]),
        }
