"""How candidates are scored. TextAttack maximises a score; its own is 1 - p of the true label."""

import torch
from textattack.goal_functions import UntargetedClassification
from textattack.search_methods import GreedyWordSwapWIR
from torch import Tensor


class Softmax(UntargetedClassification):
    """TextAttack's own score, 1 - p in float32: it is 0 for all candidates of a victim that is
    sure to seven digits, and the search is then blind."""

    def _process_model_outputs(self, inputs: list, scores: Tensor) -> Tensor:
        return super()._process_model_outputs(inputs, scores.float())


class LogOdds(UntargetedClassification):
    """Log-odds against the true label, log((1 - p) / p), from float64 logits: ordered as 1 - p,
    and never saturated."""

    def _process_model_outputs(self, inputs: list, scores: Tensor) -> Tensor:
        return scores  # the logits; their argmax is the predicted label

    def _get_score(self, model_output: Tensor, _) -> float:
        return log_odds_against(model_output, self.ground_truth_output)


def log_odds_against(logits: Tensor, label: int) -> float:
    """log((1 - p) / p) of `label`: logsumexp of the other logits (labels,) minus its own."""
    others = torch.cat([logits[:label], logits[label + 1 :]])
    return float(others.logsumexp(0) - logits[label])


class WeightedSaliency(GreedyWordSwapWIR):
    """PWWS's search where scores are log-odds.

    Every other search compares scores, which only their order can change. PWWS ranks words by a
    product of probabilities: a softmax over saliencies times the largest 1 - p. For the ranking
    alone the log-odds go through a float64 sigmoid, which makes them 1 - p again; the swaps are
    then chosen by log-odds.
    """

    def __init__(self):
        super().__init__("weighted-saliency")

    def _get_index_order(self, initial_text, max_len: int = -1):
        query = self.get_goal_results

        def query_as_probabilities(texts: list):
            results, search_over = query(texts)
            for result in results:
                result.score = float(torch.tensor(result.score, dtype=torch.float64).sigmoid())
            return results, search_over

        self.get_goal_results = query_as_probabilities
        try:
            return super()._get_index_order(initial_text, max_len)
        finally:
            self.get_goal_results = query


def watch_ranking(search: GreedyWordSwapWIR) -> None:
    """Have the search keep, as `first_scores`, the scores that it ranks a row's words by.

    All searches here first ask for a text per word, with that word masked or deleted, and rank by
    the answers. A victim that answers all of them alike hides from the search where to begin.
    """
    rank = search._get_index_order

    def watched(*arguments):
        query, search.first_scores = search.get_goal_results, []

        def kept(texts: list):
            results, search_over = query(texts)
            if not search.first_scores:
                search.first_scores = [result.score for result in results]
            return results, search_over

        search.get_goal_results = kept
        try:
            return rank(*arguments)
        finally:
            search.get_goal_results = query

    search.first_scores = []
    search._get_index_order = watched
