"""One attack on one or several tasks: what was compared, and the answer, in words."""

from dataclasses import dataclass
from functools import cached_property

from evaluation.records import AttackRecord
from reporting import render
from reporting.cells import grouped
from reporting.page import charts
from reporting.page.answers import GAINS, LOSES, NOISE, Answer, answers_of
from reporting.page.blocks import ROBUST, Block

ROWS_CHOSEN = {
    "balanced": "drawn at random, the same number per class",
    "random": "drawn at random, of any class",
    "first": "the first of the file",
    "intersection": "drawn among those that all compared models classify correctly",
}
RULES = {"last": "checkpoints of the last epoch", "best": "checkpoints with the best dev accuracy"}


@dataclass(frozen=True)
class Group:
    blocks: list[Block]

    @cached_property
    def answers(self) -> list[Answer]:
        return answers_of(self.blocks)

    @property
    def tasks(self) -> list[str]:
        return [block.task for block in self.blocks]

    @property
    def is_mean(self) -> bool:
        return any(len(answer.tasks) > 1 for answer in self.answers)

    @property
    def with_controls(self) -> bool:
        return any(c.records for b in self.blocks for r in b.results for c in r.controls)

    @property
    def forest(self) -> list[charts.Forest]:
        return charts.forest(self.blocks)

    @property
    def compared(self) -> list[tuple[str, str]]:
        """What was compared, in words: (heading, text)."""
        firsts = [block.first for block in self.blocks]
        models = [result for block in self.blocks for result in block.results]
        seeds = sorted({r.seed for m in models for r in m.records if r.seed is not None})
        count = len({model.label for model in models})
        numbers = f"{count} models" if count > 1 else "one model"
        numbers += f" with seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" * bool(seeds)
        return [
            ("Encoder", firsts[0].encoder),
            ("Data", "; ".join(map(_data, firsts))),
            ("Rows", "; ".join(dict.fromkeys(map(_rows, firsts)))),
            ("Attack", _attack(firsts[0])),
            ("Models", f"{numbers}, {_trained(firsts[0])}"),
            ("Evaluation protocol", _protocols(firsts)),
        ]

    @property
    def lead(self) -> str:
        """The answer in sentences. A count favors none of the models."""
        if not self.answers:
            return self._without_difference()
        ordered = sorted(self.answers, key=lambda answer: answer.kind != ROBUST)
        by_kind = grouped(ordered, lambda answer: (answer.kind, answer.first.in_full))
        return " ".join(map(_sentences, by_kind.values()))

    def _without_difference(self) -> str:
        shown = [(block.task, result) for block in self.blocks for result in block.results]
        if len(shown) > 1:
            return (
                "The records show no difference: the models were attacked on other rows or with "
                "other seeds, or the outcomes of their rows were not recorded."
            )
        [(task, result)] = shown
        aua = render.cell(result.cell("aua_percent"), count=False)
        return f"{result.label} on {task}: Aua {aua} %. There is nothing to compare it with."


def _sentences(answers: list[Answer]) -> str:
    """About models of one kind that are compared with the same."""
    first = answers[0].first
    if len(answers) == 1:
        start = f"{_capital(answers[0].label)} minus {first.in_full}: "
        start += f"{render.in_words(first.difference)}."
        if first.equalized:
            start += f" Class-equalized: {render.in_words(first.equalized)}."
    else:
        over = f"dense models with the {first.name}" if first.is_control else first.name
        verdicts = [answer.first.verdict for answer in answers]
        gain, lose, noise = map(verdicts.count, (GAINS, LOSES, NOISE))
        start = (
            f"Of {len(answers)} {answers[0].kind} models, ".replace("ticket models", "tickets")
            + f"{gain} gain{'s' * (gain == 1)} accuracy under attack over {over} beyond noise, "
            f"{lose} lose{'s' * (lose == 1)} it, and {noise} {'is' if noise == 1 else 'are'} "
            f"not distinguishable from noise. They range from {_ends(answers)}."
        )
    return f"{start} {_carried(answers)}".strip()


def _ends(answers: list[Answer]) -> str:
    """The smallest and the largest difference, with their intervals."""
    ordered = sorted(answers, key=lambda answer: answer.first.difference.points)
    return " to ".join(
        f"{render.in_points(answer.first.difference)} ({answer.label})"
        for answer in (ordered[0], ordered[-1])
    )


def _carried(answers: list[Answer]) -> str:
    """Whether one class has the gain, with the numbers of the largest such gain."""
    carried = [answer for answer in answers if answer.carried]
    if not carried:
        return ""
    largest = max(carried, key=lambda answer: answer.first.difference.points)
    of_tasks = [
        " and ".join(f"{render.number(r.percent, '+.1f')} on {name}" for name, r in gains.items())
        + f" rows of {task}"
        for task, gains in largest.carried.items()
    ]
    numbers = "; ".join(of_tasks)
    if len(answers) == 1:
        return f"But one class carries the gain: {numbers}."
    count = "all" if len(carried) == len(answers) else f"{len(carried)} of them"
    return f"But in {count}, one class carries the gain. {_capital(largest.label)}: {numbers}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _data(record: AttackRecord) -> str:
    rows = f" ({record.training_rows:,} training rows)" if record.training_rows else ""
    return record.task + rows


def _rows(record: AttackRecord) -> str:
    rows = record.raw["rows"]
    how = ROWS_CHOSEN.get(rows.get("chosen"), "")
    seed = f", seed {rows['seed']}" if how and rows.get("seed") is not None else ""
    start = f"{record.rows_attacked:,} {record.split or 'test'} rows of each data set"
    return f"{start}, {how}{seed}" if how else start


def _attack(record: AttackRecord) -> str:
    parts = [f"{record.recipe}, candidates ranked by {record.score_with.replace('_', '-')}"]
    if record.similarity_threshold is not None:
        parts.append(f"sentence similarity at least {record.similarity_threshold:g}")
    if budget := record.raw.get("query_budget"):
        parts.append(f"at most {budget} queries per row")
    if record.temperature_rule:
        parts.append(f"logits divided by the temperature {record.temperature_rule}")
    return ", ".join(parts)


def _trained(record: AttackRecord) -> str:
    rule = str(record.checkpoint_rule)
    parts = [RULES.get(rule, f"checkpoints: {rule}")]
    parts += [f"texts cut at {record.max_seq_length} tokens"] if record.max_seq_length else []
    parts += [f"deviations: {record.deviations}"] if record.deviations else []
    return ", ".join(parts)


def _protocols(records: list[AttackRecord]) -> str:
    ids = dict.fromkeys(r.protocol_id for r in records if r.protocol_id)
    if not ids:
        return "not recorded"
    return (
        f"{', '.join(ids)} (equal ids: the same rows, attack, resources, ranking, seed and library "
        "versions)"
    )
