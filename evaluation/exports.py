"""What export.json of export.py holds, and the ONNX exports among the folders to attack."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation import schema
from evaluation.schema import FINITE, TEXTS, TEXTS_BY_NAME, Rule, key
from utils.cli import UserError, explain
from utils.files import read_json, sha256_of

FACTS = "export.json"
VERSION = 1  # of its keys
MODEL = "model.onnx"
RUNTIMES = {"onnx": "fp32 (ONNX)", "onnx-int8": "int8 (ONNX)"}  # formats, in names of models
FORMATS = ("safetensors", *RUNTIMES)
FORMAT = Rule(f"one of {', '.join(FORMATS)}", lambda v: v in FORMATS)
RUNTIME = Rule(f"one of {', '.join(RUNTIMES)}", lambda v: v in RUNTIMES)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An export compared with its checkpoint. `tolerance`: None where none is required."""

    rows: int
    largest_difference: float
    largest_logit: float
    tolerance: float | None = key(FINITE, None)
    equal_predictions_percent: float

    def in_words(self) -> str:
        allowed = "" if self.tolerance is None else f" (allowed: {self.tolerance:.1e})"
        return (
            f"loaded again and compared with the checkpoint on {self.rows} rows: logits differ by "
            f"at most {self.largest_difference:.1e}{allowed}, the largest logit is "
            f"{self.largest_logit:.2f}; {self.equal_predictions_percent:.1f} % of the predictions "
            "are equal"
        )


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export is. `facts`: checkpoint.json of its checkpoint, {} for a foreign one.

    `zero_percent`: of the weights of the prunable matrices. `sha256`: of each file by its name,
    without the model card and export.json itself.
    """

    name: str
    format: str = key(FORMAT)
    architecture: str
    parameters: int
    zero_percent: float
    label_names: list[str] = key(TEXTS)
    checkpoint: str  # last, best or epochN of its run
    checkpoint_sha256: str
    facts: dict[str, Any]
    compared: Comparison
    environment: dict[str, Any]
    sha256: dict[str, str] = key(TEXTS_BY_NAME)
    version: int = VERSION  # the first exports do not state it


def find_onnx(folder: Path) -> Export | None:
    """The ONNX export in a folder; None if the folder has no ONNX file, or a checkpoint as well.

    Raises UserError if export.json is missing, damaged or of another version, or if a file has
    changed since the export.
    """
    if any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        return None
    if not (folder / FACTS).is_file():
        if (folder / MODEL).is_file():
            raise UserError(
                f"{folder} holds a {MODEL} without {FACTS}: only the whole folder that export.py "
                "writes can be attacked; export the run again"
            )
        return None
    export = _read(folder / FACTS)
    if export.format == "safetensors":
        return None
    for name, written in export.sha256.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != written:
            raise UserError(
                f"{folder / name} is missing or damaged: it is not the file that export.py wrote; "
                "export the run again"
            )
    return export


def _read(path: Path) -> Export:
    found = read_json(path)
    version = found.get("version", VERSION)
    if version != VERSION:
        raise UserError(
            f"{path} has version {str(version)[:20]}, and this program reads version {VERSION}; "
            "export the run again"
        )
    with explain(f"{path} is not a file of export.py; export the run again: "):
        return schema.read(Export, found)
