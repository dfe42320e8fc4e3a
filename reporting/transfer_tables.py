"""Adversarial texts replayed on other models, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.transfer import Replay, Share
from reporting import render


@dataclass(frozen=True)
class Source:
    """An attack whose texts are replayed."""

    name: str
    recipe: str | None
    protocol_id: str | None
    attack_id: str


def markdown(results: Sequence[Replay], sources: Sequence[Source]) -> str:
    names = [f"texts of {source.name}" for source in sources]
    rows = [
        {"model": result.model, "Clean %": f"{result.clean.percent:.1f}"}
        | dict(zip(names, map(_cell, result.by_source.values()), strict=True))
        | {"worst of all": _cell(result.worst_of_all)}
        for result in results
    ]
    attacks = [f"{s.name}: {s.recipe}, evaluation protocol {s.protocol_id}" for s in sources]
    note = f"Attacks: {'; '.join(attacks)}."
    if len({source.protocol_id for source in sources}) > 1:
        note += "\nTheir evaluation protocols differ, so columns differ in more than the model."
    return render.paragraphs(
        [
            "# Adversarial texts replayed on other models",
            "Percent of all rows on which the model is right before and after the replay, with "
            "95 % intervals.",
            render.table_of(rows),
            note,
        ]
    )


def _cell(share: Share) -> str:
    low, high = share.interval_95
    return f"{share.percent:.1f} [{low:.1f}, {high:.1f}]"
