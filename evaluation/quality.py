"""Measures of adversarial texts: words changed, similarity, fluency, label kept. No TextAttack."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation import checkpoints, judges
from evaluation.finished_attacks import AttackedRow, FinishedAttack
from evaluation.fluency import CausalModel, NgramModel
from evaluation.minilm import MiniLM
from evaluation.settings import QualityTools
from training.metrics import wilson_interval
from training.rows import Rows
from training.settings import DataSettings, RunSettings
from training.tasks import Task
from utils.cli import UserError
from utils.devices import make_accelerator

Interval = tuple[float, float]


@dataclass(frozen=True)
class Tools:
    """What texts are measured with."""

    encoder: MiniLM
    language_model: NgramModel | CausalModel
    judge: judges.WordsJudge | judges.CheckpointJudge


@dataclass(frozen=True)
class RowMeasures:
    """One successful row: cosine of its two texts, ln of their perplexities, the judge's labels."""

    similarity: float
    log_perplexity_before: float
    log_perplexity_after: float
    judge_before: int
    judge_after: int

    @property
    def log_ratio(self) -> float:
        return self.log_perplexity_after - self.log_perplexity_before

    @property
    def perplexity_ratio(self) -> float:
        return math.exp(self.log_ratio)


@dataclass(frozen=True)
class Summary:
    """Means over the successful rows of an attack; None without a successful row.

    words_changed_percent: as in the attack's record. Perplexities: geometric means, so that their
    quotient is the geometric mean of the ratios. judge_accuracy: share of rows on whose original
    the judge gives the row's label. label_kept: of these rows, the share on whose adversarial text
    it still does. Intervals: Wilson's, 95 %.
    """

    rows_successful: int
    words_changed_percent: float | None
    similarity: float | None
    perplexity_original: float | None
    perplexity_adversarial: float | None
    perplexity_ratio: float | None
    judge_accuracy_percent: float | None
    judge_accuracy_interval_95: Interval | None
    rows_judged_right: int
    label_kept_percent: float | None
    label_kept_interval_95: Interval | None


@dataclass(frozen=True)
class Quality(Summary):
    """The summary of an attack, which attack it is, and why it has no numbers if it has none."""

    model: str
    recipe: str | None
    attack_id: str
    folder: str
    rows_attacked: int
    empty_because: str | None


def load_tools(
    args: QualityTools, data: DataSettings, task: Task, attacks: Sequence[FinishedAttack]
) -> Tools:
    """The judge and language model of `args`; what is not given learns from the rows of `data`."""
    accelerator = make_accelerator(RunSettings(device=args.device, precision="fp32"))
    judge = language_model = None
    if args.judge:
        target = checkpoints.find_targets(args.judge, args.checkpoint, None)[0]
        judge = judges.CheckpointJudge(target, task, attacks, accelerator)
    if args.language_model:
        language_model = CausalModel(args.language_model, str(accelerator.device))
    if judge is None or language_model is None:
        rows = judges.training_rows(data, task, attacks)
        column = task.text_columns.index(task.attack_column)
        judge = judge or judges.WordsJudge(rows)
        language_model = language_model or NgramModel([text[column] for text in rows.texts])
    return Tools(MiniLM(str(accelerator.device)), language_model, judge)


def successful(attack: FinishedAttack, task: Task) -> list[AttackedRow]:
    """Rows on which the attack succeeded. UserError if one lacks what is measured."""
    rows = [row for row in attack.rows if row.is_success]
    for row in rows:
        labels = (row.label, row.predicted_before, row.predicted_after)
        is_whole = (
            all(tuple(texts) == task.text_columns for texts in (row.original, row.perturbed))
            and None not in (*labels, row.words_changed)
            and all(0 <= label < len(task.label_names) for label in labels)
            and (row.words_total or 0) > 0
        )
        if not is_whole:
            raise UserError(f"{attack.folder} is damaged: {row.row_id}: run attack.py again")
    return rows


def measure(rows: Sequence[AttackedRow], column: str, tools: Tools) -> list[RowMeasures]:
    """Measures of each successful row.

    `column`: the attacked one. Similarity and perplexity read only this column (MiniLM its first
    256 tokens); the judge reads all columns.
    """
    labels, ids = [row.label for row in rows], [row.row_id for row in rows]

    def of(name: str) -> tuple[np.ndarray, list[float], list[int]]:
        texts = [getattr(row, name) for row in rows]
        judged = Rows([tuple(text.values()) for text in texts], labels, ids, name)
        attacked = [text[column] for text in texts]
        perplexities = tools.language_model.log_perplexities(attacked).tolist()
        return tools.encoder.encode(attacked), perplexities, tools.judge.labels(judged).tolist()

    (vectors, before, judge_before), (others, after, judge_after) = of("original"), of("perturbed")
    cosines = (vectors * others).sum(1).tolist()
    measures = zip(cosines, before, after, judge_before, judge_after, strict=True)
    return [RowMeasures(*values) for values in measures]


def summarize(rows: Sequence[AttackedRow], measures: Sequence[RowMeasures]) -> Summary:
    pairs = list(zip(rows, measures, strict=True))
    is_right = [m.judge_before == row.label for row, m in pairs]
    is_kept = [m.judge_after == row.label for row, m in pairs if m.judge_before == row.label]
    changed = [100 * row.words_changed / row.words_total for row in rows]
    return Summary(
        rows_successful=len(rows),
        words_changed_percent=sum(changed) / len(changed) if changed else None,
        similarity=_mean([m.similarity for m in measures]),
        perplexity_original=_exp_mean([m.log_perplexity_before for m in measures]),
        perplexity_adversarial=_exp_mean([m.log_perplexity_after for m in measures]),
        perplexity_ratio=_exp_mean([m.log_ratio for m in measures]),
        judge_accuracy_percent=_mean([100.0 * right for right in is_right]),
        judge_accuracy_interval_95=wilson_interval(sum(is_right), len(is_right)),
        rows_judged_right=sum(is_right),
        label_kept_percent=_mean([100.0 * kept for kept in is_kept]),
        label_kept_interval_95=wilson_interval(sum(is_kept), len(is_kept)),
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _exp_mean(values: list[float]) -> float | None:
    return math.exp(np.mean(values)) if values else None


def quality_of(attack: FinishedAttack, summary: Summary) -> Quality:
    return Quality(
        **vars(summary),
        model=f"{attack.run_folder.name}/{attack.settings['checkpoint']}",
        recipe=attack.settings.get("recipe"),
        attack_id=attack.attack_id,
        folder=str(attack.folder),
        rows_attacked=len(attack.rows),
        empty_because=None if summary.rows_successful else "the attack fooled the model on no row",
    )
