"""What adversarial texts are like: how much of them was changed, how near they are in meaning, how
fluent they are, and whether an independent judge still sees the label. No TextAttack."""

import math

import numpy as np
from accelerate import Accelerator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from evaluation import checkpoints
from evaluation.fluency import CausalModel, NgramModel
from evaluation.minilm import MiniLM
from evaluation.outcomes import SUCCESS, tally
from evaluation.transfer import Finished
from training import models
from training.batching import encode
from training.metrics import wilson_interval
from training.prediction import predict
from training.splits import Rows
from training.tasks import Task
from utils.cli import UserError, explain


def successful(attack: Finished, task: Task) -> list[dict]:
    """Lines of the rows where the attack succeeded; UserError where one lacks what is read here."""
    won = [line for line in attack.lines if line["outcome"] == SUCCESS]
    for line in won:
        labels = [line.get(name) for name in ("label", "predicted_before", "predicted_after")]
        counts = [line.get(name) for name in ("queries", "words_changed", "words_total")]
        whole = (
            all(_is_text(line.get(name), task) for name in ("original", "perturbed"))
            and all(isinstance(n, int) for n in (*labels, *counts))
            and all(0 <= n < len(task.label_names) for n in labels)
            and counts[-1] > 0
        )
        if not whole:
            raise UserError(f"{attack.folder}/rows.jsonl is damaged: {line['row_id']}")
    return won


def _is_text(columns: object, task: Task) -> bool:
    if not isinstance(columns, dict) or tuple(columns) != task.text_columns:
        return False
    return all(isinstance(text, str) for text in columns.values())


class WordsJudge:
    """TF-IDF of words and pairs of words, logistic regression. A pair task's texts are one to it.

    C = 10 is the best of 1, 3, 10 and 30 on Rotten Tomatoes' dev rows (74.2 %; 1 has 72.4 %).
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
        """(rows,): the label it gives, by all columns."""
        return self.model.predict([" ".join(text) for text in rows.texts])


class CheckpointJudge:
    """Another fine-tuned classifier. UserError where its labels are not the task's, or where it is
    a checkpoint of an attacked run: the texts were made to fool that."""

    def __init__(
        self,
        target: checkpoints.Target,
        task: Task,
        attacks: list[Finished],
        accelerator: Accelerator,
    ):
        digest = checkpoints.weights_digest(target)
        for attack in attacks:
            home = attack.folder.resolve().parent.parent
            if digest == attack.settings["checkpoint_sha256"] or target.home.resolve() == home:
                raise UserError(
                    f"--judge {target.folder} is the model that {attack.folder} "
                    "attacked, or of the same run: no independent judge"
                )
        self.order = checkpoints.label_order(target, task)
        attacked_length = attacks[0].settings["max_seq_length"]
        self.max_seq_length = target.facts.get("max_seq_length") or attacked_length
        self.model, self.tokenizer = checkpoints.load_classifier(target)
        models.check_length(self.model, self.max_seq_length)
        self.model.to(accelerator.device)
        self.accelerator = accelerator
        self.facts = {"kind": f"checkpoint {target.home.name}/{target.name}", "sha256": digest}

    def labels(self, rows: Rows) -> np.ndarray:
        """(rows,): the label it gives, by all columns."""
        encoded = encode(rows, self.tokenizer, self.max_seq_length)
        return predict(self.model, encoded, 64, self.accelerator)[:, self.order].argmax(axis=1)


def measure(
    lines: list[dict],
    column: str,
    encoder: MiniLM,
    language_model: NgramModel | CausalModel,
    judge: WordsJudge | CheckpointJudge,
) -> list[dict]:
    """Of each successful row: cosine of the two texts, ln of their perplexities, judge's labels.

    `column`: the attacked one, to which the first two are confined; MiniLM reads 256 tokens of it.
    """
    labels, ids = [line["label"] for line in lines], [line["row_id"] for line in lines]
    found = {}
    for when, name in (("before", "original"), ("after", "perturbed")):
        texts = [line[name][column] for line in lines]
        whole = Rows([tuple(line[name].values()) for line in lines], labels, ids, name)
        found[when] = (
            encoder.encode(texts),
            language_model.log_perplexities(texts),
            judge.labels(whole),
        )
    cosines = (found["before"][0] * found["after"][0]).sum(1)
    return [
        {
            "similarity": float(cosines[i]),
            "log_perplexity_before": float(found["before"][1][i]),
            "log_perplexity_after": float(found["after"][1][i]),
            "judge_before": int(found["before"][2][i]),
            "judge_after": int(found["after"][2][i]),
        }
        for i in range(len(lines))
    ]


def summarise(lines: list[dict], measured: list[dict]) -> dict:
    """One attack's numbers, over its successful rows; None where there is nothing to average.

    words_changed_percent: as in the attack's record. Perplexities: geometric means over rows, so
    that their quotient is the mean ratio. label_kept: of the rows whose original the judge gives
    the row's label, those whose adversarial text it still gives it. Wilson's intervals, 95 %.
    """
    labels = [line["label"] for line in lines]
    right = [m["judge_before"] == y for m, y in zip(measured, labels, strict=True)]
    kept = [m["judge_after"] == y for m, y, r in zip(measured, labels, right, strict=True) if r]

    def mean(values: list[float]) -> float | None:
        return float(np.mean(values)) if values else None

    def perplexity(values: list[float]) -> float | None:
        return math.exp(np.mean(values)) if values else None

    before = [m["log_perplexity_before"] for m in measured]
    after = [m["log_perplexity_after"] for m in measured]
    ratios = [b - a for a, b in zip(before, after, strict=True)]
    return {
        "rows_successful": len(lines),
        "words_changed_percent": tally(lines)["words_changed_percent"] if lines else None,
        "similarity": mean([m["similarity"] for m in measured]),
        "perplexity_original": perplexity(before),
        "perplexity_adversarial": perplexity(after),
        "perplexity_ratio": perplexity(ratios),
        "judge_accuracy_percent": mean([100.0 * r for r in right]),
        "judge_accuracy_interval_95": wilson_interval(sum(right), len(right)),
        "rows_judged_right": sum(right),
        "label_kept_percent": mean([100.0 * k for k in kept]),
        "label_kept_interval_95": wilson_interval(sum(kept), len(kept)),
    }
