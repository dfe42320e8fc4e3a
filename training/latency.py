"""The time that a model with fewer units takes, from a table of measured times.

The idea is that of ZipLM (Kurtic, Frantar and Alistarh, NeurIPS 2023).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from masking.structures import Units
from utils.cli import UserError
from utils.files import read_json


class LatencyTable:
    """Measured times of the parts of an encoder, as benchmarks/latency_table.py writes them.

    All layers have the same times: attention, and a feed-forward network by its number of neurons,
    linear between two measured numbers. Everything else (embeddings, head) counts as it is.
    """

    def __init__(self, path: str | Path):
        """Raises UserError if the file is not such a table."""
        if not Path(path).is_file():
            raise UserError(
                f"there is no latency table at {path}: write one with "
                "`python benchmarks/latency_table.py`"
            )
        table = read_json(Path(path))
        try:
            self.neurons = torch.tensor(table["ffn"]["neurons"], dtype=torch.float32)
            self.seconds = torch.tensor(table["ffn"]["seconds"], dtype=torch.float32)
            self.attention, self.rest = (
                float(table["attention_seconds"]),
                float(table["rest_seconds"]),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(f"{path} is not a latency table ({type(e).__name__}: {e})") from e
        is_table = self.neurons.ndim == 1 and self.neurons.shape == self.seconds.shape
        if not is_table or len(self.neurons) < 2 or bool((self.neurons.diff() <= 0).any()):
            raise UserError(f"{path} is not a latency table: its numbers of neurons do not rise")
        times = torch.tensor([*self.seconds.tolist(), self.attention, self.rest])
        if not bool((torch.isfinite(times) & (times >= 0)).all()) or float(times.sum()) == 0:
            raise UserError(f"{path} is not a latency table: it holds times that are not possible")

    def to(self, device: torch.device) -> None:
        """Move the table, so that no step of a search copies it."""
        self.neurons, self.seconds = self.neurons.to(device), self.seconds.to(device)

    def check_fits(self, units: list[Units]) -> None:
        """Raise UserError if the table was measured for a model of another size."""
        numbers = {unit.count for unit in units if unit.structure == "ffn_neurons"}
        measured = int(self.neurons[-1])
        if numbers and numbers != {measured}:
            raise UserError(
                f"the latency table is that of {measured} neurons per layer, but this encoder has "
                f"{max(numbers)}: measure this encoder"
            )

    def ffn(self, neurons: Tensor) -> Tensor:
        """Seconds of one feed-forward network, by `neurons`: float32, any shape. Has a gradient."""
        knots, seconds = self.neurons.to(neurons.device), self.seconds.to(neurons.device)
        right = torch.searchsorted(knots, neurons.detach()).clamp(1, len(knots) - 1)
        slope = (seconds[right] - seconds[right - 1]) / (knots[right] - knots[right - 1])
        return seconds[right] + slope * (neurons - knots[right])

    def share_of_dense_time(self, units: list[Units], opened: dict[str, Tensor]) -> Tensor:
        """Expected time of the model with these units, as a share of the dense model's time.

        `opened`: name -> probability that a unit is kept, (units, 1). A checkpoint has one number
        of neurons for all layers, so the layers share their mean. Heads cost nothing: most
        families cannot express fewer of them.
        """
        paths = list(dict.fromkeys(unit.layer for unit in units))
        layers = {u.layer: opened[u.name].sum() for u in units if u.structure == "layers"}
        neurons = [u for u in units if u.structure == "ffn_neurons"]
        one = next(iter(opened.values())).new_ones(())
        kept = torch.stack([layers.get(path, one) for path in paths])
        all_neurons = self.neurons[-1].to(one)
        mean = all_neurons
        if neurons:
            of_layer = torch.stack([opened[u.name].sum() for u in neurons])
            mean = (kept * of_layer).sum() / kept.sum()
        return self._share(kept.sum(), mean, len(paths))

    def _share(self, layers: Tensor, neurons: Tensor, of_layers: int) -> Tensor:
        dense = self.rest + of_layers * (self.attention + self.seconds[-1].to(layers))
        return (self.rest + layers * (self.attention + self.ffn(neurons))) / dense

    def reachable_shares(self, units: list[Units]) -> Tensor:
        """The times of all checkpoints with fewer of these units, as shares: float32, (tickets,).

        They have at least one layer, and one neuron in each.
        """
        structures, of_layers = {u.structure for u in units}, len({u.layer for u in units})
        fewest_layers = 1 if "layers" in structures else of_layers
        most = int(self.neurons[-1])
        fewest_neurons = 1 if "ffn_neurons" in structures else most
        layers = torch.arange(fewest_layers, of_layers + 1, dtype=torch.float32)[:, None]
        neurons = torch.arange(fewest_neurons, most + 1, dtype=torch.float32)
        return self._share(layers, neurons, of_layers).flatten()
