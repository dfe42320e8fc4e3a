"""The study's main table in short, for the pages that quote it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from reporting import costs, render
from reporting.cells import Cell, Records, grouped, worst_class
from reporting.comparisons import (
    CONTROLS,
    Control,
    Pair,
    Result,
    difference,
    interaction,
    mean_difference,
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


def _per_control(line: Line, text: Callable[[Control], str]) -> list[str]:
    """A cell for each of CONTROLS; empty if the ticket has no such control."""
    controls = {control.name: control for control in line.controls}
    return [text(controls[name]) if name in controls else "" for name in CONTROLS]


def _of_one(sub: SubTable) -> list[str]:
    """Aua of each row, and minus that of its controls."""
    seeds, first = seeds_of(sub), sub.records[0]
    body = []
    for line in _run(sub):
        cells = [Cell.of(line.records, name) for name in ("clean_percent", "aua_percent")]
        # The number of seeds stands above the table.
        texts = [render.cell(c, interval=False, count=c.n != len(seeds)) for c in cells]
        deltas = _per_control(line, lambda control, line=line: _delta(line, control))
        body.append([line.label + line.marks, *texts, *deltas])
    missing = [line.label for line in sub.lines if not line.records]
    return [
        f"**{sub.task}**, {first.training_rows or '?'} training rows, {sub.recipe}, "
        f"{first.rows_attacked} rows, seeds {', '.join(map(str, seeds))}",
        render.markdown_table(["model", "Clean %", "Aua %", *DELTAS], body),
        f"Not run: {'; '.join(missing)}." if missing else "",
    ]


def _delta(line: Line, control: Control) -> str:
    if not control.records:
        return NOT_RUN if control.is_reached else NOT_REACHED
    delta = difference(line.records, control.records)
    return render.short(delta) if delta else "other rows"


def _by_class(sub: SubTable) -> list[str]:
    """Aua of each class, and of each ticket minus its controls; nothing without rows' labels."""
    if not sub.classes:
        return []
    body = []
    for line in _run(sub):
        texts = [render.cell(line.by_class[c], interval=False, count=False) for c in sub.classes]
        texts.append(render.number(worst_class(line.by_class).mean))
        gains = [line.gains.get(n, {}).values() for n in CONTROLS]
        texts += [" / ".join(map(render.rate, rates)) for rates in gains]
        body.append([line.label, *texts])
    header = ["model", *(f"Aua {name} %" for name in sub.classes), "Aua worst class %"]
    return [
        f"By class, {sub.task}, {sub.recipe}; differences of {' / '.join(sub.classes)}",
        render.markdown_table([*header, *DELTAS], body),
        *carried_by_one_class(sub),
    ]


def _costs(sub: SubTable, measured: dict | None) -> list[str]:
    """Passes and minutes of each ticket and of its controls."""
    body = [
        [line.label, _cost(line.records, measured)]
        + _per_control(line, lambda control: _cost(control.records, measured))
        for line in _run(sub)
        if line.controls
    ]
    header = ["label passes / gradient passes / minutes", "ticket", *CONTROLS]
    title = f"Cost, {sub.task}, {sub.recipe}"
    return [title, render.markdown_table(header, body)] if body else []


def _cost(records: Records, measured: dict | None) -> str:
    if not records:
        return NOT_RUN
    cost = costs.mean_cost(records, measured) if measured else None
    if cost:
        numbers = [cost[name] for name in costs.IN_SHORT]
    else:  # the passes are known without a measurement
        passes = [r.label_passes for r in records], list(map(costs.gradient_passes, records))
        numbers = [*map(costs.mean_if_known, passes), None]
    return " / ".join(render.number(x, ".0f") for x in numbers)


def _over_tasks(subs: list[SubTable]) -> list[str]:
    """For each attack, the mean of each ticket minus its controls, and the effect of length."""
    run, parts = [sub for sub in subs if sub.shared], []
    for alike in grouped(run, lambda s: tuple(getattr(s.shared, key) for key in ATTACK)).values():
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


def pairs_with(lines: Mapping[str, Result], name: str) -> dict[str, Pair]:
    """Task -> records of a ticket and of its control of this name, where that was run.

    `lines`: the ticket on each task.
    """
    controls = {t: c for t, line in lines.items() for c in line.controls if c.name == name}
    return {t: (lines[t].records, c.records) for t, c in controls.items() if c.records}


def _mean_row(alike: list[SubTable], label: str) -> list[str]:
    """A ticket's mean differences from its controls; empty if there are none."""
    lines = {sub.task: line for sub in alike for line in _run(sub) if line.label == label}
    cells = []
    for name in CONTROLS:
        run = pairs_with(lines, name)
        mean = mean_difference(list(run.values())) if len(run) > 1 else None
        tasks = f" ({', '.join(run)})" if len(run) < len(alike) else ""
        has_control = any(c.name == name for line in lines.values() for c in line.controls)
        without = NOT_RUN if has_control else ""
        cells.append(render.short(mean) + tasks if mean else without)
    longest = max((line.marks for line in lines.values()), key=len)
    return [label + longest, *cells] if set(cells) - {NOT_RUN, ""} else []


def _length_effects(alike: list[SubTable]) -> list[str]:
    """Whether a ticket gains more over dense when both are trained for longer (interaction)."""
    of_tasks = {sub.task: _lengths(sub) for sub in alike}
    labels = dict.fromkeys(label for lengths in of_tasks.values() for label in lengths)
    body = []
    for label in labels:
        pairs = [lengths[label] for lengths in of_tasks.values() if label in lengths]
        effects = [interaction([of[label]]) if label in of else None for of in of_tasks.values()]
        mean = interaction(pairs) if len(pairs) > 1 else None
        texts = [render.short(effect) if effect else render.NONE for effect in (*effects, mean)]
        body += [[label, *texts]] if any(effects) else []
    if not body:
        return []
    return [
        f"**Effect of length**, {alike[0].recipe}: Δ Aua vs. dense (same epochs) of the longer "
        "retraining minus that of the usual one",
        render.markdown_table(["ticket", *of_tasks, "mean"], body),
    ]


def _lengths(sub: SubTable) -> dict[str, tuple[Pair, Pair]]:
    """(ticket, dense) of the longer and of the usual retraining, by the longer ticket's label."""
    pairs = {
        line.model: (line.label, (line.records, line.controls[0].records))
        for line in _run(sub)
        if line.controls and line.controls[0].records
    }
    usual = {model: pairs.get(replace(model, epochs=None)) for model in pairs if model.epochs}
    return {pairs[m][0]: (pairs[m][1], pair[1]) for m, pair in usual.items() if pair}
