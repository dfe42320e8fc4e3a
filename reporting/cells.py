"""Numbers of tables: a measure over seeds with its interval, and which records form a group."""

import statistics
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from evaluation import by_class
from evaluation.intervals import crossed_interval
from evaluation.outcomes import outcome_table
from evaluation.records import ROW_SETTINGS, AttackRecord

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Records = list[AttackRecord]
Interval = tuple[float, float] | tuple[None, None]
UNKNOWN = (None, None)
EQUALIZED = "equalized_aua_percent"  # of a suite
# Ends of keys whose values are too long for a note.
UNREADABLE = ("_settings", "_fingerprint", "_digests")


@dataclass(frozen=True)
class Cell:
    """One measure of one model, by seed, with its 95 % interval."""

    values: dict[int, float]
    interval: Interval = UNKNOWN

    @classmethod
    def of(cls, records: Records, measure: str) -> "Cell":
        values = {r.seed: v for r in records if (v := getattr(r, measure)) is not None}
        ordered = {seed: values[seed] for seed in sorted(values, key=lambda s: (s is None, s))}
        return cls(ordered, interval(records, measure))

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, with n - 1; None below two."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None


def outcomes(records: Records, measure: str) -> np.ndarray | None:
    """bool, (records, rows): whether a row counts for the measure; None if unknown."""
    if measure == EQUALIZED:
        return outcome_table([r.equalized_outcomes for r in records], "aua_percent")
    return outcome_table([r.row_outcomes for r in records], measure)


def interval(records: Records, measure: str) -> Interval:
    """95 %: Wilson's over rows for one seed; for several, over rows and seeds (intervals.py).

    Unknown for several records without outcomes (earlier versions).
    """
    if len(records) == 1:
        return tuple(records[0].intervals_95.get(measure) or UNKNOWN)
    table = outcomes(records, measure)
    return UNKNOWN if table is None else crossed_interval(table)


def cells_by_class(records: Records) -> dict[str, Cell]:
    """Class name -> Aua on its rows; empty where a record lacks its rows' labels."""
    of_seeds = {r.seed: by_class.rates_by_class([r.raw]) for r in records}
    return {
        name: Cell({s: of_seed[name].percent for s, of_seed in of_seeds.items()}, rate[1:])
        for name, rate in by_class.rates_by_class([r.raw for r in records]).items()
    }


def worst_class(cells: dict[str, Cell]) -> Cell:
    """The class with the lowest mean, the first of several; an empty cell without classes."""
    return min(cells.values(), key=lambda cell: cell.mean or 0.0, default=Cell({}))


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The items by their key, in the order of its first item."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def model_of(record: AttackRecord) -> tuple:
    """Name, sparsity, epochs and further facts, equal for the seeds of one model."""
    facts = (record.name, record.sparsity, record.epochs, record.deviations, record.training_rows)
    return (*facts, *(getattr(record, name) for name in ROW_SETTINGS))


def one_per_seed(records: Iterable[T]) -> list[T]:
    """The last of several attacks on one model and seed: two of them are not two seeds."""
    return list({r.seed: r for r in records}.values())


ONE_CLASS = "one_class_survives"


def flags_of(record: AttackRecord) -> dict[str, str]:
    """Name -> reason; records of earlier versions do not hold the flag for one class."""
    flags = {flag.flag: flag.why for flag in record.flags or []}
    why = by_class.one_class_survives(record.raw)
    return {ONE_CLASS: why} | flags if why else flags


def doubts_of(records: Records) -> list[str]:
    """Why a result is suspicious, a text per flag; with its seeds if there are several records."""
    flags: dict[str, tuple[str, list[int | None]]] = {}
    for record in records:
        for name, why in flags_of(record).items():
            flags.setdefault(name, (why, []))[1].append(record.seed)
    several = len(records) > 1
    return [
        f"{name.replace('_', ' ')} ({why}{f'; seeds {seeds}' if several else ''})"
        for name, (why, seeds) in flags.items()
    ]


def _get(item: Any, key: str) -> Any:
    return item.get(key) if isinstance(item, dict) else getattr(item, key)


def largest_group(
    items: Iterable[T], keys: Iterable[str], encoder: str, noun: str = "record"
) -> tuple[list[T], list[str]]:
    """The items that may be compared with each other, and a note per group that is skipped.

    Items form a group if all `keys` are equal. Groups of the scale's `encoder` come first, then
    larger ones, then the one with the newest (last) item.
    """
    keys, items = tuple(keys), list(items)
    groups = grouped(items, lambda item: tuple(_get(item, key) for key in keys))
    if not groups:
        return [], []
    position = {id(item): i for i, item in enumerate(items)}

    def rank(group: tuple) -> tuple[bool, int, int]:
        members = groups[group]
        is_own = _get(members[0], "encoder") == encoder
        return is_own, len(members), position[id(members[-1])]

    best, notes = max(groups, key=rank), []
    for group in [group for group in groups if group != best]:
        differing = [
            key if key.endswith(UNREADABLE) else f"{key} ({there} there, {here} here)"
            for key, there, here in zip(keys, group, best, strict=True)
            if there != here
        ]
        count = f"{len(groups[group])} {noun}{'s' * (len(groups[group]) > 1)}"
        notes.append(f"Skipped: {count}, differing in {', '.join(differing)}.")
    return groups[best], notes
