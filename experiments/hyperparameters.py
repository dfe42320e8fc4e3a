"""Hyper-parameters of each task: the numbers that the blocks of the stage scripts hold.

The shell blocks are for people, this table is for plans; a test holds both to the same numbers.
The fields are the flags of the Python scripts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """Stages 1 and 3 (the paper's Table 5)."""

    epochs: int = 3
    bsz: int = 32
    lr: float = 2e-5
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class Search:
    """Stage 2 (Table 6). adv_lr: eta; adv_init_mag: eps_0; adv_steps: K; lr: of the scores."""

    adv_lr: float
    lr: float
    lambda_amp: float
    adv_steps: int
    adv_init_mag: float = 0.05
    weight_decay: float = 1e-6
    epochs: int = 20
    bsz: int = 32


@dataclass(frozen=True)
class Pruning:
    """Iterative magnitude pruning (Chen et al. 2020): 10 % of the weights every 3 epochs."""

    share_per_round: float = 0.1
    epochs: int = 3
    bsz: int = 32
    lr: float = 2e-5


@dataclass(frozen=True)
class Adversary:
    """A baseline's perturbation: ascent, initial size, bound (0: none), passes."""

    adv_lr: float
    adv_init_mag: float
    adv_max_norm: float
    adv_steps: int


@dataclass(frozen=True)
class Hyperparameters:
    """Of one task. `sparsity`: of the paper's tickets (Tables 1 to 4)."""

    search: Search
    sparsity: float = 0.3
    max_seq_length: int = 256
    attacked_rows: int = 1000
    freelb: Adversary = Adversary(0.1, 0.6, 0.0, 2)  # its authors' for SST-2
    training: Training = Training()
    pruning: Pruning = Pruning()

    def adversary(self, method: str) -> Adversary:
        """`method`: freelb, infobert, or pgd, which takes FreeLB's settings (our choice)."""
        return INFOBERT if method == "infobert" else self.freelb


INFOBERT = Adversary(0.04, 0.08, 0.0, 3)  # its authors' for ANLI, for every task

_IMDB = Hyperparameters(Search(0.03, 0.1, 0.5, 5), sparsity=0.2, attacked_rows=500)

HYPERPARAMETERS = {
    "imdb": _IMDB,
    "builtin/imdb": _IMDB,
    "ag_news": Hyperparameters(Search(0.03, 0.05, 0.5, 5), sparsity=0.4),
    "sst2": Hyperparameters(Search(0.03, 0.1, 0.5, 5), max_seq_length=128, attacked_rows=872),
    # FreeLB's authors state settings for the GLUE tasks (their ALBERT runs).
    "qnli": Hyperparameters(Search(0.04, 0.05, 0.1, 3), freelb=Adversary(0.05, 0.1, 0.0, 3)),
    "qqp": Hyperparameters(Search(0.04, 0.05, 0.1, 3), freelb=Adversary(0.2, 0.32, 0.7, 3)),
    "mnli": Hyperparameters(Search(0.2, 0.1, 0.1, 2), freelb=Adversary(0.04, 0.08, 0.0, 3)),
    # Ours: SST-2's search with fewer passes, for the small encoder.
    "builtin/rotten_tomatoes": Hyperparameters(
        Search(0.03, 0.1, 0.5, 3, epochs=6),
        max_seq_length=64,
        attacked_rows=250,
        training=Training(lr=5e-5),
        pruning=Pruning(lr=5e-5),
    ),
}


def hyperparameters_of(task: str) -> Hyperparameters:
    """Any other data set has those of SST-2 (our choice), as in the blocks of the stage scripts."""
    return HYPERPARAMETERS.get(task, HYPERPARAMETERS["sst2"])
