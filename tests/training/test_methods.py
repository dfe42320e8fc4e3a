"""FreeLB, PGD and InfoBERT: compare the gradient of a step with the formulas of the papers."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from script_tools import finetune
from torch import nn

from training import adversary, infobert, methods
from training.methods import MethodSettings
from utils.cli import UserError
from utils.files import read_json
from utils.settings import parse


class Toy(nn.Module):
    """A model with embeddings, a non-linear layer, a mean over tokens and two logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer, self.head = (
            nn.Embedding(11, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 2),
        )

    def get_input_embeddings(self):
        return self.embedding

    def from_embeddings(self, embedded, attention_mask):
        last = torch.tanh(self.layer(embedded))
        mask = attention_mask[..., None]
        return self.head((last * mask).sum(1) / mask.sum(1)), (embedded, last)

    def forward(self, input_ids, attention_mask, output_hidden_states=False):
        logits, hidden = self.from_embeddings(self.embedding(input_ids), attention_mask)
        return SimpleNamespace(logits=logits, hidden_states=hidden)


IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 1, 0], [2, 6, 0, 0, 0]])
MASK = (IDS != 0).long()
LABELS = torch.tensor([0, 1, 1])
BATCH = {
    "input_ids": IDS,
    "attention_mask": MASK,
    "labels": LABELS,
    "row_weight": torch.tensor(1 / 3),
}
FIRST = (torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(1)) - 0.5) * MASK[..., None]


@dataclasses.dataclass(kw_only=True)
class Settings(MethodSettings):
    """Test."""

    micro_bsz: int | None = None

    def __post_init__(self):
        methods.apply_method(self)


def settings(method: str, *flags: str) -> Settings:
    parsed = parse(MethodSettings, "test", ["--method", method, *flags])
    return Settings(**vars(parsed))


class Draws:
    """Use the initial delta FIRST and no dropout."""

    def redraw(self, k: int) -> None:
        pass

    def delta(self) -> torch.Tensor:
        return FIRST.clone()


def gradients(model, args, regularizer=None) -> tuple[list, torch.Tensor]:
    """The gradients of the parameters, and the loss of each pass."""
    accelerator = Accelerator(cpu=True)
    losses, _ = adversary.backward(model, BATCH, args, Draws(), accelerator, regularizer)
    return [p.grad.clone() for p in model.parameters()], losses


@pytest.mark.parametrize(
    "flags", [("freelb", "--adv_steps", "3"), ("pgd", "--clean_loss_weight", "0.5")]
)
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_micro_batches_give_the_gradient_of_the_whole_batch(flags, rows):
    args = settings(*flags)
    whole, losses = gradients(Toy(), args)
    args.micro_bsz = rows
    parts, losses_of_parts = gradients(Toy(), args)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(losses, losses_of_parts)


def loss_at(model, delta) -> torch.Tensor:
    logits, _ = model.from_embeddings(model.embedding(IDS) + delta, MASK)
    return F.cross_entropy(logits, LABELS)


def by_hand(model, steps: int, lr: float, max_norm: float) -> tuple[list, list]:
    """The delta of each ascent and the gradients there, computed with loops and without hooks."""
    delta, deltas, found = FIRST.clone(), [], []
    for _ in range(steps):
        deltas.append(delta)
        delta = delta.detach().requires_grad_()
        loss = loss_at(model, delta)
        g, *of_weights = torch.autograd.grad(loss, [delta, *model.parameters()])
        found.append(of_weights)
        new = torch.zeros_like(delta)
        for i in range(3):
            new[i] = delta[i].detach() + lr * g[i] / g[i].pow(2).sum().sqrt()
            size = new[i].pow(2).sum().sqrt()
            if max_norm and size > max_norm:
                new[i] *= max_norm / size
        delta = new
    return deltas, found


def close(a: list, b: list) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("max_norm", [0.0, 0.8])
def test_freelb_is_the_mean_of_the_gradients_of_k_passes(max_norm):
    args = settings("freelb", "--adv_steps", "3", "--adv_max_norm", str(max_norm))
    model = Toy()
    deltas, want = by_hand(model, 3, args.adv_lr, max_norm)
    found, losses = gradients(model, args)
    close(found, [torch.stack(g).mean(0) for g in zip(*want, strict=True)])
    assert losses.tolist() == pytest.approx(
        [float(loss_at(model, d).detach()) for d in deltas], abs=1e-6
    )
    assert losses.diff().min() > 0  # the adversary ascends


def test_pgd_is_the_gradient_after_k_ascents():
    args = settings("pgd", "--adv_steps", "2")
    model = Toy()
    _, want = by_hand(model, 3, args.adv_lr, 0.0)
    close(gradients(model, args)[0], want[2])


def test_the_clean_loss_is_added_with_its_weight():
    model = Toy()
    plain = [g / 2 for g in torch.autograd.grad(loss_at(model, 0.0), list(model.parameters()))]
    _, want = by_hand(model, 2, 0.1, 0.0)
    args = settings("freelb", "--clean_loss_weight", "0.5")
    mean = [torch.stack(g).mean(0) for g in zip(*want, strict=True)]
    close(gradients(model, args)[0], [a + b for a, b in zip(mean, plain, strict=True)])


