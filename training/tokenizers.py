"""Tokenizers: loading one, and agreeing with the model on inputs and padding."""

import inspect

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.loading import loading, resolve_model_name
from utils.cli import UserError

# Texts of different lengths, whose answers must not depend on each other.
PADDED_TEXTS = ("good", "a film like no other", "one that you will not forget , so go and see it")


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model. It returns only inputs that the model accepts.

    A tokenizer without a padding token gets the one in the model's configuration, or its token for
    the end of a text. Raises UserError if there is neither, or if the tokenizer cannot be loaded.
    """
    path = resolve_model_name(name)
    with loading("tokenizer", path):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers 5 makes one up
            raise ValueError("it has no tokens but special ones")
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return tokenizer  # loading the model reports it
    classifier = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if classifier is not None:  # BERT tokenizers return token types; DistilBERT has none
        inputs = set(inspect.signature(classifier.forward).parameters)
        if getattr(config, "type_vocab_size", 2) < 2:  # the second of two texts has the type 1
            inputs.discard("token_type_ids")
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n in inputs]
    if tokenizer.pad_token is None:
        pad = getattr(config, "pad_token_id", None)
        if pad is not None and 0 <= pad < len(tokenizer):
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
        elif tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token
        else:
            raise UserError(
                f"the tokenizer of {name} has no padding token: name one as pad_token in its "
                "tokenizer_config.json"
            )
    return tokenizer


def fit_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer fits the model, and agree on padding: its token and its side.

    Decoders classify by the last token that is not the padding token of their configuration. The
    tokenizer's padding side stays, unless only the other side leaves the answers unchanged. Raises
    UserError if both sides change them, or if the tokenizer has more tokens than the encoder.
    """
    try:
        rows = model.get_input_embeddings().num_embeddings
    except (NotImplementedError, AttributeError):
        raise UserError(
            f"{type(model).__name__} is not supported: it has no table of word embeddings, which "
            "the adversary perturbs; choose another encoder"
        ) from None
    if len(tokenizer) > rows:
        raise UserError(
            f"the tokenizer knows {len(tokenizer)} tokens, the encoder only {rows}; use the "
            "encoder's own tokenizer"
        )
    pad = getattr(model.config, "pad_token_id", None)
    if pad is None or not 0 <= pad < rows:
        model.config.pad_token_id = tokenizer.pad_token_id
    other = {"left": "right", "right": "left"}[tokenizer.padding_side]
    for side in (tokenizer.padding_side, other):
        tokenizer.padding_side = side
        if (problem := _change_by_padding(model, tokenizer)) is None:
            return
    raise UserError(f"{type(model).__name__} is not supported: {problem}; choose another encoder")


@torch.inference_mode()
def _change_by_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """How padding changes the model's answers to short texts; None if it does not."""
    was_training = model.training
    model.eval()
    try:
        single = torch.cat([model(**_tokens(tokenizer, [text])).logits for text in PADDED_TEXTS])
        padded = model(**_tokens(tokenizer, list(PADDED_TEXTS))).logits
    except (RuntimeError, ValueError, IndexError, AssertionError) as e:
        return f"it cannot compute texts of some lengths ({' '.join(str(e).split())[:100]})"
    finally:
        model.train(was_training)
    change, size = float((single - padded).abs().max()), float(single.abs().max())
    if change <= 1e-4 * size + 1e-6:
        return None
    return f"its answer to a text depends on the padding (the logits change by {change:.2g})"


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> dict[str, Tensor]:
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    return {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
