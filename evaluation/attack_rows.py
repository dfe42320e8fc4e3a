"""Attack one row and describe the outcome in one line."""

import contextlib
import random
import time
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch
from textattack import Attack
from textattack.attack_results import FailedAttackResult, SkippedAttackResult
from textattack.shared import AttackedText

from evaluation.outcomes import FAILED, SKIPPED, SUCCESS
from evaluation.victim import Victim
from training.rows import Rows
from training.tasks import Task
from utils.runs import seed_for


def attack_row(
    attack: Attack, victim: Victim, task: Task, rows: Rows, position: int, seed: int
) -> dict:
    """Attack the row at `position` and return its line, which depends on the row and `seed` only.

    score_before and score_after are the goal's (log-odds against the label, or 1 - p), rounded to 5
    decimals. words_total counts the words of all columns; words_changed counts the words of the
    original text that are no longer there. equal_importance: the search could not rank the words.
    out_of_budget: the attack failed when its query budget was spent.
    """
    start = time.monotonic()
    row_id, label = rows.ids[position], rows.labels[position]
    # TextAttack clears its caches after a search, but not after a skipped row.
    victim.forget()
    attack.clear_cache()
    text = AttackedText(OrderedDict(zip(task.text_columns, rows.texts[position], strict=True)))
    attack.search_method.first_scores = []
    with _seeded(seed_for(seed, "attack", row_id)):
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
    """Number of words of the original that were replaced, split or deleted on the way to `text`.

    TextAttack's own measure compares texts position by position, so that one inserted space makes
    all later words differ.
    """
    modified = text.attack_attrs["modified_indices"]
    positions = text.attack_attrs["original_index_map"].tolist()
    return sum(position == -1 or position in modified for position in positions)


def _columns(text: AttackedText, task: Task) -> dict[str, str]:
    parts = text.tokenizer_input
    parts = (parts,) if isinstance(parts, str) else parts
    return dict(zip(task.text_columns, parts, strict=True))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that TextAttack draws from, and restore them afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):  # an attack draws nothing on a GPU
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
