"""The verdicts of the study's second half, by the rules of docs/analysis_plan.md."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evaluation.by_class import Rate
from evaluation.intervals import Pair, holm_levels, mean_difference, p_of_mean_difference
from evaluation.presets import SUITE_CONSTRAINED
from reporting import suite_records
from reporting.compared_suites import EQUALIZED, compare, measures, pairs_by_task
from reporting.render import NONE, bounds, markdown_table, number, paragraphs, rate
from reporting.suite_records import SuiteRecord
from utils.cli import UserError

Models = dict[str, list[SuiteRecord]]  # name of the run folder -> its suites

ROBUST, DENSE = "ticket-robust-0.3", "dense-epochs19"
NO_ADVERSARY, RANDOM = "ticket-no_adversary-0.3", "ticket-random_matched-0.3"
SEEDS = (11, 12, 13)
FURTHER_SEEDS = (14, 15, 16)  # of the gate, on the same masks, where three seeds do not decide
GATE_TASKS = ("builtin/rotten_tomatoes", "sst2")
TASKS = ("sst2", "ag_news")  # of the hypotheses
LEAST_GAIN, EQUIVALENCE = 4.0, 3.0  # points
UNDECIDED = "undecided"
ALL_PARTS = {"dev", *SUITE_CONSTRAINED}
ABOVE_CHANCE = 10.0  # points of Clean that a run needs in order to count
EQUAL_CLEAN = "Aua, margin attack, reference with equal Clean"


class Phase(NamedTuple):
    """`minutes`: of one core per seed, an estimate. `runs`: (task, run folder)."""

    name: str
    minutes: int
    runs: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...] = SEEDS


PHASES = (
    Phase("1", 150, tuple((task, model) for task in GATE_TASKS for model in (ROBUST, DENSE))),
    Phase("2", 100, tuple(("sst2", m) for m in (NO_ADVERSARY, RANDOM, "ticket-magnitude-0.3"))),
    Phase("2b", 70, (("sst2", "ticket-not_held-0.3"), ("sst2", "dense-freelb-epochs10"))),
    Phase("3", 340, tuple(("ag_news", m) for m in (ROBUST, DENSE, NO_ADVERSARY, RANDOM))),
    Phase("3b", 30, (("sst2", "ticket-ag_news-0.3"),)),
    Phase("3c", 180, (("sst2", "ticket-robust-0.3-long"),), SEEDS[:1]),
)


class Hypothesis(NamedTuple):
    name: str
    words: str
    better: str
    worse: str
    isolates: str


HYPOTHESES = (
    Hypothesis("H1", "robust > dense, 19 epochs", ROBUST, DENSE, "the whole method"),
    Hypothesis("H2", "robust > K = 0", ROBUST, NO_ADVERSARY, "the adversary"),
    Hypothesis("H3", "K = 0 > random", NO_ADVERSARY, RANDOM, "the search"),
)

OF_RUNS = (
    "Class-equalized Aua in % by seed. —: not planned. Minutes: of one core, for the whole phase "
    "with one seed, estimated."
)


@dataclass
class Suites:
    """What counts. `models`: run folder -> suites; `first`: the same, before later phases carried
    further texts. `excluded`: (run folder, task, seed) near chance. `notes`: what does not count.
    """

    models: Models
    first: Models
    excluded: set[tuple[str, str, int | None]]
    notes: list[str]

    def seeds(self, names: Iterable[str], tasks: Iterable[str]) -> set[int | None]:
        """Seeds with a suite of each of these models on each of these tasks."""
        names, tasks = list(names), list(tasks)
        known = [
            {s.seed for s in self.models.get(m, ()) if s.task == t} for m in names for t in tasks
        ]
        return set.intersection(*known)

    def planned(
        self, seeds: Iterable[int], names: Iterable[str], tasks: Iterable[str]
    ) -> tuple[int, ...]:
        """The seeds without those whose comparison lacks an excluded run."""
        names, tasks = list(names), list(tasks)
        lost = {seed for model, task, seed in self.excluded if model in names and task in tasks}
        return tuple(seed for seed in seeds if seed not in lost)


def read(folder: Path) -> Suites:
    """The suites in MODEL.jsonl of a folder.

    Raises UserError if the folder has no suite of a run of PHASES.
    """
    suites = Suites({}, {}, set(), [])
    for model in dict.fromkeys(model for phase in PHASES for _, model in phase.runs):
        path = folder / f"{model}.jsonl"
        for newest in (True, False) if path.is_file() else ():
            for suite in suite_records.read([path], newest):
                why = _why_not(suite)
                if why is None:
                    into = suites.models if newest else suites.first
                    into.setdefault(model, []).append(suite)
                elif newest:
                    start = f"{model} on {suite.task}, seed {suite.seed}"
                    suites.notes.append(f"{start}: {why}, so it does not count.")
                    if not (ALL_PARTS - suite.parts):
                        suites.excluded.add((model, suite.task, suite.seed))
    if not suites.models and not suites.notes:
        raise UserError(f"{folder} has no suites of the second half; run: {command('1')}")
    return suites


def _why_not(suite: SuiteRecord) -> str | None:
    if lacking := sorted(ALL_PARTS - suite.parts):
        return f"the suite lacks the part {', '.join(lacking)}"
    clean, classes = suite.states["clean"].accuracy(), len(suite.states["clean"].label_names)
    if clean < 100 / classes + ABOVE_CHANCE:
        return f"Clean {clean:.1f} % is below chance plus {ABOVE_CHANCE:g} points"
    return None


def command(phase: str, seeds: Iterable[int] = SEEDS) -> str:
    seeds = tuple(seeds)
    words = "" if seeds == SEEDS else f'SEEDS="{" ".join(map(str, seeds))}" '
    return f"{words}sh scripts/second_half.sh {phase}"


def gate(suites: Suites) -> dict:
    """Phase 1: passed, failed or undecided, from the seeds that the plan names; None if not run.

    Three seeds decide, or the rule is applied once more with all six. It is not applied in between:
    a rule that looks after every seed would stop at a lucky one.
    """
    of_gate = {"verdict": None, "seeds": []}
    for planned in (SEEDS, SEEDS + FURTHER_SEEDS):
        seeds = suites.planned(planned, (ROBUST, DENSE), GATE_TASKS)
        known = suites.seeds((ROBUST, DENSE), GATE_TASKS)
        if of_gate["verdict"] in (None, UNDECIDED) and known.issuperset(seeds) and len(seeds) > 1:
            of_gate = _gate_of(suites, seeds)
    return of_gate


def _gate_of(suites: Suites, seeds: tuple[int, ...]) -> dict:
    sides = [
        [s for s in suites.first[m] if s.seed in seeds and s.task in GATE_TASKS]
        for m in (ROBUST, DENSE)
    ]
    of_mean = compare(*sides)["mean"]["measures"]
    gain, low, high = of_mean[EQUALIZED]["difference"]
    of_equal_clean = of_mean[EQUAL_CLEAN]["difference"]
    # A gain that a bias explains as well fails, however large it is.
    if (low >= -EQUIVALENCE and high <= EQUIVALENCE) or of_equal_clean[0] <= 0:
        verdict = "failed"
    else:
        verdict = "passed" if gain >= LEAST_GAIN and low > 0 else UNDECIDED
    return {
        "verdict": verdict,
        "seeds": list(seeds),
        "class_equalized_gain": [gain, low, high],
        "minus_dense_of_equal_clean": of_equal_clean,
    }


def hypotheses(suites: Suites) -> list[dict]:
    """A line per primary hypothesis. Holm's steps count one that was not run, or whose difference
    is below 0, as not rejected (p = 1)."""
    tables = [_tables(suites, h) for h in HYPOTHESES]
    p_values = [p_of_mean_difference(pairs) if pairs else None for _, pairs in tables]
    wanted = [bool(pairs) and mean_difference(pairs)[0] > 0 for _, pairs in tables]
    ranked = [1.0 if p is None or not w else p for p, w in zip(p_values, wanted, strict=True)]
    levels = holm_levels(ranked)
    lines = []
    for h, (seeds, pairs), p, level in zip(HYPOTHESES, tables, p_values, levels, strict=True):
        line = {"name": h.name, "hypothesis": h.words, "seeds": seeds}
        if pairs:
            mean, low, high = mean_difference(pairs, level)
            line |= {"difference": [mean, low, high], "level": level, "p": p}
            line["verdict"] = verdict_of(low, high, h.isolates)
        lines.append(line)
    return lines


def verdict_of(low: float, high: float, isolates: str) -> str:
    """In the plan's words, from the interval of a hypothesis."""
    if low > 0:
        return f"carried by {isolates}"
    if low >= -EQUIVALENCE and high <= EQUIVALENCE:
        return f"not carried by {isolates}"
    below = "; the difference is below 0" if high < 0 else ""
    return f"undecided, plus or minus {(high - low) / 2:.1f}{below}"


