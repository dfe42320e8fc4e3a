"""Attack rows, in this process or in several on the visible devices; a line for each row.

The outcome of a row depends only on the row and the seed, not on the process that attacks it.
TextAttack is not imported here at the top: a new process unpickles a Setup first, and then imports
TextAttack through `resources.import_textattack`.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from evaluation import resources, together
from evaluation.attack_setup import Setup
from evaluation.outcomes import FAILED, SKIPPED, SUCCESS
from training.rows import Rows
from training.tasks import Task
from utils.cli import UserError
from utils.process_state import seeded
from utils.runs import seed_for


def attack_row(attack, victim, task: Task, rows: Rows, position: int, seed: int) -> dict:
    """Attack the row at `position` and return its line, which depends on the row and `seed` only.

    score_before and score_after are the goal's (log-odds against the label, or 1 - p), rounded to 5
    decimals. words_total counts the words of all columns; words_changed counts the words of the
    original text that are no longer there. equal_importance: the search could not rank the words.
    out_of_budget: the attack failed when its query budget was spent. A search that does not stop at
    success adds its curve (see `MarginSearch`).
    """
    from textattack.attack_results import FailedAttackResult, SkippedAttackResult

    start = time.monotonic()
    row_id, label = rows.ids[position], rows.labels[position]
    # TextAttack clears its caches after a search, but not after a skipped row.
    victim.forget()
    attack.clear_cache()
    attack.search_method.first_scores = []
    columns = OrderedDict(zip(task.text_columns, rows.texts[position], strict=True))
    with seeded(seed_for(seed, "attack", row_id)):
        result = attack.attack(columns, label)
    before, after = result.original_result, result.perturbed_result
    curve = getattr(attack.search_method, "curve", None)
    if curve is None:
        without_success = {SkippedAttackResult: SKIPPED, FailedAttackResult: FAILED}
        outcome = without_success.get(type(result), SUCCESS)
    else:
        outcome = outcome_of(curve)
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
    } | ({} if curve is None else {"curve": curve})


def outcome_of(curve: list[list[float]]) -> str:
    """The outcome of a row, without a bias, from the curve of `MarginSearch`."""
    if min(curve[0][1:]) <= 0:
        return SKIPPED
    return SUCCESS if min(curve[-1][1:]) <= 0 else FAILED


def words_changed(text) -> int:
    """Number of words of the original that were replaced, split or deleted on the way to `text`.

    TextAttack's own measure compares texts position by position, so that one inserted space makes
    all later words differ.
    """
    modified = text.attack_attrs["modified_indices"]
    positions = text.attack_attrs["original_index_map"].tolist()
    return sum(position == -1 or position in modified for position in positions)


def _columns(text, task: Task) -> dict[str, str]:
    parts = text.tokenizer_input
    parts = (parts,) if isinstance(parts, str) else parts
    return dict(zip(task.text_columns, parts, strict=True))


def attack_rows(
    setup: Setup, victim, loaded, positions: list[int], processes: int = 1
) -> Iterator[dict]:
    """Yield the line of each row at `positions`, as soon as it is done.

    One process uses `victim` and `loaded` (see Setup.attack). Several processes load their own: on
    CUDA they take the visible devices in turn, on a CPU each takes a share of the threads.
    Raises UserError if a process dies.
    """
    if processes == 1 or len(positions) < 2:
        yield from together.attack_rows(attack_row, setup, victim, loaded, positions)
        return
    context = multiprocessing.get_context("spawn")  # CUDA cannot be forked
    arguments = (setup, victim.temperature, processes, context.Value("i", 0))
    pool = ProcessPoolExecutor(min(processes, len(positions)), context, _start, arguments)
    # Rows that are attacked together come back together.
    size = 4 * setup.rows_at_once if setup.rows_at_once > 1 else 1
    size = max(1, min(size, len(positions) // (4 * processes)))
    parts = [positions[i : i + size] for i in range(0, len(positions), size)]
    try:
        for done in as_completed(_submitted(pool, parts)):
            yield from done.result()
    except BrokenProcessPool as e:
        raise UserError(
            "a process of the attack ended before its rows were done (killed, or out of memory?); "
            "run the same command again, with fewer --processes, to resume"
        ) from e
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _submitted(pool: ProcessPoolExecutor, parts: list[list[int]]) -> list[Future]:
    try:
        return [pool.submit(_attack, part) for part in parts]
    except (OSError, ValueError) as e:  # a process died while the next one started: closed pipes
        raise BrokenProcessPool(str(e)) from e


_worker: dict = {}  # what _start builds in a worker process


def _start(setup: Setup, temperature: float, processes: int, started) -> None:
    """Build the attack in a worker process, which it configures for itself alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends the workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with started.get_lock():
        number = started.value
        started.value += 1
    device = setup.device
    if device == "cuda":
        device = f"cuda:{number % torch.cuda.device_count()}"
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    resources.import_textattack(device)
    from evaluation import recipes

    victim = setup.victim(device, temperature)
    loaded = recipes.load(setup.paths, device)
    _worker.update(setup=setup, victim=victim, loaded=loaded)


def _exit_with_parent() -> None:
    """Exit when the parent dies; otherwise the process would wait for rows forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _attack(positions: list[int]) -> list[dict]:
    return list(attack_rows(**_worker, positions=positions))
