"""Measures of adversarial texts as Markdown and CSV."""

from collections.abc import Sequence

from evaluation.quality import Quality, Summary
from reporting import render

# Field of Quality: column of the table, and decimals of its numbers.
COLUMNS = {
    "model": ("model", 0),
    "recipe": ("recipe", 0),
    "rows_successful": ("successes", 0),
    "words_changed_percent": ("words changed %", 1),
    "similarity": ("similarity", 3),
    "perplexity_original": ("perplexity, original", 2),
    "perplexity_adversarial": ("perplexity, adversarial", 2),
    "perplexity_ratio": ("perplexity ratio", 2),
    "judge_accuracy_percent": ("judge right on originals %", 1),
    "label_kept_percent": ("label kept, of these %", 1),
}
TEXTS = ("model", "recipe", "attack_id", "folder", "empty_because")
INTERVALS = ("judge_accuracy_interval_95", "label_kept_interval_95")
NUMBERS = ["rows_attacked"]
NUMBERS += [n for n in Summary.__dataclass_fields__ if n not in INTERVALS]


def markdown(results: Sequence[Quality], language_model: dict, judge: dict) -> str:
    """`language_model`, `judge`: their facts; empty if no attack was successful."""
    header = [name for name, _ in COLUMNS.values()]
    rows = [[_cell(result, name) for name in COLUMNS] for result in results]
    parts = ["# Quality of the adversarial texts", render.markdown_table(header, rows, left=2)]
    parts += [f"{r.model}, {r.recipe}: {r.empty_because}." for r in results if r.empty_because]
    if language_model:
        parts.append(
            "Over the rows on which the attack succeeded. In brackets: Wilson's 95 % intervals. "
            "Words changed: mean share of a text's words. Similarity: mean cosine of MiniLM's "
            "sentence encodings; textfooler-minilm, textbugger-minilm and textfooler-neighbours "
            "choose their words by it too. Perplexity: geometric mean, per "
            f"{language_model['unit']}; language model: {language_model['kind']}. "
            f"Judge: {judge['kind']}. If the judge is often wrong on the originals, label kept "
            "means little."
        )
    return render.paragraphs(parts)


def _cell(result: Quality, name: str) -> str:
    value = getattr(result, name)
    if value is None:
        return render.NONE
    if not isinstance(value, float):
        return str(value)
    interval = getattr(result, name.replace("percent", "interval_95"), None)
    text = render.decimals(value, COLUMNS[name][1])
    return text + (
        f" [{interval[0]:.1f}, {interval[1]:.1f}]" if isinstance(interval, tuple) else ""
    )


def csv_text(results: Sequence[Quality]) -> str:
    """A line for each attack."""
    ends = [f"{name}_{end}" for name in INTERVALS for end in ("low", "high")]
    rows = []
    for result in results:
        limits = [x for name in INTERVALS for x in getattr(result, name) or (None, None)]
        rows.append(vars(result) | dict(zip(ends, limits, strict=True)))
    return render.csv_text(rows, [*TEXTS, *NUMBERS, *ends])
