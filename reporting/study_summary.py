"""The study's main table in short, for the pages that quote it."""

from dataclasses import replace

from evaluation.records import AttackRecord
from reporting import render
from reporting.cells import Cell, worst_class
from reporting.comparisons import (
    CONTROLS,
    Control,
    Difference,
    Pair,
    difference,
    interaction,
    mean_difference,
)
from reporting.costs import (
    GRADIENT_PASSES,
    LABEL_PASSES,
    MINUTES,
    gradient_passes,
    mean_cost,
    mean_if_known,
)
from reporting.grids import carried_by_one_class
from reporting.paper_tables import Line, SubTable

# What the models and attacks of two data sets must have in common for a mean.
ATTACK = (
    "encoder",
    "recipe",
    "score_with",
    "similarity_threshold",
    "checkpoint_rule",
    "temperature_rule",
    "deviations",
)
DELTAS = tuple(f"Δ Aua vs. dense ({name})" for name in CONTROLS)
NOT_RUN, NOT_REACHED = "not run", "not reached"
LEGEND = (
    "±: standard deviation over seeds (n - 1). Brackets: 95 % intervals over new rows and new "
    "seeds; of a mean over data sets the wider one of two analyses (a seed's luck is the same on "
    "all data sets, or its own on each). Bold: distinguishable from zero. Same training loss: the "
    "first epoch of a longer dense training whose loss is the ticket's. It is from the middle of a "
    "longer schedule, so its learning rate was not annealed. Same label passes: epochs of the "
    "ticket and of all that its mask has seen. An epoch of the search makes K gradient passes, so "
    "the ticket has more gradient passes than this control. Minutes: measured for an epoch "
    "(`costs.jsonl`) times epochs and rows."
)


def markdown(subs: list[SubTable], measured: dict | None) -> str:
    """For each sub-table the rows that were run, minus their controls, by class and with what they
    cost; then means over data sets. `measured`: costs of an epoch (costs.read)."""
    parts = []
    for sub in (sub for sub in subs if sub.records):
        parts += [*_of_one(sub), *_by_class(sub), *_costs(sub, measured)]
    parts += _over_tasks(subs)
    return render.paragraphs([*parts, LEGEND])


def seeds_of(sub: SubTable) -> list[int]:
    """The seeds of its rows; sub.seeds also has those that were asked for."""
    return sorted({r.seed for line in sub.lines for r in line.records})


def _run(sub: SubTable) -> list[Line]:
    return [line for line in sub.lines if line.records]


def _of_one(sub: SubTable) -> list[str]:
    seeds, first = seeds_of(sub), sub.records[0]
    body = []
    for line in _run(sub):
        controls = {control.name: control for control in line.controls}
        cells = [Cell.of(line.records, name) for name in ("clean_percent", "aua_percent")]
        body.append(
            [
                line.label + line.marks,
                # The number of seeds stands above the table.
                *(render.cell(c, interval=False, count=c.n != len(seeds)) for c in cells),
                *(_delta(line, controls.get(name)) for name in CONTROLS),
            ]
        )
    missing = [line.label for line in sub.lines if not line.records]
    return [
        f"**{sub.task}**, {first.training_rows or '?'} training rows, {sub.recipe}, "
        f"{first.rows_attacked} rows, seeds {', '.join(map(str, seeds))}",
        render.markdown_table(["model", "Clean %", "Aua %", *DELTAS], body),
        f"Not run: {'; '.join(missing)}." if missing else "",
    ]


def _delta(line: Line, control: Control | None) -> str:
    """Aua of a ticket minus that of a control; empty if the ticket has no such control."""
    if control is None:
        return ""
    if not control.records:
        return NOT_RUN if control.is_reached else NOT_REACHED
    delta = difference(line.records, control.records)
    return render.short(delta) if delta else "other rows"


def _by_class(sub: SubTable) -> list[str]:
    """Aua of each class, and of each ticket minus its controls; nothing without rows' labels."""
    if not sub.classes:
        return []
    names = " / ".join(sub.classes)
    body = []
    for line in _run(sub):
        controls = {c.name: c for c in line.controls if c.records}
        gains = [line.gain_over(controls[n]).points if n in controls else {} for n in CONTROLS]
        body.append(
            [
                line.label,
                *(render.cell(line.by_class[c], interval=False, count=False) for c in sub.classes),
                render.number(worst_class(line.by_class).mean),
                *(" / ".join(map(render.rate, gain.values())) for gain in gains),
            ]
        )
    header = ["model", *(f"Aua {name} %" for name in sub.classes), "Aua worst class %"]
    return [
        f"By class, {sub.task}, {sub.recipe}; differences of {names}",
        render.markdown_table([*header, *DELTAS], body),
        *carried_by_one_class(sub),
    ]


