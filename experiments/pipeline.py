"""From a model of a table to its runs: what it is made from, how it is trained and attacked."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments import commands, estimates
from experiments.commands import Command
from experiments.hyperparameters import hyperparameters_of
from experiments.jobs import Attack, Job
from experiments.models import DENSE, Model
from experiments.scales import Scale
from masking.kinds import GATE_KINDS
from training.rounds import sparsities_of_rounds
from training.settings import DataSettings
from training.tasks import TASKS, folder_of, name_in_records
from utils.cli import UserError
from utils.runs import read_run
from utils.settings import Role, names_of

# Passes over the rows that a step of a method costs.
PASSES = {"plain": 1.0, "freelb": 2.2, "pgd": 3.3, "infobert": 5.0}
FROM_SEARCH = ("random_matched", "complement")  # kinds made from the scores of a search
FROM_STAGE_1 = ("magnitude_finetuned", "wanda", "taylor")  # and from the dense model


@dataclass
class Pipeline:
    """What the runs of a plan share, and their jobs in an order in which they can run.

    `data`: folder with a folder per task, or None. `num_examples`: attacked rows, None for the
    task's own number. `known_rows`: numbers of training rows, for the estimates of tasks without
    local data. `keep_search_epochs`: keep the scores of every epoch of the default search.
    `device`: that of the estimates, cpu or cuda; None: that of this machine.
    """

    scale: Scale
    runs: Path
    recipes: list[str]
    data: str | None = None
    num_examples: int | None = None
    known_rows: dict[str, int | None] = field(default_factory=dict)
    keep_search_epochs: bool = False
    device: str | None = None
    jobs: dict[str, Job] = field(init=False, default_factory=dict)

    def data_of(self, task: str) -> Path | None:
        """The task's folder in the data, if there is one; built-in tasks need none."""
        folder = Path(self.data or "") / folder_of(task)
        return folder if self.data and folder.is_dir() else None

    def training_rows(self, task: str, training: Command) -> int:
        data = self.data_of(task)
        known = None if data else self.known_rows.get(task)
        rows = known or estimates.training_rows(task, data)
        return min(rows, training.args.max_train_rows or rows)


