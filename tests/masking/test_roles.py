"""The kind of a matrix follows from what its module is called, and fused matrices have parts."""

import pytest
import torch

from masking import parts
from masking.families import role_of


@pytest.mark.parametrize(
    ("name", "layer", "kinds"),
    [
        ("bert.encoder.layer.3.attention.output.dense", "bert.encoder.layer.3", "attention_output"),
        ("bert.encoder.layer.3.output.dense", "bert.encoder.layer.3", "ffn_out"),
        ("bert.pooler.dense", "", "pooler"),
        ("model.decoder.layers.0.self_attn.k_proj", "model.decoder.layers.0", "key"),
        ("transformer.h.11.attn.c_attn", "transformer.h.11", "query key value"),
        ("model.layers.0.mlp.Wi", "model.layers.0", "ffn_gate ffn_in"),
        ("transformer.encoder.block.1.layer.0.SelfAttention.o", "transformer.encoder.block.1")
        + ("attention_output",),
        ("transformer.decoder.block.1.layer.1.EncDecAttention.q", "transformer.decoder.block.1")
        + ("cross_query",),
        # Families without an entry: the words of the path.
        ("net.blocks.7.attn.w.query", "net.blocks.7", "query"),
        ("net.blocks.7.attention.out", "net.blocks.7", "attention_output"),
        ("net.blocks.7.mlp.fc2", "net.blocks.7", "ffn_out"),
    ],
)
def test_roles_by_name(name, layer, kinds):
    role = role_of(name)
    assert role is not None
    assert (role.layer, " ".join(role.kinds)) == (layer, kinds)


@pytest.mark.parametrize(
    "name", ["net.blocks.7.mlp.gate", "net.blocks.7.attn.mix", "net.stray", "net.b.0.attn.q_k"]
)
def test_a_name_that_says_nothing_or_two_things_has_no_role(name):
    assert role_of(name) is None


def test_parts_of_fused_matrices_by_hand():
    rows = torch.arange(12)[:, None].expand(12, 4)
    thirds = parts.split_fused({"h.0.attn.c_attn": rows}, heads=2)
    assert [(n, t[:, 0].tolist()) for n, t in thirds.items()] == [
        ("h.0.attn.c_attn[query]", [0, 1, 2, 3]),
        ("h.0.attn.c_attn[key]", [4, 5, 6, 7]),
        ("h.0.attn.c_attn[value]", [8, 9, 10, 11]),
    ]
    by_head = parts.split_fused({"layers.0.attention.query_key_value": rows}, heads=2)
    assert [t[:, 0].tolist() for t in by_head.values()] == [
        [0, 1, 6, 7],
        [2, 3, 8, 9],
        [4, 5, 10, 11],
    ]
    assert [parts.kinds_of(n) for n in by_head] == [("query",), ("key",), ("value",)]
    assert set(parts.layers_of(by_head).values()) == {1}
    whole = torch.tensor([[0.5]])  # one block for the whole matrix
    blocks = parts.split_fused({"h.0.attn.c_attn": whole}, heads=2)
    assert [t.tolist() for t in blocks.values()] == [[[0.5]]] * 3
    assert parts.split_fused({"layers.0.attention.query_key_value": rows}, None).keys() == {
        "layers.0.attention.query_key_value"
    }
