"""A model with what trains it, for everything that trains all weights."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from training import adversary, models, optim
from training.infobert import InfoBERT
from training.settings import WeightSettings
from utils import cli
from utils.runs import seed_for


def check_processes(args: WeightSettings, accelerator: Accelerator) -> None:
    """UserError where the method cannot be spread over several processes or parts of a batch."""
    if args.method == "infobert" and (accelerator.num_processes > 1 or args.micro_bsz):
        raise cli.UserError(
            "--method infobert contrasts the texts of a batch: run it in one process, without "
            "--micro_bsz"
        )


@dataclass
class Trainee:
    """A model with what trains it. `modules`: the model, and InfoBERT's critic if there is one."""

    model: PreTrainedModel
    modules: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    draws: adversary.Draws
    regularizer: InfoBERT | None

    def snapshot(self) -> dict[str, Any]:
        """For the resume point."""
        return {"trained": self.modules.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, snapshot: dict[str, Any]) -> None:
        self.modules.load_state_dict(snapshot["trained"])
        self.optimizer.load_state_dict(snapshot["optimizer"])


def make_trainee(model: PreTrainedModel, args: WeightSettings, accelerator: Accelerator) -> Trainee:
    """The model on its device in training mode, with AdamW and the noise of its steps.

    A ticket is applied afterward, or has been before: neither makes a difference to the optimizer.
    """
    models.fit_memory(model, args.checkpoint_activations)
    model.to(accelerator.device).train()
    parts, regularizer = {"model": model}, None
    if args.method == "infobert":
        regularizer = InfoBERT(model.config.hidden_size, args, seed_for(args.seed, "critic"))
        parts["critic"] = regularizer.to(accelerator.device)
    modules = nn.ModuleDict(parts)
    groups = optim.decay_groups(modules, args.weight_decay)
    optimizer = optim.make_adamw(args.adamw, groups, args.lr, 0.0)
    hidden = model.get_input_embeddings().embedding_dim
    draws = adversary.Draws(hidden, args, args.seed, accelerator)
    return Trainee(model, modules, optimizer, draws, regularizer)
