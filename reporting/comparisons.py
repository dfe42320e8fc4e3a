"""How two models differ on the same rows, and the dense models that a ticket is compared with."""

import statistics
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation import by_class, intervals
from evaluation.by_class import Rate
from evaluation.intervals import crossed_difference, mcnemar
from evaluation.records import STRICT_COMPARISON, AttackRecord
from reporting.cells import Cell, Interval, cells_by_class, marks_of, one_per_seed, outcomes

SAME_EPOCHS = "same epochs"
SAME_LOSS = "same training loss"
SAME_PASSES = "same label passes"
CONTROLS = (SAME_EPOCHS, SAME_LOSS, SAME_PASSES)
TESTS = (
    "one seed: McNemar's exact test; several: 95 % interval for new rows and seeds, and that test "
    "for each; not corrected for their number"
)


@dataclass(frozen=True)
class Difference:
    """Between two models on the same rows, in points, over the seeds that both have.

    `bounds`: 95 %, for new rows and seeds; None with one seed. `right_alone`, `p_values`: of
    McNemar's exact test, a pair and a value per seed. `lacking`: seeds that only one model has.
    """

    points: float
    bounds: Interval | None
    seeds: list[int]
    right_alone: list[tuple[int, int]]
    p_values: list[float]
    lacking: set[int]

    @property
    def is_noise(self) -> bool:
        """Whether it is not distinguishable from zero."""
        if self.bounds is None:
            return self.p_values[0] >= 0.05
        return self.bounds[0] <= 0 <= self.bounds[1]


Pair = tuple[list[AttackRecord], list[AttackRecord]]


def difference(mine: list[AttackRecord], theirs: list[AttackRecord]) -> Difference | None:
    """Aua of mine minus that of theirs over the seeds that both have.

    None where the records cannot show it: no common seed, other rows, no outcomes.
    """
    seeds, lacking, tables = _paired([(mine, theirs)])
    if tables is None:
        return None
    ((a, b),) = tables
    tests = [mcnemar(*rows) for rows in zip(a, b, strict=True)]
    points, bounds = 100 * (tests[0][0] - tests[0][1]) / a.shape[1], None
    if len(a) > 1:
        points, low, high = map(float, crossed_difference((a, b)))
        bounds = (low, high)
    return Difference(points, bounds, seeds, [t[:2] for t in tests], [t[2] for t in tests], lacking)


@dataclass(frozen=True)
class ClassGains:
    """Points of Aua by class, with 95 % intervals; `carried`: why one class carries the gain."""

    points: dict[str, Rate]
    carried: str | None


def class_gains(mine: list[AttackRecord], theirs: list[AttackRecord]) -> ClassGains:
    """Mine minus theirs by class; empty where records lack their rows' labels."""
    raws = [[r.raw for r in records] for records in (mine, theirs)]
    return ClassGains(by_class.gain_by_class(*raws), by_class.one_class_carries(*raws))


def interaction(pairs: list[tuple[Pair, Pair]]) -> Difference | None:
    """How much more Aua mine gains over theirs in the first of two settings than in the second.

    `pairs`: of each data set, (mine, theirs) in both settings; several give their mean. None where
    the records cannot show it, or where fewer than two seeds are common.
    """
    seeds, lacking, tables = _paired([pair for both in pairs for pair in both])
    gains = [a.astype(float) - b for a, b in tables or ()]
    return _mean(seeds, lacking, list(zip(gains[::2], gains[1::2], strict=True)))


def mean_difference(pairs: list[Pair]) -> Difference | None:
    """The mean over data sets of Aua of mine minus theirs, over the seeds that all have.

    `pairs`: (mine, theirs) of each data set. None where the records cannot show it, or where fewer
    than two seeds are common.
    """
    return _mean(*_paired(pairs))


Tables = list[tuple[np.ndarray, np.ndarray]]


def _mean(seeds: list[int], lacking: set[int], tables: Tables | None) -> Difference | None:
    """The bounds are the wider of two analyses (evaluation/intervals.py)."""
    if not tables or len(seeds) < 2 or any(a.shape != b.shape for a, b in tables):
        return None
    points, low, high = intervals.mean_difference(tables)
    return Difference(points, (low, high), seeds, [], [], lacking)


