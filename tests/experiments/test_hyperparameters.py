"""The stage scripts and the plans: the same folders, numbers and attacks."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from shell_tools import STAGES, shell

from experiments import commands
from experiments.hyperparameters import HYPERPARAMETERS, hyperparameters_of
from experiments.models import Model
from experiments.pipeline import FROM_STAGE_1, Pipeline, Place
from experiments.scales import SCALES

METHODS = ("plain", "freelb", "pgd", "infobert")
SEARCHES = ("robust", "no_adversary")
PRUNINGS = ("imp", "imp_freelb", "imp_pgd", "imp_infobert")
RECIPES = ["bertattack", "textfooler", "textbugger"]


@pytest.fixture
def shell_commands(echo_python):
    """Commands of a stage script, by script name and words, with variables set."""

    def run(stage: str, **variables: str) -> list[commands.Command]:
        done = shell(STAGES[int(stage) - 1], {"PYTHON": echo_python} | variables)
        note = "note: owner/name:config has no settings of its own; it takes those of sst2\n"
        assert done.returncode == 0 and done.stderr in ("", note)
        lines = [re.findall("<(.*?)>", line) for line in done.stdout.splitlines()]
        return [
            commands.Command(Path(name).stem, (), commands.parse(Path(name).stem, tuple(words)))
            for name, *words in lines
        ]

    return run


def place_of(task: str, runs: Path) -> Place:
    scale = replace(SCALES["paper"], encoder="some/bert")
    return Place(Pipeline(scale, runs, RECIPES), task, 7)


def settings_of(command: commands.Command) -> tuple[str, dict]:
    return command.script, vars(command.args)


def assert_same(shell: list[commands.Command], place: Place, *runs: str) -> None:
    """The commands of the planned runs, those that make scores and attacks included."""
    planned = [
        command
        for job in (place.pipeline.jobs[place.name(run)] for run in runs)
        for command in (job.prepare, job.training, *(attack.command for attack in job.attacks))
        if command is not None
    ]
    assert [settings_of(c) for c in shell] == [settings_of(c) for c in planned]


@pytest.mark.slow
@pytest.mark.parametrize("task", [*HYPERPARAMETERS, "owner/name:config"])
def test_the_shell_blocks_and_the_plan_hold_the_same_numbers(task, shell_commands, tmp_path):
    common = {"TASKS": task, "SEEDS": "7", "RUNS": str(tmp_path / "my runs"), "MODEL": "some/bert"}
    common |= {"RECIPES": " ".join(RECIPES)}
    place = place_of(task, tmp_path / "my runs")

    for method in METHODS:
        place.add_model(Model(method=method))
    folders = ["dense", *(f"dense-{method}" for method in METHODS[1:])]
    shell = shell_commands("1", **common, METHODS=" ".join(METHODS), ATTACK="yes")
    assert_same(shell, place, *folders)

    for kind in SEARCHES:
        place.add_search(kind)
    for kind in PRUNINGS:
        place.add_pruning(kind)
    folders = [f"search-{kind}" for kind in SEARCHES] + [f"scores-{kind}" for kind in PRUNINGS]
    del common["RECIPES"]
    shell = shell_commands("2", **common, KINDS=" ".join((*SEARCHES, *PRUNINGS)))
    assert_same(shell, place, *folders)

    kinds = (*SEARCHES, *PRUNINGS, "random", "random_matched", "magnitude", *FROM_STAGE_1)
    for kind in kinds:
        place.add_model(Model(kind=kind).at(task))
    sparsity = f"{hyperparameters_of(task).sparsity:g}"
    shell = shell_commands("3", **common, KINDS=" ".join(kinds))
    assert_same(shell, place, *(f"ticket-{kind}-{sparsity}" for kind in kinds))


def test_variants_have_the_same_folders(shell_commands, tmp_path):
    common = {"TASKS": "sst2", "SEEDS": "7", "RUNS": str(tmp_path), "MODEL": "some/bert"}
    place = place_of("sst2", tmp_path)
    for reinitialise in ("ticket", "rest"):
        model = Model(kind="robust", sparsity=0.3, reinitialise=reinitialise, epochs=10)
        place.add_model(model)
    shell = shell_commands("3", **common, REINIT="ticket rest", EPOCHS="10", TAG="-epochs10")
    names = [f"ticket-robust-0.3-reinit_{what}-epochs10" for what in ("ticket", "rest")]
    assert_same(shell, place, *names)

    model = Model(kind="robust", sparsity=0.5, search=(("penalty_mean", "matrices"),))
    place.add_model(model)
    tag = "-penalty_mean_matrices"
    shell = shell_commands("3", **common, SPARSITIES="0.5", SCORES_TAG=tag, TAG=tag)
    assert_same(shell, place, f"ticket-robust-0.5{tag}")

    place.add_model(Model(epochs=26, stop_at=Model(kind="robust", sparsity=0.3)))
    ticket = "ticket-robust-0.3"
    stop = {"STOP_AT_LOSS": str(place.folder / ticket), "EPOCHS": "26", "TAG": f"-loss_of-{ticket}"}
    shell = shell_commands("1", **common, **stop, ATTACK="yes")
    assert_same(shell, place, f"dense-loss_of-{ticket}")

    place.add_model(Model(kind="imp", sparsity=0.8))
    highest = {"IMP_SPARSITY": "0.9", "TAG": "-to0.9", "KINDS": "imp"}
    assert_same(shell_commands("2", **common, **highest), place, "scores-imp-to0.9")
