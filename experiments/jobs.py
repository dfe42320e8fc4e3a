"""A run that a plan names: what exists of it, whether it is the same one, how long it takes."""

from dataclasses import dataclass, field
from pathlib import Path

from utils.runs import read_run


@dataclass
class Job:
    """One call of a stage script for one task and seed: a run, and its attacks.

    `needs`: names of the jobs that must be trained before. `variables`: environment of the script.
    `seconds`: expected for the training, `attack_seconds` for one attack.
    """

    name: str
    folder: Path
    script: str
    variables: dict[str, str]
    seconds: float
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    attacks: tuple[Path, ...] = ()
    attack_seconds: float = 0.0
    state: str = field(init=False, default="missing")

    def look(self) -> None:
        """Set `state`: missing, begun, differs, unattacked (trained, attacks missing), finished."""
        run = read_run(self.folder)
        attacked = all((folder / "summary.json").is_file() for folder in self.attacks)
        if run is None:
            self.state = "missing"
        elif self.differing(run):
            self.state = "differs"
        elif run.get("status") != "finished":
            self.state = "begun"
        else:
            self.state = "finished" if attacked else "unattacked"

    def differing(self, run: dict) -> list[str]:
        """Settings of the job in which a run that is there is another, as 'lr 1e-4, not 2e-5'."""
        args, found = run.get("args", {}), []
        settings = dict(self.variables)
        if settings.get("KINDS") == "no_adversary":
            settings.pop("ADV_STEPS", None)  # the stage script sets 0
        for variable, name in (ARGUMENTS["all"] | ARGUMENTS.get(run.get("stage"), {})).items():
            here, there = settings.get(variable), args.get(name)
            if here and name in args and not _same(here, there):
                found.append(f"{name} {there}, not {here}")
        return found

    @property
    def finished(self) -> bool:
        return self.state == "finished"

    @property
    def trained(self) -> bool:
        return self.state in ("finished", "unattacked")

    @property
    def seconds_left(self) -> float:
        """Expected: of the training, unless it is done, and of the attacks that are missing."""
        missing = sum(not (folder / "summary.json").is_file() for folder in self.attacks)
        return self.seconds * (not self.trained) + missing * self.attack_seconds


# By stage, variables of the stage scripts -> the argument that run.json holds.
ARGUMENTS = {
    "all": {
        "MAX_TRAIN_ROWS": "max_train_rows",
        "MAX_EVAL_ROWS": "max_eval_rows",
        "BSZ": "bsz",
        "DATA": "data_dir",
        "MAX_SEQ_LENGTH": "max_seq_length",
        "PROTOCOL": "protocol",
        "SEEDS": "seed",
    },
    "finetune": {
        "EPOCHS": "epochs",
        "LR": "lr",
        "MODEL": "model_name",
        "STOP_AT_LOSS": "stop_at_loss",
    },
    "retrain": {"EPOCHS": "epochs", "LR": "lr", "MODEL": "model_name"},
    "search": {
        "SEARCH_EPOCHS": "epochs",
        "MASK_LR": "lr",
        "ADV_STEPS": "adv_steps",
        "LAMBDA": "lambda_amp",
    },
    "imp": {
        "IMP_EPOCHS": "epochs",
        "IMP_LR": "lr",
        "IMP_SPARSITY": "to_sparsity",
        "IMP_SHARE": "share_per_round",
        "MODEL": "model_name",
    },
}


def _same(given: str, written: object) -> bool:
    try:
        return float(given) == float(written)
    except (TypeError, ValueError):
        return given == str(written)


def duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