def _tables(suites: Suites, h: Hypothesis) -> tuple[list, list[Pair]]:
    """(its seeds, outcomes at each model's bias by task); no outcomes before all seeds have run."""
    seeds = suites.planned(SEEDS, (h.better, h.worse), TASKS)
    known = suites.seeds((h.better, h.worse), TASKS)
    if len(seeds) < 2 or not known.issuperset(seeds):
        return sorted(known & set(seeds), key=str), []
    mine, theirs = (
        [s for s in suites.models[m] if s.seed in seeds and s.task in TASKS]
        for m in (h.better, h.worse)
    )
    tables = []
    for pairs in pairs_by_task(mine, theirs).values():
        right = measures(pairs[0][0].states["union"].label_names)[EQUALIZED]
        tables.append(tuple([right(s) for s in side] for side in zip(*pairs, strict=True)))
    return list(seeds), tables


def markdown(suites: Suites) -> str:
    """The verdicts, and the class-equalized Aua of every run, or the command that fills it."""
    of_gate = gate(suites)
    parts = ["# Verdicts of the study's second half", *suites.notes, "## Gate"]
    if of_gate["verdict"] is None:
        parts.append(f"Not run: `{command('1')}`.")
    else:
        gain, of_equal = (
            rate(Rate(*of_gate[name]))
            for name in ("class_equalized_gain", "minus_dense_of_equal_clean")
        )
        seeds = ", ".join(map(str, of_gate["seeds"]))
        parts.append(
            f"**{of_gate['verdict'].capitalize()}**, seeds {seeds}. Class-equalized gain, mean of "
            f"both data sets: {gain} points. Mean Aua of the tickets minus that of dense models of "
            f"equal Clean, under the margin attack: {of_equal} points."
        )
    header = ["", "hypothesis", "seeds", "difference", "Holm's level", "p", "verdict"]
    parts += ["## Primary hypotheses", markdown_table(header, map(_row, hypotheses(suites)), 2)]
    parts += ["## Runs", OF_RUNS]
    return paragraphs([*parts, runs_table(suites)])


