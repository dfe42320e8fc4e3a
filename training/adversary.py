"""The perturbation delta of the word embeddings (Eqs. 6-7), and training steps under it.

search_ticket.py writes its own passes out; `backward` is those of FreeLB, PGD and InfoBERT.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from training.infobert import InfoBERT
from training.methods import AdversarySettings
from training.prediction import inputs_of
from training.settings import WeightSettings
from utils.cli import UserError
from utils.runs import seed_for


def initial_delta(
    uniform: Tensor, attention_mask: Tensor, magnitude: float, norm_type: str = "l2"
) -> Tensor:
    """The initial perturbation: (sentences, tokens, hidden), 0 at padding.

    `uniform`: draws from U(-1, 1) of that shape. l2: scaled per sentence by magnitude /
    sqrt(tokens of the sentence * hidden size); linf: by magnitude.
    """
    mask = attention_mask.to(uniform.dtype)
    if norm_type == "linf":
        return uniform * mask[..., None] * magnitude
    entries = mask.sum(dim=1) * uniform.shape[-1]
    return uniform * mask[..., None] * (magnitude / entries.sqrt())[:, None, None]


def sentence_norms(delta: Tensor) -> Tensor:
    """Frobenius norm of each sentence's delta: (sentences,)."""
    return delta.flatten(1).norm(dim=1)


def ascend(delta: Tensor, gradient: Tensor, settings: AdversarySettings) -> Tensor:
    """One ascent, Eq. 7: delta + lr * g / ||g|| per sentence, then projection to the bound.

    --adv_max_norm 0: the norm is not bounded, which is the paper's setting. A gradient with a norm
    below 1e-8 is divided by 1e-8, so that it cannot blow up.
    """
    is_linf, bound = settings.adv_norm_type == "linf", settings.adv_max_norm
    flat = gradient.flatten(1)
    size = flat.abs().amax(dim=1) if is_linf else flat.norm(dim=1)
    delta = delta + settings.adv_lr * gradient / size.clamp(min=1e-8)[:, None, None]
    if not bound:
        return delta
    if is_linf:
        return delta.clamp(-bound, bound)
    return delta * (bound / sentence_norms(delta).clamp(min=bound))[:, None, None]


