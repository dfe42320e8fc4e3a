"""The numbers of a figure, before it is drawn and as CSV; those of Figures 2 and 4."""

from dataclasses import dataclass, field, replace
from typing import Any

from evaluation.records import STRICT_COMPARISON, AttackRecord
from experiments.models import Model, assign
from experiments.paper import CURVES, EPOCHS_FIGURE, OWN_RECIPES, PAPER_ATTACKS, PAPER_DATASET
from experiments.scales import Scale
from reporting import render
from reporting.cells import Cell, Records, grouped, largest_group, one_per_seed

ACCURACIES = {"Clean": "clean_percent", "Aua": "aua_percent"}
Place = tuple[str, float | None]  # curve and x


@dataclass
class Shown:
    """What a figure shows.

    `rows`: a value of a seed each, with its place in the figure. On a curve: task, recipe, quantity
    (of the panel), curve, x_name, x (None: a dense model in Figure 2), attack_id. In a heat map:
    task, layer, column. `remarks`: for the caption; `lacking`: what is missing.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    records: Records = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        return sorted({row["seed"] for row in self.rows})

    def __add__(self, other: "Shown") -> "Shown":
        return Shown(*(mine + vars(other)[name] for name, mine in vars(self).items()))


def csv_text(figure: str, shown: Shown) -> str:
    """Every number that the figure shows, one per line."""
    lines = []
    for place, rows in grouped(shown.rows, _place).items():
        cell = Cell(dict(sorted((row["seed"], row["value"]) for row in rows)))
        (_, task), *within = place
        lines.append(
            {"figure": figure, "task": task, "dataset_in_paper": PAPER_DATASET.get(task)}
            | dict(within)
            | {"mean": cell.mean, "deviation": cell.deviation, "n": cell.n}
            | {"values_by_seed": render.by_seed(cell)}
        )
        if "curve" in lines[-1]:
            lines[-1]["attack_ids"] = ";".join(r["attack_id"] for r in rows if "attack_id" in r)
    return render.csv_text(lines)


def _place(row: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((k, v) for k, v in row.items() if k not in ("seed", "value", "attack_id"))


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
    return _accuracies(of_task, places, "sparsity", task, scale, expected)


def over_epochs(records: Records, task: str, scale: Scale) -> Shown:
    """Figure 4. x is the epoch of a training of EPOCHS_FIGURE epochs."""
    of_task = [r for r in _as_trained(records, task) if r.checkpoint_rule == f"epoch{r.epoch}"]
    models = {n: replace(model.at(task), epochs=EPOCHS_FIGURE) for n, model in CURVES.items()}
    assigned = assign(of_task, models, scale.epochs)
    places = {r: (name, r.epoch) for name, of_curve in assigned.items() for r in of_curve}
    expected = dict.fromkeys(CURVES, scale.attacked_epochs)
    return _accuracies(of_task, places, "epoch", task, scale, expected)


def _as_trained(records: Records, task: str) -> Records:
    return [r for r in records if r.task == task and r.temperature_rule is None]


def _accuracies(
    records: Records,
    places: dict[AttackRecord, Place],
    x_name: str,
    task: str,
    scale: Scale,
    expected: dict[str, tuple],
) -> Shown:
    """A pair of panels for each recipe with records on a curve."""
    # The checkpoint differs along a curve of epochs, so records are compared without it.
    keys = [key for key in STRICT_COMPARISON if (key, x_name) != ("checkpoint_rule", "epoch")]
    of_paper = [recipe for recipes in PAPER_ATTACKS.values() for recipe in recipes]
    with_curve, without = [], []
    for recipe in of_paper if scale.name == "paper" else [*OWN_RECIPES, *of_paper]:
        of_recipe = [r for r in records if r in places and r.recipe == recipe]
        group, notes = largest_group(of_recipe, keys, scale.encoder)
        by_place = grouped(group, places.get)
        points = {place: one_per_seed(of_place) for place, of_place in by_place.items()}
        part = Shown(records=[r for of_point in points.values() for r in of_point])
        for quantity, measure in ACCURACIES.items():
            panel = {"task": task, "recipe": recipe, "quantity": quantity}
            for name, x in sorted(points, key=lambda p: (list(CURVES).index(p[0]), p[1] or 0)):
                place = panel | {"curve": name, "x_name": x_name, "x": x}
                for r in points[name, x]:
                    value = {"seed": r.seed, "value": getattr(r, measure)}
                    part.rows.append(place | value | {"attack_id": r.attack_id})
        if group:
            part.remarks = [_setting(group[0]), *(f"{task}, {recipe}: {note}" for note in notes)]
            part.lacking = [f"{task}, {recipe}: {t}" for t in _gaps(set(points), expected)]
            # The tables' records are points of the curves too, but one each: an attack that was
            # run for a table alone has no curve.
            has_curve = len({name for name, _ in points}) < len(points)
            (with_curve if has_curve else without).append(part)
    return sum(with_curve or without, Shown())


def _gaps(places: set[Place], expected: dict[str, tuple]) -> list[str]:
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
