"""A word-substitution search that does not stop at success, and the goal that skips no row.

Greedy search as in TextFooler (Jin et al., AAAI 2020), except for where it ends. It keeps the
lowest margin that it has seen against each class, which gives Aua at every bias
(`evaluation.margins`). Candidates are ranked by log-odds. With two classes a bias shifts all
log-odds alike, so that the path does not depend on the bias either.
"""

import numpy as np
from textattack.goal_function_results import GoalFunctionResult
from textattack.search_methods import GreedyWordSwapWIR

from evaluation.textattack_parts import LogOdds


class Margin(LogOdds):
    """Log-odds against the true label, without an end: no score is a success."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, maximizable=True, **settings)

    def _should_skip(self, *_) -> bool:
        return False  # a row that is wrong now may be right with another bias


class MarginSearch(GreedyWordSwapWIR):
    """Substitute words one after the other, keeping the `width` best texts (beam search).

    `width` 1 is greedy search. `order`: a ranking of GreedyWordSwapWIR (delete, unk), or random,
    which the global generator draws. `curve` is filled by a search: for each text that lowered a
    margin, [queries so far, the row's lowest margin against each other class, in log-odds]. The
    first entry is that of the original text. A search returns the text of the lowest margin.
    """

    def __init__(self, order: str, width: int = 1):
        super().__init__(wir_method=order)
        self.width = width
        self.curve: list[list[float]] = []
        self._lowest: GoalFunctionResult | None = None

    def perform_search(self, initial_result: GoalFunctionResult) -> GoalFunctionResult:
        original = initial_result.attacked_text
        self.curve = []
        self._keep_lowest([initial_result])
        order, is_over = self._get_index_order(original)
        beam = [initial_result]
        for index in order:
            if is_over:  # the query budget is spent
                break
            candidates = {
                text.text: text
                for result in beam
                for text in self.get_transformations(
                    result.attacked_text, original_text=original, indices_to_modify=[index]
                )
            }
            if not candidates:
                continue
            results, is_over = self.get_goal_results(list(candidates.values()))
            self._keep_lowest(results)
            # A stable sort: a swap that does not raise the score does not replace a text.
            beam = sorted([*beam, *results], key=lambda result: -result.score)[: self.width]
        return self._lowest

    def _keep_lowest(self, results: list[GoalFunctionResult]) -> None:
        """Append to the curve if a text has a lower margin than all texts before."""
        label = results[0].ground_truth_output
        logits = np.stack([np.asarray(result.raw_output) for result in results])
        margins = np.delete(logits[:, [label]] - logits, label, axis=1)
        lowest = margins.min(axis=0).round(5)
        if self.curve:
            if (lowest >= self.curve[-1][1:]).all():
                return
            lowest = np.minimum(lowest, self.curve[-1][1:])
        if not self.curve or margins.min() <= min(self.curve[-1][1:]):
            self._lowest = results[int(margins.min(axis=1).argmin())]
        self.curve.append([self.goal_function.num_queries, *lowest.tolist()])

    def extra_repr_keys(self) -> list[str]:
        return ["wir_method", "width"]
