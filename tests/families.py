"""Tiny models with random weights of the families of encoders that docs/encoders.md lists."""

import dataclasses
from pathlib import Path
from typing import Any

import transformers
from conftest import make_tokenizer
from transformers import AutoModelForSequenceClassification

from masking import encoders, parts
from training import models, tokenizers
from utils import process_state

LAYERS = 2


@dataclasses.dataclass(frozen=True)
class Family:
    """`config`: name of its configuration class. `settings`: sizes, in the family's own names."""

    config: str
    settings: dict[str, Any]

    def make(self, vocabulary: int, pad: int, end: int) -> transformers.PretrainedConfig:
        """A configuration for a vocabulary with these ids of padding and of the end of a text."""
        kind = getattr(transformers, self.config)
        return kind(vocab_size=vocabulary, pad_token_id=pad, eos_token_id=end, **self.settings)


def _bert(config: str, **more: Any) -> Family:
    sizes = {"hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 132}
    return Family(config, sizes | {"initializer_range": 0.2} | more)


def _llama(config: str, **more: Any) -> Family:
    return _bert(config, num_key_value_heads=1, **more)


def _gpt2(config: str, **more: Any) -> Family:
    sizes = {"n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 132, "n_inner": 32}
    return Family(config, sizes | {"initializer_range": 0.2} | more)


def _t5(config: str, **more: Any) -> Family:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": LAYERS, "num_heads": 2}
    return Family(config, sizes | more)


FAMILIES: dict[str, Family] = {
    "BERT": _bert("BertConfig"),
    "RoBERTa": _bert("RobertaConfig"),
    "XLM-RoBERTa": _bert("XLMRobertaConfig"),
    "CamemBERT": _bert("CamembertConfig"),
    "Data2Vec": _bert("Data2VecTextConfig"),
    "RoBERTa-PreLN": _bert("RobertaPreLayerNormConfig"),
    "ELECTRA": _bert("ElectraConfig", embedding_size=8),
    "DistilBERT": Family(
        "DistilBertConfig",
        {"dim": 16, "hidden_dim": 32, "n_layers": LAYERS, "n_heads": 2}
        | {"max_position_embeddings": 132, "initializer_range": 0.2},
    ),
    "ALBERT": _bert("AlbertConfig", embedding_size=8),
    "MPNet": _bert("MPNetConfig"),
    "DeBERTa": _bert(
        "DebertaConfig",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        max_relative_positions=32,
    ),
    "DeBERTa-v2": _bert(
        "DebertaV2Config", relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8
    ),
    "ModernBERT": _bert("ModernBertConfig", local_attention=8),
    "BigBird": _bert("BigBirdConfig"),
    "RoFormer": _bert("RoFormerConfig", embedding_size=16),
    "ERNIE": _bert("ErnieConfig"),
    "RemBERT": _bert("RemBertConfig", input_embedding_size=8, output_embedding_size=8),
    "Megatron-BERT": _bert("MegatronBertConfig"),
    "LayoutLM": _bert("LayoutLMConfig", max_2d_position_embeddings=16),
    "Funnel": Family(
        "FunnelConfig",
        {"block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32},
    ),
    "XLNet": Family(
        "XLNetConfig",
        {"d_model": 16, "n_layer": LAYERS, "n_head": 2, "d_inner": 32, "initializer_range": 0.2},
    ),
    "T5": _t5("T5Config"),
    "mT5": _t5("MT5Config", feed_forward_proj="gated-gelu"),
    "GPT-2": _gpt2("GPT2Config"),
    "GPT-Neo": Family(
        "GPTNeoConfig",
        {"hidden_size": 16, "num_layers": LAYERS, "num_heads": 2, "intermediate_size": 32}
        | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 132},
    ),
    "GPT-J": _gpt2("GPTJConfig", rotary_dim=4),
    "GPT-NeoX (Pythia)": _bert("GPTNeoXConfig"),
    "OPT": Family(
        "OPTConfig",
        {"hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "ffn_dim": 32}
        | {"word_embed_proj_dim": 16, "max_position_embeddings": 132, "init_std": 0.2},
    ),
    "BioGPT": _bert("BioGptConfig"),
    "BLOOM": Family("BloomConfig", {"hidden_size": 16, "n_layer": LAYERS, "n_head": 2}),
    "Llama": _llama("LlamaConfig"),
    "Mistral": _llama("MistralConfig"),
    "Qwen2": _llama("Qwen2Config"),
    "Qwen3": _llama("Qwen3Config", head_dim=8),
    "Gemma": _llama("GemmaConfig", head_dim=8),
    "Gemma 2": _llama("Gemma2Config", head_dim=8),
    "Phi": _llama("PhiConfig"),
    "Phi-3": _bert("Phi3Config", num_key_value_heads=2),
}
# Families that are refused, and a part of the reason.
REFUSED: dict[str, tuple[Family, str]] = {
    "BART": (
        Family(
            "BartConfig",
            {"d_model": 16, "encoder_layers": LAYERS, "decoder_layers": LAYERS}
            | {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
            | {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 132},
        ),
        "could be",
    ),
    "CANINE": (
        _bert("CanineConfig", num_hash_buckets=32, local_transformer_stride=128),
        "no table of word embeddings",
    ),
    "ConvBERT": (_bert("ConvBertConfig", embedding_size=8), "padding"),
    "FNet": (_bert("FNetConfig"), "padding"),
    "Longformer": (_bert("LongformerConfig", attention_window=4), "2 matrices that could be query"),
    "Mixtral": (
        _llama("MixtralConfig", num_local_experts=2, num_experts_per_tok=1),
        "is not supported",
    ),
    "MobileBERT": (_bert("MobileBertConfig", intra_bottleneck_size=16), "not a known matrix"),
    "Nystromformer": (
        _bert("NystromformerConfig", num_landmarks=4, segment_means_seq_len=132),
        "cannot compute texts of some lengths",
    ),
    "XLM": (Family("XLMConfig", {"emb_dim": 16, "n_layers": LAYERS, "n_heads": 2}), "not a known"),
}


def build(family: Family, folder: Path) -> Path:
    """Write a checkpoint of the family, and its tokenizer, to a folder."""
    tokenizer = make_tokenizer()
    # Some tokenizer classes add tokens of their own when they are loaded.
    config = family.make(len(tokenizer) + 8, tokenizer.pad_token_id, tokenizer.sep_token_id)
    with process_state.seeded(0):
        model = AutoModelForSequenceClassification.from_config(config)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path):
    """Model and tokenizer as the stages load them."""
    tokenizer = tokenizers.load_tokenizer(str(folder))
    model = models.load_pretrained(str(folder), ("negative", "positive"), 1, None, "sdpa")
    tokenizers.fit_tokenizer(model, tokenizer)
    return model.eval(), tokenizer


def describe(model, tokenizer) -> list[str]:
    """Cells of a family's row in docs/encoders.md; the last depends on transformers."""
    names = encoders.prunable_matrices(model)
    kinds = dict.fromkeys(" + ".join(parts.kinds_of(name)) for name in names)
    attention = "sdpa" if type(model)._supports_sdpa else "eager"
    return [f"`{type(model).__name__}`", ", ".join(kinds), tokenizer.padding_side, attention]
