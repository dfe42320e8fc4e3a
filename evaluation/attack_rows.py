"""One row attacked, and its line."""

import random
import time
from collections import OrderedDict

import numpy as np
import torch
from textattack import Attack
from textattack.attack_results import FailedAttackResult, SkippedAttackResult
from textattack.shared import AttackedText

from evaluation.protocol import FAILED, SKIPPED, SUCCESS
from evaluation.victim import Victim
from training.splits import Rows
from training.tasks import Task
from utils.runs import seed_for


def attack_row(
    attack: Attack, victim: Victim, task: Task, rows: Rows, position: int, seed: int
) -> dict:
    """Attack one row; its line. What comes out depends on the row and `seed`, on no other row.

    scores: the goal's (log-odds against the label, or 1 - p), to 5 decimals. words_total counts
    all columns' words, words_changed those of the original text that are no longer there.
    equal_importance: the search could not rank the words. out_of_budget: the attack failed when its
    query budget was spent.
    """
    start = time.monotonic()
    row_id, label = rows.ids[position], rows.labels[position]
    # TextAttack clears its caches after a search, but not after a row that it skips.
    victim.forget()
    attack.clear_cache()
    _seed_everything(seed_for(seed, "attack", row_id))
    text = AttackedText(OrderedDict(zip(task.text_columns, rows.texts[position], strict=True)))
    attack.search_method.first_scores = []
    result = attack.attack(text, label)
    before, after = result.original_result, result.perturbed_result
    outcome = SUCCESS
    if isinstance(result, SkippedAttackResult):
        outcome = SKIPPED
    elif isinstance(result, FailedAttackResult):
        outcome = FAILED
    ranked_by = attack.search_method.first_scores
    spent = attack.goal_function.num_queries >= attack.goal_function.query_budget
    return {
        "row_id": row_id,
        "outcome": outcome,
        "label": label,
        "predicted_before": before.output,
        "predicted_after": after.output,
        "score_before": round(float(before.score), 5),
        "score_after": round(float(after.score), 5),
        "queries": result.num_queries,
        "equal_importance": len(ranked_by) > 1 and min(ranked_by) == max(ranked_by),
        "out_of_budget": outcome == FAILED and spent,
        "words_changed": words_changed(after.attacked_text),
        "words_total": before.attacked_text.num_words,
        "original": _columns(before.attacked_text, task),
        "perturbed": _columns(after.attacked_text, task),
        "seconds": round(time.monotonic() - start, 3),
    }


def words_changed(text: AttackedText) -> int:
    """Words of the original that were replaced, split or deleted on the way to `text`.

    TextAttack's own measure compares the texts position by position, so that one space put into
    a word makes all words after it differ.
    """
    modified = text.attack_attrs["modified_indices"]
    positions = text.attack_attrs["original_index_map"].tolist()
    return sum(position == -1 or position in modified for position in positions)


def _columns(text: AttackedText, task: Task) -> dict[str, str]:
    parts = text.tokenizer_input
    parts = (parts,) if isinstance(parts, str) else parts
    return dict(zip(task.text_columns, parts, strict=True))


def _seed_everything(seed: int) -> None:
    """TextAttack draws from the global generators of random and numpy."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
