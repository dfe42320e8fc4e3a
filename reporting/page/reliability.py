"""Reliability diagrams of a page: accuracy before the attack against the model's confidence."""

from collections.abc import Iterable, Sequence

from evaluation.calibration import ECE_BINS
from evaluation.records import AttackRecord
from reporting.cells import Cell, Records, grouped
from reporting.page.blocks import MOST_DRAWN, Block
from reporting.page.plots import Plot, Points, parted, plot


def plots(blocks: Iterable[Block]) -> list[Plot]:
    """A diagram per block and a few models."""
    listed = []
    for block in blocks:
        models = block.results[:MOST_DRAWN]
        curves = {r.label: points for r in models if (points := _points(r.records))}
        title, x_label = f"{block.task}, {block.recipe}", "mean top probability (%)"
        for shown in parted(curves):
            listed.append(plot(title, "Accuracy %", x_label, shown, diagonal=True))
    return listed


def has_bins(blocks: Iterable[Block]) -> bool:
    return any(r.reliability for b in blocks for m in b.results for r in m.records)


def _points(records: Records) -> Points:
    """Accuracy by confidence, over the rows of all seeds; one point without bins."""
    bins = grouped((b for r in records for b in _bins(r)), lambda b: int(b[1] * ECE_BINS / 100))
    points: Points = {}
    for _, of_bin in sorted(bins.items()):
        rows = sum(count for count, _, _ in of_bin)
        confidence, accuracy = (sum(b[0] * b[i] for b in of_bin) / rows for i in (1, 2))
        points[round(confidence, 1)] = Cell({0: accuracy})
    return points


def _bins(record: AttackRecord) -> Sequence[Sequence[float]]:
    """Those of the record; earlier versions have the mean over all rows alone."""
    if record.reliability:
        return record.reliability
    top = record.mean_top_probability_percent
    return [] if top is None else [(record.rows_attacked, top, record.clean_percent)]
