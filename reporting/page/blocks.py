"""What a page shows: groups of models that were attacked alike, and what is missing in them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from evaluation.records import AttackRecord
from reporting import paper_values, study_summary
from reporting.cells import grouped
from reporting.comparisons import Result
from reporting.paper_tables import Line, SubTable

ROBUST = "robust ticket"  # the kind that a page is about
MOST_DRAWN = 40  # models of a block in a figure; the table has all


@dataclass(frozen=True)
class Missing:
    """A row that was not run, and the command that fills it."""

    label: str
    kind: str
    sparsity: float
    command: str


@dataclass(frozen=True)
class Block:
    """The models of one attack on one task.

    `title`: of the table that they come from. `to_complete`: label -> command, for models that lack
    a seed or a control. `paper`: label -> the paper's Aua, and ours minus it.
    """

    title: str
    task: str
    recipe: str
    results: list[Result]
    missing: list[Missing] = field(default_factory=list)
    to_complete: dict[str, str] = field(default_factory=dict)
    paper: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> AttackRecord:
        return self.results[0].first


def kind_of(result: Result) -> str:
    """What a model is, for a filter: dense, its training method, or its kind of ticket."""
    first = result.first
    if first.ticket is None:
        return "foreign" if first.is_foreign else f"dense {first.method}".removesuffix(" plain")
    return first.ticket.name


def of_sub_tables(subs: Iterable[SubTable]) -> list[Block]:
    """Blocks of a table of the paper or of the study.

    A task's columns that were not run have no block, unless nothing of the task was run.
    """
    blocks = []
    for of_task in grouped(subs, lambda sub: (sub.table.name, sub.task)).values():
        run = [sub for sub in of_task if sub.recipe is not None]
        blocks += map(_of_sub_table, run or of_task[:1])
    return blocks


def _of_sub_table(sub: SubTable) -> Block:
    text = paper_values.orientation(sub.task, sub.encoder) if sub.of_the_paper else ""
    orientation = [text] if text else []
    return Block(
        sub.table.title,
        sub.task,
        sub.recipe or f"{sub.attack}, not run",
        [line for line in sub.lines if line.records],
        [_missing(sub, line) for line in sub.lines if not line.records],
        {
            line.label: sub.command(seeds, [line.label])
            for line in sub.lines
            if line.records and (seeds := sub.lacking_seeds(line))
        },
        {
            line.label: (line.paper["aua"], line.difference("aua"))
            for line in sub.lines
            if line.paper.get("aua") is not None
        },
        [*orientation, *sub.notes],
    )


def _missing(sub: SubTable, line: Line) -> Missing:
    kind = line.model.kind
    name = f"{kind.replace('_', ' ')} ticket" if kind else f"dense {line.model.method}"
    command = sub.command(sub.seeds, [line.label])
    return Missing(line.label, name.removesuffix(" plain"), line.sparsity, command)


def of_tables(tables: Iterable[list[Result]], title: str) -> list[Block]:
    """Blocks of the general table, which knows no rows but those that were run."""
    return [Block(title, t[0].first.task, t[0].first.recipe, t) for t in tables]


def without_repetitions(blocks: Iterable[Block]) -> list[Block]:
    """Each model once, where it first occurs: tables share rows."""
    seen: set[object] = set()

    def is_new(key: object) -> bool:
        is_first = key not in seen
        seen.add(key)
        return is_first

    kept = []
    for block in blocks:
        results = [
            r
            for r in block.results
            if is_new((block.task, frozenset(x.identity for x in r.records)))
        ]
        missing = [m for m in block.missing if is_new((block.task, block.recipe, m.label))]
        kept.append(Block(**{**vars(block), "results": results, "missing": missing}))
    return [block for block in kept if block.results or block.missing]


def alike(blocks: Iterable[Block]) -> list[list[Block]]:
    """The blocks with results whose attacks are alike on several tasks, one block per task."""
    occurrences: dict[tuple, int] = {}

    def key(block: Block) -> tuple:
        attack = (block.title, *(getattr(block.first, name) for name in study_summary.ATTACK))
        number = occurrences[attack, block.task] = occurrences.get((attack, block.task), -1) + 1
        return *attack, number

    return list(grouped((block for block in blocks if block.results), key).values())
