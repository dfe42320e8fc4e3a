"""The record of a suite: percentages, margins and flags."""

import math

import numpy as np

from evaluation import checkpoints, checks, default_answer, protocol
from evaluation.margins import Margins, letters_of
from evaluation.outcomes import LETTERS, SKIPPED, encode_labels
from evaluation.presets import SUITE_CONSTRAINED, SUITE_PARTS
from utils.environment import environment

# Keys of a record's percentages and margins, as a table shows them.
STATES = {
    "clean": "Clean",
    "margin": "Aua, margin attack",
    "alone": "Aua, union without carried texts",
    "union": "Aua, union of the attacks",
    "lower_bound": "Aua, union without the similarity constraint",
}
LARGEST_SPREAD = 20.0  # points between the classes of the dev rows at the equalizing bias
EXAMINED = ("rows_answered_differently_twice", "classes_answered", "saturated_percent")
BUDGETS = (10, 20, 50, 100, 200, 500)  # victim queries per row


def margins_of(lines: list[dict], label_names: tuple[str, ...], entry: int) -> Margins:
    """Margins from one entry of each line's curve (0: before the attack, -1: after it)."""
    labels = np.array([line["label"] for line in lines], dtype=int)
    values = np.full((len(lines), len(label_names)), np.inf)
    for i, line in enumerate(lines):
        values[i, np.arange(len(label_names)) != line["label"]] = line["curve"][entry][1:]
    return Margins(labels, values, label_names)


def summarize(suite, answers: dict) -> dict:
    """The record of a `suite.Suite`. Its margins are enough to compute its percentages again.

    `answers`: of the model to the attacked rows, from `checks.examine`.
    """
    setup, args = suite.setup, suite.args
    names, bias = setup.task.label_names, suite.bias
    known = setup.target.known(setup.task)
    record = {
        "kind": "suite",
        **known,
        "trained_max_seq_length": known.get("max_seq_length"),
        "max_seq_length": setup.max_seq_length,
        "made_in": [setup.target.home.resolve().name, suite.folder.name],
        "task": setup.task.name,
        "checkpoint": setup.target.name,
        "checkpoint_sha256": checkpoints.weights_digest(setup.target),
        "recipe": args.recipe,
        "parts": [part for part in SUITE_PARTS if part in args.suite],
        "attack_seed": args.seed,
        "split": args.split,
        "data": suite.data[args.split],
        "rows": protocol.describe_rows(setup.rows, args.row_choice, args.seed),
        "row_labels": encode_labels(setup.rows.labels),
        "row_ids": setup.rows.ids,
        "rows_attacked": len(setup.rows),
        **suite.overlaps,
        **{name: answers[name] for name in EXAMINED},
    }
    if "margin" in suite.lines:
        states = {"clean": suite.margins("margin", 0), "margin": suite.margins("margin")}
        if "carried" in suite.lines:
            states["alone"] = suite.union(p for p in SUITE_CONSTRAINED if p != "carried")
        states["union"] = suite.union(SUITE_CONSTRAINED)
        if "unconstrained" in suite.lines:
            states["lower_bound"] = suite.union((*SUITE_CONSTRAINED, "unconstrained"))
        letters = letters_of(states["clean"], states["union"])
        record |= {
            "row_outcomes": letters,
            "rows_skipped": letters.count(LETTERS[SKIPPED]),
            "rows_of_equal_importance": count(suite.lines["margin"], "equal_importance"),
            "rows_out_of_budget": count(suite.lines["margin"], "out_of_budget"),
            "bias": None if bias is None else as_list(bias),
            "percent": {name: percentages(state, bias) for name, state in states.items()},
            "rows_per_part": {p: len(lines) for p, lines in suite.lines.items()},
            "aua_by_budget": aua_by_budget(suite.lines["margin"], names),
            "margins": {name: as_lists(state) for name, state in states.items()},
        }
    if "dev" in suite.lines:
        before, after = suite.margins("dev", 0), suite.margins("dev")
        record["dev"] = {
            "data": suite.data["dev"],
            "rows": protocol.describe_rows(suite.dev, "balanced", args.seed),
            "row_labels": encode_labels(before.labels.tolist()),
            "margins": {"clean": as_lists(before), "margin": as_lists(after)},
            "spread_at_bias": float(np.ptp(after.by_class(bias))),
        }
    if suite.answers is not None:
        record["default_answer"] = {"shares": default_answer.SHARES} | suite.answers
    seconds = [line.get("seconds", 0.0) for lines in suite.lines.values() for line in lines]
    record |= {"seconds": round(sum(seconds), 3), "environment": environment()}
    flags = checks.flags_of(record, args.flag_skipped_percent) + flags_of(record)
    return record | {"flags": flags}


