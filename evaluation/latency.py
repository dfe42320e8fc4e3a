"""The latency table of an encoder on a device: what each part of its forward pass costs.

`python benchmarks/latency_table.py` measures it. A search for a given speed reads it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import schema
from evaluation.schema import COUNT, Rule, key
from utils.cli import UserError
from utils.files import read_json

POSITIVE = Rule("a number above 0", lambda v: schema.FINITE.admits(v) and v > 0)
COUNTS = Rule(
    "a list of rising whole numbers above 0",
    lambda v: isinstance(v, list) and all(map(COUNT.admits, v)) and v == sorted(set(v)) != [],
)
SECONDS = Rule(
    "a list of numbers above 0",
    lambda v: isinstance(v, list) and all(map(POSITIVE.admits, v)),
)


@dataclass(frozen=True)
class FeedForward:
    """Seconds of one layer's feed-forward network, from its first product to its last one."""

    neurons: list[int] = key(COUNTS)
    seconds: list[float] = key(SECONDS)


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of one forward pass: rest + layers * (attention + feed-forward network).

    `attention_seconds`: of one layer, everything but the products of its feed-forward network.
    `rest_seconds`: embeddings, pooler, classifier. `measured_seconds`: of whole models, by neurons.
    `difference_percent`: of the sum of the parts from these.
    """

    model: str
    device: str
    batch: int = key(COUNT)
    length: int = key(COUNT)
    layers: int = key(COUNT)
    attention_seconds: float = key(POSITIVE)
    rest_seconds: float = key(POSITIVE)
    ffn: FeedForward = key()
    threads: int = key(COUNT)
    measured_seconds: dict[str, Any] | None = None
    difference_percent: dict[str, Any] | None = None
    torch: str | None = None

    def ffn_seconds(self, neurons: float) -> float:
        """Of one layer with this number of neurons; 0 for none, linear between the grid's."""
        grid = self.ffn
        return float(np.interp(neurons, [0, *grid.neurons], [0.0, *grid.seconds]))

    def total_seconds(self, neurons: list[float]) -> float:
        """Of the whole model, by the neurons of each layer."""
        of_layers = sum(self.attention_seconds + self.ffn_seconds(n) for n in neurons)
        return self.rest_seconds + of_layers


def read_table(path: str | Path) -> LatencyTable:
    """UserError if the file is not a latency table."""
    try:
        table = schema.read(LatencyTable, read_json(path))
        if len(table.ffn.neurons) != len(table.ffn.seconds):
            raise ValueError("ffn.seconds must have a number for each of ffn.neurons")
    except ValueError as e:
        raise UserError(
            f"{path} is not a latency table ({e}); measure one with benchmarks/latency_table.py"
        ) from e
    return table


@dataclass(frozen=True)
class Timed:
    """One model in one runtime: quartiles over the repeats.

    `seconds`: of one forward pass. `speedup`: of the first (dense) model in the same runtime,
    divided by this one, in the same repeat.
    """

    model: str
    runtime: str
    seconds: dict[str, float]
    speedup: dict[str, float]


@dataclass(frozen=True)
class LatencyRecord:
    """Models in several runtimes, timed side by side on one device."""

    row: dict[str, Any]
    models: list[str]
    device: str
    threads: int
    batch: int
    length: int
    repeats: int
    timed: list[Timed]
    torch: str | None = None
    versions: dict[str, Any] | None = None
    commit: str | None = None


@dataclass(frozen=True)
class Size:
    """What one model in one runtime takes. `peak_bytes`: of memory, None where not measured."""

    model: str
    runtime: str
    disk_bytes: int
    peak_bytes: int | None = None


@dataclass(frozen=True)
class SizeRecord:
    """Sizes of models in several runtimes; memory for `batch` rows of `length` tokens."""

    row: dict[str, Any]
    device: str
    batch: int
    length: int
    sizes: list[Size]
