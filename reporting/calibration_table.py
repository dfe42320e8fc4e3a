"""Aua before and after calibration: how much of it a saturated softmax contributed."""

from dataclasses import dataclass

from evaluation.records import COMPARISON, AttackRecord
from reporting import cells, render
from reporting.cells import Cell, Records, grouped

# What records at several temperatures share; the ids of their protocols differ.
SHARED = tuple(key for key in COMPARISON if key not in ("temperature_rule", "protocol_id"))
MEASURES = ("temperature", "ece_percent", "saturated_percent")
MEASURES += ("clean_percent", "aua_percent", "queries_per_row")
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
Rules = dict[str, Records]  # temperature rule ("1": as trained) -> records, one per seed


@dataclass(frozen=True)
class Group:
    """Attacks whose protocols differ in the temperature alone, by model; notes on skipped ones."""

    models: dict[tuple, Rules]
    notes: list[str]

    @property
    def records(self) -> Records:
        return [r for rules in self.models.values() for same in rules.values() for r in same]

    @property
    def first(self) -> AttackRecord:
        return next(iter(self.models.values()))["fitted"][0]


def groups(records: Records) -> list[Group]:
    """Models that were also attacked at a fitted temperature, each over the seeds that all of its
    temperatures have."""
    all_groups = []
    keys = (*SHARED, "protocol_but_temperature")
    for members in grouped(records, lambda r: tuple(getattr(r, key) for key in keys)).values():
        group = Group({}, [])
        for model, of_model in grouped(members, cells.model_of).items():
            rules = grouped(of_model, lambda r: r.temperature_rule or "1")
            if "fitted" in rules:
                group.models[model] = _comparable(model[0], rules, group.notes)
        all_groups += [group] if group.models else []
    return all_groups


def _comparable(name: str, all_rules: Rules, notes: list[str]) -> Rules:
    """For each temperature the records of one protocol, of the seeds that all have; adds notes."""
    rules: Rules = {}
    for rule, records in all_rules.items():
        of_protocol, skipped = cells.largest_group(records, ("protocol_id",), "")
        rules[rule] = cells.one_per_seed(of_protocol)
        notes += [f"{name}, {_description(rule)}: {text}" for text in skipped]
    seeds = {rule: {r.seed for r in records} for rule, records in rules.items()}
    for rule in [rule for rule in rules if not seeds["fitted"] & seeds[rule]]:
        notes.append(f"{name}: skipped {_description(rule)}, which has no seed of the fitted ones.")
        del rules[rule], seeds[rule]
    common = set.intersection(*seeds.values())
    lacking = set.union(*seeds.values()) - common
    if not common:
        notes.append(f"{name}: no seed was attacked at all of its temperatures.")
        return {"fitted": rules["fitted"]}
    if lacking:
        listed = ", ".join(map(str, sorted(lacking)))
        notes.append(f"{name}: skipped, not attacked at all of its temperatures: seeds {listed}.")
    return {rule: [r for r in records if r.seed in common] for rule, records in rules.items()}


def _description(rule: str) -> str:
    return "as trained" if rule == "1" else rule


def markdown(groups: list[Group]) -> str:
    """A table per attack and set of rows; empty if no temperature was fitted."""
    parts = []
    for group in groups:
        first = group.first
        ids = {r.temperature_rule or "1": r.protocol_id for r in group.records}
        protocols = ", ".join(f"{i} ({_description(rule)})" for rule, i in ids.items() if i)
        parts += [
            f"## Calibration: {first.task}, {first.encoder}, {first.recipe}, candidates ranked by "
            f"{first.score_with}, {first.checkpoint_rule} checkpoint"
            + (f", evaluation protocols {protocols}" if protocols else ""),
            render.table_of([_markdown_row(*item) for item in group.models.items()]),
            *group.notes,
        ]
    return "\n" + render.paragraphs([*parts, LEGEND]) if parts else ""


def _markdown_row(model: tuple, rules: Rules) -> dict[str, str]:
    """Means over seeds, Aua with its 95 % interval."""
    fitted, plain = rules["fitted"], rules.get("1", [])
    aua = {rule: Cell.of(records, "aua_percent") for rule, records in rules.items()}
    lowest = min(aua, key=lambda rule: aua[rule].mean or 0.0)
    texts = {rule: render.cell(cell, count=False) for rule, cell in aua.items()}

    def mean(records: Records, measure: str, spec: str = ".1f") -> str:
        return render.number(Cell.of(records, measure).mean, spec)

    return {
        "model": model[0],
        "sparsity": f"{100 * model[1]:g} %",
        "epochs": str(model[2]),
        "temperature": mean(fitted, "temperature", ".2f"),
        "ECE %": mean(plain, "ece_percent"),
        "ECE % fitted": mean(fitted, "ece_percent"),
        "saturated %": mean(plain, "saturated_percent"),
        "Aua %": texts.get("1", render.NONE),
        "Aua % fitted": texts["fitted"],
        "lowest Aua %": texts[lowest],
        "at": _description(lowest),
        "worst class % fitted": render.number(cells.worst_class(cells.cells_by_class(fitted)).mean),
        "seeds": str(len(fitted)),
    }


def csv_text(groups: list[Group]) -> str:
    """A line per model and temperature, with the attacks that it was made from."""
    rows = [
        _csv_row(group, model, rule, of_rule)
        for group in groups
        for model, rules in group.models.items()
        for rule, of_rule in rules.items()
    ]
    return render.csv_text(rows, spec="")


def _csv_row(group: Group, model: tuple, rule: str, records: Records) -> dict[str, object]:
    aua = Cell.of(records, "aua_percent")
    return {
        **{key: getattr(group.first, key) for key in SHARED},
        **dict(zip(("model", "sparsity", "epochs"), model, strict=False)),
        "temperature_rule": rule,
        "protocol_id": records[0].protocol_id,
        "seeds": len(records),
        **{measure: Cell.of(records, measure).mean for measure in MEASURES},
        **dict(zip(("aua_low_95", "aua_high_95"), aua.interval, strict=True)),
        "aua_by_seed": render.by_seed(aua),
        "aua_by_class": render.by_class(cells.cells_by_class(records)),
        "attack_ids": ";".join(r.attack_id for r in records),
    }
