"""The values that the paper reports, and why ours may not be comparable with them."""

import csv
import functools
from pathlib import Path

from evaluation.presets import RECIPES
from experiments.paper import PAIR_TASKS, PAPER_ATTACKS, PAPER_DATASET, SINGLE_TASKS, Row, Table
from experiments.scales import SCALES
from utils.cli import UserError

PAPER_VALUES = Path(__file__).resolve().parent.parent / "results" / "paper_tables.csv"
NEEDS = {
    "word_vectors": "the counter-fitted vectors",
    "sentence_encoder": "the Universal Sentence Encoder",
    "tagger": "NLTK's tagger",
    "masked_lm": "a masked language model",
    "wordnet": "WordNet",
}


@functools.cache
def paper_values(path: Path = PAPER_VALUES) -> dict[tuple[str | None, ...], float]:
    """(table number, data set, method, attack or "", metric) -> the paper's value."""
    try:
        with open(path, newline="", encoding="utf-8") as f:
            return {
                (r["table"], r["dataset"], r["method"], r["attack"], r["metric"]): float(r["value"])
                for r in csv.DictReader(f)
            }
    except OSError as e:
        raise UserError(f"the paper's values cannot be read from {path}: {e.strerror}") from e
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{path} is damaged: not a table of the paper's values ({e!r})") from e


def values_of(table: Table, task: str, row: Row, attack: str | None) -> dict[str, float]:
    """The paper's values of a row, by metric; Clean only for an attack that the paper lacks."""
    start = (table.name.removeprefix("table"), PAPER_DATASET.get(task), row.paper_method)
    keys = {"clean": (*start, "", "clean")}
    keys |= {metric: (*start, attack, metric) for metric in table.metrics}
    values = paper_values()
    return {metric: values[key] for metric, key in keys.items() if key in values}


def orientation(task: str, encoder: str) -> str:
    """Why a difference from the paper is not a reproduction gap; empty if it is one."""
    dataset, paper_encoder = PAPER_DATASET.get(task), SCALES["paper"].encoder
    if dataset is None:
        return f"The paper has no values for {task}."
    other = ["another data set"] if task not in SINGLE_TASKS + PAIR_TASKS else []
    other += ["another encoder"] if Path(encoder).name != paper_encoder else []
    if not other:
        return ""
    tuned = ", MPNet-base, contrastively tuned" if encoder == "builtin/mpnet" else ""
    return (
        f"The paper's values are for BERT-base on {dataset}. This is {' and '.join(other)} "
        f"({task}, {encoder}{tuned}), so the differences are not a reproduction gap."
    )


def why_not_run(attack: str) -> str:
    """What a column's recipes need that this scale does not have."""
    recipes = []
    for recipe in PAPER_ATTACKS[attack]:
        *others, last = (NEEDS[need] for need in RECIPES[recipe])
        needs = f"{', '.join(others)} and {last}" if others else last
        recipes.append(f"{recipe} needs {needs}")
    return f"{attack}: not run; {'; '.join(recipes)} (see docs/attacks.md)."
