"""Judges of adversarial texts, models that were not attacked, and what they are fitted to."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from accelerate import Accelerator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from evaluation import checkpoints
from evaluation.checkpoints import Target
from evaluation.finished_attacks import FinishedAttack
from evaluation.settings import TrainingTexts
from training.rows import Rows, without
from training.settings import DataSettings, data_settings_in
from training.splits import load_splits
from training.tasks import Task, resolve_task
from utils.cli import UserError, explain
from utils.runs import read_run
from utils.settings import Role, names_of


class WordsJudge:
    """TF-IDF of words and word pairs, logistic regression. Joins the two texts of a pair task.

    C = 10 is the best of 1, 3, 10 and 30 on the dev rows of Rotten Tomatoes (74.2 %; 1: 72.4 %).
    """

    def __init__(self, rows: Rows):
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
        self.model = make_pipeline(words, LogisticRegression(C=10, max_iter=1000))
        with explain(f"{rows.source}: no judge can be fitted: "):
            self.model.fit([" ".join(text) for text in rows.texts], rows.labels)
        self.facts = {
            "kind": "TF-IDF of words and pairs of words, logistic regression",
            "training_rows": len(rows),
            "training_source": rows.source,
            "training_fingerprint": rows.fingerprint,
        }

    def labels(self, rows: Rows) -> np.ndarray:
        """The label that it gives to each row, int, (rows,)."""
        return self.model.predict([" ".join(text) for text in rows.texts])


class CheckpointJudge:
    """Another fine-tuned classifier.

    UserError if its labels are not the task's, or if it is a checkpoint of an attacked run: the
    texts were made to fool that.
    """

    def __init__(
        self, target: Target, task: Task, attacks: list[FinishedAttack], accelerator: Accelerator
    ):
        digest = checkpoints.weights_digest(target)
        for attack in attacks:
            same_run = target.home.resolve() == attack.run_folder
            if same_run or digest == attack.settings["checkpoint_sha256"]:
                raise UserError(
                    f"--judge {target.folder} is not an independent judge: it is the model that "
                    f"{attack.folder} attacked, or is of the same run; give another one"
                )
        length = target.facts.get("max_seq_length") or attacks[0].settings["max_seq_length"]
        self.labels = checkpoints.labeler(target, task, length, 64, accelerator)
        self.facts = {"kind": f"checkpoint {target.home.name}/{target.name}", "sha256": digest}


def data_settings(args: TrainingTexts, attack: FinishedAttack) -> DataSettings:
    """The data settings of the run whose model was attacked, replaced by those that are given."""
    run = read_run(attack.run_folder) or {}
    settings = data_settings_in(run.get("args", {}))
    is_named = settings.task_name or settings.dataset_name
    if not is_named or resolve_task(settings).name != attack.task:  # it attacked another task
        settings = replace(data_settings_in({}), task_name=attack.task)
    if args.data_dir or args.train_file:
        settings = replace(settings, **dict.fromkeys(names_of(DataSettings, Role.DATA_PLACE)))
    given = {n: getattr(args, n) for n in ("data_dir", "train_file", "label_column")}
    return replace(
        settings,
        **{name: value for name, value in given.items() if value},
        # All training rows, however few the run used: the attacks on two runs have the same judge.
        max_train_rows=args.max_train_rows,
        max_eval_rows=None,
        text_columns=json.dumps(list(attack.rows[0].original)),
    )


def training_rows(settings: DataSettings, task: Task, attacks: Sequence[FinishedAttack]) -> Rows:
    """The task's training rows without the texts that were attacked."""
    try:
        rows = load_splits(settings, task, ("train",))["train"]
    except UserError as e:
        raise UserError(
            f"the judge and the trigrams need the task's training rows ({e}): give --train_file "
            "or --data_dir, or both --judge and --language_model"
        ) from e
    for attack in attacks:
        rows = without(rows, attack.originals)[0]
    if not len(rows):
        raise UserError("all training texts were attacked: give others by --train_file")
    return rows
