"""The perturbation delta of the word embeddings (Eqs. 6-7), and the passes of a training step.

The same passes for the search's gates and for the weights of stages 1 and 3: FreeLB, PGD, none.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.infobert import InfoBERT
from training.prediction import inputs_of
from utils.runs import seed_for


def initial_delta(
    uniform: Tensor, attention_mask: Tensor, magnitude: float, norm_type: str = "l2"
) -> Tensor:
    """The first delta: (sentences, tokens, hidden), 0 at padding.

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


def ascend(
    delta: Tensor, gradient: Tensor, lr: float, max_norm: float, norm_type: str = "l2"
) -> Tensor:
    """One ascent, Eq. 7: delta + lr * g / ||g|| per sentence, then projection to `max_norm`.

    max_norm 0 means that the norm is not bounded (the paper's setting). A gradient below 1e-8 in
    norm is divided by 1e-8, so that it cannot blow up.
    """
    flat = gradient.flatten(1)
    size = flat.abs().amax(dim=1) if norm_type == "linf" else flat.norm(dim=1)
    delta = delta + lr * gradient / size.clamp(min=1e-8)[:, None, None]
    if not max_norm:
        return delta
    if norm_type == "linf":
        return delta.clamp(-max_norm, max_norm)
    return delta * (max_norm / sentence_norms(delta).clamp(min=max_norm))[:, None, None]


@contextlib.contextmanager
def perturbed(word_embeddings: nn.Module, delta: Tensor | None) -> Iterator[None]:
    """Within it, the word embeddings come out with delta added; None leaves them as they are.

    A hook on the lookup rather than inputs_embeds: the encoder is called as in fine-tuning, with
    its token ids, so that it derives position and token type ids as it always does (D12).
    """
    if delta is None:
        yield
        return
    handle = word_embeddings.register_forward_hook(lambda _module, _ids, out: out + delta)
    try:
        yield
    finally:
        handle.remove()


