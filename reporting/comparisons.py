"""How two models differ on the same rows, and the dense models that a ticket is compared with."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation import by_class, intervals
from evaluation.by_class import Rate
from evaluation.intervals import crossed_difference, mcnemar
from evaluation.records import STRICT_COMPARISON, AttackRecord
from reporting import cells
from reporting.cells import UNKNOWN, Cell, Interval, Records

SAME_EPOCHS = "same epochs"
SAME_LOSS = "same training loss"
SAME_PASSES = "same label passes"
CONTROLS = (SAME_EPOCHS, SAME_LOSS, SAME_PASSES)
MOST_FURTHER_PASSES = 2
Pair = tuple[Records, Records]  # mine and theirs
Tables = list[tuple[np.ndarray, np.ndarray]]  # outcomes of pairs


@dataclass(frozen=True)
class Difference:
    """Between two models on the same rows, in points, over the seeds that both have.

    `bounds`: 95 %, for new rows and seeds; unknown with one seed. `tests`: McNemar's per seed, as
    (right alone, the other right alone, p). `lacking`: seeds that only one model has.
    """

    points: float
    bounds: Interval
    seeds: list[int]
    tests: list[tuple[int, int, float]]
    lacking: set[int]

    @property
    def is_noise(self) -> bool:
        """Whether it is not distinguishable from zero."""
        low, high = self.bounds
        return self.tests[0][2] >= 0.05 if low is None else low <= 0 <= high


def difference(mine: Records, theirs: Records, measure: str = "aua_percent") -> Difference | None:
    """Aua (or another `measure` of rows) of mine minus that of theirs over common seeds.

    None where the records cannot show it: no common seed, other rows, no outcomes.
    """
    seeds, lacking, tables = _paired([(mine, theirs)], measure)
    if tables is None:
        return None
    ((a, b),) = tables
    tests = [mcnemar(*rows) for rows in zip(a, b, strict=True)]
    points, bounds = 100 * (tests[0][0] - tests[0][1]) / a.shape[1], UNKNOWN
    if len(a) > 1:
        points, *bounds = map(float, crossed_difference((a, b)))
    return Difference(points, tuple(bounds), seeds, tests, lacking)


def interaction(pairs: list[tuple[Pair, Pair]]) -> Difference | None:
    """How much more Aua mine gains over theirs in the first of two settings than in the second.

    `pairs`: of each data set, (mine, theirs) in both settings. Otherwise like mean_difference.
    """
    seeds, lacking, tables = _paired([pair for both in pairs for pair in both])
    gains = [a.astype(float) - b for a, b in tables or ()]
    return _mean(seeds, lacking, list(zip(gains[::2], gains[1::2], strict=True)))


def mean_difference(pairs: list[Pair], measure: str = "aua_percent") -> Difference | None:
    """The mean over data sets of mine minus theirs, over the seeds that all have.

    `pairs`: (mine, theirs) of each data set. None where the records cannot show it, or where fewer
    than two seeds are common.
    """
    return _mean(*_paired(pairs, measure))


def _mean(seeds: list[int], lacking: set[int], tables: Tables | None) -> Difference | None:
    """The bounds are the wider of two analyses (evaluation/intervals.py)."""
    if not tables or len(seeds) < 2 or any(a.shape != b.shape for a, b in tables):
        return None
    points, low, high = intervals.mean_difference(tables)
    return Difference(points, (low, high), seeds, [], lacking)


def _paired(
    pairs: list[Pair], measure: str = "aua_percent"
) -> tuple[list[int], set[int], Tables | None]:
    """(seeds that all have, seeds that only some have, outcomes by pair or None if unknown)."""
    sides = [{r.seed: r for r in records} for pair in pairs for records in pair]
    seeds = sorted(set.intersection(*map(set, sides)))
    lacking = set().union(*sides).difference(seeds)
    arrays = [cells.outcomes([side[seed] for seed in seeds], measure) for side in sides]
    tables = list(zip(arrays[::2], arrays[1::2], strict=True))
    if any(a is None or b is None or a.shape != b.shape for a, b in tables):
        return seeds, lacking, None
    return seeds, lacking, tables


@dataclass(frozen=True)
class Control:
    """A dense model that a ticket is compared with; without `records` if it was not run.

    `wanted`: what it must have, for a table. `is_reached`: False if a run never reached the
    ticket's training loss.
    """

    name: str
    wanted: str
    records: Records
    is_reached: bool = True


def controls_of(ticket: Records, records: Records) -> list[Control]:
    """The matched dense models of a ticket's records (one per seed), among all `records`.

    Same epochs as the ticket's retraining; same last training loss; same label passes as the
    ticket and its mask. All with the ticket's training settings, runtime, attack and rows.
    """
    first, by_seed = ticket[0], {r.seed: r for r in ticket}
    keys = (*STRICT_COMPARISON, "training_settings", "runtime")
    dense = [
        r
        for r in records
        if r.is_plain_dense
        and r.seed in by_seed
        and all(getattr(r, key) == getattr(first, key) for key in keys)
    ]
    plain = [r for r in dense if r.stop_at_loss is None]
    same_epochs = cells.one_per_seed(r for r in plain if r.epochs == first.epochs)
    controls = [Control(SAME_EPOCHS, f"{first.epochs} epochs", same_epochs)]
    controls.append(_same_loss(by_seed, dense))
    passes = {r.seed: r.label_passes for r in ticket}
    known = [p for p in passes.values() if p is not None]
    if known != [first.epochs] * len(ticket):
        wanted = f"{max(known)} epochs" if len(known) == len(ticket) else "not recorded"
        # The shortest with at least the ticket's label passes, or a little more: a plan counts all
        # epochs of stage 1, of which the search starts from the best.
        plain.sort(key=lambda r: -r.epochs)
        close = [
            r
            for r in plain
            if passes[r.seed] is not None and 0 <= r.epochs - passes[r.seed] <= MOST_FURTHER_PASSES
        ]
        controls.append(Control(SAME_PASSES, wanted, cells.one_per_seed(close)))
    return controls


def _same_loss(ticket: dict[int | None, AttackRecord], dense: Records) -> Control:
    losses = [r.last_loss for r in ticket.values() if r.last_loss is not None]
    wanted = f"loss {statistics.fmean(losses):.3f}" if losses else "training loss unknown"
    wanted = f"epoch of a longer schedule, {wanted}"
    stopped = [r for r in dense if _stops_for(r, ticket[r.seed])]
    reached = [r for r in stopped if r.last_loss <= r.stop_at_loss.loss]
    all_reached = len(reached) == len(stopped)
    if not all_reached:
        wanted += f", not reached in {max(r.epochs for r in stopped)} epochs"
    return Control(SAME_LOSS, wanted, cells.one_per_seed(reached), all_reached)


def _stops_for(dense: AttackRecord, ticket: AttackRecord) -> bool:
    """Whether a dense model was trained until its loss was this ticket's."""
    stop = dense.stop_at_loss
    if stop is None or stop.ticket is None or dense.last_loss is None or ticket.ticket is None:
        return False
    same_ticket = all(
        getattr(stop.ticket, key) == getattr(ticket.ticket, key)
        for key in ("kind", "sparsity_asked", "scores_sha256", "reinitialised")
    )
    # Tickets of several seeds can have one score file; each ended at a loss of its own.
    seed = dense.seed if stop.seed is None else stop.seed
    return same_ticket and seed == ticket.seed and stop.epochs == ticket.epochs