class Place:
    """Plans the runs of one task and seed. A job that is already planned stays."""

    def __init__(self, pipeline: Pipeline, task: str, seed: int):
        self.pipeline, self.task, self.seed = pipeline, task, seed
        self.scale, self.tuned = pipeline.scale, hyperparameters_of(task)
        of_task = pipeline.runs / Path(self.scale.encoder).name / folder_of(task)
        self.folder = of_task / f"seed{seed}"

    def name(self, run: str) -> str:
        return f"{self.task}/seed{self.seed}/{run}"

    def scores_folder(self, kind: str, tag: str = "") -> Path:
        """The run folder of a kind of scores, as in the shell stages."""
        return self.folder / (("search-" if kind in GATE_KINDS else "scores-") + kind + tag)

    def add_model(
        self,
        model: Model,
        attacked: bool = True,
        every_epoch: bool = False,
        keep_epochs: tuple[int, ...] = (),
        taken_from: Path | None = None,
    ) -> None:
        """A trained model with its attacks, after what it is made from.

        `every_epoch`: attack the scale's epochs instead of the last one. `taken_from`: the run
        one of whose epochs is the model, which stops at a loss.
        """
        if model.runtime is not None:
            return self._add_export(model)
        folder = self.folder / (model.folder + ("-kept" if every_epoch else ""))
        attacked_epochs = self.scale.attacked_epochs if every_epoch else ()
        attacks = self._attacks(folder, attacked_epochs) if attacked else ()
        known = self.pipeline.jobs.get(self.name(folder.name))
        if known is not None and len(known.attacks) >= len(attacks) and not keep_epochs:
            return
        epochs = model.epochs or self.scale.epochs
        planned = {
            "model_name": self.scale.encoder,
            "epochs": epochs,
            "keep_epochs": keep_epochs or attacked_epochs,
            "method": model.method,
            "from_run": taken_from,
        }
        needs: tuple[str, ...] = ()
        prepare = None
        if model.stop_at is not None:
            planned["stop_at_loss"] = self.folder / model.stop_at.folder
            runs = (planned["stop_at_loss"], taken_from)
            needs = tuple(self.name(run.name) for run in runs if run)
        if model.kind is not None:
            needs, scores, prepare = self._scores(model)
            planned |= {"scores": scores, "sparsity": model.sparsity}
            planned["reinitialise"] = model.reinitialise
        if model.structure:
            planned |= {"uniform": True, "shrink": True}
        script = "finetune" if model.kind is None else "retrain_ticket"
        training = self._training(script, folder, planned, self.tuned.training)
        passes = 0.1 if taken_from else PASSES[model.method] * epochs
        self._add(training, passes, prepare=prepare, needs=needs, attacks=attacks)

    def _add_export(self, model: Model) -> None:
        """An export of a trained model with its attacks, on the rows of the model's own."""
        original = replace(model, runtime=None)
        self.add_model(original, attacked=False)
        training = self.pipeline.jobs[self.name(original.folder)].training.args
        planned = {name: getattr(training, name) for name in names_of(DataSettings, *Role)}
        planned["checkpoint"] = "last"
        folder = self.folder / model.folder
        attacks = self._attacks(folder, (), **planned)
        planned |= {"run": self.folder / original.folder, "to": model.runtime}
        planned |= {"output_dir": folder, "overwrite": True, "push_to_hub": None}
        needs = (self.name(original.folder),)
        self._add(commands.make("export", planned), 0.0, needs=needs, attacks=attacks)

    def add_controls(self, ticket: Model) -> None:
        """The dense models that a ticket is compared with, trained with the same settings.

        Same epochs as its retraining; same label passes as the ticket and its mask; same training
        loss at the end, which is an epoch of the second one if that one can keep all of its epochs.
        """
        passes = self._label_passes(ticket)
        longer, taken_from, kept_epochs = replace(DENSE, epochs=passes), None, ()
        self.add_model(replace(DENSE, epochs=ticket.epochs))
        if passes != (ticket.epochs or self.scale.epochs):
            if self._keeps_epochs(self.folder / longer.folder, passes):
                taken_from, kept_epochs = self.folder / longer.folder, tuple(range(1, passes + 1))
            self.add_model(longer, keep_epochs=kept_epochs)
        self.add_model(replace(longer, stop_at=ticket), taken_from=taken_from)

    def _keeps_epochs(self, folder: Path, epochs: int) -> bool:
        """Whether a run has all of its epochs, or will. Not at paper scale, for the disk: 26
        checkpoints of BERT-base are 11 GB."""
        if self.scale.name == "paper":
            return False
        run, all_of_them = read_run(folder), list(range(1, epochs + 1))
        if run is None or run["status"] != "finished":
            return run is None or run.get("args", {}).get("keep_epochs") == all_of_them
        return all((folder / f"epoch{epoch}").is_dir() for epoch in all_of_them)

    def _label_passes(self, ticket: Model) -> int:
        """Of a ticket's retraining and, if its mask has seen labels, of what came before."""
        epochs = ticket.epochs or self.scale.epochs
        if ticket.kind in GATE_KINDS:
            return epochs + self._search(ticket.kind).args.epochs + self.scale.epochs
        if ticket.kind.startswith("imp"):
            pruning = self._pruning(ticket.kind).args
            share = (pruning.share_per_round, pruning.share_of)
            return epochs + len(sparsities_of_rounds(ticket.sparsity, *share)) * pruning.epochs
        if ticket.kind in FROM_STAGE_1:
            return epochs + self.scale.epochs + (ticket.kind == "taylor")
        return epochs

    def _scores(self, ticket: Model) -> tuple[tuple[str, ...], Path, Command | None]:
        """Names of the jobs that a ticket's scores need, where the scores lie, and the command
        that makes scores which are not learned."""
        kind = ticket.kind
        if kind in GATE_KINDS:
            switches: dict[str, Any] = dict(ticket.search or ())
            if ticket.structure:
                switches["structure"] = ticket.structure
            tag = ticket.units_tag + ticket.search_tag
            name = self.add_search(kind, tag, switches)
            scores = self.scores_folder(kind, tag)
            if ticket.search_epoch:
                scores /= f"scores_epoch{ticket.search_epoch}.safetensors"
            return (name,), scores, None
        if kind.startswith("imp"):
            # Not Table 1's scores, which would wait for nine rounds; where both have a ticket it
            # is the same one.
            is_sparser = ticket.sparsity > self.tuned.sparsity + 1e-9
            tag = f"-to{max(self.scale.sparsities):g}" if is_sparser else ""
            return (self.add_pruning(kind, tag),), self.scores_folder(kind, tag), None
        folder = self.scores_folder(kind, ticket.units_tag)
        # Rows come from the dense model's run.
        planned: dict[str, Any] = dict.fromkeys(names_of(DataSettings, *Role))
        planned |= {"kind": kind, "seed": self.seed, "output_dir": folder}
        if kind not in ("wanda", "taylor"):
            planned["calibration_rows"] = None
        if ticket.structure:
            planned["structure"] = ticket.structure
        needs: tuple[str, ...] = ()
        if kind in FROM_SEARCH:
            needs = (self.add_search("robust"),)
            planned["scores"] = self.scores_folder("robust")
        else:
            planned["model_name"] = self.scale.encoder
        if kind in FROM_STAGE_1:
            self.add_model(DENSE, attacked=False)
            needs = (self.name(DENSE.folder),)
            planned["kind"] = kind.removesuffix("_finetuned")
            planned["finetuned"] = self.folder / DENSE.folder / "best"
        return needs, folder, commands.make("make_scores", planned)

    def add_search(self, kind: str, tag: str = "", switches: dict[str, Any] | None = None) -> str:
        """Stage 2 with an adversary (robust) or without; the job's name."""
        self.add_model(DENSE, attacked=False)
        training = self._search(kind, tag, switches)
        passes = 1.4 * max(training.args.adv_steps, 1) * training.args.epochs
        return self._add(training, passes, needs=(self.name(DENSE.folder),))

    def _search(self, kind: str, tag: str = "", switches: dict[str, Any] | None = None) -> Command:
        folder = self.scores_folder(kind, tag)
        planned = {"model_name": self.folder / DENSE.folder, "sparsity": self.tuned.sparsity}
        planned |= switches or {}
        if kind == "no_adversary":
            planned["adv_steps"] = 0
        search = self._training("search_ticket", folder, planned, self.tuned.search)
        if kind == "robust" and not search.args.adv_steps:
            raise UserError(
                "a robust ticket needs an adversary: unset ADV_STEPS and SEARCH_ADV_STEPS, or give "
                "1 or more"
            )
        if not self.pipeline.keep_search_epochs or kind != "robust" or tag:
            return search
        planned["keep_scores"] = tuple(range(1, search.args.epochs))
        return self._training("search_ticket", folder, planned, self.tuned.search)

    def add_pruning(self, kind: str, tag: str = "") -> str:
        """Iterative magnitude pruning, also under a baseline's training; the job's name."""
        training = self._pruning(kind, tag)
        args = training.args
        share = (args.share_per_round, args.share_of)
        rounds = len(sparsities_of_rounds(args.to_sparsity, *share))
        passes = rounds * PASSES[args.method] * args.epochs
        return self._add(training, passes)

    def _pruning(self, kind: str, tag: str = "") -> Command:
        highest = max(self.scale.sparsities) if tag else self.tuned.sparsity
        planned = {"model_name": self.scale.encoder, "to_sparsity": highest}
        planned["method"] = kind.removeprefix("imp").removeprefix("_") or "plain"
        folder = self.scores_folder(kind, tag)
        return self._training("prune_iteratively", folder, planned, self.tuned.pruning)

    def _training(self, script: str, folder: Path, planned: dict[str, Any], tuned: Any) -> Command:
        """The command of a training: hyper-parameters, then the scale's, then the plan's own."""
        method = planned.get("method", "plain")
        settings = {"max_seq_length": self.tuned.max_seq_length} | asdict(tuned)
        settings |= asdict(self.tuned.adversary(method)) if method != "plain" else {}
        settings |= self.scale.settings.get("all", {}) | self.scale.settings.get(script, {})
        unused = dict.fromkeys(("dataset_name", "dataset_config", "overwrite"))
        if self.task in TASKS:
            unused |= dict.fromkeys(("text_columns", "label_column", "train_split", "test_split"))
        of_place = {"task_name": self.task, "data_dir": self.pipeline.data_of(self.task)}
        of_place |= {"seed": self.seed, "output_dir": folder}
        return commands.make(script, unused | of_place | planned, settings)

    def _attacks(
        self, run: Path, attacked_epochs: tuple[int, ...], **further: Any
    ) -> tuple[Attack, ...]:
        planned = further | {"model_name": run, "num_examples": self._attacked_rows}
        planned |= {"attack_epochs": attacked_epochs, "output_dir": None, "result_file": None}
        return tuple(
            Attack(commands.make("attack", planned | {"recipe": recipe}), run)
            for recipe in self.pipeline.recipes
        )

    @property
    def _attacked_rows(self) -> int:
        by_default = self.scale.num_examples or self.tuned.attacked_rows
        return self.pipeline.num_examples or by_default

    def _add(self, training: Command, passes: float, **more: Any) -> str:
        """Plan a run. `passes`: over the training rows, for its expected time."""
        device = self.pipeline.device
        to_train, to_attack = estimates.seconds_per_row(self.task, self.scale.size, device)
        rows = self.pipeline.training_rows(self.task, training)
        seconds = estimates.START_SECONDS + rows * passes * to_train
        attack_seconds = estimates.START_SECONDS + self._attacked_rows * to_attack
        folder = Path(training.args.output_dir)
        name = self.name(folder.name)
        facts = (name, name_in_records(self.task), self.seed, folder, training, seconds)
        self.pipeline.jobs[name] = Job(*facts, attack_seconds=attack_seconds, **more)
        return name
