"""The gallery of tickets, as tickets.md and tickets.html: what each is, how well it does, and the
lines of Python that load it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reporting import cells, render
from reporting.cells import Records, grouped, model_of
from reporting.comparisons import Result, controls_of, difference
from reporting.page.charts import Axis, Strip
from reporting.page.tickets import TicketFile, find
from reporting.page.write import write as write_page
from utils.cli import UserError

PERCENT = Axis(0, 100, 20)
LOADING = """from training.ticketed import load_ticketed

ticket = "{path}"
model = load_ticketed(ticket, "{encoder}")"""
ABOUT = (
    "The mask is applied and stays: pruned weights are 0.0, and their gradients are set to 0.0, so "
    "SGD, Adam and AdamW do not move them. The model is an ordinary "
    "`AutoModelForSequenceClassification` with a new classifier; train it in your own loop or with "
    "transformers' `Trainer`. A ticket is a mask only: it holds no trained weights. Run the lines "
    "in the root of the repository, with `USE_TF=0` in the environment if TensorFlow is installed. "
    "`retrain_ticket.py --ticket` retrains a ticket as stage 3 does."
)
MEASURED = (
    "Each line is one retraining of the ticket under one attack, of one seed. Brackets: 95 % "
    "intervals over rows. Δ Aua: points above a dense model with the same seed and epochs, and "
    "McNemar's p. Read the warnings: a mean can hide that one class carries it."
)


@dataclass(frozen=True)
class Measured:
    """One retraining of a ticket under one attack."""

    result: Result

    @property
    def title(self) -> str:
        first = self.result.first
        rule = "" if first.checkpoint_rule == "last" else f", {first.checkpoint_rule} checkpoint"
        ranked = "" if first.score_with == "log_odds" else f" ranked by {first.score_with}"
        at = f", temperature {first.temperature_rule}" if first.temperature_rule else ""
        return f"{first.task}, {first.epochs} epochs{rule}, {first.recipe}{ranked}{at}"

    def text(self, measure: str) -> str:
        return render.cell(self.result.cell(measure), count=False)

    def strip(self, measure: str) -> Strip:
        return Strip.of(self.result.cell(measure), PERCENT, self.text(measure))

    @property
    def gain(self) -> str:
        """Over the dense model with the same epochs; a word if there is none."""
        control = self.result.controls[0]
        change = difference(self.result.records, control.records) if control.records else None
        if change is None:
            return "not run"
        return f"{render.number(change.points, '+.1f')} (p = {render.p_value(change)})"

    @property
    def doubts(self) -> list[str]:
        carried = [f"one class carries the gain over dense ({n})" for n in self.result.carried]
        return [*cells.doubts_of(self.result.records), *carried[:1]]


@dataclass(frozen=True)
class Entry:
    """A ticket of the gallery. `place`: its path, from the working folder if it lies below it."""

    ticket: TicketFile
    place: str
    measured: list[Measured]

    @property
    def name(self) -> str:
        path = self.ticket.path
        return path.parent.name if path.name == "ticket.safetensors" else path.stem

    @property
    def code(self) -> str:
        return LOADING.format(path=self.place, encoder=self.ticket.encoder)

    @property
    def facts(self) -> dict[str, str]:
        ticket = self.ticket
        megabytes = ticket.path.stat().st_size / 1e6
        return {
            "encoder": ticket.encoder,
            "task": ticket.task or render.NONE,
            "kind": ticket.kind,
            "sparsity": f"{100 * ticket.sparsity:g} %",
            "seed": render.NONE if ticket.seed is None else str(ticket.seed),
            "size": f"{megabytes:.1f} MB",
            "SHA-256 of the masks": ticket.sha256[:12],
        }


def entries(paths: Sequence[str], records: Records) -> list[Entry]:
    """The tickets below the folders, with the records of their retrainings."""
    ticket_files = find(paths)
    if not ticket_files:
        raise UserError(f"no ticket files in {', '.join(paths)}: give run folders or ticket files")
    listed = []
    for ticket in ticket_files:
        of_ticket = [r for r in records if _is_of(r.ticket, ticket)]
        alike = grouped(
            of_ticket, lambda r: (model_of(r), r.recipe, r.checkpoint_rule, r.protocol_id)
        )
        results = [Result(r[-1].name, r[-1:], controls_of(r[-1:], records)) for r in alike.values()]
        place = Path(os.path.relpath(ticket.path)).as_posix()
        place = str(ticket.path.resolve()) if place.startswith("..") else place
        listed.append(Entry(ticket, place, [Measured(r) for r in results]))
    return listed


def _is_of(facts, ticket: TicketFile) -> bool:
    return (
        facts is not None
        and facts.scores_sha256 == ticket.source.get("sha256")
        and facts.kind == ticket.source.get("kind")
        and abs(facts.sparsity_asked - ticket.sparsity) < 1e-9
        and facts.reinitialised == "nothing"
    )


def markdown(listed: Sequence[Entry]) -> str:
    parts = [
        "# Tickets",
        "This page lists tickets: what each is, how well it does, and how to load it.",
    ]
    parts += [f"```python\n{listed[0].code}\n```", ABOUT]
    rows = [{"ticket": f"`{e.name}`"} | e.facts for e in listed]
    parts += ["## What they are", render.table_of(rows)]
    measured = [
        {
            "ticket": f"`{e.name}`",
            "retrained on, attack": m.title,
            "Clean %": m.text("clean_percent"),
            "Aua %": m.text("aua_percent"),
            "Δ Aua vs. dense (same epochs)": m.gain,
            "warnings": "; ".join(m.doubts) or render.NONE,
        }
        for e in listed
        for m in e.measured
    ]
    if measured:
        parts += ["## How well they do", MEASURED, render.table_of(measured, left=2)]
    return render.paragraphs(parts)


def write(folder: Path, paths: Sequence[str], records: Records) -> list[Path]:
    listed = entries(paths, records)
    context = {"title": "Tickets", "entries": listed, "about": ABOUT, "measured": MEASURED}
    return [
        render.write_text(folder / "tickets.md", markdown(listed)),
        write_page(folder / "tickets.html", "tickets.html", context),
    ]
