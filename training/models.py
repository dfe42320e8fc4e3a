"""Load pre-trained encoders and tokenizers, and check that they fit data, scores and each other."""

import contextlib
import logging
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from masking import encoders
from masking.tickets import Shapes
from training.loading import (
    attention_for,
    configure,
    loading,
    not_loaded,
    precision_for,
    resolve_model_name,
)
from training.settings import RunSettings
from training.tokenizers import load_tokenizer
from utils import process_state
from utils.cli import UserError, warn
from utils.files import public_name
from utils.runs import seed_for


def encoder_facts(name: str, model: PreTrainedModel, fingerprint: str) -> dict:
    """The record of the pre-trained encoder of a checkpoint, a score file or a ticket.

    Prints a line if the encoder has matrices that its pre-trained checkpoint does not hold.
    """
    facts = {
        "name": public_name(name),
        "architecture": type(model).__name__,
        "fingerprint": fingerprint,
    }
    if encoders.is_grouped_by_head(model):
        facts["heads"] = model.config.num_attention_heads
    if not type(model)._supports_sdpa:
        facts["attention"] = "eager"
    if fresh := encoders.not_pretrained(model):
        facts["not_pretrained"] = fresh
        print(
            f"{facts['name']} holds no weights for {', '.join(fresh)}: they are drawn from the "
            "seed, not gated, not pruned, and not in the encoder's fingerprint",
            file=sys.stderr,
        )
    return facts


def tensors_for(
    model: PreTrainedModel,
    name: str,
    path: Path,
    tensors: dict[str, Tensor],
    shapes: Shapes,
    learned_for: dict,
    allow_other: bool,
    expected: Shapes | None = None,
) -> tuple[dict[str, Tensor], Shapes]:
    """Check that a score or ticket file belongs to this encoder. Returns its tensors and shapes.

    `name`: the encoder's name. `tensors`: scores or masks by matrix. `shapes`: name -> (out, in) of
    the weights. `learned_for`: the encoder in the file's manifest. `allow_other`:
    accept another fingerprint. `expected`: shapes to compare with, None for those of the prunable
    matrices. Raises UserError if the matrices or the fingerprints differ.

    Files of earlier versions also rank a pooler that the encoder's checkpoint does not hold. This
    function drops it. The fingerprint in such a file includes the random pooler of one
    seed. With another seed, the encoder's name and architecture are compared instead.
    """
    ignored = [n for n in encoders.not_pretrained(model) if n in shapes]
    tensors = {n: t for n, t in tensors.items() if n not in ignored}
    shapes = {n: s for n, s in shapes.items() if n not in ignored}
    try:
        encoders.check_masks_fit(model, shapes, expected)
        fingerprint = encoders.encoder_fingerprint(model, with_not_pretrained=bool(ignored))
    except ValueError as e:
        raise UserError(f"{path}: {e}") from e
    if ignored:
        warn(
            f"{path} ranks {', '.join(ignored)}, for which the encoder's checkpoint holds "
            "no weights; this part is ignored"
        )
    if learned_for["fingerprint"] == fingerprint or allow_other:
        return tensors, shapes
    same_name = learned_for.get("name") == public_name(name)
    if ignored and same_name and learned_for.get("architecture") == type(model).__name__:
        warn(
            f"{path}: its fingerprint includes random weights; only the encoder's name is compared"
        )
        return tensors, shapes
    raise UserError(
        f"{path} was made for the encoder {learned_for['name']} ({learned_for['fingerprint']}), "
        f"but {name} is another one ({fingerprint}): give the encoder that stage 1 started from, "
        "or pass --allow_other_encoder"
    )


