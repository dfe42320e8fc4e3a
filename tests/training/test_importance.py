"""Values of the weights from a few rows: by hand on two layers, and where no hook can look."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from families import FAMILIES, Family, build, load
from torch import nn

from training import importance
from training.batching import Encoded

VECTORS = [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]  # of the tokens 0, 1 and 2
FIRST, SECOND = [[1.0, -1.0], [2.0, 0.5]], [[2.0, -1.0], [0.0, 0.0]]


class TwoLayers(nn.Module):
    """logits = second(sum over tokens of first(x))."""

    def __init__(self):
        super().__init__()
        self.vectors = nn.Embedding.from_pretrained(torch.tensor(VECTORS))
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.dropout = nn.Dropout(0.5)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor(FIRST))
            self.second.weight.copy_(torch.tensor(SECOND))

    def forward(self, input_ids, attention_mask):
        tokens = self.second(self.dropout(self.first(self.vectors(input_ids))))
        return SimpleNamespace(logits=(tokens * attention_mask[..., None]).sum(1))


@pytest.fixture
def two_layers(monkeypatch):
    def matrices(model):
        return {"first": model.first, "second": model.second}

    monkeypatch.setattr(importance, "prunable_matrices", matrices)
    return TwoLayers().train()


def encoded(texts: list[list[int]], labels: list[int], pad: int = 0) -> Encoded:
    return Encoded([np.array(ids, np.int32) for ids in texts], None, labels, 0, pad)


def test_weights_times_inputs_by_hand(two_layers):
    found = importance.weights_times_inputs(two_layers, encoded([[0], [1, 2]], [0, 1]))
    # Inputs of first: (1, 0), (0, 2), (3, 4). Of second: (1, 2), (-2, 1), (-1, 8).
    norms = {"first": [10**0.5, 20**0.5], "second": [6**0.5, 69**0.5]}
    for name, weights in (("first", FIRST), ("second", SECOND)):
        expected = torch.tensor(weights).abs() * torch.tensor(norms[name])
        torch.testing.assert_close(found[name], expected)
    assert two_layers.training


def test_weights_times_gradients_by_hand(two_layers):
    # Token 0: first gives (1, 2), second (0, 0). With label 0, dL/dlogits is (-1/2, 1/2), so
    # dL/dsecond = ((-1/2, -1), (1/2, 1)) and dL/dfirst = ((-1, 0), (1/2, 0)).
    of_label_0 = {"first": [[-1.0, 0.0], [1.0, 0.0]], "second": [[-1.0, 1.0], [0.0, 0.0]]}
    for labels, factor in (([0], 1), ([1], -1), ([0, 1], 0), ([0, 0, 1], 1 / 3)):
        rows = encoded([[0]] * len(labels), labels)
        found = importance.weights_times_gradients(two_layers, rows)
        for name, values in of_label_0.items():
            torch.testing.assert_close(found[name], factor * torch.tensor(values))
    assert two_layers.training and two_layers.first.weight.grad is None


def test_a_sure_model_still_has_gradients(two_layers):
    with torch.no_grad():
        two_layers.second.weight.copy_(torch.tensor([[10.0, 0.0], [-10.0, 0.0]]))
    found = importance.weights_times_gradients(two_layers, encoded([[0]], [0]))
    # 1 - p is exp(-20), which is 0 in float32.
    expected = torch.tensor(-10.0 * np.exp(-20.0), dtype=torch.float32)
    torch.testing.assert_close(found["second"][0, 0], expected, rtol=1e-4, atol=0)


def inputs_seen(name: str, model, rows: Encoded) -> dict[str, torch.Tensor]:
    """Norms of the inputs of a family's bare parameters, from the arguments of its attention."""
    squares: dict[str, torch.Tensor] = {}

    def add(matrix: str, x: torch.Tensor, width: int) -> None:
        found = x.double().reshape(-1, width).square().sum(0)
        squares[matrix] = squares.get(matrix, 0) + found

    def xlnet(path, module):
        def arguments(_module, args, kwargs):
            names = ("h", "g", "mask_h", "mask_g", "r")
            given = dict(zip(names, args, strict=False)) | kwargs
            for letter in "qkv":
                add(f"{path}.{letter}", given["h"], 16)
            add(f"{path}.r", given["r"], 16)

        real = module.post_attention

        def post_attention(h, attn_vec, *more, **keywords):
            add(f"{path}.o", attn_vec, 16)
            return real(h, attn_vec, *more, **keywords)

        module.post_attention = post_attention
        module.register_forward_pre_hook(arguments, with_kwargs=True)

    def funnel(path, module):
        def arguments(module, args):
            query, key, _, attention = args[:4]
            shift = 2 if query.shape[1] != key.shape[1] else 1
            add(f"{path}.r_kernel", attention[0][module.block_index][shift - 1], 16)

        module.register_forward_pre_hook(arguments)

    watch, end = {"XLNet": (xlnet, "rel_attn"), "Funnel": (funnel, "attention")}[name]
    for path, module in model.named_modules():
        if path.endswith(end):
            watch(path, module)
    for ids in rows.input_ids:
        model(torch.from_numpy(ids.astype(np.int64))[None])
    return {matrix: s.sqrt() for matrix, s in squares.items()}


@pytest.mark.parametrize("name", ["XLNet", "Funnel"])
def test_inputs_of_bare_parameters(name, tmp_path):
    model, tokenizer = load(build(FAMILIES[name], tmp_path))
    texts = ["good film", "a bad plot of a film"]
    rows = encoded([tokenizer(text)["input_ids"] for text in texts], [0, 1])
    found = importance.input_norms(model, rows)
    expected = inputs_seen(name, model, rows)
    bare = [n for n in found if n.rpartition(".")[2] in ("q", "k", "v", "o", "r", "r_kernel")]
    assert expected.keys() == {*bare} and bare
    for matrix in bare:
        torch.testing.assert_close(found[matrix], expected[matrix], rtol=1e-6, atol=1e-9)


def test_a_matrix_whose_inputs_do_not_show_is_named(tmp_path):
    """Funnel's factorized attention multiplies the kernel of positions with queries."""
    settings = FAMILIES["Funnel"].settings | {"attention_type": "factorized"}
    model, _ = load(build(Family("FunnelConfig", settings), tmp_path))
    with pytest.raises(ValueError, match=r"such as .*r_kernel: pass --exclude position_key$") as e:
        importance.input_norms(model, encoded([[2, 5, 3]], [0]))
    assert "\n" not in str(e.value) and "2 matrices of FunnelForSequence" in str(e.value)
    assert importance.weights_times_gradients(model, encoded([[2, 5, 3]], [0]))