@dataclass(frozen=True)
class Result:
    """One model: its name, its records, one per seed, and the matched dense models of a ticket."""

    label: str
    records: Records
    controls: list[Control]

    @property
    def first(self) -> AttackRecord:
        return self.records[0]

    def cell(self, measure: str) -> Cell:
        return Cell.of(self.records, measure)

    @cached_property
    def by_class(self) -> dict[str, Cell]:
        """Aua of each class, by its name."""
        return cells.cells_by_class(self.records)

    def _with(self, control: Control) -> tuple[list[dict], list[dict]]:
        return [r.raw for r in self.records], [r.raw for r in control.records]

    @cached_property
    def gains(self) -> dict[str, dict[str, Rate]]:
        """Control -> class -> points of Aua above the control's; without rows' labels empty."""
        return {c.name: by_class.gain_by_class(*self._with(c)) for c in self.controls}

    @cached_property
    def carried(self) -> dict[str, str]:
        """Control -> why one class carries the gain over it, if one does."""
        whys = {c.name: by_class.one_class_carries(*self._with(c)) for c in self.controls}
        return {name: why for name, why in whys.items() if why}

    @property
    def missing_controls(self) -> list[str]:
        """Names of the controls that lack one of the seeds, or all."""
        seeds = {r.seed for r in self.records}
        return [c.name for c in self.controls if seeds - {r.seed for r in c.records}]

    @property
    def marks(self) -> str:
        """Appended to the model's name."""
        flags = {name for record in self.records for name in cells.flags_of(record)}
        words = ["control missing"] * bool(self.missing_controls)
        words += ["suspicious"] * bool(flags - {cells.ONE_CLASS})
        words += ["one class survives"] * (cells.ONE_CLASS in flags)
        return f" ({', '.join(words)})" if words else ""


def classes_of(results: Iterable[Result]) -> list[str]:
    """Names of the classes that the records distinguish, in the order of the labels."""
    return list(dict.fromkeys(name for result in results for name in result.by_class))