def _row(line: dict) -> list[str]:
    start = [line["name"], line["hypothesis"], ", ".join(map(str, line["seeds"])) or NONE]
    if "verdict" not in line:
        return [*start, NONE, NONE, NONE, "not run"]
    mean, low, high = line["difference"]
    points = f"{number(mean, '+.1f')} {bounds(low, high)}"
    return [*start, points, f"{100 * line['level']:.1f} %", f"{line['p']:.2g}", line["verdict"]]


def runs_table(suites: Suites) -> str:
    """A row per run of each phase: its class-equalized Aua by seed, or what fills it."""
    seeds = (*SEEDS, *FURTHER_SEEDS)
    rows = []
    for phase in PHASES:
        planned = seeds if phase.name == "1" else phase.seeds
        for task, model in phase.runs:
            known = {s.seed: s for s in suites.models.get(model, ()) if s.task == task}
            out = {seed for m, t, seed in suites.excluded if (m, t) == (model, task)}
            cells = [
                number(known[seed].states["union"].accuracy(known[seed].bias))
                if seed in known
                else ("excluded" if seed in out else "" if seed in planned else NONE)
                for seed in seeds
            ]
            lacking = [seed for seed in planned if seed not in known and seed not in out]
            to_run = f"`{command(phase.name, lacking)}`" if lacking else ""
            minutes = str(phase.minutes) if lacking else ""
            rows.append([phase.name, task, model, *cells, minutes, to_run])
    header = ["phase", "task", "model", *map(str, seeds), "minutes", "what fills it"]
    return markdown_table(header, rows, 3)