class Draws:
    """All noise of a training step, each draw from a seed of its own: (seed, purpose, step, pass).

    `draw_gates`: called with a generator for the noise of gates, where there are gates.
    """

    def __init__(self, hidden: int, args, accelerator, draw_gates: Callable | None = None):
        self.hidden, self.args, self.accelerator = hidden, args, accelerator
        self.draw_gates = draw_gates

    def start_step(self, step: int, batch: dict, shape: tuple[int, int]) -> None:
        """`shape`: (sentences, tokens) of the whole batch; `batch`: this process' rows of it."""
        self.step, self.batch, self.shape = step, batch, shape

    def redraw(self, k: int) -> None:
        """New dropout (and gate noise) for pass k; --redraw each_step repeats pass 0's."""
        k = k if self.args.redraw == "each_pass" else 0
        torch.manual_seed(self._seed("dropout", k, self.accelerator.process_index))
        if self.draw_gates is not None:
            self.draw_gates(self._generator("gates", k))

    def delta(self) -> Tensor:
        """The first delta, drawn for the whole batch, so that one process or several agree."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        uniform = (
            torch.rand(
                (*self.shape, self.hidden),
                generator=self._generator("delta"),
                device=self.accelerator.device,
            )
            * 2
            - 1
        )
        mine = uniform[rank::world] if rank < self.shape[0] else uniform[:1]
        return initial_delta(
            mine, self.batch["attention_mask"], self.args.adv_init_mag, self.args.adv_norm_type
        )

    def _seed(self, purpose: str, *counters: int) -> int:
        return seed_for(self.args.seed, purpose, self.step, *counters)

    def _generator(self, purpose: str, *counters: int) -> torch.Generator:
        device = self.accelerator.device
        return torch.Generator(device).manual_seed(self._seed(purpose, *counters))


def backward(
    model,
    batch: dict,
    args,
    redraw: Callable[[int], None],
    draw_delta: Callable[[], Tensor],
    accelerator,
    regularizer: InfoBERT | None = None,
) -> dict[str, Tensor]:
    """Add the gradient of one batch's mean loss to the parameters' .grad.

    args.adv_steps = K. K = 0: the plain loss, one pass. --adv_gradient mean (FreeLB, Zhu et al.
    2020, Algorithm 1): K passes, the first on the random delta, the mean of their gradients, an
    ascent after each but the last. last (PGD; Eqs. 6-7 read literally, D10): K ascents, then one
    pass that counts. `redraw(k)` draws dropout (and gates) for pass k, `draw_delta()` the first
    delta. args.clean_loss_weight times the loss without delta is added. `regularizer`: InfoBERT's
    terms, in each pass. A pass goes through args.micro_bsz rows at a time. Returns tensors to log,
    so that nothing waits for the device.
    """
    only_last = args.adv_gradient == "last"
    passes = args.adv_steps + only_last if args.adv_steps else 1
    delta = draw_delta() if args.adv_steps else None
    losses, delta_norms, terms = [], [], []

    for k in range(passes):
        final = k == passes - 1
        redraw(k)
        if delta is not None:
            delta_norms.append(sentence_norms(delta).mean())
        if regularizer is not None:
            delta.requires_grad_()
            out, loss = _forward(model, batch, delta, accelerator, hidden_states=True)
            terms.append(regularizer.backward(loss, out.hidden_states, batch, delta, 1 / passes))
            loss, gradient = loss.detach(), delta.grad
        else:
            weight = float(final) if only_last else 1 / passes
            loss, gradient = _pass(
                model, batch, delta, weight, not final, args.micro_bsz, accelerator
            )
        losses.append(loss)
        if not final:
            delta = ascend(
                delta.detach(), gradient, args.adv_lr, args.adv_max_norm, args.adv_norm_type
            )

    if args.clean_loss_weight:
        redraw(0)
        _pass(model, batch, None, args.clean_loss_weight, False, args.micro_bsz, accelerator)
    logged = {
        "loss_per_pass": torch.stack(losses),
        "delta_norm_per_pass": torch.stack(delta_norms) if delta_norms else torch.zeros(0),
    }
    return logged | ({"infobert_terms": torch.stack(terms).mean(dim=0)} if terms else {})


def _pass(
    model,
    batch: dict,
    delta: Tensor | None,
    weight: float,
    ascends: bool,
    micro: int | None,
    accelerator,
) -> tuple[Tensor, Tensor | None]:
    """One pass: adds `weight` times the gradient of the mean loss to the parameters' .grad.

    Returns the loss, and where it `ascends` the gradient in delta. With weight 0 the parameters
    are left alone. Rows go through `micro` at a time; each has its own share of the mean.
    """
    rows = len(batch["labels"])
    losses, gradients = [], []
    for start in range(0, rows, micro or rows):
        part = slice(start, start + (micro or rows))
        mine = {n: v if n == "row_weight" else v[part] for n, v in batch.items()}
        shift = delta if delta is None or not micro else delta[part]
        if ascends:
            shift = shift.detach().requires_grad_()
        loss = _forward(model, mine, shift, accelerator)[1]
        losses.append(loss.detach())
        if weight:
            (weight * loss).backward()
            gradients.append(shift.grad if ascends else None)
        else:
            gradients.append(torch.autograd.grad(loss, shift)[0])
    loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
    if not ascends:
        return loss, None
    return loss, gradients[0] if len(gradients) == 1 else torch.cat(gradients)


def _forward(model, batch: dict, delta: Tensor | None, accelerator, hidden_states: bool = False):
    """Model output and the mean loss of the batch (this process' share of it)."""
    wanted = {"output_hidden_states": True} if hidden_states else {}
    with accelerator.autocast(), perturbed(model.get_input_embeddings(), delta):
        out = model(**inputs_of(batch), **wanted)
    losses = F.cross_entropy(out.logits.float(), batch["labels"], reduction="sum")
    return out, losses * batch["row_weight"]
