"""The rules of docs/analysis_plan.md, on suites whose verdict is known."""

import itertools

import numpy as np
import pytest
from conftest import call, fails
from doc_tools import ROOT
from record_tools import suite_record, write

from evaluation.intervals import holm_levels, mean_difference, p_of_mean_difference
from reporting import verdicts
from reporting.verdicts import DENSE, GATE_TASKS, NO_ADVERSARY, RANDOM, ROBUST, TASKS
from utils.files import read_json

ROWS = 100  # of each class


def surviving(seed: int, task: str, negative: int, positive: int | None = None, **more) -> dict:
    """A suite under which this many rows of each class survive; a bias below 0.5 moves none."""
    counts = (negative, negative if positive is None else positive)
    return suite_record(seed, *([0.5] * n + [-0.5] * (ROWS - n) for n in counts), task, **more)


def models_of(folder, **survivors: dict[tuple[str, int], int]):
    """Folder with a file per model. `survivors`: model -> (task, seed) -> rows of each class."""
    for model, of_runs in survivors.items():
        lines = [surviving(seed, task, n) for (task, seed), n in of_runs.items()]
        write(folder, lines, f"{model}.jsonl")
    return verdicts.read(folder)[0]


def runs(tasks, seeds, *counts: int) -> dict[tuple[str, int], int]:
    """(task, seed) -> count, the counts in turn over the seeds."""
    return {(t, s): n for t in tasks for s, n in zip(seeds, itertools.cycle(counts))}


@pytest.mark.parametrize(
    "ticket, verdict",
    [((40, 41, 40), "passed"), ((30, 31, 30), "failed"), ((30, 45, 31), "undecided")],
)
def test_the_gate(tmp_path, ticket, verdict):
    tables = {
        ROBUST: runs(GATE_TASKS, (11, 12, 13), *ticket),
        DENSE: runs(GATE_TASKS, (11, 12, 13), 30),
    }
    gate = verdicts.gate(models_of(tmp_path, **tables))
    gain = np.mean(ticket) - 30
    assert gate["verdict"] == verdict and gate["class_equalized_gain"][0] == pytest.approx(gain)


def test_the_gate_fails_where_a_bias_of_equal_clean_explains_the_gain(tmp_path):
    """The ticket is the dense model with a shifted bias: its mean Aua is 12.5 points higher."""
    negative, positive = [-0.6, -0.2, 0.3, 0.9], [-0.5, -0.1, 0.4, 0.8]
    shifted = [m - 0.55 for m in negative], [m + 0.55 for m in positive]
    for model, margins in ((DENSE, (negative, positive)), (ROBUST, shifted)):
        lines = [suite_record(seed, *margins, task) for seed in (11, 12, 13) for task in GATE_TASKS]
        write(tmp_path, lines, f"{model}.jsonl")
    models, _ = verdicts.read(tmp_path)
    gains = [s.states["union"].accuracy() for s in (models[ROBUST][0], models[DENSE][0])]
    assert gains == [62.5, 50] and verdicts.gate(models)["verdict"] == "failed"


def test_the_gate_looks_at_three_seeds_or_at_six(tmp_path):
    """Seed 14 alone would turn the verdict; a rule that looks after every seed stops at luck."""
    seeds, counts = (11, 12, 13, 14, 15, 16), (40, 41, 40, 30, 30, 30)
    for known, used, verdict in ((3, 3, "passed"), (4, 3, "passed"), (6, 6, "undecided")):
        tables = {
            ROBUST: runs(GATE_TASKS, seeds[:known], *counts),
            DENSE: runs(GATE_TASKS, seeds[:known], 30),
        }
        gate = verdicts.gate(models_of(tmp_path, **tables))
        assert (gate["seeds"], gate["verdict"]) == (list(seeds[:used]), verdict)


def test_the_gate_needs_all_runs(tmp_path):
    robust = runs(GATE_TASKS, (11, 12, 13), 30)
    dense = {run: n for run, n in robust.items() if run != ("sst2", 12)}
    assert verdicts.gate(models_of(tmp_path, **{ROBUST: robust, DENSE: dense}))["verdict"] is None


@pytest.mark.parametrize(
    "p_values, divisors",
    [
        ((0.01, 0.02, 0.04), (3, 2, 1)),
        ((0.04, 0.01, 0.02), (1, 3, 2)),
        ((0.01, 0.04, 0.03), (3, 2, 2)),  # 0.03 is above 0.05 / 2: nothing more is rejected
        ((0.02, 0.001, 0.03), (2, 3, 1)),
        ((0.2, 0.3, 0.017), (3, 3, 3)),  # the first step stops
    ],
)
def test_the_levels_of_holm(p_values, divisors):
    assert holm_levels(p_values) == pytest.approx([1 - 0.05 / d for d in divisors])


