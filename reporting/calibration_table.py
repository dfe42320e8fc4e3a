"""Aua before and after calibration: what of it a saturated softmax lent."""

import csv
import io
from dataclasses import dataclass

from evaluation.records import (
    COMPARISON,
    ROW_SETTINGS,
    Cell,
    interval,
    largest_group,
    one_per_seed,
    text_cell,
)

# What records at several temperatures share; their protocols' ids differ by the temperature.
SHARED = tuple(key for key in COMPARISON if key not in ("temperature_rule", "protocol_id"))
HEADER = (
    "model",
    "sparsity",
    "epochs",
    "temperature",
    "ECE %",
    "ECE % fitted",
    "saturated %",
    "Aua %",
    "Aua % fitted",
    "least Aua %",
    "at",
    "seeds",
)
Rules = dict[str, list[dict]]  # temperature rule ("1": as trained) -> records, one a seed


@dataclass(frozen=True)
class Group:
    """Attacks whose protocols differ in the temperature alone, by model; what was left out."""

    shared: dict
    models: dict[tuple, Rules]
    notes: list[str]

    @property
    def protocols(self) -> str:
        ids = {
            rule: r.get("protocol_id")
            for rules in self.models.values()
            for rule, same in rules.items()
            for r in same
        }
        return ", ".join(f"{i} ({_told(rule)})" for rule, i in ids.items() if i)


def groups(records: list[dict]) -> list[Group]:
    """Only models that were attacked at a fitted temperature, too, each over the seeds that all of
    its temperatures have."""
    found: dict[tuple, dict[tuple, Rules]] = {}
    for r in records:
        shared = (*(r.get(key) for key in SHARED), r["but_temperature"])
        model = (
            r["name"],
            r["sparsity"],
            r["epochs"],
            r["protocol"],
            r.get("training_rows"),
            *(r.get(name) for name in ROW_SETTINGS),
        )
        rule = r.get("temperature_rule") or "1"
        found.setdefault(shared, {}).setdefault(model, {}).setdefault(rule, []).append(r)
    made = []
    for shared, models in found.items():
        of_group, notes = {}, []
        for model, rules in models.items():
            if "fitted" in rules:
                of_group[model], told = _comparable(model[0], rules)
                notes += told
        if of_group:
            made.append(Group(dict(zip(SHARED, shared, strict=False)), of_group, notes))
    return made


def attacks(records: list[dict]) -> list[dict]:
    """Of the records those that stand in a calibration table."""
    return [
        r
        for group in groups(records)
        for rules in group.models.values()
        for same in rules.values()
        for r in same
    ]


def _comparable(name: str, rules: Rules) -> tuple[Rules, list[str]]:
    """Of each temperature the records of one protocol and of the seeds that all have; notes."""
    notes, kept = [], {}
    for rule, records in rules.items():
        of_one, told = largest_group(records, ("protocol_id",), "")
        kept[rule] = one_per_seed(of_one)
        notes += [f"{name}, {_told(rule)}: {text}" for text in told]
    fitted = {r["seed"] for r in kept["fitted"]}
    for rule in [rule for rule, same in kept.items() if not fitted & {r["seed"] for r in same}]:
        notes.append(f"{name}: left out, without a seed of the fitted ones: {_told(rule)}.")
        del kept[rule]
    seeds = [{r["seed"] for r in same} for same in kept.values()]
    common, lacking = set.intersection(*seeds), set.union(*seeds) - set.intersection(*seeds)
    if not common:
        notes.append(f"{name}: no seed was attacked at all of its temperatures.")
        return {"fitted": kept["fitted"]}, notes
    if lacking:
        notes.append(
            f"{name}: left out, not attacked at all of its temperatures: seeds "
            f"{', '.join(map(str, sorted(lacking)))}."
        )
    return {rule: [r for r in same if r["seed"] in common] for rule, same in kept.items()}, notes


def _told(rule: str) -> str:
    return "as trained" if rule == "1" else rule