def _costs(sub: SubTable, measured: dict | None) -> list[str]:
    """Passes and minutes of each ticket and of its controls."""
    body = []
    for line in _run(sub):
        controls = {c.name: c.records for c in line.controls}
        costs = [_cost(controls[n], measured) if n in controls else "" for n in CONTROLS]
        body += [[line.label, _cost(line.records, measured), *costs]] if controls else []
    if not body:
        return []
    header = ["label passes / gradient passes / minutes", "ticket", *CONTROLS]
    return [f"Cost, {sub.task}, {sub.recipe}", render.markdown_table(header, body)]


def _cost(records: list[AttackRecord], measured: dict | None) -> str:
    if not records:
        return NOT_RUN
    cost = mean_cost(records, measured) if measured else None
    if cost:
        numbers = [cost[name] for name in (LABEL_PASSES, GRADIENT_PASSES, MINUTES)]
    else:  # the passes are known without a measurement
        passes = [r.label_passes for r in records], list(map(gradient_passes, records))
        numbers = [*map(mean_if_known, passes), None]
    return " / ".join(render.number(x, ".0f") for x in numbers)


def _over_tasks(subs: list[SubTable]) -> list[str]:
    """For each attack, the mean of each ticket minus its controls, and the effect of length."""
    by_attack: dict[tuple, list[SubTable]] = {}
    for sub in (sub for sub in subs if sub.shared):
        by_attack.setdefault(tuple(getattr(sub.shared, key) for key in ATTACK), []).append(sub)
    parts = []
    for alike in by_attack.values():
        labels = dict.fromkeys(line.label for sub in alike for line in sub.lines if line.controls)
        body = [row for label in labels if (row := _mean_row(alike, label))]
        if len(alike) > 1 and body:
            tasks = ", ".join(sub.task for sub in alike)
            parts += [
                f"**Mean over {tasks}**, {alike[0].recipe}, over the seeds that all have",
                render.markdown_table(["model", *DELTAS], body),
            ]
        parts += _length_effects(alike)
    return parts


def _mean_row(alike: list[SubTable], label: str) -> list[str]:
    """A ticket's mean differences from its controls; empty if there are none."""
    lines = {sub.task: line for sub in alike for line in _run(sub) if line.label == label}
    cells, has_any = [], False
    for name in CONTROLS:
        of_name = {t: c for t, line in lines.items() for c in line.controls if c.name == name}
        run: dict[str, Pair] = {
            task: (lines[task].records, c.records) for task, c in of_name.items() if c.records
        }
        mean = mean_difference(list(run.values())) if len(run) > 1 else None
        has_any = has_any or mean is not None
        if mean is None:
            cells.append(NOT_RUN if of_name else "")
        else:
            some_lack = len(run) < len(alike)
            cells.append(render.short(mean) + (f" ({', '.join(run)})" if some_lack else ""))
    longest = max((line.marks for line in lines.values()), key=len)
    return [label + longest, *cells] if has_any else []


Lengths = tuple[Pair, Pair]  # (ticket, dense) of the longer and of the usual retraining


def _length_effects(alike: list[SubTable]) -> list[str]:
    """Whether a ticket gains more over dense when both are trained for longer (interaction)."""
    of_tasks = {sub.task: _lengths(sub) for sub in alike}
    labels = dict.fromkeys(label for lengths in of_tasks.values() for label in lengths)
    body = []
    for label in labels:
        pairs = [lengths[label] for lengths in of_tasks.values() if label in lengths]
        effects = [interaction([of[label]]) if label in of else None for of in of_tasks.values()]
        mean = interaction(pairs) if len(pairs) > 1 else None
        if any(effects):
            body.append([label, *map(_effect, effects), _effect(mean)])
    if not body:
        return []
    return [
        f"**Effect of length**, {alike[0].recipe}: Δ Aua vs. dense (same epochs) of the longer "
        "retraining minus that of the usual one",
        render.markdown_table(["ticket", *of_tasks, "mean"], body),
    ]


def _effect(effect: Difference | None) -> str:
    return render.short(effect) if effect else render.NONE


def _lengths(sub: SubTable) -> dict[str, Lengths]:
    """By the label of the longer ticket."""
    pairs = {
        line.model: (line.label, (line.records, line.controls[0].records))
        for line in _run(sub)
        if line.controls and line.controls[0].records
    }
    lengths = {}
    for model, (label, longer) in pairs.items():
        usual = pairs.get(replace(model, epochs=None)) if model.epochs else None
        if usual:
            lengths[label] = (longer, usual[1])
    return lengths
