"""A run that a plan needs: its commands, its state, and how it differs from the plan."""

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from evaluation.exports import FACTS as EXPORT_FACTS
from evaluation.presets import needs_of
from experiments.commands import Command
from utils.files import read_json
from utils.runs import read_run

# Settings by their names in files of earlier versions.
RENAMED = {"protocol": "deviations", "attack_protocol": "preset"}


@dataclass
class Attack:
    """One call of attack.py: a folder per attacked checkpoint and temperature."""

    command: Command
    run: Path

    @property
    def folders(self) -> list[Path]:
        from evaluation.protocol import folder_name  # here: this import takes seconds

        args = self.command.args
        checkpoints = ["last", "best"] if args.checkpoint == "both" else [args.checkpoint]
        if args.attack_epochs:
            checkpoints = [f"epoch{epoch}" for epoch in args.attack_epochs]
        return [
            self.run / "attacks" / folder_name(args, checkpoint, temperature)
            for checkpoint in checkpoints
            for temperature in args.temperature
        ]

    @property
    def missing(self) -> list[Path]:
        """Without attack.json nobody knows which attack it was."""
        files = ("attack.json", "summary.json")
        return [f for f in self.folders if not all((f / name).is_file() for name in files)]

    def differing(self, settings: dict[str, Any]) -> list[str]:
        """Differences from an attack's settings, as attack.json or a record holds them."""
        args, rows = self.command.args, settings.get("rows") or {}
        there = {"seed": settings.get("attack_seed"), "row_choice": rows.get("chosen")}
        same_names = ("query_budget", "precision", "score_with")
        defaulted = (
            "similarity_threshold",
            "max_seq_length",
        )  # by attack.py: the recipe's, the model's
        there |= {name: settings.get(name) for name in (*same_names, *defaulted)}
        planned = {name: getattr(args, name) for name in there}
        # Only for the query budget is None a value.
        unknown = {n for n in there if n != "query_budget" and None in (planned[n], there[n])}
        differing = differences({k: v for k, v in planned.items() if k not in unknown}, there)
        for name in needs_of(args.recipe, vars(args)):
            given, held = getattr(args, name, None), (settings.get("resources") or {}).get(name)
            if given is not None and held is not None and not _is_resource(Path(given), held):
                differing.append(f"{name} {held.get('name')} (another file), not {given}")
        if args.compared_with and "right_for" in rows and not self._is_compared_with(rows):
            differing.append(f"compared_with other models, not {' '.join(args.compared_with)}")
        return differing

    def _is_compared_with(self, rows: dict[str, Any]) -> bool:
        from evaluation import attack_setup, checkpoints  # here: these imports take seconds

        args = self.command.args
        targets = checkpoints.find_targets(args.model_name, args.checkpoint, None)
        compared = attack_setup.compared_models(args, targets)
        return {checkpoints.weights_digest(target) for target in compared} == {*rows["right_for"]}


@dataclass
class Job:
    """One run for one task and seed, and its attacks.

    `prepare`: the command that writes the scores which `training` reads, for kinds of scores that
    take seconds. `needs`: names of the jobs that must be trained before. `seconds`: expected time
    of the training; `attack_seconds`: of one attack. `state`: missing, begun, differs, unattacked
    (trained, attacks missing), finished.
    """

    name: str
    task: str
    seed: int
    folder: Path
    training: Command
    seconds: float
    prepare: Command | None = None
    needs: tuple[str, ...] = ()
    attacks: tuple[Attack, ...] = ()
    attack_seconds: float = 0.0
    state: str = field(init=False, default="missing")

    @property
    def written(self) -> dict[str, Any] | None:
        """run.json of the run. An export has none, and is finished where its facts are: its folder
        appears at the end."""
        if self.training.script == "export":
            return {"status": "finished"} if (self.folder / EXPORT_FACTS).is_file() else None
        return read_run(self.folder)

    def look(self) -> None:
        """Set `state`."""
        run = self.written
        if run is None:
            self.state = "missing"
        elif self.differing(run):
            self.state = "differs"
        elif run.get("status") != "finished":
            self.state = "begun"
        else:
            self.state = "unattacked" if self.missing_attacks else "finished"

    def differing(self, run: dict[str, Any]) -> list[str]:
        """Settings in which the run or its attacks differ from the plan."""
        differing = differences(self.training.identity, run.get("args", {}), self.folder.parent)
        for attack in self.attacks:
            for path in (folder / "attack.json" for folder in attack.folders):
                if path.is_file():
                    differing += attack.differing(read_json(path).get("settings") or {})
        return differing

    @property
    def attack_folders(self) -> list[Path]:
        return [folder for attack in self.attacks for folder in attack.folders]

    @property
    def missing_attacks(self) -> list[Path]:
        return [folder for attack in self.attacks for folder in attack.missing]

    @property
    def finished(self) -> bool:
        return self.state == "finished"

    @property
    def trained(self) -> bool:
        return self.state in ("finished", "unattacked")

    @property
    def commands_left(self) -> list[Command]:
        """The commands that are not done, in their order."""
        training = [command for command in (self.prepare, self.training) if command is not None]
        attacks = [attack.command for attack in self.attacks if attack.missing]
        return attacks if self.trained else training + attacks

    @property
    def seconds_left(self) -> float:
        """Expected time of the training, unless it is done, and of the missing attacks."""
        attacks = len(self.missing_attacks) * self.attack_seconds
        return attacks if self.trained else self.seconds + attacks


def _is_resource(given: Path, held: dict[str, Any]) -> bool:
    """Whether a file has the content that an attack's settings hold; its name if it is gone."""
    if "sha256" in held and given.exists():
        return _digest(given.resolve()) == held["sha256"]
    return given.name == held.get("name")


@cache
def _digest(path: Path) -> str:
    """A plan asks for each attack; a sentence encoder has a gigabyte."""
    from evaluation.resources import digest_of  # here: this import takes seconds

    return digest_of(path)


def differences(
    planned: dict[str, Any], written: dict[str, Any], runs: Path | None = None
) -> list[str]:
    """Settings that differ, as 'lr 0.0001, not 2e-05'.

    A setting that the writer's version did not have is not compared. `runs`: the folder of the
    planned run's neighbors, which may have been moved as a whole.
    """
    written = {RENAMED.get(name, name): value for name, value in written.items()}
    return [
        f"{name} {written[name]}, not {value}"
        for name, value in planned.items()
        if name in written and not _is_same(value, written[name], runs)
    ]


def _is_same(planned: Any, written: Any, runs: Path | None) -> bool:
    if isinstance(planned, list) and isinstance(written, list):
        return set(planned) <= set(written)  # epochs that are kept: more of them do no harm
    if planned == written or not isinstance(planned, str) or not isinstance(written, str):
        return planned == written
    if runs is not None and Path(planned).is_relative_to(runs):
        tail = Path(planned).relative_to(runs).parts
        return Path(written).parts[-len(tail) :] == tail
    return os.sep in planned and Path(planned).resolve() == Path(written).resolve()


def duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
