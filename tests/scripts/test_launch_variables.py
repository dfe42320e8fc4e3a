"""Variables that a launcher left behind are refused, with the ones to unset."""

import pytest
from bad_inputs import arguments
from conftest import fails

from utils import launch

LAUNCHES = [  # variables, and those that the line tells to unset
    ({"PMI_SIZE": "2"}, "PMI_SIZE"),
    ({"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}, "LOCAL_RANK"),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_SIZE"),
    ({"MV2_COMM_WORLD_SIZE": "4", "MASTER_PORT": "29500"}, "MV2_COMM_WORLD_SIZE"),
    ({"WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": ""}, "WORLD_SIZE LOCAL_RANK"),
    ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "RANK": "first"}, "WORLD_SIZE"),
    ({"LOCAL_RANK": ""}, "LOCAL_RANK"),
    (
        {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        "WORLD_SIZE",
    ),
    ({"WORLD_SIZE": "2\r"}, "WORLD_SIZE"),
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED"),
]


@pytest.mark.parametrize(("variables", "named"), LAUNCHES, ids=[" ".join(v) for v, _ in LAUNCHES])
@pytest.mark.parametrize(
    "script", ["finetune", "search_ticket", "prune_iteratively", "retrain_ticket"]
)
def test_variables_that_a_launcher_left_behind(
    place, tmp_path, capsys, monkeypatch, script, variables, named
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = fails(capsys, script, *arguments(place, tmp_path / "out", script, {}))
    assert f"unset {named}" in line and list(variables)[0] + "=" in line
    assert not (tmp_path / "out").exists()
    for name in named.split():  # the remedy
        monkeypatch.delenv(name)
    launch.check()
    assert not launch.announced()
