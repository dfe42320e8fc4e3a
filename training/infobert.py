"""InfoBERT's two regularizers (Wang et al., ICLR 2021), on top of FreeLB's passes.

Local features T are the embedding layer's outputs of the tokens, the global feature Z of a text is
the last layer's output at its first token, as in the authors' experiments.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.methods import MethodSettings

CRITIC_WIDTH = 300  # hidden units of the critic g(t, z), the authors'


def bottleneck_bound(local: Tensor) -> Tensor:
    """Upper bound on the mutual information of tokens and their features; a scalar.

    `local`: features of all tokens of the batch, (tokens, hidden). The localised information
    bottleneck bounds I(X; T) by E log p(t|x) - E log p(t'|x) over pairs of the data (CLUB). With a
    Gaussian of unit variance around a deterministic feature the first term vanishes, and what is
    left is the mean of |t_i - t_j|^2 / 2 over all pairs (i, j): the trace of T's covariance. The
    authors estimate that mean from one random pairing; here it is exact.
    """
    return (local - local.mean(dim=0)).square().sum(dim=1).mean()


def anchored(gradient_norms: Tensor, attention_mask: Tensor, low: float, high: float) -> Tensor:
    """Which tokens are anchored: bool, (texts, tokens), False at padding.

    Per text of n tokens, those whose gradient's norm has rank (from 0, ascending) in
    [ceil(low n), ceil(high n)): useful, unlike those below, and stable, unlike those above.
    """
    lengths = attention_mask.sum(dim=1)
    norms = gradient_norms.masked_fill(attention_mask == 0, float("inf"))
    ranks = norms.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    # Less a hair, so that 0.9 * 10 cannot round up to more than 9.
    bounds = [torch.ceil(share * lengths.double() - 1e-9)[:, None] for share in (low, high)]
    return (ranks >= bounds[0]) & (ranks < bounds[1]) & (attention_mask != 0)


class Critic(nn.Module):
    """g(t, z) >= 0: a layer of ReLUs over (t, z), and softplus over its sum."""

    def __init__(self, hidden: int, generator: torch.Generator):
        super().__init__()
        self.of_local = nn.Linear(hidden, CRITIC_WIDTH)
        self.of_global = nn.Linear(hidden, CRITIC_WIDTH, bias=False)
        self.out = nn.Linear(CRITIC_WIDTH, 1)
        for p, inputs in (
            (self.of_local, 2 * hidden),
            (self.of_global, 2 * hidden),
            (self.out, CRITIC_WIDTH),
        ):
            for parameter in p.parameters():
                nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)

    def forward(self, local: Tensor, globe: Tensor) -> Tensor:
        """(pairs, hidden) and (texts, hidden) -> g of every combination, (texts, pairs)."""
        # The layer over the concatenation (t, z) is the sum of a layer over t and one over z.
        both = self.of_local(local)[None] + self.of_global(globe)[:, None]
        return F.softplus(self.out(F.relu(both)).squeeze(-1))


def info_nce(critic: Critic, local: Tensor, globe: Tensor, text_of: Tensor) -> Tensor:
    """Lower bound on I(T; Z) of anchored features and their texts: a scalar, at most log(pairs).

    E[g(t, z) - log mean_t' exp g(t', z)] over the pairs; `local`: (pairs, hidden), `globe`:
    (texts, hidden), `text_of`: (pairs,), the text of each local feature. t' runs over all pairs.
    Without any pair it is 0.
    """
    if not len(text_of):
        return local.sum() * 0.0
    g = critic(local, globe)
    own = g[text_of, torch.arange(len(text_of), device=g.device)]
    others = torch.logsumexp(g, dim=1) - math.log(len(text_of))
    return (own - others[text_of]).mean()


class InfoBERT(nn.Module):
    """L + beta * bottleneck_bound - alpha * info_nce, in every pass of the adversary."""

    def __init__(self, hidden: int, settings: MethodSettings, seed: int):
        super().__init__()
        self.alpha, self.beta = settings.info_alpha, settings.info_beta
        self.low, self.high = settings.anchor_low, settings.anchor_high
        self.critic = Critic(hidden, torch.Generator().manual_seed(seed))

    def backward(
        self,
        loss: Tensor,
        hidden_states: tuple[Tensor, ...],
        batch: dict,
        delta: Tensor,
        weight: float,
    ) -> Tensor:
        """Add `weight` times the pass' gradient to .grad; delta.grad is the task's and the bound's.

        Anchors are chosen by that gradient, so the second term follows in a second sweep, whose
        gradient does not enter delta's. Returns (bottleneck_bound, info_nce), without a graph.
        """
        mask = batch["attention_mask"]
        local, globe = hidden_states[0].float(), hidden_states[-1][:, 0].float()
        bound = bottleneck_bound(local[mask != 0])
        (weight * (loss + self.beta * bound)).backward(retain_graph=True)
        gradient = delta.grad.clone()
        chosen = anchored(gradient.norm(dim=2), mask, self.low, self.high)
        text_of = chosen.nonzero()[:, 0]
        nce = info_nce(self.critic, local[chosen], globe, text_of)
        (-weight * self.alpha * nce).backward()
        delta.grad = gradient
        return torch.stack([bound.detach(), nce.detach()])