def _paired(pairs: list[Pair]) -> tuple[list[int], set[int], Tables | None]:
    """(seeds that all have, seeds that only some have, outcomes by pair or None if unknown)."""
    sides = [{r.seed: r for r in records} for pair in pairs for records in pair]
    seeds = sorted(set.intersection(*map(set, sides)))
    lacking = set().union(*sides).difference(seeds)
    arrays = [outcomes([side[seed] for seed in seeds], "aua_percent") for side in sides]
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
    records: list[AttackRecord]
    is_reached: bool = True


MOST_FURTHER_PASSES = 2


def controls_of(ticket: list[AttackRecord], records: list[AttackRecord]) -> list[Control]:
    """The matched dense models of a ticket's records (one per seed), among all `records`.

    Same epochs as the ticket's retraining; same last training loss; same label passes as the
    ticket and its mask. All with the ticket's training settings, attack and rows.
    """
    first, by_seed = ticket[0], {r.seed: r for r in ticket}
    keys = (*STRICT_COMPARISON, "training_settings")
    dense = [
        r
        for r in records
        if r.is_plain_dense
        and r.seed in by_seed
        and all(getattr(r, key) == getattr(first, key) for key in keys)
    ]
    plain = [r for r in dense if r.stop_at_loss is None]
    same_epochs = one_per_seed(r for r in plain if r.epochs == first.epochs)
    controls = [Control(SAME_EPOCHS, f"{first.epochs} epochs", same_epochs)]
    controls.append(_same_loss(by_seed, dense))
    passes = {r.label_passes for r in ticket}
    if passes != {first.epochs}:
        known = [p for p in passes if p is not None]
        wanted = f"{max(known)} epochs" if len(known) == len(passes) else "not recorded"
        controls.append(Control(SAME_PASSES, wanted, _same_passes(by_seed, plain)))
    return controls


def _same_passes(
    ticket: dict[int | None, AttackRecord], plain: list[AttackRecord]
) -> list[AttackRecord]:
    """Per seed the shortest dense model with at least the ticket's label passes, or a little more:
    a plan counts all epochs of stage 1, of which the search starts from the best."""
    passes = {seed: r.label_passes for seed, r in ticket.items() if r.label_passes is not None}
    close = [
        r
        for r in plain
        if r.seed in passes and 0 <= r.epochs - passes[r.seed] <= MOST_FURTHER_PASSES
    ]
    return one_per_seed(sorted(close, key=lambda r: -r.epochs))  # keeps the last, the shortest


def _same_loss(ticket: dict[int | None, AttackRecord], dense: list[AttackRecord]) -> Control:
    losses = [r.last_loss for r in ticket.values() if r.last_loss is not None]
    wanted = f"loss {statistics.fmean(losses):.3f}" if losses else "training loss unknown"
    wanted = f"epoch of a longer schedule, {wanted}"
    stopped = [r for r in dense if _stops_for(r, ticket[r.seed])]
    reached = [r for r in stopped if r.last_loss <= r.stop_at_loss.loss]
    all_reached = len(reached) == len(stopped)
    if not all_reached:
        wanted += f", not reached in {max(r.epochs for r in stopped)} epochs"
    return Control(SAME_LOSS, wanted, one_per_seed(reached), all_reached)


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
    """One model: its records, one per seed, and the matched dense models of a ticket."""

    records: list[AttackRecord]
    controls: list[Control]

    @cached_property
    def by_class(self) -> dict[str, Cell]:
        """Aua of each class, by its name."""
        return cells_by_class(self.records)

    @cached_property
    def _gains(self) -> dict[str, ClassGains]:
        return {c.name: class_gains(self.records, c.records) for c in self.controls}

    def gain_over(self, control: Control) -> ClassGains:
        """Points of Aua over a control by class."""
        return self._gains[control.name]

    @property
    def missing_controls(self) -> list[str]:
        """Names of the controls that lack one of the seeds, or all."""
        seeds = {r.seed for r in self.records}
        return [c.name for c in self.controls if seeds - {r.seed for r in c.records}]

    @property
    def marks(self) -> str:
        """Appended to the model's name."""
        return marks_of(self.records, self.missing_controls)
