"""Which run each model of a table or figure is: its stage script, settings, needs and attacks."""

import math
import os
from argparse import ArgumentTypeError, Namespace
from dataclasses import replace
from pathlib import Path

from evaluation.presets import PRESETS, RELEASED_RECIPES, temperature_rules
from evaluation.protocol import folder_name
from experiments import estimates
from experiments.jobs import Job
from experiments.models import DENSE, ROBUST, SPARSITY, Model, controls_of, scores_folder
from experiments.paper import (
    CURVES,
    EPOCHS_FIGURE,
    IMP_EPOCHS,
    LAMBDAS,
    OWN_LAMBDA,
    SEARCH_EPOCHS,
    Row,
    Table,
)
from experiments.scales import SCALES, tables_of
from experiments.study import STUDIES
from masking.tickets import GATE_KINDS
from training.tasks import TASKS
from utils.cli import UserError, positive_float, positive_int
from utils.runs import read_run

# Variables of the stage scripts that may be given in the environment; those that define a job
# (TASKS, KINDS, EPOCHS, TAG ...) come from the plan alone.
FROM_ENVIRONMENT = (
    "MAX_TRAIN_ROWS",
    "MAX_EVAL_ROWS",
    "LR",
    "BSZ",
    "MAX_SEQ_LENGTH",
    "PROTOCOL",
    "ADV_STEPS",
    "IMP_EPOCHS",
    "IMP_LR",
    "IMP_SHARE",
    "MASK_LR",
)
BUILTIN = "builtin/"  # how the tasks begin whose data are in packages
RATES = {"LR", "IMP_LR", "IMP_SHARE", "MASK_LR"}  # of these; the others are whole numbers
BUILTIN_ATTACKED_ROWS = {"builtin/rotten_tomatoes": 250, "builtin/imdb": 500}  # stage 1's blocks


