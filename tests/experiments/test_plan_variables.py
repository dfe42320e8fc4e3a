"""Variables of the environment in a plan: passed on, checked, or refused with their flag."""

import pytest
from conftest import fails
from plan_tools import plan, shell_variables

from experiments import commands, planner

pytestmark = pytest.mark.usefixtures("plain_environment")

OF_DATA_SETS = ("TEXT_COLUMNS", "LABEL_COLUMN", "TRAIN_SPLIT", "TEST_SPLIT")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WEIGHT_DECAY", "-1", "not a number >= 0"),
        ("PRECISION", "fp8", "invalid choice: 'fp8'"),
        ("CHECKPOINT", "first", "invalid choice: 'first'"),
        ("TEMPERATURE", "warm", "a number above 0"),
        ("ATTACK_PRESET", "mine", "invalid choice: 'mine'"),
        ("QUERY_BUDGET", "0", "whole number >= 1"),
        ("COMPARED_WITH", "runs/a", "--compared_with"),
        ("MAX_TRAIN_ROWS", "2e3", "not a whole number"),
        ("SEARCH_EPOCHS", "0", "whole number >= 1"),
        ("LAMBDA", "x", "not a number >= 0"),
        ("GROUP_BY_LENGTH", "maybe", "yes or no"),
        ("LAMBDA", "0.5\r", "contains a carriage return"),
        ("PRECISION", "fp32\r", "contains a carriage return"),
    ],
)
def test_nonsense_in_the_environment_is_refused_by_its_name(
    tmp_path, capsys, monkeypatch, variable, value, message
):
    monkeypatch.setenv(variable, value)
    flags = ("table1", "--scale", "mini", "--runs", tmp_path / "r", "--dry_run")
    line = fails(capsys, "reproduce", *flags)
    assert line.startswith(f"error: {variable} in the environment: ") and message in line


@pytest.mark.slow
def test_the_variables_of_the_stages_work_in_a_plan(tmp_path, monkeypatch):
    """A variable that the plan does not decide changes the commands of its stages."""
    usual = plan("table1", tmp_path)
    values = {
        "PRECISION": "fp32",
        "DEVIATIONS": "released",
        "CHECKPOINT": "best",
        "ATTACK_PRESET": "paper",
        "ROW_CHOICE": "random",
        "SCORE_WITH": "softmax",
        "LR": "0.5",
        "MASK_LR": "0.5",
        "IMP_LR": "0.5",
        "IMP_SHARE": "0.05",
    }
    stages = {"1": "dense", "2": "search-robust", "3": "ticket-robust-0.3"}
    checked = 0
    for stage, name in stages.items():
        for variable in shell_variables(stage, f"{stage}a"):
            # ATTACK is not read; COMPARED_WITH needs another preset; the rest is for data sets.
            if variable in (*planner.FLAG_OF, "ATTACK", "COMPARED_WITH", *OF_DATA_SETS):
                continue
            run = "scores-imp" if variable.startswith("IMP_") else name
            with monkeypatch.context() as patch:
                patch.setenv(variable, values.get(variable, "7"))
                job = plan("table1", tmp_path)[run]
            assert (job.training, job.attacks) != (usual[run].training, usual[run].attacks), (
                variable
            )
            checked += 1
    assert checked > 40


def test_the_seed_and_the_resources_of_attacks_may_be_set(monkeypatch):
    monkeypatch.setenv("SEED", "5")  # the plan decides the seed of the stages
    monkeypatch.setenv("ATTACK_SEED", "7")
    monkeypatch.setenv("NEIGHBOURS", "table.json")
    args = commands.make("attack", {"model_name": "run", "recipe": "textfooler-neighbours"}).args
    assert (args.seed, args.neighbours, args.data_dir) == (7, "table.json", None)


@pytest.mark.parametrize(
    ("value", "message"),
    [("2.5", "whole number"), ("0", "needs an adversary"), ("x", "whole number")],
)
def test_numbers_in_the_environment_are_checked(tmp_path, capsys, monkeypatch, value, message):
    monkeypatch.setenv("ADV_STEPS", value)
    line = fails(capsys, "reproduce", "table1", "--scale", "mini", "--runs", tmp_path, "--dry_run")
    assert "ADV_STEPS" in line and message in line


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("--tasks", "TASKS"),
        ("--seeds", "SEEDS"),
        ("--encoder", "MODEL"),
        ("--data", "DATA"),
        ("--runs", "RUNS TAG SCORES_TAG"),
        ("--gpus", "GPUS"),
        ("--recipes", "RECIPES"),
        ("--num_examples", "NUM_EXAMPLES"),
        ("--rows", "METHODS KINDS REINIT SPARSITIES IMP_SPARSITY"),
        ("--controls or --no-controls", "STOP_AT_LOSS"),
        ("--scale", "EPOCHS ATTACK_EPOCHS"),
    ],
)
def test_a_variable_that_the_plan_decides_is_refused_with_its_flag(
    tmp_path, capsys, monkeypatch, flag, names
):
    flags = ("table1", "--scale", "mini", "--runs", tmp_path / "r")
    for name in names.split():
        with monkeypatch.context() as patch:
            patch.setenv(name, "7")
            for dry_run in ([], ["--dry_run"]):
                line = fails(capsys, "reproduce", *flags, *dry_run)
                assert line == f"error: {name} is set in the environment: unset it, and give {flag}"
    assert not (tmp_path / "r").exists()
