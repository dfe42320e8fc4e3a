"""Variables of the shell scripts: documented, read by their stage, or refused by name."""

import re
import shutil

import pytest
from shell_tools import ROOT, STAGES, shell, stages_of_variables

# The documented variables, and the digits of the stages that read them.
READ_BY = {name: {stage[0] for stage in own} for name, own in stages_of_variables().items()}


@pytest.mark.parametrize("script", STAGES)
def test_the_table_of_variables_lists_what_each_stage_reads(script):
    """A variable that a script takes from outside occurs as ${NAME: or as "NAME="."""
    stage, common = script[5], (ROOT / "scripts" / "common.sh").read_text()
    text = (ROOT / script).read_text() + common
    taken = set(re.findall(r"\$\{([A-Z_]+):", text)) - {"PYTHON", "OMP_WAIT_POLICY"}
    of_attacks = set(re.findall(r"\$\{([A-Z_]+):", common[common.index("attack_run FOLDER") :]))
    documented = {name for name, stages in READ_BY.items() if stage in stages}
    of_attacks |= {"CHECKPOINT", "ATTACK_PRESET", "PROCESSES", "RECIPES"}
    assert documented - of_attacks == taken - of_attacks
    assert of_attacks <= set(READ_BY)


@pytest.mark.parametrize(
    ("script", "variable", "hint"),
    [
        (STAGES[0], "SPARSITIES", ""),
        (STAGES[0], "SEARCH_EPOCHS", " (use EPOCHS)"),
        (STAGES[1], "EPOCHS", " (use SEARCH_EPOCHS or IMP_EPOCHS)"),
        (STAGES[1], "LR", " (use MASK_LR or IMP_LR)"),
        (STAGES[1], "REINIT", ""),
        (STAGES[2], "METHODS", ""),
        (STAGES[2], "ADV_STEPS", ""),
    ],
)
def test_a_variable_that_a_stage_does_not_read_is_an_error(script, variable, hint, echo_python):
    done = shell(script, {"PYTHON": echo_python, variable: "1"})
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == f"error: stage {script[5]} does not read {variable}{hint}; unset it\n"


def test_variables_of_attacks_may_be_set_for_all_stages(echo_python):
    settings = {"PYTHON": echo_python, "TASKS": "sst2", "RECIPES": "pwws", "NUM_EXAMPLES": "7"}
    for script in STAGES[:2]:
        done = shell(script, settings)
        assert done.returncode == 0 and "attack.py" not in done.stdout
        note = "note: this stage does not attack, so it does not read RECIPES NUM_EXAMPLES\n"
        assert done.stderr == note
    for script in (STAGES[0], STAGES[2]):
        done = shell(script, settings | {"ATTACK": "yes"})
        assert "<--recipe><pwws><--num_examples><7>" in done.stdout and not done.stderr


@pytest.mark.parametrize("script", STAGES)
def test_misspelled_variables_are_errors_that_name_the_right_one(script, echo_python):
    settings = {"PYTHON": echo_python, "TASKS": "sst2", "RUN": "7", "TAGS": "x", "PRESET": "hour"}
    assert shell(script, settings).returncode == 0  # variables of other programs
    stage = script[5]
    names = {"SEED": "SEEDS", "TASK": "TASKS", "SPARSITY": "SPARSITIES", "BATCH_SIZE": "BSZ"}
    names |= {"LAMDA": "LAMBDA", "MODELS": "MODEL", "RECIPE": "RECIPES", "NEIGHBORS": "NEIGHBOURS"}
    hints = {name: f"the variable is {right}" for name, right in names.items()}
    of_search = stage == "2"
    hints["EPOCH"] = "use SEARCH_EPOCHS or IMP_EPOCHS" if of_search else "the variable is EPOCHS"
    hints["LEARNING_RATE"] = "use MASK_LR or IMP_LR" if of_search else "the variable is LR"
    for name, hint in hints.items():
        done = shell(script, settings | {name: "3"})
        assert done.returncode == 2 and not done.stdout
        assert done.stderr == f"error: stage {stage} does not read {name} ({hint}); unset it\n"


def test_the_quickstart_ignores_settings_of_the_shell(copied_scripts, echo_python):
    shutil.copy(ROOT / "requirements.txt", copied_scripts)
    python = copied_scripts / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy(ROOT / "requirements.txt", copied_scripts / ".venv" / "requirements.installed")
    shutil.copy(echo_python, python)
    (copied_scripts / "runs" / "quickstart").mkdir(parents=True)

    def commands(**settings: str) -> str:
        done = shell(copied_scripts / "quickstart.sh", settings)
        assert done.returncode == 0, done.stderr
        (copied_scripts / "runs" / "quickstart" / "all-done").unlink()
        return done.stdout

    usual = commands()
    assert usual.count("attack.py>") == 3 and usual.count("<--output_dir>") == 6
    others = dict.fromkeys((*READ_BY, "SEED", "SPARSITY", "BATCH_SIZE"), "7")
    assert commands(**others, PYTHON="/nowhere") == usual