class Planner:
    """Collects the jobs of a target; one that is there already stays, or gains attacks.

    `training_rows`: of tasks of which they are known, for the minutes where no data are given.
    """

    def __init__(self, args: Namespace, recipes: list[str], training_rows: dict[str, int | None]):
        import torch

        self.args, self.scale = args, SCALES[args.scale]
        if args.encoder:
            self.scale = replace(self.scale, encoder=args.encoder)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.size = "paper" if self.scale.name == "paper" else "mini"  # of the encoder
        self.recipes, self.training_rows = recipes, training_rows
        self.jobs: dict[str, Job] = {}

    def add_target(self, task: str, seed: int) -> None:
        target = self.args.target
        tables = tables_of(target)
        if tables:
            for table, row in self._rows(tables):
                model = row.model.at(task)
                self.add_model(model, task, seed)
                with_controls = self.args.controls and table.controls
                if with_controls and model.kind and model.reinitialise == "nothing":
                    self._add_controls(model, task, seed)
        elif target == "figure1":
            self.add_scores("robust", task, seed)
        elif target == "figure2":
            self._add_sparsities(task, seed)
        elif target == "figure3":
            self.add_model(ROBUST.at(task), task, seed, attacked=False)
        elif target == "figure4":
            for model in CURVES.values():
                longer = replace(model.at(task), epochs=EPOCHS_FIGURE)
                self.add_model(longer, task, seed, every_epoch=True)
        else:
            self.add_scores("robust", task, seed)
            for value in LAMBDAS:
                if value != OWN_LAMBDA.get(task, 0.5):
                    self.add_scores(
                        "robust", task, seed, tag=f"-lambda{value:g}", LAMBDA=f"{value:g}"
                    )

    def _rows(self, tables: tuple[Table, ...]) -> list[tuple[Table, Row]]:
        rows = [(table, row) for table in tables for row in table.rows]
        labels = dict.fromkeys(row.label for _, row in rows)
        asked = self.args.rows or labels
        for label in asked:
            if label not in labels:
                raise UserError(
                    f"{self.args.target} has no row {label!r}; it has {', '.join(labels)}"
                )
        return [(table, row) for table, row in rows if row.label in asked]

    def _add_sparsities(self, task: str, seed: int) -> None:
        for model in CURVES.values():
            if model.kind is None:
                self.add_model(model, task, seed)
                continue
            for sparsity in sorted({*self.scale.sparsities, SPARSITY[task]}):
                self.add_model(replace(model, sparsity=sparsity), task, seed)

    def _add_controls(self, ticket: Model, task: str, seed: int) -> None:
        """The last control, that of the ticket's loss, is an epoch of the one before it, where that
        one can keep all of its epochs."""
        passes = self._label_passes(ticket, task)
        same_epochs, *others = controls_of(ticket, self.scale.epochs, passes)
        self.add_model(same_epochs, task, seed)
        longer = replace(DENSE, epochs=passes)
        source = self._place(task, seed) / longer.folder
        shared = longer in others and self._keeps_epochs(source, passes)
        for control in others:
            if not shared:
                self.add_model(control, task, seed)
            elif control == longer:
                keep = ",".join(map(str, range(1, passes + 1)))
                self.add_model(control, task, seed, flags=("--keep_epochs", keep))
            else:
                self.add_model(control, task, seed, taken_from=source)

    def _keeps_epochs(self, folder: Path, epochs: int) -> bool:
        """Whether a run has all of its epochs, or will. Not at paper scale, for the disk: 26
        checkpoints of BERT-base are 11 GB."""
        if self.scale.name == "paper":
            return False
        run, all_of_them = read_run(folder), list(range(1, epochs + 1))
        if run is None or run["status"] != "finished":
            return run is None or run.get("args", {}).get("keep_epochs") == all_of_them
        return all((folder / f"epoch{epoch}").is_dir() for epoch in all_of_them)

    def _label_passes(self, ticket: Model, task: str) -> int:
        """Of a ticket's retraining and, where its mask has seen labels, of what came before."""
        own, epochs = self._settings("search"), ticket.epochs or self.scale.epochs
        if ticket.kind in GATE_KINDS:
            search = int(own.get("EPOCHS", SEARCH_EPOCHS.get(task, 20)))
            return epochs + search + self.scale.epochs
        if ticket.kind.startswith("imp"):
            rounds = math.ceil(ticket.sparsity / float(own.get("IMP_SHARE", 0.1)) - 1e-9)
            return epochs + rounds * int(own.get("IMP_EPOCHS", IMP_EPOCHS))
        return epochs

    def add_model(
        self,
        model: Model,
        task: str,
        seed: int,
        attacked: bool = True,
        every_epoch: bool = False,
        flags: tuple[str, ...] = (),
        taken_from: Path | None = None,
    ) -> None:
        """A trained model with its attacks, and before it what it is made from.

        `taken_from`: the run of which a model that stops at a loss is an epoch.
        """
        epochs = model.epochs or self.scale.epochs
        variables = {"ATTACK": "yes" if attacked else "no"}
        if model.tag:
            variables |= {"TAG": model.tag}
        if model.epochs:
            variables |= {"EPOCHS": str(epochs)}
        if model.stop_at is not None:
            ticket = model.stop_at.folder
            variables |= {
                "TAG": f"-loss_of-{ticket}",
                "STOP_AT_LOSS": str(self._place(task, seed) / ticket),
            }
        rule = os.environ.get("CHECKPOINT") or "last"
        if rule not in ("last", "best", "both"):
            raise UserError(f"CHECKPOINT={rule} is none of last, best, both")
        folder, checkpoints = model.folder, ["last", "best"] if rule == "both" else [rule]
        if every_epoch:
            folder += "-kept"
            variables["TAG"] += "-kept"
            kept = ",".join(map(str, self.scale.attacked_epochs))
            variables["ATTACK_EPOCHS"], flags = kept, ("--keep_epochs", kept)
            checkpoints = [f"epoch{e}" for e in self.scale.attacked_epochs]
        needs: tuple[str, ...] = ()
        if model.stop_at is not None:
            needs = (self._name(model.stop_at.folder, task, seed),)
        if taken_from is not None:
            flags = ("--from_run", str(taken_from))
            needs += (self._name(taken_from.name, task, seed),)
        if model.kind is None:
            script, stage = "stage1-finetune.sh", "finetune"
            variables["METHODS"] = model.method
        else:
            script, stage = "stage3-draw-retrain_ticket.sh", "retrain"
            needs, scores_tag = self._scores_for(model, task, seed)
            variables |= {
                "KINDS": model.kind,
                "SPARSITIES": f"{model.sparsity:g}",
                "REINIT": model.reinitialise,
                "SCORES_TAG": scores_tag,
            }
        passes = {"plain": 1, "freelb": 2.2, "pgd": 3.3, "infobert": 5}[model.method]
        seconds = self._training_seconds(task, passes * epochs, stage)
        if taken_from is not None:  # it is evaluated only
            seconds = self._training_seconds(task, 0.1, stage)
        where = self._place(task, seed)
        attacks = (
            tuple(
                where / folder / "attacks" / name
                for checkpoint in checkpoints
                for name in self._attack_names(checkpoint, task)
            )
            if attacked
            else ()
        )
        self._add(folder, task, seed, script, stage, variables, seconds, flags, needs, attacks)

    def _attack_names(self, checkpoint: str, task: str) -> list[str]:
        """Folders of the attacks on one checkpoint, as attack.py names them."""
        name = os.environ.get("ATTACK_PROTOCOL") or "balanced"
        if name not in PRESETS:
            raise UserError(f"ATTACK_PROTOCOL={name} is none of {', '.join(PRESETS)}")
        preset = PRESETS[name]
        rows = os.environ.get("ROWS") or preset["rows"]
        score_with = os.environ.get("SCORE_WITH") or preset["score_with"]
        renamed = RELEASED_RECIPES if name == "released" else {}
        return [
            folder_name(
                renamed.get(recipe, recipe),
                checkpoint,
                rows,
                self._attacked_rows(task),
                42,
                score_with,
                temperature,
            )
            for recipe in self.recipes
            for temperature in temperature_rules(os.environ.get("TEMPERATURE") or "1")
        ]

    def _scores_for(self, model: Model, task: str, seed: int) -> tuple[tuple[str, ...], str]:
        """Names of the jobs that a ticket's scores need, and the tag of their folder."""
        if model.kind == "random_matched":
            return (self.add_scores("robust", task, seed),), ""
        if model.kind == "random":
            return (), ""
        if model.kind.startswith("imp") and model.sparsity > SPARSITY[task] + 1e-9:
            # Not the scores of Table 1, so that the figure does not make the table wait for nine
            # rounds; where both have a ticket it is the same one.
            highest = f"{max(self.scale.sparsities):g}"
            tag = f"-to{highest}"
            return (self.add_scores(model.kind, task, seed, tag=tag, IMP_SPARSITY=highest),), tag
        switches = dict(model.search or ())
        protocol = {"PROTOCOL": switches.pop("deviations")} if "deviations" in switches else {}
        flags = tuple(word for name, value in switches.items() for word in (f"--{name}", value))
        name = self.add_scores(model.kind, task, seed, model.search_tag, flags, **protocol)
        return (name,), model.scores_tag

    def add_scores(
        self,
        kind: str,
        task: str,
        seed: int,
        tag: str = "",
        flags: tuple[str, ...] = (),
        **variables: str,
    ) -> str:
        """Stage 2 for one kind of scores; the job's name."""
        needs: tuple[str, ...] = ()
        own = self._settings("search")
        if self.args.target in STUDIES and kind == "robust" and not tag:  # for study-epochs
            epochs = int(own.get("EPOCHS", SEARCH_EPOCHS.get(task, 20)))
            flags = ("--keep_scores", ",".join(map(str, range(1, epochs)))) * (epochs > 1)
        if kind.startswith("imp"):
            share = float(own.get("IMP_SHARE", 0.1))
            rounds = round(float(variables.get("IMP_SPARSITY", SPARSITY[task])) / share)
            passes = {"imp": 1, "imp_freelb": 2.2}.get(kind, 4)
            work = rounds * passes * int(own.get("IMP_EPOCHS", IMP_EPOCHS))
        else:
            needs = (self._name("dense", task, seed),)
            self.add_model(Model(), task, seed, attacked=False)
            steps = int(own.get("ADV_STEPS", 5)) if kind == "robust" else 1
            work = 1.4 * steps * int(own.get("EPOCHS", SEARCH_EPOCHS.get(task, 20)))
        variables |= {"KINDS": kind, "TAG": tag}
        seconds = self._training_seconds(task, work, "search")
        return self._add(
            scores_folder(kind) + tag,
            task,
            seed,
            "stage2-search-ticket.sh",
            "search",
            variables,
            seconds,
            flags,
            needs,
        )

    def _add(
        self,
        folder: str,
        task: str,
        seed: int,
        script: str,
        stage: str,
        variables: dict,
        seconds: float,
        flags=(),
        needs=(),
        attacks=(),
    ) -> str:
        name = self._name(folder, task, seed)
        known = self.jobs.get(name)
        if known is not None and len(known.attacks) >= len(attacks) and not flags:
            return name
        settings = self._settings(stage)
        common = {
            "MODEL": self.scale.encoder,
            "TASKS": task,
            "SEEDS": str(seed),
            "RUNS": self.args.runs,
            "RECIPES": " ".join(self.recipes),
            "NUM_EXAMPLES": str(self._attacked_rows(task)),
        }
        if self._data(task):
            common["DATA"] = self._data(task)
        self.jobs[name] = Job(
            name,
            self._place(task, seed) / folder,
            script,
            common | settings | variables,
            seconds,
            tuple(flags),
            tuple(needs),
            tuple(attacks),
            self._attack_seconds(task),
        )
        return name

    def _settings(self, stage: str) -> dict[str, str]:
        """The scale's variables; what is set in the environment wins, as in the stage scripts."""
        settings = self.scale.settings.get("all", {}) | self.scale.settings.get(stage, {})
        own = {key: os.environ[key] for key in FROM_ENVIRONMENT if os.environ.get(key)}
        for key in own.keys() - {"PROTOCOL"}:
            admits = positive_float if key in RATES else positive_int
            try:
                admits(own[key])
            except ArgumentTypeError as e:
                raise UserError(f"{key} in the environment: {e}") from e
        return settings | own

    def _data(self, task: str) -> str | None:
        """The task's folder in --data, where there is one; built-in tasks need none."""
        folder = Path(self.args.data or "") / task
        return str(folder) if self.args.data and folder.is_dir() else None

    def _name(self, folder: str, task: str, seed: int) -> str:
        return f"{task}/seed{seed}/{folder}"

    def _place(self, task: str, seed: int) -> Path:
        return Path(self.args.runs) / Path(self.scale.encoder).name / task / f"seed{seed}"

    def _attacked_rows(self, task: str) -> int:
        asked = self.args.num_examples or self.scale.num_examples
        return asked or TASKS[task].paper_attacked_rows or BUILTIN_ATTACKED_ROWS[task]

    def _training_seconds(self, task: str, passes_over_rows: float, stage: str) -> float:
        bound = int(self._settings(stage).get("MAX_TRAIN_ROWS", 10**9))
        data = self._data(task)
        known = None if data else self.training_rows.get(task)
        rows = min(known or estimates.training_rows(task, data), bound)
        return estimates.training_seconds(task, rows * passes_over_rows, self.device, self.size)

    def _attack_seconds(self, task: str) -> float:
        return estimates.attack_seconds(task, self._attacked_rows(task), self.device, self.size)
