"""Aua before and after calibration: what of it a saturated softmax lent."""

import csv
import io

from utils.report.records import COMPARISON, ROW_SETTINGS, Cell, interval, one_per_seed, text_cell

# What records at several temperatures share; their protocols' ids differ by the temperature.
SHARED = tuple(key for key in COMPARISON if key not in ("temperature_rule", "protocol_id"))
HEADER = ("model", "sparsity", "epochs", "temperature", "ECE %", "ECE % fitted", "saturated %",
          "Aua %", "Aua % fitted", "least Aua %", "at")  # fmt: skip


def groups(records: list[dict]) -> dict[tuple, dict[tuple, dict[str, list[dict]]]]:
    """(what is shared) -> (model) -> temperature rule ("1": as trained) -> records, one a seed.

    Only models that were attacked at a fitted temperature, too.
    """
    found: dict[tuple, dict[tuple, dict[str, list[dict]]]] = {}
    for r in records:
        shared = tuple(r.get(key) for key in SHARED)
        model = (r["name"], r["sparsity"], r["epochs"], r["protocol"], r.get("training_rows"),
                 *(r.get(name) for name in ROW_SETTINGS))  # fmt: skip
        rule = r.get("temperature_rule") or "1"
        found.setdefault(shared, {}).setdefault(model, {}).setdefault(rule, []).append(r)
    calibrated = {
        shared: {
            model: {rule: one_per_seed(same) for rule, same in rules.items()}
            for model, rules in models.items()
            if "fitted" in rules
        }
        for shared, models in found.items()
    }
    return {shared: models for shared, models in calibrated.items() if models}


def _line(model: tuple, rules: dict[str, list[dict]]) -> list[str]:
    """Cells as HEADER has them; means over seeds, Aua with its 95 % interval."""
    fitted, plain = rules["fitted"], rules.get("1", [])
    least = min(rules, key=lambda rule: Cell.of(rules[rule], "aua_percent").mean)
    return [model[0], f"{100 * model[1]:g} %", str(model[2]), _mean(fitted, "temperature", ".2f"),
            _mean(plain, "ece_percent"), _mean(fitted, "ece_percent"),
            _mean(plain, "saturated_percent"), _aua(plain), _aua(fitted), _aua(rules[least]),
            "as trained" if least == "1" else least]  # fmt: skip


def _mean(records: list[dict], measure: str, digits: str = ".1f") -> str:
    mean = Cell.of(records, measure).mean
    return "—" if mean is None else f"{mean:{digits}}"


def _aua(records: list[dict]) -> str:
    mean, ends = Cell.of(records, "aua_percent").mean, interval(records, "aua_percent")
    if mean is None:
        return "—"
    return f"{mean:.1f}" + (f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else "")


def markdown(records: list[dict]) -> str:
    """A table per attack and set of rows; empty where nothing was attacked at a temperature."""
    lines = []
    for shared, models in groups(records).items():
        about = dict(zip(SHARED, shared, strict=True))
        lines += [
            f"## Calibration: {about['task']}, {about['encoder']}, {about['recipe']}, candidates "
            f"ranked by {about['score_with']}, {about['checkpoint_rule']} checkpoint",
            "",
            "| " + " | ".join(HEADER) + " |",
            "|---" * len(HEADER) + "|",
            *("| " + " | ".join(_line(m, rules)) + " |" for m, rules in models.items()),
            "",
        ]
    if lines:
        lines += [
            "Temperature: fitted on dev rows. ECE: expected calibration error on the attacked "
            "rows. Saturated: rows whose top probability is 1.0 to the last digit of float32. "
            "Fitted: attacked again with logits divided by the temperature. Least: the worst of "
            "all temperatures tried. With two classes a temperature cannot change the order of "
            "candidates: what it lifts is the saturation of a softmax, or logits too coarse to "
            "rank by (bf16); with more classes it can also change the order.",
            "",
        ]
    return "\n".join(lines)


def csv_text(records: list[dict]) -> str:
    """A line per model and temperature, with the attacks that it was made from."""
    text = io.StringIO()
    writer = csv.writer(text)
    measures = ("temperature", "ece_percent", "saturated_percent", "clean_percent", "aua_percent",
                "queries_per_row")  # fmt: skip
    writer.writerow([*SHARED, "model", "sparsity", "epochs", "temperature_rule", "seeds", *measures,
                     "aua_low_95", "aua_high_95", "attack_ids"])  # fmt: skip
    for shared, models in groups(records).items():
        for model, rules in models.items():
            for rule, same in rules.items():
                means = [Cell.of(same, m).mean for m in measures]
                writer.writerow([*map(text_cell, shared), text_cell(model[0]), *model[1:3], rule,
                                 len(same), *means,
                                 *(interval(same, "aua_percent") or ("", "")),
                                 ";".join(str(r["attack_id"]) for r in same)])  # fmt: skip
    return text.getvalue()