def test_bottleneck_bound_is_half_the_mean_squared_distance_of_all_pairs():
    local = torch.randn(7, 4, generator=torch.Generator().manual_seed(2))
    pairs = [(a - b).square().sum() / 2 for a in local for b in local]
    assert float(infobert.bottleneck_bound(local)) == pytest.approx(float(sum(pairs) / 49))


def test_anchors_by_hand():
    norms = torch.tensor(
        [
            [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0, 0.0],
            [1.0, 3.0, 2.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0],
        ]
    )
    mask = torch.tensor([[1] * 10, [1, 1, 1] + [0] * 7])
    found = infobert.anchored(norms, mask, 0.5, 0.9)
    # Ten tokens: ranks 5 to 8, norms 5 to 8. Three tokens: only rank 2, the norm 3.
    assert norms[0][found[0]].tolist() == [5.0, 8.0, 7.0, 6.0]
    assert found[1].tolist() == [False, True] + [False] * 8
    whole = infobert.anchored(norms, mask, 0.0, 1.0)
    assert torch.equal(whole, mask.bool())


def test_info_nce_equals_its_formula_pair_by_pair():
    noise = torch.Generator().manual_seed(3)
    critic = infobert.Critic(4, noise)
    local, globe = torch.randn(5, 4, generator=noise), torch.randn(2, 4, generator=noise)
    text_of = torch.tensor([0, 0, 1, 1, 1])

    def g(t, z):
        both = torch.cat([t, z])
        weight = torch.cat([critic.of_local.weight, critic.of_global.weight], dim=1)
        hidden = torch.relu(weight @ both + critic.of_local.bias)
        return F.softplus(critic.out.weight[0] @ hidden + critic.out.bias[0]).item()

    terms = []
    for t, i in zip(local, text_of, strict=True):
        others = [math.exp(g(other, globe[i])) for other in local]
        terms.append(g(t, globe[i]) - math.log(sum(others) / 5))
    bound = infobert.info_nce(critic, local, globe, text_of).item()
    assert bound == pytest.approx(sum(terms) / 5, abs=1e-5)
    assert bound <= math.log(5)
    assert float(infobert.info_nce(critic, local[:0], globe, text_of[:0])) == 0


def test_an_infobert_step_has_the_gradient_of_its_objective():
    """Mean over passes of L + beta * bound - alpha * nce. The ascent uses L + beta * bound."""
    flags = ("--adv_steps", "2", "--info_alpha", "0.3", "--info_beta", "0.2")
    args, model = settings("infobert", *flags), Toy()
    regularizer = infobert.InfoBERT(4, args, seed=1)
    found, _ = gradients(model, args, regularizer)
    weights = [*model.parameters(), *regularizer.critic.parameters()]
    want, delta = [torch.zeros_like(p) for p in weights], FIRST.clone()
    for _ in range(2):
        delta = delta.detach().requires_grad_()
        logits, (local, last) = model.from_embeddings(model.embedding(IDS) + delta, MASK)
        task = F.cross_entropy(logits, LABELS) + 0.2 * infobert.bottleneck_bound(local[MASK.bool()])
        g = torch.autograd.grad(task, delta, retain_graph=True)[0]
        chosen = infobert.anchored(g.norm(dim=2), MASK, 0.5, 0.9)
        assert chosen.sum(1).tolist() == [2, 2, 1]
        nce = infobert.info_nce(
            regularizer.critic, local[chosen], last[:, 0], chosen.nonzero()[:, 0]
        )
        parts = torch.autograd.grad(task - 0.3 * nce, weights)
        want = [a + b / 2 for a, b in zip(want, parts, strict=True)]
        delta = adversary.ascend(delta.detach(), g, args)
    close(found + [p.grad for p in regularizer.critic.parameters()], want)


def test_a_method_sets_its_defaults_and_refuses_flags_that_it_does_not_read():
    freelb = settings("freelb")
    assert (freelb.adv_lr, freelb.adv_init_mag, freelb.adv_steps) == (0.1, 0.6, 2)
    assert settings("infobert", "--adv_lr", "0.2").adv_lr == 0.2
    assert settings("pgd").adv_steps == 2 and settings("plain").adv_steps == 0
    for method, flag in (
        ("plain", "--adv_lr"),
        ("freelb", "--info_alpha"),
        ("pgd", "--anchor_low"),
        ("plain", "--clean_loss_weight"),
    ):
        with pytest.raises(UserError, match=f"{flag} has no effect with --method {method}"):
            settings(method, flag, "0.1")
    with pytest.raises(UserError, match="must be below"):
        settings("infobert", "--anchor_low", "0.9")


@pytest.mark.slow
def test_each_method_trains_and_records_its_name(encoder, sst2_folder, tmp_path):
    seen = set()
    for method in methods.METHODS:
        folder = tmp_path / method
        finetune(encoder, sst2_folder, folder, epochs=1, max_train_rows=48, method=method)
        seen.add((folder / "last" / "model.safetensors").read_bytes())
        assert read_json(folder / "last" / "checkpoint.json")["method"] == method
    assert len(seen) == len(methods.METHODS)
