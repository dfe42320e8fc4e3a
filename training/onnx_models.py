"""ONNX files of classifiers: writing, quantizing and running them.

The packages of requirements-export.txt are imported by these functions only: training needs none.
"""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from utils.cli import UserError
from utils.process_state import logging_level

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# One protobuf file holds less than 2 GiB; the weights of a larger model get a file of their own.
MOST_BYTES_IN_ONE_FILE = 2**31 - 2**27
AXES = {0: "batch", 1: "sequence"}  # of each input; a call can choose both sizes


def check_installed(*packages: str) -> None:
    """Raise UserError if one of the packages, by default all of the exporter, is not installed."""
    missing = [n for n in packages or PACKAGES if importlib.util.find_spec(n) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not installed; run: pip install -r requirements-export.txt"
        )


class _Logits(nn.Module):
    """A classifier that takes its inputs in order and returns only the logits."""

    def __init__(self, model: PreTrainedModel, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, values, strict=True))).logits


def write_onnx(model: PreTrainedModel, batch: dict[str, Tensor], path: Path) -> None:
    """Write a classifier in evaluation mode as an ONNX file, with torch.export's exporter.

    `batch`: an example of the inputs, int64 (rows, tokens), at least 2 by 2: torch.export takes a
    size of 1 for a constant. Raises UserError if the exporter cannot translate the model.
    """
    values = tuple(batch.values())
    is_large = sum(p.nbytes for p in model.parameters()) > MOST_BYTES_IN_ONE_FILE
    try:
        with _quietly(), torch.no_grad():
            torch.onnx.export(
                _Logits(model, list(batch)).eval(),
                values,
                path,
                input_names=list(batch),
                output_names=["logits"],
                dynamic_shapes=(tuple(AXES for _ in values),),
                external_data=is_large,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as e:
        reason = " ".join(str(e.__cause__ or e).split())[:150]
        raise UserError(
            f"torch cannot export {type(model).__name__} to ONNX ({reason}); use --to safetensors"
        ) from e


def quantize(source: Path, target: Path) -> None:
    """Write an ONNX file with int8 weights, one scale per output channel.

    Activations are quantized when the model runs, from the range of each call's values.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    is_large = source.with_name(source.name + ".data").exists()
    with _quietly():
        quantize_dynamic(
            source,
            target,
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=is_large,
        )


def load_onnx(path: Path, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """A function from the inputs, int64 (rows, tokens), to the logits, float32 (rows, labels).

    Raises UserError if ONNX Runtime is not installed or cannot load the file.
    """
    check_installed("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads would take the cores from whatever else runs in this process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # ONNX Runtime's errors have no common class of their own
        reason = " ".join(str(e).split())[:150]
        raise UserError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path} ({reason}); export the run "
            "again"
        ) from e
    return lambda batch: session.run(["logits"], batch)[0]


class OnnxClassifier(nn.Module):
    """An ONNX file that is called like a classifier of transformers, on the CPU.

    `quantizes_activations`: the file is int8. Its activations are quantized with one scale for the
    whole tensor of a call, so other rows and padding change the answer to a row. Such a file gets
    each row alone and without padding: the same tokens have the same logits in every batch.
    """

    def __init__(self, path: Path, config: PretrainedConfig, quantizes_activations: bool):
        super().__init__()
        self.run = load_onnx(path, torch.get_num_threads())
        self.quantizes_activations = quantizes_activations
        with torch.device("meta"):  # shapes without weights: its positions and its vocabulary
            self.outline = AutoModelForSequenceClassification.from_config(config)

    @property
    def config(self) -> PretrainedConfig:
        return self.outline.config

    @property
    def base_model(self) -> nn.Module:
        return self.outline.base_model

    def get_input_embeddings(self) -> nn.Module:
        return self.outline.get_input_embeddings()

    def to(self, *_: object, **__: object) -> "OnnxClassifier":
        """The file runs on the CPU, wherever its inputs are."""
        return self

    def forward(self, **batch: Tensor) -> SequenceClassifierOutput:
        """`batch`: int64 (rows, tokens). The logits: float32 (rows, labels), on the CPU."""
        arrays = {name: values.cpu().numpy() for name, values in batch.items()}
        if not self.quantizes_activations:
            return SequenceClassifierOutput(logits=torch.from_numpy(self.run(arrays)))
        is_token = arrays["attention_mask"] == 1
        rows = [
            self.run({name: values[i : i + 1, kept] for name, values in arrays.items()})
            for i, kept in enumerate(is_token)
        ]
        return SequenceClassifierOutput(logits=torch.from_numpy(np.concatenate(rows)))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Drop what the exporters report about operators and names that no classifier here has."""
    handler = logging.NullHandler()  # logging.warning would add one, and leave it
    logging.getLogger().addHandler(handler)
    loggers = ("root", "torch.onnx", "onnxscript", "onnx_ir")
    dropped = io.StringIO()  # torch.export prints the whole graph of a model that it refuses
    try:
        with (
            warnings.catch_warnings(),
            logging_level(logging.ERROR, *loggers),
            contextlib.redirect_stdout(dropped),
            contextlib.redirect_stderr(dropped),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(handler)