def _line(model: tuple, rules: Rules) -> list[str]:
    """Cells as HEADER has them; means over seeds, Aua with its 95 % interval."""
    fitted, plain = rules["fitted"], rules.get("1", [])
    least = min(rules, key=lambda rule: Cell.of(rules[rule], "aua_percent").mean)
    return [
        model[0],
        f"{100 * model[1]:g} %",
        str(model[2]),
        _mean(fitted, "temperature", ".2f"),
        _mean(plain, "ece_percent"),
        _mean(fitted, "ece_percent"),
        _mean(plain, "saturated_percent"),
        _aua(plain),
        _aua(fitted),
        _aua(rules[least]),
        _told(least),
        str(len(fitted)),
    ]


def _mean(records: list[dict], measure: str, digits: str = ".1f") -> str:
    mean = Cell.of(records, measure).mean
    return "—" if mean is None else f"{mean:{digits}}"


def _aua(records: list[dict]) -> str:
    aua, ends = Cell.of(records, "aua_percent"), interval(records, "aua_percent")
    if aua.mean is None:
        return "—"
    spread = "" if aua.deviation is None else f" ± {aua.deviation:.1f}"
    return f"{aua.mean:.1f}{spread}" + (f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else "")


def markdown(records: list[dict]) -> str:
    """A table per attack and set of rows; empty where nothing was attacked at a temperature."""
    lines = []
    for group in groups(records):
        about, protocols = group.shared, group.protocols
        lines += [
            *([] if lines else [""]),
            f"## Calibration: {about['task']}, {about['encoder']}, {about['recipe']}, candidates "
            f"ranked by {about['score_with']}, {about['checkpoint_rule']} checkpoint"
            + (f", protocols {protocols}" if protocols else ""),
            "",
            "| " + " | ".join(HEADER) + " |",
            "|---" * len(HEADER) + "|",
            *("| " + " | ".join(_line(m, rules)) + " |" for m, rules in group.models.items()),
            "",
            *(line for note in group.notes for line in (note, "")),
        ]
    if lines:
        lines += [
            "Temperature: fitted on dev rows. ECE: expected calibration error on the attacked "
            "rows. Saturated: rows whose top probability is 1.0 to the last digit of float32. "
            "Fitted: attacked again with logits divided by the temperature. Least: the worst of "
            "all temperatures tried. Seeds: how many, of those attacked at all of the model's "
            "temperatures. ±: standard deviation over them (n - 1); in brackets 95 % intervals. "
            "With two classes a temperature cannot change the order of candidates: what it lifts "
            "is the saturation of a softmax, or logits too coarse to rank by (bf16); with more "
            "classes it can also change the order.",
            "",
        ]
    return "\n".join(lines)


def csv_text(records: list[dict]) -> str:
    """A line per model and temperature, with the attacks that it was made from."""
    text = io.StringIO()
    writer = csv.writer(text)
    measures = (
        "temperature",
        "ece_percent",
        "saturated_percent",
        "clean_percent",
        "aua_percent",
        "queries_per_row",
    )
    writer.writerow(
        [
            *SHARED,
            "model",
            "sparsity",
            "epochs",
            "temperature_rule",
            "protocol_id",
            "seeds",
            *measures,
            "aua_low_95",
            "aua_high_95",
            "aua_by_seed",
            "attack_ids",
        ]
    )
    for group in groups(records):
        for model, rules in group.models.items():
            for rule, same in rules.items():
                means = [Cell.of(same, m).mean for m in measures]
                writer.writerow(
                    [
                        *map(text_cell, group.shared.values()),
                        text_cell(model[0]),
                        *model[1:3],
                        rule,
                        text_cell(same[0].get("protocol_id")),
                        len(same),
                        *means,
                        *(interval(same, "aua_percent") or ("", "")),
                        Cell.of(same, "aua_percent").by_seed,
                        ";".join(str(r["attack_id"]) for r in same),
                    ]
                )
    return text.getvalue()
