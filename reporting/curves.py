"""Figures 2 and 4 as numbers: Clean and Aua of attack records, along sparsity or epochs."""

from dataclasses import replace

from evaluation.records import STRICT_COMPARISON, AttackRecord
from experiments.models import Model, assign
from experiments.paper import CURVES, EPOCHS_FIGURE, MINI_RECIPES, PAPER_ATTACKS
from experiments.scales import Scale
from reporting.cells import Cell, largest_group, one_per_seed
from reporting.figure_data import Panel, Point, Shown

ACCURACIES = {"Clean": "clean_percent", "Aua": "aua_percent"}
Records = list[AttackRecord]
Place = tuple[str, float | None]  # curve and x


def over_sparsity(records: Records, task: str, scale: Scale, checkpoint: str) -> Shown:
    """Figure 2. x is the sparsity; None for the dense models."""
    of_task = [r for r in _as_trained(records, task) if r.checkpoint_rule == checkpoint]
    asked = sorted({r.ticket.sparsity_asked for r in of_task if r.ticket})
    models: dict[Place, Model] = {}
    for name, model in CURVES.items():
        for sparsity in asked if model.kind else (None,):
            models[name, sparsity] = replace(model, sparsity=sparsity)
    expected = {n: scale.sparsities if model.kind else (None,) for n, model in CURVES.items()}
    assigned = assign(of_task, models, scale.epochs)
    places = {r: place for place, of_place in assigned.items() for r in of_place}
    return _accuracies(_in_order(places, of_task), task, scale, STRICT_COMPARISON, expected)


def over_epochs(records: Records, task: str, scale: Scale) -> Shown:
    """Figure 4. x is the epoch of a training of EPOCHS_FIGURE epochs."""
    of_task = [r for r in _as_trained(records, task) if r.checkpoint_rule == f"epoch{r.epoch}"]
    models = {n: replace(model.at(task), epochs=EPOCHS_FIGURE) for n, model in CURVES.items()}
    assigned = assign(of_task, models, scale.epochs)
    places = {r: (name, r.epoch) for name, of_curve in assigned.items() for r in of_curve}
    # The checkpoint differs along a curve, so records may be compared without it.
    keys = tuple(key for key in STRICT_COMPARISON if key != "checkpoint_rule")
    expected = dict.fromkeys(CURVES, scale.attacked_epochs)
    return _accuracies(_in_order(places, of_task), task, scale, keys, expected)


def _as_trained(records: Records, task: str) -> Records:
    return [r for r in records if r.task == task and r.temperature_rule is None]


def _in_order(places: dict[AttackRecord, Place], records: Records) -> dict[AttackRecord, Place]:
    return {record: places[record] for record in records if record in places}


def _accuracies(
    places: dict[AttackRecord, Place],
    task: str,
    scale: Scale,
    keys: tuple[str, ...],
    expected: dict[str, tuple],
) -> Shown:
    """A pair of panels for each recipe with records on a curve."""
    parts = []
    for recipe in _recipes(scale):
        of_recipe = [r for r in places if r.recipe == recipe]
        group, notes = largest_group(of_recipe, keys, scale.encoder)
        if not group:
            continue
        points: dict[Place, Records] = {}
        for record in group:
            points.setdefault(places[record], []).append(record)
        points = {place: one_per_seed(of_place) for place, of_place in points.items()}
        part = Shown(_panels(task, recipe, points))
        part.remarks = [_setting(group[0]), *(f"{task}, {recipe}: {note}" for note in notes)]
        part.lacking = [f"{task}, {recipe}: {t}" for t in _not_there(set(points), expected)]
        part.records = [r for of_point in points.values() for r in of_point]
        parts.append(part)
    # The tables' records are points of the curves too, but one each: an attack that was run for a
    # table alone has no curve.
    with_curve = [part for part in parts if part.longest_curve > 1]
    return sum(with_curve or parts, Shown())


def _recipes(scale: Scale) -> list[str]:
    of_paper = [recipe for recipes in PAPER_ATTACKS.values() for recipe in recipes]
    return of_paper if scale.name == "paper" else [*MINI_RECIPES, *of_paper]


def _panels(task: str, recipe: str, points: dict[Place, Records]) -> list[Panel]:
    panels = []
    for quantity, measure in ACCURACIES.items():
        curves: dict[str, list[Point]] = {}
        for name in CURVES:
            for x in sorted((x for n, x in points if n == name), key=lambda x: x or 0):
                records = points[name, x]
                ids = tuple(r.attack_id for r in records)
                curves.setdefault(name, []).append(Point(x, Cell.of(records, measure), ids))
        panels.append(Panel(task, recipe, quantity, curves))
    return panels


def _not_there(places: set[Place], expected: dict[str, tuple]) -> list[str]:
    """A text per curve that has gaps."""
    texts = []
    for name, xs in expected.items():
        gaps = [x for x in xs if (name, x) not in places]
        if len(gaps) == len(xs):
            texts.append(f"no {name}")
        elif gaps:
            texts.append(f"no {name} at {', '.join(f'{x:g}' for x in gaps)}")
    return texts


def _setting(record: AttackRecord) -> str:
    trained_on = f"{record.training_rows} training rows, " if record.training_rows else ""
    protocol = f"; evaluation protocol {record.protocol_id}" if record.protocol_id else ""
    return (
        f"{record.task}, {record.recipe}: {record.encoder}, {trained_on}{record.rows_attacked} "
        f"attacked rows, deviations: {record.deviations}{protocol}."
    )
