"""Adversarial texts as Markdown and CSV: their quality, and their replay on other models."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from evaluation.quality import Quality, Summary
from evaluation.transfer import Replay, Share
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
INTERVALS = ("judge_accuracy_interval_95", "label_kept_interval_95")
OF_CSV = ["model", "recipe", "attack_id", "folder", "empty_because", "rows_attacked"]
OF_CSV += [f.name for f in fields(Summary) if f.name not in INTERVALS]


def quality(results: Sequence[Quality], language_model: dict, judge: dict) -> str:
    """`language_model`, `judge`: their facts; empty if no attack was successful."""
    rows = [
        {column: _text(result, name, places) for name, (column, places) in COLUMNS.items()}
        for result in results
    ]
    parts = ["# Quality of the adversarial texts", render.table_of(rows, left=2)]
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


def _text(result: Quality, name: str, places: int) -> str:
    value = getattr(result, name)
    if not isinstance(value, float):
        return render.NONE if value is None else str(value)
    ends = getattr(result, name.replace("percent", "interval_95"), None)
    interval = f" [{ends[0]:.1f}, {ends[1]:.1f}]" if isinstance(ends, tuple) else ""
    return render.decimals(value, places) + interval


def quality_csv(results: Sequence[Quality]) -> str:
    """A line for each attack."""
    rows = []
    for result in results:
        row = {name: getattr(result, name) for name in OF_CSV}
        for name in INTERVALS:
            row[f"{name}_low"], row[f"{name}_high"] = getattr(result, name) or (None, None)
        rows.append(row)
    return render.csv_text(rows)


@dataclass(frozen=True)
class Source:
    """An attack whose texts are replayed."""

    name: str
    recipe: str | None
    protocol_id: str | None
    attack_id: str


def transfer(results: Sequence[Replay], sources: Sequence[Source]) -> str:
    names = [f"texts of {source.name}" for source in sources]
    rows = [
        {"model": result.model, "Clean %": f"{result.clean.percent:.1f}"}
        | dict(zip(names, map(_share, result.by_source.values()), strict=True))
        | {"worst of all": _share(result.worst_of_all)}
        for result in results
    ]
    attacks = [f"{s.name}: {s.recipe}, evaluation protocol {s.protocol_id}" for s in sources]
    note = f"Attacks: {'; '.join(attacks)}."
    if len({source.protocol_id for source in sources}) > 1:
        note += "\nTheir evaluation protocols differ, so columns differ in more than the model."
    remark = (
        "Percent of all rows on which the model is right before and after the replay, with 95 % "
        "intervals."
    )
    title = "# Adversarial texts replayed on other models"
    return render.paragraphs([title, remark, render.table_of(rows), note])


def _share(share: Share) -> str:
    low, high = share.interval_95
    return f"{share.percent:.1f} [{low:.1f}, {high:.1f}]"
