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
    return verdicts.read(folder)


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
    suites = verdicts.read(tmp_path)
    gains = [suites.models[m][0].states["union"].accuracy() for m in (ROBUST, DENSE)]
    assert gains == [62.5, 50] and verdicts.gate(suites)["verdict"] == "failed"


def test_the_gate_looks_at_three_seeds_or_at_six(tmp_path):
    """A rule that looks after every seed stops at luck; a verdict of three seeds stays."""
    seeds = (11, 12, 13, 14, 15, 16)
    passing, open_at_first = (40, 41, 40, 30, 30, 30), (30, 45, 31, 40, 40, 41)
    for counts, known, used, verdict in (
        (passing, 3, 3, "passed"),
        (passing, 6, 3, "passed"),
        (open_at_first, 4, 3, "undecided"),
        (open_at_first, 6, 6, "passed"),
    ):
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
    text = verdicts.markdown(verdicts.read(tmp_path))
    assert "| H2 | robust > K = 0 | — | — | — | — | not run |" in text
    cells = "|  |  |  | — | — | — | 100 | `sh scripts/second_half.sh 2` |"
    assert f"| 2 | sst2 | ticket-magnitude-0.3 {cells}" in text


def near_chance(seed: int, task: str) -> dict:
    failed = surviving(seed, task, 30)
    clean = [[-0.5]] * 85 + [[0.5]] * 115
    return failed | {"margins": failed["margins"] | {"clean": clean}}


def test_a_run_near_chance_is_reported_and_its_seed_does_not_count(tmp_path):
    robust = [surviving(seed, task, 40) for seed in (11, 12, 13) for task in GATE_TASKS]
    dense = [surviving(seed, task, 30) for seed in (11, 13) for task in GATE_TASKS]
    dense += [near_chance(12, "sst2"), surviving(12, "builtin/rotten_tomatoes", 30)]
    write(tmp_path, robust, f"{ROBUST}.jsonl")
    write(tmp_path, dense, f"{DENSE}.jsonl")
    suites = verdicts.read(tmp_path)
    (why,) = suites.notes
    assert why.startswith(f"{DENSE} on sst2, seed 12: Clean 57.5 % is below chance plus 10 points")
    assert verdicts.gate(suites)["seeds"] == [11, 13]
    text = verdicts.markdown(suites)
    assert why in text and "| 1 | sst2 | dense-epochs19 | 30.0 | excluded | 30.0 |  |" in text
    assert '`SEEDS="12' not in text


def test_a_suite_without_all_attacks_does_not_count(tmp_path):
    """Its union is weaker, so it would pass for a gain."""
    for model, survivors in ((ROBUST, 45), (DENSE, 30)):
        lines = [surviving(s, t, survivors) for s in (11, 12, 13) for t in GATE_TASKS]
        if model == ROBUST:
            del lines[0]["rows_per_part"]["carried"]
        write(tmp_path, lines, f"{model}.jsonl")
    suites = verdicts.read(tmp_path)
    assert verdicts.gate(suites)["verdict"] is None
    assert suites.notes[0].startswith(
        f"{ROBUST} on builtin/rotten_tomatoes, seed 11: the suite lacks"
    )
    assert "carried, so it does not count" in verdicts.markdown(suites)


def test_the_gate_has_the_texts_of_its_phase(tmp_path):
    """A later phase attacks again with further carried texts; the hypotheses have those."""
    for model, survivors in ((ROBUST, 40), (DENSE, 30)):
        runs_of = [(s, t) for s in (11, 12, 13) for t in {*GATE_TASKS, *TASKS}]
        lines = [surviving(s, t, survivors) for s, t in runs_of]
        write(
            tmp_path,
            lines
            + [
                surviving(s, t, 20) | {"checkpoint_sha256": line["checkpoint_sha256"]}
                for (s, t), line in zip(runs_of, lines, strict=True)
            ],
            f"{model}.jsonl",
        )
    suites = verdicts.read(tmp_path)
    assert verdicts.gate(suites)["class_equalized_gain"][0] == pytest.approx(10)
    assert verdicts.hypotheses(suites)[0]["difference"][0] == 0


def test_a_difference_without_any_variance_is_the_first_to_be_rejected(tmp_path):
    """Its p is 0, which is not the same as unknown. All rows gain, in all seeds."""
    seeds = (11, 12, 13)
    tables = {ROBUST: runs(TASKS, seeds, ROWS), DENSE: runs(TASKS, seeds, 0)}
    tables[NO_ADVERSARY] = runs(TASKS, seeds, 40, 60, 50)
    whole, adversary, _ = verdicts.hypotheses(models_of(tmp_path, **tables))
    assert (whole["p"], whole["verdict"]) == (0, "carried by the whole method")
    assert whole["level"] == pytest.approx(1 - 0.05 / 3)
    assert adversary["level"] == pytest.approx(1 - 0.05 / 2)


def test_a_hypothesis_waits_for_all_its_seeds(tmp_path):
    tables = {ROBUST: runs(TASKS, (11, 12), 50, 51), DENSE: runs(TASKS, (11, 12), 30)}
    whole, *_ = verdicts.hypotheses(models_of(tmp_path, **tables))
    assert "verdict" not in whole and whole["seeds"] == [11, 12]


def test_a_difference_the_wrong_way_is_said_and_rejects_nothing(tmp_path):
    seeds = (11, 12, 13)
    tables = {ROBUST: runs(TASKS, seeds, 50, 51, 50), DENSE: runs(TASKS, seeds, 30)}
    tables[NO_ADVERSARY] = runs(TASKS, seeds, 80, 81, 80)
    whole, adversary, _ = verdicts.hypotheses(models_of(tmp_path, **tables))
    assert adversary["verdict"].endswith("; the difference is below 0")
    assert whole["level"] == pytest.approx(1 - 0.05 / 3)
    assert adversary["level"] == pytest.approx(1 - 0.05 / 2)


def test_two_checkpoints_of_one_seed_are_refused(tmp_path, capsys):
    lines = [surviving(seed, task, 30) for seed in (11, 12, 13) for task in GATE_TASKS]
    for model in (ROBUST, DENSE):
        write(tmp_path, [*lines, lines[0] | {"checkpoint_sha256": "other"}], f"{model}.jsonl")
    out = tmp_path / "out"
    error = fails(capsys, "analysis.verdicts", "--suites", tmp_path, "--output_dir", out)
    assert "several suites of builtin/rotten_tomatoes, seed 11" in error and not out.exists()


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


def test_a_folder_that_takes_none_is_one_clear_line(capsys):
    folder = ROOT / "results" / "study" / "second-half"
    flags = ("--suites", folder, "--output_dir", "/proc/verdicts")
    assert "/proc/verdicts: No such file or directory; choose another folder" in fails(
        capsys, "analysis.verdicts", *flags
    )
