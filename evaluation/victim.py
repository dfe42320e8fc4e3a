"""The attacked classifier as TextAttack queries it: lists of texts in, logits out."""

import contextlib
from dataclasses import dataclass

import torch
from textattack.models.wrappers import ModelWrapper
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.loading import precision_for
from training.onnx_models import OnnxClassifier
from utils.cli import UserError


@dataclass(eq=False, repr=False)
class Victim(ModelWrapper):
    """Queries in batches of similar length, padded to the longest text and cut as in training, D11.

    TextAttack's own wrapper pads every text to the tokenizer's 512 tokens. Texts with equal tokens
    are computed once per attacked row: batches of different sizes round differently, and equal
    candidates must tie exactly.
    """

    model: PreTrainedModel | OnnxClassifier
    tokenizer: PreTrainedTokenizerBase
    label_order: list[int]  # [i]: index of the model's logit for the task's label i
    max_seq_length: int  # tokens after which a text is cut
    batch_size: int = 64  # texts per forward pass
    precision: str = "fp32"  # or bf16
    device: str = "cpu"
    temperature: float = 1.0  # divisor of the logits

    def __post_init__(self):
        self.model.to(self.device).eval()
        self.known: dict[tuple, torch.Tensor] = {}
        if precision_for(self.model.config, self.precision) == "bf16":
            _keep_output_layer_in_fp32(self.model)

    def forget(self) -> None:
        """Clear the cache. Call it before each row, so that no row affects another."""
        self.known.clear()

    def __call__(self, texts: list[str] | list[tuple[str, ...]]) -> torch.Tensor:
        """Logits in the order of the task's labels: float64 (texts, labels) on the CPU.

        `texts`: strings, or tuples of the columns. Raises UserError if a logit is not finite.
        """
        single = isinstance(texts[0], str)
        columns = [list(texts)] if single else [list(c) for c in zip(*texts, strict=True)]
        encoded = self.tokenizer(*columns, truncation=True, max_length=self.max_seq_length)
        names = [n for n in self.tokenizer.model_input_names if n in encoded]
        keys = [
            tuple(tuple(encoded[name][i]) for name in names if name != "attention_mask")
            for i in range(len(texts))
        ]
        new = {key: i for i, key in enumerate(keys) if key not in self.known}
        todo = sorted(new.values())
        logits = self.compute([{name: encoded[name][i] for name in names} for i in todo])
        self.known.update(zip((keys[i] for i in todo), logits, strict=True))
        return torch.stack([self.known[key] for key in keys])

    def compute(self, texts: list[dict[str, list[int]]]) -> list[torch.Tensor]:
        """Logits of each tokenized text, in batches of similar length, whatever the cache holds."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]["input_ids"]))
        logits: dict[int, torch.Tensor] = {}
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            columns = {name: [texts[i][name] for i in part] for name in texts[part[0]]}
            logits.update(zip(part, self._forward(columns), strict=True))
        return [logits[i] for i in range(len(texts))]

    @torch.inference_mode()
    def _forward(self, columns: dict[str, list[list[int]]]) -> torch.Tensor:
        padding = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0}
        batch = {
            name: nn.utils.rnn.pad_sequence(
                [torch.tensor(row) for row in rows],
                batch_first=True,
                padding_side=self.tokenizer.padding_side,
                padding_value=padding.get(name, self.tokenizer.pad_token_type_id),
            ).to(self.device)
            for name, rows in columns.items()
        }
        bf16 = torch.autocast(torch.device(self.device).type, torch.bfloat16)
        with bf16 if self.precision == "bf16" else contextlib.nullcontext():
            logits = self.model(**batch).logits
        if not torch.isfinite(logits).all():
            raise UserError("the checkpoint's logits are not finite; train it again")
        return logits.double().cpu()[:, self.label_order] / self.temperature


def _keep_output_layer_in_fp32(model: PreTrainedModel) -> None:
    """Compute the logits in fp32: bf16 has steps of 1/64 between 2 and 4, too coarse to rank by."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    output = [linear for linear in linears if linear.out_features == model.config.num_labels][-1]
    forward = output.forward

    def in_fp32(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float())

    output.forward = in_fp32
