"""Which module of an encoder is which matrix: the names that the families of transformers use.

A matrix has a kind: query, key, value, attention_output, ffn_in, ffn_out; ffn_gate (in a gated FFN,
the factor that passes the activation); position_query, position_key (projections of relative
positions); the same attention kinds with cross_ (of a decoder, over the encoder's output); pooler.
One module can hold several: a fused matrix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

# Kind -> module path inside a layer. The comments name a family; others share its names.
_NAMES: dict[str, tuple[str, ...]] = {
    "query": (
        "attention.self.query",  # BERT, RoBERTa, ELECTRA, BigBird
        "attention.self.query_proj",  # DeBERTa-v2
        "attention.query",  # ALBERT
        "attention.q_lin",  # DistilBERT
        "attention.attn.q",  # MPNet
        "attention.q_head",  # Funnel
        "self_attn.q_proj",  # OPT, Llama, Mistral, Qwen, Gemma
        "self_attn.self_attn.q_proj",  # ERNIE-M
        "attn.q_proj",  # GPT-J
        "attn.attention.q_proj",  # GPT-Neo
        "multi_head_attention.Wq",  # CTRL
        "rel_attn.q",  # XLNet
        "layer.0.SelfAttention.q",  # T5
    ),
    "key": (
        "attention.self.key",
        "attention.self.key_proj",
        "attention.key",
        "attention.k_lin",
        "attention.attn.k",
        "attention.k_head",
        "self_attn.k_proj",
        "self_attn.self_attn.k_proj",
        "attn.k_proj",
        "attn.attention.k_proj",
        "multi_head_attention.Wk",
        "rel_attn.k",
        "layer.0.SelfAttention.k",
    ),
    "value": (
        "attention.self.value",
        "attention.self.value_proj",
        "attention.value",
        "attention.v_lin",
        "attention.attn.v",
        "attention.v_head",
        "self_attn.v_proj",
        "self_attn.self_attn.v_proj",
        "attn.v_proj",
        "attn.attention.v_proj",
        "multi_head_attention.Wv",
        "rel_attn.v",
        "layer.0.SelfAttention.v",
    ),
    "attention_output": (
        "attention.output.dense",
        "attention.dense",  # ALBERT, GPT-NeoX
        "attention.out_lin",
        "attention.attn.o",
        "attention.post_proj",
        "self_attn.o_proj",
        "self_attn.out_proj",
        "self_attn.dense",  # Phi, Persimmon
        "self_attention.dense",  # BLOOM
        "attn.out_proj",
        "attn.attention.out_proj",
        "attn.c_proj",  # GPT-2
        "attn.Wo",  # ModernBERT
        "multi_head_attention.dense",
        "rel_attn.o",
        "layer.0.SelfAttention.o",
    ),
    "ffn_in": (
        "intermediate.dense",
        "ffn",  # ALBERT
        "ffn.lin1",
        "ffn.linear_1",
        "ffn.up_proj",  # MPT
        "ffn.0",  # CTRL
        "ff.layer_1",  # XLNet
        "fc1",
        "linear1",
        "mlp.fc1",
        "mlp.fc_in",
        "mlp.c_fc",
        "mlp.up_proj",
        "mlp.dense_h_to_4h",
        "layer.1.DenseReluDense.wi",
        "layer.1.DenseReluDense.wi_1",
        "layer.2.DenseReluDense.wi",
        "layer.2.DenseReluDense.wi_1",
    ),
    "ffn_gate": (
        "mlp.gate_proj",
        "layer.1.DenseReluDense.wi_0",
        "layer.2.DenseReluDense.wi_0",
    ),
    "ffn_out": (
        "output.dense",
        "ffn_output",
        "ffn.lin2",
        "ffn.linear_2",
        "ffn.down_proj",
        "ffn.2",
        "ff.layer_2",
        "fc2",
        "linear2",
        "mlp.fc2",
        "mlp.fc_out",
        "mlp.c_proj",
        "mlp.down_proj",
        "mlp.dense_4h_to_h",
        "mlp.Wo",
        "layer.1.DenseReluDense.wo",
        "layer.2.DenseReluDense.wo",
    ),
    "position_query": ("attention.self.pos_q_proj", "attention.self.pos_query_proj"),
    "position_key": (
        "attention.self.pos_proj",
        "attention.self.pos_key_proj",
        "attention.r_kernel",
        "rel_attn.r",
    ),
    "cross_query": ("layer.1.EncDecAttention.q",),
    "cross_key": ("layer.1.EncDecAttention.k",),
    "cross_value": ("layer.1.EncDecAttention.v",),
    "cross_attention_output": ("layer.1.EncDecAttention.o",),
}

_QKV = ("query", "key", "value")
# Fused matrices: module path inside a layer -> kinds of its rows, in equal parts one after another.
_FUSED: dict[str, tuple[str, ...]] = {
    "attn.c_attn": _QKV,  # GPT-2
    "attn.Wqkv": _QKV,  # ModernBERT, MPT
    "self_attn.qkv_proj": _QKV,  # Phi-3
    "mlp.Wi": ("ffn_gate", "ffn_in"),  # ModernBERT: the first half passes the activation
    "mlp.gate_up_proj": ("ffn_gate", "ffn_in"),  # GLM, Phi-3
}
# The same, but each attention head has its rows of query, key and value together.
_FUSED_BY_HEAD: dict[str, tuple[str, ...]] = {
    "attention.self.in_proj": _QKV,  # DeBERTa
    "attention.query_key_value": _QKV,  # GPT-NeoX
    "self_attention.query_key_value": _QKV,  # BLOOM
    "self_attn.query_key_value": _QKV,  # Persimmon
}
# Parameters that are not the weight of a linear: (in, heads, head width), or (out, heads, head
# width).
RAW = ("rel_attn.q", "rel_attn.k", "rel_attn.v", "rel_attn.o", "rel_attn.r", "attention.r_kernel")
RAW_NOT_TRANSPOSED = ("rel_attn.o",)

# Classifiers that do not use the pooler of their encoder.
WITHOUT_POOLER = ("BigBirdForSequenceClassification",)

KINDS = (*_NAMES, "pooler")
KINDS_OF_A_LAYER = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")

# An unknown family: what the last part of a module's path says, inside and outside attention.
_INSIDE_ATTENTION = {
    "query": {"q", "query", "wq"},
    "key": {"k", "key", "wk"},
    "value": {"v", "value", "wv"},
    "attention_output": {"o", "out", "output", "dense", "wo"},
}
_OUTSIDE_ATTENTION = {
    "ffn_in": {"in", "up", "intermediate", "fc1", "lin1", "linear1", "w1", "wi"},
    "ffn_out": {"out", "down", "output", "fc2", "lin2", "linear2", "w2", "wo"},
}


@dataclass(frozen=True)
class Role:
    """What a matrix is. `layer`: path of its layer. `kinds`: several for a fused matrix."""

    layer: str
    kinds: tuple[str, ...]
    by_head: bool = False  # the rows of a fused matrix are grouped by attention head


@cache
def _known() -> dict[str, tuple[tuple[str, ...], bool]]:
    single = {path: ((kind,), False) for kind, paths in _NAMES.items() for path in paths}
    fused = {path: (kinds, False) for path, kinds in _FUSED.items()}
    return single | fused | {path: (kinds, True) for path, kinds in _FUSED_BY_HEAD.items()}


def role_of(name: str) -> Role | None:
    """The role of the matrix at this module path; None if the path does not say one.

    Of the known names the longest that ends the path decides. Otherwise the words of the path do.
    """
    if re.search(r"(^|\.)pooler(\.dense)?$", name):
        return Role("", ("pooler",))
    parts = name.split(".")
    for start in range(1, len(parts)):
        tail = ".".join(parts[start:])
        if tail in _known():
            kinds, by_head = _known()[tail]
            return Role(".".join(parts[:start]), kinds, by_head)
    return _by_words(parts)


def _by_words(parts: list[str]) -> Role | None:
    indices = [i for i, part in enumerate(parts) if part.isdigit()]
    if not indices:
        return None
    inside = parts[indices[-1] + 1 :]
    in_attention = any("att" in part.lower() for part in inside)
    meanings = _INSIDE_ATTENTION if in_attention else _OUTSIDE_ATTENTION
    for part in reversed(inside):
        words = set(part.lower().split("_"))
        kinds = [kind for kind, known in meanings.items() if words & known]
        if kinds:
            layer = ".".join(parts[: indices[-1] + 1])
            return Role(layer, tuple(kinds)) if len(kinds) == 1 else None
    return None
