"""InfoBERT's two regularizers (Wang et al., ICLR 2021), in the passes of FreeLB.

The local features T are the outputs of the embedding layer, one per token. The global feature Z of
a text is the output of the last layer at its first token, as in the authors' experiments.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.methods import MethodSettings

CRITIC_WIDTH = 300  # hidden units of the critic g(t, z), as in the authors' code


def bottleneck_bound(local: Tensor) -> Tensor:
    """Upper bound on the mutual information I(X; T) of the tokens and their features.

    `local`: features of all tokens of the batch, float32, (tokens, hidden). Returns a scalar.

    The localized information bottleneck bounds I(X; T) by E log p(t|x) - E log p(t'|x) over pairs
    of the data (CLUB). For a Gaussian of unit variance around a deterministic feature, the first
    term vanishes. The second is the mean of |t_i - t_j|^2 / 2 over all pairs (i, j), which is the
    trace of the covariance of T. The authors estimate it from one random pairing. This function
    computes it exactly.
    """
    return (local - local.mean(dim=0)).square().sum(dim=1).mean()


def anchored(gradient_norms: Tensor, attention_mask: Tensor, low: float, high: float) -> Tensor:
    """Select the anchored tokens of each text: bool, (texts, tokens), False at padding.

    `gradient_norms`: float, (texts, tokens). `attention_mask`: int, (texts, tokens). `low`, `high`:
    fractions of the tokens. In a text of n tokens, a token is anchored if the rank of its norm
    (ascending, from 0) is in [ceil(low n), ceil(high n)). Tokens below are not useful, and tokens
    above are not stable.
    """
    lengths = attention_mask.sum(dim=1)
    norms = gradient_norms.masked_fill(attention_mask == 0, float("inf"))
    ranks = norms.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    # The small constant keeps ceil(0.9 * 10) at 9 if the product rounds up.
    bounds = [torch.ceil(share * lengths.double() - 1e-9)[:, None] for share in (low, high)]
    return (ranks >= bounds[0]) & (ranks < bounds[1]) & (attention_mask != 0)


class Critic(nn.Module):
    """The critic g(t, z) >= 0: a hidden layer of ReLUs over (t, z), then softplus of one output."""

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
        """g of each combination: float, (texts, pairs).

        `local`: float, (pairs, hidden). `globe`: float, (texts, hidden).
        """
        # A linear layer over the concatenation (t, z) is the sum of a layer over t and one over z.
        both = self.of_local(local)[None] + self.of_global(globe)[:, None]
        return F.softplus(self.out(F.relu(both)).squeeze(-1))


def info_nce(critic: Critic, local: Tensor, globe: Tensor, text_of: Tensor) -> Tensor:
    """Lower bound on I(T; Z) of the anchored features and their texts.

    `local`: float, (pairs, hidden). `globe`: float, (texts, hidden). `text_of`: int, (pairs,), the
    text of each local feature. Returns a scalar, at most log(pairs); 0 without any pair:
    E[g(t, z) - log mean_t' exp g(t', z)] over the pairs, where t' runs over all local features.
    """
    if not len(text_of):
        return local.sum() * 0.0
    g = critic(local, globe)
    matching = g[text_of, torch.arange(len(text_of), device=g.device)]
    log_mean_exp = torch.logsumexp(g, dim=1) - math.log(len(text_of))
    return (matching - log_mean_exp[text_of]).mean()


class InfoBERT(nn.Module):
    """The loss L + beta * bottleneck_bound - alpha * info_nce in each pass of the adversary."""

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
        """Add `weight` times the gradient of this pass to .grad of the parameters.

        `loss`: scalar. `hidden_states`: (texts, tokens, hidden) of each layer. `delta`: float,
        (texts, tokens, hidden). delta.grad becomes `weight` times the gradient of
        loss + beta * bottleneck_bound. This gradient selects the anchors, so info_nce needs a
        second backward pass, which does not change delta.grad.
        Returns (bottleneck_bound, info_nce): float32, (2,), without a graph.
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