@contextlib.contextmanager
def perturbed(model: nn.Module, delta: Tensor | None) -> Iterator[None]:
    """Inside, the word embeddings come out with delta added; None leaves them as they are.

    A hook on the lookup rather than inputs_embeds: the encoder is called with its token ids, as in
    fine-tuning, and derives position and token type ids as it always does (D12). Only the first
    lookup counts: T5's decoder looks its own input up with the same weights. For one forward pass.
    """
    if delta is None:
        yield
        return
    if type(model).__name__.startswith("XLNet"):  # looks tokens up as (tokens, sentences)
        delta = delta.transpose(0, 1)
    lookups: list[int] = []

    def add(_module: nn.Module, _ids: tuple, embedded: Tensor) -> Tensor:
        lookups.append(1)
        return embedded + delta if len(lookups) == 1 else embedded

    weight = model.get_input_embeddings().weight
    tables = [module for module in model.modules() if getattr(module, "weight", None) is weight]
    handles = [table.register_forward_hook(add) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if not lookups:
        raise UserError(
            f"{type(model).__name__} does not look words up in its input embeddings, so an "
            "adversary cannot perturb them; choose another encoder"
        )


def micro_batches(
    batch: dict[str, Tensor], delta: Tensor | None, micro_bsz: int | None, ascends: bool = False
) -> list[tuple[dict[str, Tensor], Tensor | None]]:
    """The batch, or parts of it of `micro_bsz` rows, each with its rows of delta.

    Every part keeps the batch's `row_weight`, so the parts' losses add up to the batch's mean.
    `ascends`: the rows of delta require a gradient.
    """
    rows = len(batch["labels"])
    parts = []
    for start in range(0, rows, micro_bsz or rows):
        part = slice(start, start + (micro_bsz or rows))
        mine = {n: v if n == "row_weight" else v[part] for n, v in batch.items()}
        shift = None if delta is None else delta[part].detach().requires_grad_(ascends)
        parts.append((mine, shift))
    return parts


def sum_of_losses(losses: list[Tensor]) -> Tensor:
    """The sum of the micro-batches' losses, without a graph."""
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


class Draws:
    """All noise of a training step, each draw from a seed of its own: (seed, purpose, step, pass).

    `draw_gates`: called with a generator to draw the noise of the gates, where there are gates.
    """

    def __init__(
        self,
        hidden: int,
        settings: AdversarySettings,
        seed: int,
        accelerator: Accelerator,
        draw_gates: Callable[[torch.Generator], None] | None = None,
    ):
        self.hidden, self.settings, self.seed = hidden, settings, seed
        self.accelerator, self.draw_gates = accelerator, draw_gates

    def start_step(self, step: int, batch: dict[str, Tensor], shape: tuple[int, int]) -> None:
        """`shape`: (sentences, tokens) of the whole batch; `batch`: this process' rows of it."""
        self.step, self.batch, self.shape = step, batch, shape

    def redraw(self, k: int) -> None:
        """New dropout and gate noise for pass k; --redraw each_step repeats those of pass 0."""
        k = k if self.settings.redraw == "each_pass" else 0
        torch.manual_seed(self._seed("dropout", k, self.accelerator.process_index))
        if self.draw_gates is not None:
            self.draw_gates(self._generator("gates", k))

    def delta(self) -> Tensor:
        """The initial delta, drawn for the whole batch, so that one process and several agree."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        shape = (*self.shape, self.hidden)
        generator, device = self._generator("delta"), self.accelerator.device
        uniform = torch.rand(shape, generator=generator, device=device) * 2 - 1
        mine = uniform[rank::world] if rank < self.shape[0] else uniform[:1]
        s = self.settings
        return initial_delta(mine, self.batch["attention_mask"], s.adv_init_mag, s.adv_norm_type)

    def _seed(self, purpose: str, *counters: int) -> int:
        return seed_for(self.seed, purpose, self.step, *counters)

    def _generator(self, purpose: str, *counters: int) -> torch.Generator:
        return torch.Generator(self.accelerator.device).manual_seed(self._seed(purpose, *counters))


def backward(
    model: nn.Module,
    batch: dict[str, Tensor],
    args: WeightSettings,
    draws: Draws,
    accelerator: Accelerator,
    regularizer: InfoBERT | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add the gradient of an adversarial method's loss on one batch to the parameters' .grad.

    FreeLB (Zhu et al. 2020, Algorithm 1) and InfoBERT: K passes, the first at the random delta, the
    mean of their gradients, an ascent after each pass but the last. PGD (Madry et al. 2018): K
    ascents, then one pass that counts. clean_loss_weight times the loss without delta is added.
    Returns the loss of each pass, (passes,), and further quantities to log, as tensors, so that
    nothing waits for the device.
    """
    steps = args.adv_steps
    weights = [0.0] * steps + [1.0] if args.method == "pgd" else [1 / steps] * steps
    wanted = {"output_hidden_states": True} if regularizer is not None else {}
    delta = draws.delta()
    losses, delta_norms, terms = [], [], []

    def forward(rows: dict[str, Tensor], shift: Tensor | None):
        with accelerator.autocast(), perturbed(model, shift):
            out = model(**inputs_of(rows), **wanted)
        of_rows = F.cross_entropy(out.logits.float(), rows["labels"], reduction="sum")
        return of_rows * rows["row_weight"], out

    for k, weight in enumerate(weights):
        draws.redraw(k)
        ascends = k + 1 < len(weights)
        delta_norms.append(sentence_norms(delta).mean())
        parts, gradients = [], []
        needs_gradient = ascends or regularizer is not None
        for rows, shift in micro_batches(batch, delta, args.micro_bsz, needs_gradient):
            loss, out = forward(rows, shift)
            if regularizer is not None:  # runs without micro-batches
                terms.append(regularizer.backward(loss, out.hidden_states, rows, shift, weight))
            elif weight:
                (weight * loss).backward()
            else:  # PGD's ascents leave the parameters alone
                loss.backward(inputs=[shift])
            parts.append(loss.detach())
            gradients.append(shift.grad)
        losses.append(sum_of_losses(parts))
        if ascends:
            delta = ascend(delta, torch.cat(gradients), args)

    if args.clean_loss_weight:
        draws.redraw(0)
        for rows, _ in micro_batches(batch, None, args.micro_bsz):
            (args.clean_loss_weight * forward(rows, None)[0]).backward()
    logged = {"delta_norm_per_pass": torch.stack(delta_norms)}
    if terms:
        logged["infobert_terms"] = torch.stack(terms).mean(dim=0)
    return torch.stack(losses), logged
