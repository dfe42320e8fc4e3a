"""From a model of a table to its runs: what it is made from, how it is trained and attacked."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments import commands, estimates
from experiments.commands import Command
from experiments.hyperparameters import HYPERPARAMETERS, Hyperparameters
from experiments.jobs import Attack, Job
from experiments.models import DENSE, Model, controls_of, scores_folder
from experiments.scales import Scale
from masking.kinds import GATE_KINDS
from utils.cli import UserError
from utils.runs import read_run

# Passes over the rows that a step of a method costs.
PASSES = {"plain": 1.0, "freelb": 2.2, "pgd": 3.3, "infobert": 5.0}
FROM_SEARCH = ("random_matched", "complement")  # kinds made from the scores of a search


@dataclass(frozen=True)
class Place:
    """Where the runs of one encoder, task and seed lie."""

    task: str
    seed: int
    folder: Path

    @property
    def tuned(self) -> Hyperparameters:
        return HYPERPARAMETERS[self.task]

    def name(self, run: str) -> str:
        return f"{self.task}/seed{self.seed}/{run}"


@dataclass
class Pipeline:
    """Collects jobs in an order in which they can run. A job that is already planned stays.

    `data`: folder with a folder per task, or None. `num_examples`: attacked rows, None for the
    task's own number. `training_rows`: known numbers of rows, for the estimates of tasks without
    local data. `keep_search_epochs`: keep the scores of every epoch of the default search.
    """

    scale: Scale
    runs: Path
    recipes: list[str]
    data: str | None
    num_examples: int | None
    training_rows: dict[str, int | None]
    keep_search_epochs: bool = False

    def __post_init__(self) -> None:
        import torch

        self.hardware = (
            "cuda" if torch.cuda.is_available() else "cpu",
            "paper" if self.scale.name == "paper" else "mini",
        )
        self.jobs: dict[str, Job] = {}

    def place(self, task: str, seed: int) -> Place:
        folder = self.runs / Path(self.scale.encoder).name / task / f"seed{seed}"
        return Place(task, seed, folder)

    def add_model(
        self,
        model: Model,
        place: Place,
        attacked: bool = True,
        every_epoch: bool = False,
        keep_epochs: tuple[int, ...] = (),
        taken_from: Path | None = None,
    ) -> None:
        """A trained model with its attacks, after what it is made from.

        `every_epoch`: attack the scale's epochs instead of the last one. `taken_from`: the run
        one of whose epochs is the model, which stops at a loss.
        """
        folder = place.folder / (model.folder + ("-kept" if every_epoch else ""))
        epochs = model.epochs or self.scale.epochs
        attacked_epochs = self.scale.attacked_epochs if every_epoch else ()
        attacks = self._attacks(folder, place, attacked_epochs) if attacked else ()
        known = self.jobs.get(place.name(folder.name))
        if known is not None and len(known.attacks) >= len(attacks) and not keep_epochs:
            return
        planned = {
            "model_name": self.scale.encoder,
            "epochs": epochs,
            "keep_epochs": keep_epochs or attacked_epochs,
            "method": model.method,
        }
        needs: tuple[str, ...] = ()
        prepare = None
        if model.stop_at is not None:
            planned["stop_at_loss"] = place.folder / model.stop_at.folder
            needs = (place.name(model.stop_at.folder),)
            if taken_from is not None:
                needs += (place.name(taken_from.name),)
        if model.kind is None:
            script = "finetune"
            planned["from_run"] = taken_from
        else:
            script = "retrain_ticket"
            needs, scores = self._scores_for(model, place)
            prepare = self._prepare(model.kind, scores, place)
            planned |= {
                "scores": scores,
                "sparsity": model.sparsity,
                "reinitialise": model.reinitialise,
            }
        training = self._training(script, folder, place, planned, place.tuned.training)
        passes = 0.1 if taken_from is not None else PASSES[model.method] * epochs
        self._add(folder, place, training, passes, prepare=prepare, needs=needs, attacks=attacks)

    def add_controls(self, ticket: Model, place: Place) -> None:
        """The dense models that a ticket is compared with.

        The control with the ticket's loss is an epoch of the one with its label passes, if that
        one can keep all of its epochs.
        """
        passes = self._label_passes(ticket, place)
        same_epochs, *others = controls_of(ticket, self.scale.epochs, passes)
        self.add_model(same_epochs, place)
        longer = replace(DENSE, epochs=passes)
        source = place.folder / longer.folder
        shared = longer in others and self._keeps_epochs(source, passes)
        for control in others:
            if not shared:
                self.add_model(control, place)
            elif control == longer:
                self.add_model(control, place, keep_epochs=tuple(range(1, passes + 1)))
            else:
                self.add_model(control, place, taken_from=source)

    def _keeps_epochs(self, folder: Path, epochs: int) -> bool:
        """Whether a run has all of its epochs, or will. Not at paper scale, for the disk: 26
        checkpoints of BERT-base are 11 GB."""
        if self.scale.name == "paper":
            return False
        run, all_of_them = read_run(folder), list(range(1, epochs + 1))
        if run is None or run["status"] != "finished":
            return run is None or run.get("args", {}).get("keep_epochs") == all_of_them
        return all((folder / f"epoch{epoch}").is_dir() for epoch in all_of_them)

    def _label_passes(self, ticket: Model, place: Place) -> int:
        """Of a ticket's retraining and, if its mask has seen labels, of what came before."""
        epochs = ticket.epochs or self.scale.epochs
        if ticket.kind in GATE_KINDS:
            return epochs + self._search(ticket.kind, place).args.epochs + self.scale.epochs
        if ticket.kind.startswith("imp"):
            pruning = self._pruning(ticket.kind, place).args
            rounds = math.ceil(ticket.sparsity / pruning.share_per_round - 1e-9)
            return epochs + rounds * pruning.epochs
        return epochs

    def _scores_for(self, model: Model, place: Place) -> tuple[tuple[str, ...], Path]:
        """Names of the jobs that a ticket's scores need, and where the scores lie."""
        folder = place.folder / scores_folder(model.kind)
        if model.kind in FROM_SEARCH:
            return (self.add_search("robust", place),), folder
        if model.kind in GATE_KINDS:
            switches = dict(model.search or ())
            name = self.add_search(model.kind, place, model.search_tag, switches)
            return (name,), Path(f"{folder}{model.scores_tag}")
        if not model.kind.startswith("imp"):
            return (), folder
        tag = ""
        if model.sparsity > place.tuned.sparsity + 1e-9:
            # Not Table 1's scores, which would wait for nine rounds; where both have a ticket it
            # is the same one.
            tag = f"-to{max(self.scale.sparsities):g}"
        return (self.add_pruning(model.kind, place, tag),), Path(f"{folder}{tag}")

    def _prepare(self, kind: str, scores: Path, place: Place) -> Command | None:
        """The command that makes scores which are not learned."""
        planned: dict[str, Any] = {"kind": kind, "seed": place.seed, "output_dir": scores}
        if kind in FROM_SEARCH:
            planned["scores"] = place.folder / scores_folder("robust")
        elif kind == "random":
            planned["model_name"] = self.scale.encoder
        else:
            return None
        return commands.make("make_scores", planned)

    def add_search(
        self, kind: str, place: Place, tag: str = "", switches: dict[str, Any] | None = None
    ) -> str:
        """Stage 2 with an adversary (robust) or without; the job's name."""
        self.add_model(DENSE, place, attacked=False)
        training = self._search(kind, place, tag, switches)
        passes = 1.4 * max(training.args.adv_steps, 1) * training.args.epochs
        folder = place.folder / (scores_folder(kind) + tag)
        needs = (place.name(DENSE.folder),)
        return self._add(folder, place, training, passes, needs=needs)

    def _search(
        self, kind: str, place: Place, tag: str = "", switches: dict[str, Any] | None = None
    ) -> Command:
        folder = place.folder / (scores_folder(kind) + tag)
        planned = {"model_name": place.folder / DENSE.folder, "sparsity": place.tuned.sparsity}
        planned |= switches or {}
        if kind == "no_adversary":
            planned["adv_steps"] = 0
        search = self._training("search_ticket", folder, place, planned, place.tuned.search)
        if kind == "robust" and not search.args.adv_steps:
            raise UserError(
                "ADV_STEPS in the environment: '0' is not a whole number >= 1, which a robust "
                "ticket needs"
            )
        if not self.keep_search_epochs or kind != "robust" or tag:
            return search
        planned["keep_scores"] = tuple(range(1, search.args.epochs))
        return self._training("search_ticket", folder, place, planned, place.tuned.search)

    def add_pruning(self, kind: str, place: Place, tag: str = "") -> str:
        """Iterative magnitude pruning, also under a baseline's training; the job's name."""
        training = self._pruning(kind, place, tag)
        args = training.args
        rounds = round(args.to_sparsity / args.share_per_round)
        passes = rounds * PASSES[args.method] * args.epochs
        return self._add(place.folder / (scores_folder(kind) + tag), place, training, passes)

    def _pruning(self, kind: str, place: Place, tag: str = "") -> Command:
        folder = place.folder / (scores_folder(kind) + tag)
        highest = max(self.scale.sparsities) if tag else place.tuned.sparsity
        planned = {"model_name": self.scale.encoder, "to_sparsity": highest}
        planned["method"] = kind.removeprefix("imp").removeprefix("_") or "plain"
        return self._training("prune_iteratively", folder, place, planned, place.tuned.pruning)

    def _training(
        self, script: str, folder: Path, place: Place, planned: dict[str, Any], tuned: Any
    ) -> Command:
        """The command of a training: hyper-parameters, then the scale's, then the plan's own."""
        method = planned.get("method", "plain")
        settings = {"max_seq_length": place.tuned.max_seq_length} | asdict(tuned)
        settings |= asdict(place.tuned.adversary(method)) if method != "plain" else {}
        settings |= self.scale.settings.get("all", {}) | self.scale.settings.get(script, {})
        of_place = {"task_name": place.task, "data_dir": self.data_of(place.task)}
        of_place |= {"seed": place.seed, "output_dir": folder}
        unused = dict.fromkeys(("dataset_name", "text_columns", "label_column", "overwrite"))
        planned = unused | of_place | planned
        return commands.make(script, planned, settings)

    def _attacks(
        self, run: Path, place: Place, attacked_epochs: tuple[int, ...]
    ) -> tuple[Attack, ...]:
        planned = {
            "model_name": run,
            "num_examples": self._attacked_rows(place),
            "attack_epochs": attacked_epochs or None,
            **dict.fromkeys(("output_dir", "result_file")),
        }
        return tuple(
            Attack(commands.make("attack", planned | {"recipe": recipe}), run)
            for recipe in self.recipes
        )

    def _add(
        self, folder: Path, place: Place, training: Command, passes: float, **more: Any
    ) -> str:
        """Plan a run. `passes`: over the training rows, for its expected time."""
        name = place.name(folder.name)
        seconds = self._training_seconds(place.task, passes, training)
        rows = self._attacked_rows(place)
        attack_seconds = estimates.attack_seconds(place.task, rows, *self.hardware)
        facts = (name, place.task, place.seed, folder, training, seconds)
        self.jobs[name] = Job(*facts, attack_seconds=attack_seconds, **more)
        return name

    def data_of(self, task: str) -> Path | None:
        """The task's folder in the data, if there is one; built-in tasks need none."""
        folder = Path(self.data or "") / task
        return folder if self.data and folder.is_dir() else None

    def _attacked_rows(self, place: Place) -> int:
        return self.num_examples or self.scale.num_examples or place.tuned.attacked_rows

    def _training_seconds(self, task: str, passes: float, training: Command) -> float:
        data = self.data_of(task)
        known = None if data else self.training_rows.get(task)
        rows = known or estimates.training_rows(task, data and str(data))
        rows = min(rows, training.args.max_train_rows or rows)
        return estimates.training_seconds(task, rows * passes, *self.hardware)
