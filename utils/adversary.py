"""The perturbation delta of the word embeddings (Eqs. 6-7), in FreeLB's form."""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn


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