def test_p_and_interval_agree():
    """p is the level at which the interval ends at zero."""
    draw = np.random.default_rng(5)
    for _ in range(50):
        pairs = [tuple(draw.random((2, 3, 40)) < draw.uniform(0.2, 0.8, (2, 1, 1))) for _ in "ab"]
        p = p_of_mean_difference(pairs)
        if 1e-6 < p < 0.99:
            for step, excludes in ((0.99, False), (1.01, True)):
                _, low, high = mean_difference(pairs, 1 - p * step)
                assert (low > 0 or high < 0) == excludes
    same = np.ones((3, 40), bool)
    assert p_of_mean_difference([(same, same)]) == 1 and p_of_mean_difference([(same, ~same)]) == 0


def test_hypotheses(tmp_path):
    """Robust and K = 0 alike; random differs by seed; dense is far below, with one seed more."""
    seeds = (11, 12, 13)
    models = models_of(
        tmp_path,
        **{
            ROBUST: runs(TASKS, seeds, 50, 51, 50),
            NO_ADVERSARY: runs(TASKS, seeds, 51, 51, 50),
            RANDOM: runs(TASKS, seeds, 10, 30, 50),
            DENSE: runs(TASKS, (*seeds, 14), 30, 31, 30, 90),
        },
    )
    whole, adversary, search = verdicts.hypotheses(models)
    assert whole["verdict"] == "carried by the whole method" and whole["seeds"] == [11, 12, 13]
    assert whole["difference"][0] == pytest.approx(20) and whole["level"] == pytest.approx(
        1 - 0.05 / 3
    )
    assert adversary["verdict"] == "not carried by the adversary"
    mean, low, high = search["difference"]
    assert (
        search["verdict"] == f"undecided, plus or minus {(high - low) / 2:.1f}" and low < 0 < mean
    )


def test_hypotheses_that_were_not_run_do_not_widen_the_others_level(tmp_path):
    tables = {ROBUST: runs(TASKS, (11, 12, 13), 50, 51, 50), DENSE: runs(TASKS, (11, 12, 13), 30)}
    whole, *others = verdicts.hypotheses(models_of(tmp_path, **tables))
    assert whole["level"] == pytest.approx(1 - 0.05 / 3)
    assert all("verdict" not in line for line in others)
    text = verdicts.markdown(verdicts.read(tmp_path)[0], [])
    assert "| H2 | robust > K = 0 | — | — | — | — | not run |" in text
    cells = "|  |  |  | — | — | — | 100 | `sh scripts/second_half.sh 2` |"
    assert f"| 2 | sst2 | ticket-magnitude-0.3 {cells}" in text


def test_a_run_near_chance_is_reported_and_does_not_count(tmp_path):
    lines = [surviving(seed, task, 30) for seed in (11, 12, 13) for task in GATE_TASKS]
    failed = suite_record(12, [-0.5] * 80 + [0.5] * 20, [0.5] * 100, "sst2")
    failed["margins"]["clean"] = failed["margins"]["margin"]
    write(tmp_path, lines, f"{ROBUST}.jsonl")
    write(tmp_path, [x for x in lines if (x["task"], x["seed"]) != ("sst2", 12)], f"{DENSE}.jsonl")
    models, excluded = verdicts.read(tmp_path)
    assert not excluded and len(models[DENSE]) == 5
    failed["margins"]["clean"] = [[-0.5]] * 85 + [[0.5]] * 115
    write(tmp_path, [failed], f"{DENSE}.jsonl")
    models, excluded = verdicts.read(tmp_path)
    assert DENSE not in models
    (why,) = excluded
    assert why.startswith(f"{DENSE} on sst2, seed 12: Clean 57.5 % is below chance plus 10 points")


def test_the_committed_verdicts_are_those_of_the_records(tmp_path, capsys):
    folder = ROOT / "results" / "study" / "second-half"
    call("analysis.verdicts", "--suites", folder, "--output_dir", tmp_path)
    for name in ("verdicts.md", "verdicts.json"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()
    assert (
        read_json(tmp_path / "verdicts.json")["gate"]["verdict"] in capsys.readouterr().out.lower()
    )


def test_a_folder_without_suites_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    error = fails(capsys, "analysis.verdicts", "--suites", tmp_path / "empty", "--output_dir", out)
    assert "has no suites of the second half; run: sh scripts/second_half.sh 1" in error
    assert not out.exists()
