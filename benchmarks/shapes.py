"""Configurations of encoders whose feed-forward networks have another number of neurons."""

import copy

import common
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig

from masking import encoders
from masking.removal import NEURONS
from training.loading import configure, loading, resolve_model_name


def config_of(encoder: str) -> PretrainedConfig:
    """The configuration of bert-LAYERSxWIDTH, a built-in encoder, a folder or a name of the hub."""
    config = common.bert_config(encoder)
    if config is None:
        path = resolve_model_name(encoder)
        with loading("configuration", path):
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        configure(config, None)
    return config


def neurons_of(config: PretrainedConfig) -> int:
    """Neurons of each feed-forward network."""
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    matrices = encoders.prunable_matrices(model, of_all_kinds=True)
    return next(m.weight.shape[1] for n, m in matrices.items() if "ffn_out" in encoders.kinds_of(n))


def with_neurons(config: PretrainedConfig, neurons: int) -> PretrainedConfig:
    """A copy with another number of neurons."""
    config = copy.deepcopy(config)
    for name in NEURONS:
        if hasattr(config, name):
            setattr(config, name, neurons)
    return config
