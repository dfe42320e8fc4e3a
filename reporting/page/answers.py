"""The answers of a page: Aua of each model minus that of what it is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from evaluation.by_class import Rate
from reporting.cells import EQUALIZED
from reporting.comparisons import CONTROLS, Difference, Pair, Result, difference, mean_difference
from reporting.page.blocks import Block, kind_of
from reporting.study_summary import pairs_with

GAINS, LOSES, NOISE = "gains", "loses", "noise"


class Against(NamedTuple):
    """A difference from a kind of dense control (CONTROLS), or from the model of this label.

    `equalized`: of class-equalized Aua, if both are suites.
    """

    name: str
    difference: Difference
    equalized: Difference | None = None

    @property
    def is_control(self) -> bool:
        return self.name in CONTROLS

    @property
    def in_full(self) -> str:
        return f"dense, {self.name}" if self.is_control else self.name

    @property
    def verdict(self) -> str:
        if self.difference.is_noise:
            return NOISE
        return GAINS if self.difference.points > 0 else LOSES


@dataclass(frozen=True)
class Answer:
    """A model compared, on one task or as a mean over tasks.

    `against`: not empty; the first one is the answer. `carried`: task -> class -> gain over the
    first, where one class carries it.
    """

    label: str
    kind: str
    tasks: list[str]
    against: list[Against]
    carried: dict[str, dict[str, Rate]]

    @property
    def first(self) -> Against:
        return self.against[0]


def answers_of(blocks: Sequence[Block]) -> list[Answer]:
    """Tickets are compared with their dense controls; without any, all with the first model.

    `blocks`: one attack on one or several tasks. A label names the tasks if they are not all.
    """
    by_label: dict[str, dict[str, Result]] = {}
    for block in blocks:
        for result in block.results:
            by_label.setdefault(result.label, {})[block.task] = result
    answers: list[Answer] = []
    for label, lines in by_label.items():
        answers += _answers(label, lines, {name: pairs_with(lines, name) for name in CONTROLS})
    if not answers and by_label:
        base, first = next(iter(by_label.items()))
        for label, lines in by_label.items():
            pairs = {t: (r.records, first[t].records) for t, r in lines.items() if t in first}
            answers += _answers(label, lines, {base: pairs}) if label != base else []
    return [
        replace(a, label=f"{a.label} on {' and '.join(a.tasks)}")
        if a.label in by_label and len(a.tasks) < len(blocks)
        else a
        for a in answers
    ]


def _answers(
    label: str, lines: dict[str, Result], pairs: dict[str, dict[str, Pair]]
) -> list[Answer]:
    """One answer, a mean over the tasks; one per task where they have no mean.

    `pairs`: name of what it is compared with -> task -> records of both.
    """
    known = {name: of_name for name, of_name in pairs.items() if of_name}
    if not known:
        return []
    differences = {name: _difference(list(of_name.values())) for name, of_name in known.items()}
    first, tasks = next((name, list(of_name)) for name, of_name in known.items())
    if differences[first] is None and len(tasks) > 1:
        answers = []
        for task in tasks:
            of_task = {n: {task: p[task]} for n, p in known.items() if task in p}
            answers += _answers(f"{label} on {task}", {task: lines[task]}, of_task)
        return answers
    against = [
        Against(name, d, _difference(list(known[name].values()), EQUALIZED))
        for name, d in differences.items()
        if d
    ]
    if not against:
        return []
    name = against[0].name
    carried = {task: line.gains[name] for task, line in lines.items() if name in line.carried}
    kind = kind_of(next(iter(lines.values())))
    return [Answer(label, kind, list(known[name]), against, carried)]


def _difference(pairs: list[Pair], measure: str = "aua_percent") -> Difference | None:
    if len(pairs) == 1:
        return difference(*pairs[0], measure)
    return mean_difference(pairs, measure)
