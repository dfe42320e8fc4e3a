"""Records of speed: the latency table of an encoder, and models compared in several runtimes."""

from dataclasses import dataclass
from typing import Any

from evaluation.schema import COUNT, FINITE, Rule, key

POSITIVE = Rule("a number above 0", lambda v: FINITE.admits(v) and v > 0)
RISING = Rule(
    "a list of rising whole numbers",
    lambda v: isinstance(v, list) and all(type(n) is int for n in v) and v == sorted({*v}),
)
SECONDS = Rule(
    "a list of numbers of at least 0",
    lambda v: isinstance(v, list) and all(FINITE.admits(s) and s >= 0 for s in v),
)


@dataclass(frozen=True)
class FeedForward:
    """Seconds of one layer's feed-forward network, from its first product to its last one."""

    neurons: list[int] = key(RISING)
    seconds: list[float] = key(SECONDS)


@dataclass(frozen=True)
class TableRecord:
    """What the parts of an encoder's forward pass cost on one device (benchmarks/latency_table.py).

    A pass takes rest + layers * (attention + feed-forward network) seconds; a search for a given
    speed reads them (training/latency.py). `attention_seconds`: of one layer, everything but the
    products of its feed-forward network. `rest_seconds`: embeddings, pooler, classifier.
    `measured_seconds`: of whole models, by neurons. `difference_percent`: of the sum of the parts
    from these.
    """

    model: str
    device: str
    ffn: FeedForward
    threads: int = key(COUNT)
    batch: int = key(COUNT)
    length: int = key(COUNT)
    layers: int = key(COUNT)
    attention_seconds: float = key(POSITIVE)
    rest_seconds: float = key(POSITIVE)
    measured_seconds: dict[str, float] = key()
    difference_percent: dict[str, float] = key()
    repeats: int = key(COUNT)
    torch: str | None = None
    versions: dict[str, Any] | None = None
    commit: str | None = None


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