def count(lines: list[dict], name: str) -> int:
    """Number of the rows' lines in which `name` holds."""
    return sum(bool(line.get(name)) for line in lines)


def percentages(state: Margins, bias: np.ndarray | None) -> dict:
    """Mean, by class and worst class, at no bias and at the equalizing bias (None without one)."""

    def at(given: np.ndarray | None) -> dict:
        rates = state.by_class(given)
        by_name = {name: float(rate) for name, rate in zip(state.label_names, rates, strict=True)}
        return {
            "mean": state.accuracy(given),
            "by_class": {name: rate for name, rate in by_name.items() if not np.isnan(rate)},
            "worst_class": float(np.nanmin(rates)),
        }

    return {"no_bias": at(None), "equalized": None if bias is None else at(bias)}


def aua_by_budget(lines: list[dict], label_names: tuple[str, ...]) -> dict[str, dict]:
    """Aua of the margin attack by class, without a bias, if it stops after each of BUDGETS."""
    curves = {}
    for budget in (*BUDGETS, None):
        most = math.inf if budget is None else budget
        cut = [
            line | {"curve": [e for e in line["curve"] if e[0] <= max(most, line["curve"][0][0])]}
            for line in lines
        ]
        rates = margins_of(cut, label_names, -1).by_class()
        by_name = {name: float(r) for name, r in zip(label_names, rates, strict=True)}
        curves["all" if budget is None else str(budget)] = by_name
    return curves


def flags_of(record: dict) -> list[dict]:
    """What makes the numbers of a suite doubtful, next to what makes those of an attack so."""
    flags = []
    spread = record.get("dev", {}).get("spread_at_bias", 0.0)
    if spread > LARGEST_SPREAD:
        why = (
            f"even at the equalizing bias the classes of the dev rows differ by {spread:.0f} points"
            ": the class-equalized Aua means nothing"
        )
        flags.append({"flag": "no_equalizing_bias", "why": why})
    answers = record.get("default_answer")
    if answers and (default := default_answer.default_class(answers)):
        name, percent = record["label_names"][default[0]], default[1]
        why = f"the model answers {name} to {percent:.0f} % of texts without content words"
        flags.append({"flag": "default_answer", "why": why})
    return flags


def as_list(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]


def as_lists(state: Margins) -> list[list[float]]:
    """Per row, the margins against the other classes in their order."""
    rows = zip(state.margins, state.labels, strict=True)
    return [as_list(np.delete(values, label)) for values, label in rows]


def in_words(record: dict) -> str:
    """The record as a Markdown table for the terminal."""
    names = record["label_names"]
    lines = [f"{record['task']}, {record['checkpoint']}, {len(record['row_labels'])} rows"]
    if "percent" in record:
        head = ["%", "mean", *names, "worst class", "class-equalized"]
        lines += ["", "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
        for state, percent in record["percent"].items():
            plain, equalized = percent["no_bias"], percent["equalized"]
            cells = [plain["mean"], *(plain["by_class"].get(name) for name in names)]
            cells += [plain["worst_class"], equalized and equalized["mean"]]
            shown = ("" if cell is None else f"{cell:.1f}" for cell in cells)
            lines.append(f"| {STATES[state]} | " + " | ".join(shown) + " |")
    if "default_answer" in record:
        for kind, shares in record["default_answer"].items():
            if kind != "shares":
                last = (f"{name} {p:.0f} %" for name, p in zip(names, shares[-1], strict=True))
                lines.append(f"answers without content words ({kind}): {', '.join(last)}")
    return "\n".join(lines)