def settle_precision(args: RunSettings, name: str) -> None:
    """Replace --precision auto by fp32 for an encoder that does not compute in bf16."""
    path = resolve_model_name(name)
    with loading("model", path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    args.precision = precision_for(config, args.precision)


def load_pretrained(
    name: str, label_names: tuple[str, ...], seed: int, dropout: float | None, attention: str
) -> PreTrainedModel:
    """Load a pre-trained encoder in float32, with a new classifier drawn from `seed`.

    The classifier is always new, even if the checkpoint holds one. `label_names`: one per logit.
    `dropout`: the value of all dropout probabilities; None: the encoder's values. `attention`: the
    attn_implementation of transformers.
    Raises UserError if the encoder cannot be loaded or lacks weights other than the pooler's.
    """
    path = resolve_model_name(name)
    with loading("model", path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        config.num_labels = len(label_names)
        config.id2label = dict(enumerate(label_names))
        config.label2id = {label: i for i, label in enumerate(label_names)}
        configure(config, dropout)
        if getattr(config, "pad_token_id", None) is None:
            # RoBERTa-like encoders count positions from this id; decoders only skip it. A model
            # that cannot be loaded may have no tokenizer either: the line below reports the model.
            with contextlib.suppress(UserError):
                tokenizer = load_tokenizer(name)
                if tokenizer.pad_token_id != tokenizer.eos_token_id:
                    config.pad_token_id = tokenizer.pad_token_id
        # transformers draws missing weights from the global generator.
        seeded = process_state.seeded(seed_for(seed, "classifier"))
        with seeded, process_state.logging_level(logging.ERROR, "transformers"):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                path,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention_for(config, attention),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    # Only the head and a pooler may be missing from the checkpoint.
    inside = model.base_model_prefix + "."
    fresh = [key for key in not_loaded(report) if key.startswith(inside)]
    lost = [key for key in fresh if ".pooler." not in key]
    if lost:
        raise UserError(
            f"{name}: {len(lost)} weights of the encoder are missing or do not have the shape in "
            f"its config.json, such as {lost[0]}; download it again"
        )
    poolers = [inside + "pooler.dense", inside + "pooler"]
    encoders.mark_not_pretrained(model, [p for p in poolers if f"{p}.weight" in fresh])
    encoders.select(model, None)
    _draw_head(model, seed)
    return model


def _draw_head(model: PreTrainedModel, seed: int) -> None:
    """Draw linears outside the encoder from N(0, initializer_range^2), and set biases to 0."""
    generator = torch.Generator().manual_seed(seed_for(seed, "classifier"))
    inside = set(model.base_model.modules())
    for module in model.modules():
        if isinstance(module, nn.Linear) and module not in inside:
            std = getattr(model.config, "initializer_range", 0.02)
            with torch.no_grad():
                module.weight.normal_(0.0, std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()


def fit_memory(model: PreTrainedModel, checkpoint_activations: bool) -> None:
    """With --checkpoint_activations, store one activation per layer (Chen et al., 2016).

    The backward pass computes the others again. Raises UserError if the encoder cannot do this.
    """
    if not checkpoint_activations:
        return
    if not model.supports_gradient_checkpointing:
        raise UserError(
            f"--checkpoint_activations: {type(model).__name__} does not support it; drop the flag"
        )
    # The reentrant form needs inputs with a gradient. The search has none before the first gate.
    model.gradient_checkpointing_enable({"use_reentrant": False})


def check_length(model: PreTrainedModel, max_seq_length: int) -> None:
    """Raise UserError unless `max_seq_length`, in tokens, is at least 8 and within the positions.

    A pair of texts has up to four special tokens, so fewer than 8 would leave almost no text.
    """
    if max_seq_length < 8:
        raise UserError(
            f"--max_seq_length {max_seq_length}: it must be at least 8, special tokens included"
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    # RoBERTa-like encoders count positions from the padding id + 1.
    embeddings = getattr(model.base_model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if positions is None or positions < 0:  # XLNet: no limit
        return
    if getattr(table, "padding_idx", None) is not None:
        positions -= table.padding_idx + 1
    if max_seq_length > positions:
        raise UserError(f"--max_seq_length {max_seq_length}: the encoder has {positions} positions")
