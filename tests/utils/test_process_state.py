"""The state of the process is restored, and a resumed run keeps its number of threads."""

import logging
import os
import random

import numpy as np
import pytest
import torch
from conftest import differences, state_of_process

from training.settings import FolderSettings
from utils import cli, devices, process_state, runs


def change_everything() -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)
    devices.use_deterministic_kernels(cpu=False)
    torch.backends.cudnn.deterministic = True
    os.environ["NEW_VARIABLE"] = "1"
    os.environ.pop("PATH")
    random.seed(7), np.random.seed(7), torch.manual_seed(7)


def draws() -> tuple:
    """The next number of each global generator. The generators are restored."""
    with process_state.generators():
        return random.random(), float(np.random.random()), float(torch.rand(()))


def test_a_script_restores_the_process():
    before, drawn = state_of_process(), draws()
    cli.run(change_everything)
    assert differences(before, state_of_process()) == [] and draws() == drawn


def test_a_failing_script_restores_the_process(capsys):
    def main():
        change_everything()
        raise cli.UserError("wrong")

    before, drawn = state_of_process(), draws()
    with pytest.raises(SystemExit):
        cli.run(main)
    assert differences(before, state_of_process()) == [] and draws() == drawn


def test_the_check_after_each_test_sees_each_change():
    with process_state.preserved():
        before = state_of_process()
        change_everything()
        changed = {line.split(":")[0] for line in differences(before, state_of_process())}
    assert {"threads", "default dtype", "deterministic", "cudnn deterministic"} <= changed
    assert "fused attention" in changed
    assert {"NEW_VARIABLE", "PATH"} <= changed


def test_scoped_changes():
    before = torch.get_num_threads()
    with process_state.threads(before + 2), process_state.environment(NEW_VARIABLE="1"):
        assert torch.get_num_threads() == before + 2 and os.environ["NEW_VARIABLE"] == "1"
    assert torch.get_num_threads() == before and "NEW_VARIABLE" not in os.environ
    logger = logging.getLogger("of a library")
    logger.setLevel(logging.INFO)
    with process_state.logging_level(logging.ERROR, logger.name):
        assert logger.level == logging.ERROR
    assert logger.level == logging.INFO


def test_seeded_draws_repeat_and_restore_the_generators():
    drawn, seen = draws(), []
    for _ in range(2):
        with process_state.seeded(3):
            seen.append((random.random(), float(np.random.random()), float(torch.rand(()))))
    assert seen[0] == seen[1] != drawn and draws() == drawn


@pytest.fixture
def restored_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with process_state.threads(2):
        yield monkeypatch


def test_resuming_uses_the_earlier_number_of_threads(restored_threads):
    assert process_state.resume_threads(2, "the run") is None
    assert process_state.resume_threads(3, "the run") is None
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("earlier", "variables", "why"),
    [
        (None, {}, "does not record its number of threads (2 now)"),
        (3, {"OMP_NUM_THREADS": "2"}, "began with 3 threads, and OMP_NUM_THREADS asks for 2"),
        (3, {"WORLD_SIZE": "2"}, "began with 3 threads in each process (2 now)"),
    ],
)
def test_another_number_of_threads_is_reported(earlier, variables, why, restored_threads):
    for name, value in variables.items():
        restored_threads.setenv(name, value)
    warning = process_state.resume_threads(earlier, "the run")
    assert warning.startswith(f"the run {why}: results can differ") and "\n" not in warning
    assert torch.get_num_threads() == 2


def test_a_run_records_and_keeps_its_threads(restored_threads, tmp_path):
    settings = FolderSettings(output_dir=str(tmp_path / "run"))
    run = runs.Run(tmp_path / "run", "x", settings)
    run.begin({})
    assert run.manifest["environment"]["threads"] == 2
    run.save_state({})
    run._lock.close()
    torch.set_num_threads(1)
    again = runs.Run(tmp_path / "run", "x", settings)
    again.begin({})
    assert torch.get_num_threads() == 2 == again.manifest["environment"]["threads"]
