"""Measures of a classifier and confidence intervals, computed with scikit-learn and scipy.

They replace the tf_metrics package of the released requirements, which was never published on PyPI:
precision, recall and F1 per class, micro, macro and weighted.
"""

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support


def wilson_interval(successes: int, n: int) -> tuple[float, float] | None:
    """95 % Wilson score interval of successes / n, in percent; None if n is 0."""
    if n == 0:
        return None
    ci = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return 100 * float(ci.low), 100 * float(ci.high)


def classification_measures(labels: list[int], predictions: list[int], num_labels: int) -> dict:
    """Accuracy, precision, recall and F1 in percent: per class (a list), micro, macro, weighted.

    An undefined measure, as of a class that is never predicted or that no row has, counts as 0.
    """
    classes = list(range(num_labels))
    measures: dict = {"accuracy_percent": 100 * float(accuracy_score(labels, predictions))}
    for average in (None, "micro", "macro", "weighted"):
        values = precision_recall_fscore_support(
            labels, predictions, labels=classes, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), values[:3], strict=True):
            percent = (100 * np.asarray(value)).tolist()
            measures[f"{name}_{average or 'per_class'}_percent"] = percent
    return measures
