"""Aua before and after calibration: how much of it a saturated softmax contributed."""

from dataclasses import dataclass

from evaluation.records import COMPARISON, ROW_SETTINGS, AttackRecord
from reporting import render
from reporting.cells import Cell, cells_by_class, largest_group, one_per_seed, worst_class

# What records at several temperatures share; the ids of their protocols differ.
SHARED = tuple(key for key in COMPARISON if key not in ("temperature_rule", "protocol_id"))
MEASURES = (
    "temperature",
    "ece_percent",
    "saturated_percent",
    "clean_percent",
    "aua_percent",
    "queries_per_row",
)
LEGEND = (
    "Temperature: fitted on dev rows. ECE: expected calibration error on the attacked rows. "
    "Saturated: share of rows whose top probability is 1.0 to the last digit of float32. Fitted: "
    "attacked again with logits divided by the temperature. Lowest: over all temperatures tried. "
    "Worst class: the class with the lowest Aua. "
    "Seeds: number of seeds that were attacked at all of the model's temperatures. ±: standard "
    "deviation over them (n - 1). Brackets: 95 % intervals. With two classes a temperature cannot "
    "change the order of candidates: it only removes the saturation of a softmax, or of logits too "
    "coarse to rank by (bf16). With more classes it can also change the order."
)
Records = list[AttackRecord]
Rules = dict[str, Records]  # temperature rule ("1": as trained) -> records, one per seed


@dataclass(frozen=True)
class Group:
    """Attacks whose protocols differ in the temperature alone, by model; notes on skipped ones."""

    models: dict[tuple, Rules]
    notes: list[str]

    @property
    def first(self) -> AttackRecord:
        return next(iter(self.models.values()))["fitted"][0]

    @property
    def records(self) -> Records:
        return [r for rules in self.models.values() for same in rules.values() for r in same]

    @property
    def protocols(self) -> str:
        rules = (item for rules in self.models.values() for item in rules.items())
        ids = {rule: r.protocol_id for rule, same in rules for r in same}
        return ", ".join(f"{i} ({_description(rule)})" for rule, i in ids.items() if i)


def groups(records: Records) -> list[Group]:
    """Models that were also attacked at a fitted temperature, each over the seeds that all of its
    temperatures have."""
    sorted_in: dict[tuple, dict[tuple, Rules]] = {}
    for r in records:
        shared = (*(getattr(r, key) for key in SHARED), r.protocol_but_temperature)
        settings = (getattr(r, name) for name in ROW_SETTINGS)
        model = (r.name, r.sparsity, r.epochs, r.deviations, r.training_rows, *settings)
        rules = sorted_in.setdefault(shared, {}).setdefault(model, {})
        rules.setdefault(r.temperature_rule or "1", []).append(r)
    all_groups = []
    for models in sorted_in.values():
        comparable, notes = {}, []
        for model, rules in models.items():
            if "fitted" in rules:
                comparable[model], skipped = _comparable(model[0], rules)
                notes += skipped
        if comparable:
            all_groups.append(Group(comparable, notes))
    return all_groups


def attacks(records: Records) -> Records:
    """The records that a calibration table shows."""
    return [r for group in groups(records) for r in group.records]


def _comparable(name: str, rules: Rules) -> tuple[Rules, list[str]]:
    """For each temperature the records of one protocol, of the seeds that all have; notes."""
    notes, comparable = [], {}
    for rule, records in rules.items():
        of_protocol, skipped = largest_group(records, ("protocol_id",), "")
        comparable[rule] = one_per_seed(of_protocol)
        notes += [f"{name}, {_description(rule)}: {text}" for text in skipped]
    fitted = _seeds(comparable["fitted"])
    for rule in [rule for rule, same in comparable.items() if not fitted & _seeds(same)]:
        notes.append(f"{name}: skipped {_description(rule)}, which has no seed of the fitted ones.")
        del comparable[rule]
    seeds = list(map(_seeds, comparable.values()))
    common, lacking = set.intersection(*seeds), set.union(*seeds) - set.intersection(*seeds)
    if not common:
        notes.append(f"{name}: no seed was attacked at all of its temperatures.")
        return {"fitted": comparable["fitted"]}, notes
    if lacking:
        listed = ", ".join(map(str, sorted(lacking)))
        notes.append(f"{name}: skipped, not attacked at all of its temperatures: seeds {listed}.")
    return {rule: [r for r in s if r.seed in common] for rule, s in comparable.items()}, notes


def _seeds(records: Records) -> set[int | None]:
    return {r.seed for r in records}


def _description(rule: str) -> str:
    return "as trained" if rule == "1" else rule


def _markdown_row(model: tuple, rules: Rules) -> dict[str, str]:
    """Means over seeds, Aua with its 95 % interval."""
    fitted, plain = rules["fitted"], rules.get("1", [])
    lowest = min(rules, key=lambda rule: Cell.of(rules[rule], "aua_percent").mean or 0.0)

    def mean(records: Records, measure: str, spec: str = ".1f") -> str:
        return render.number(Cell.of(records, measure).mean, spec)

    def aua(records: Records) -> str:
        return render.cell(Cell.of(records, "aua_percent"), count=False)

    return {
        "model": model[0],
        "sparsity": f"{100 * model[1]:g} %",
        "epochs": str(model[2]),
        "temperature": mean(fitted, "temperature", ".2f"),
        "ECE %": mean(plain, "ece_percent"),
        "ECE % fitted": mean(fitted, "ece_percent"),
        "saturated %": mean(plain, "saturated_percent"),
        "Aua %": aua(plain),
        "Aua % fitted": aua(fitted),
        "lowest Aua %": aua(rules[lowest]),
        "at": _description(lowest),
        "worst class % fitted": render.number(worst_class(cells_by_class(fitted)).mean),
        "seeds": str(len(fitted)),
    }


def markdown(records: Records) -> str:
    """A table per attack and set of rows; empty if no temperature was fitted."""
    parts = []
    for group in groups(records):
        first, protocols = group.first, group.protocols
        parts += [
            f"## Calibration: {first.task}, {first.encoder}, {first.recipe}, candidates ranked by "
            f"{first.score_with}, {first.checkpoint_rule} checkpoint"
            + (f", evaluation protocols {protocols}" if protocols else ""),
            render.table_of([_markdown_row(*item) for item in group.models.items()]),
            *group.notes,
        ]
    return "\n" + render.paragraphs([*parts, LEGEND]) if parts else ""


def csv_text(records: Records) -> str:
    """A line per model and temperature, with the attacks that it was made from."""
    rows = [
        _csv_row(group, model, rule, of_rule)
        for group in groups(records)
        for model, rules in group.models.items()
        for rule, of_rule in rules.items()
    ]
    return render.csv_text(rows, spec="")


def _csv_row(group: Group, model: tuple, rule: str, records: Records) -> dict[str, object]:
    aua = Cell.of(records, "aua_percent")
    low, high = aua.interval or (None, None)
    return {
        **{key: getattr(group.first, key) for key in SHARED},
        **dict(zip(("model", "sparsity", "epochs"), model, strict=False)),
        "temperature_rule": rule,
        "protocol_id": records[0].protocol_id,
        "seeds": len(records),
        **{measure: Cell.of(records, measure).mean for measure in MEASURES},
        "aua_low_95": low,
        "aua_high_95": high,
        "aua_by_seed": render.by_seed(aua),
        "aua_by_class": render.by_class(cells_by_class(records)),
        "attack_ids": ";".join(r.attack_id for r in records),
    }
