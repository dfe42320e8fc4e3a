"""Figures 2 and 4 as numbers: Clean and Aua of attack records, along sparsity or epochs."""

import re
from collections.abc import Callable
from dataclasses import replace

from evaluation.records import STRICT_COMPARISON, Cell, largest_group, one_per_seed
from experiments.paper import CURVES, EPOCHS_FIGURE, MINI_RECIPES, PAPER_ATTACKS
from experiments.scales import Scale
from reporting.figure_data import Panel, Point, Shown

ACCURACIES = {"Clean": "clean_percent", "Aua": "aua_percent"}
Place = tuple[str, float | None]  # curve and x


def over_sparsity(records: list[dict], task: str, scale: Scale, checkpoint: str) -> Shown:
    """Figure 2. x is the sparsity; None for the dense models."""

    def place(record: dict) -> Place | None:
        if record["checkpoint_rule"] != checkpoint:
            return None
        asked = (record["ticket"] or {}).get("sparsity_asked")
        for name, model in CURVES.items():
            if replace(model, sparsity=asked).owns(record, scale.epochs):
                return name, asked
        return None

    expected = {n: scale.sparsities if model.kind else (None,) for n, model in CURVES.items()}
    return _accuracies(records, task, scale, place, STRICT_COMPARISON, expected)


def over_epochs(records: list[dict], task: str, scale: Scale) -> Shown:
    """Figure 4. x is the epoch of a training of EPOCHS_FIGURE epochs."""

    def place(record: dict) -> Place | None:
        epoch = re.fullmatch(r"epoch(\d+)", record["checkpoint_rule"])
        for name, model in CURVES.items():
            longer = replace(model.at(task), epochs=EPOCHS_FIGURE)
            if epoch and longer.owns(record, scale.epochs):
                return name, int(epoch[1])
        return None

    # The checkpoint is what differs along a curve, so it is no ground to keep records apart.
    keys = [key for key in STRICT_COMPARISON if key != "checkpoint_rule"]
    expected = dict.fromkeys(CURVES, scale.attacked_epochs)
    return _accuracies(records, task, scale, place, keys, expected)


def _accuracies(
    records: list[dict],
    task: str,
    scale: Scale,
    place: Callable[[dict], Place | None],
    keys: list[str],
    expected: dict[str, tuple],
) -> Shown:
    """A pair of panels for each recipe of which `place` puts records on a curve."""
    as_trained = (r for r in records if r.get("temperature_rule") is None)
    own = [r for r in as_trained if r["task"] == task and place(r)]
    parts = []
    for recipe in _recipes(scale):
        of_recipe = [r for r in own if r["recipe"] == recipe]
        group, notes = largest_group(of_recipe, keys, scale.encoder)
        by_place: dict[Place, list[dict]] = {}
        for record in group:
            by_place.setdefault(place(record), []).append(record)
        if not by_place:
            continue
        by_place = {at: one_per_seed(found) for at, found in by_place.items()}
        part = Shown(_panels(task, recipe, by_place))
        part.remarks = [_setting(group[0]), *(f"{task}, {recipe}: {note}" for note in notes)]
        part.lacking = [f"{task}, {recipe}: {t}" for t in _not_there(set(by_place), expected)]
        part.records = [r for found in by_place.values() for r in found]
        parts.append(part)
    # Records of the tables are points of the curves too, but one each: an attack that was run for
    # a table alone has no curve.
    with_curve = [part for part in parts if part.longest_curve > 1]
    return sum(with_curve or parts, Shown())


def _recipes(scale: Scale) -> list[str]:
    of_paper = [recipe for recipes in PAPER_ATTACKS.values() for recipe in recipes]
    return of_paper if scale.name == "paper" else [*MINI_RECIPES, *of_paper]


def _panels(task: str, recipe: str, by_place: dict[Place, list[dict]]) -> list[Panel]:
    panels = []
    for quantity, measure in ACCURACIES.items():
        curves: dict[str, list[Point]] = {}
        for name in CURVES:
            for x in sorted((x for n, x in by_place if n == name), key=lambda x: x or 0):
                found = by_place[name, x]
                ids = tuple(str(r["attack_id"]) for r in found)
                curves.setdefault(name, []).append(Point(x, Cell.of(found, measure), ids))
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


def _setting(record: dict) -> str:
    trained_on = record.get("training_rows")
    trained_on = f"{trained_on} training rows, " if trained_on else ""
    return (
        f"{record['task']}, {record['recipe']}: {record['encoder']}, {trained_on}"
        f"{record['rows_attacked']} rows attacked, protocol {record['protocol']}"
        + (f"; attack protocol {record['protocol_id']}." if record.get("protocol_id") else ".")
    )
