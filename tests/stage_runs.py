"""Runs of the stages that several test files read. No test may change them."""

from pathlib import Path

import pytest
from conftest import call, words_of
from script_tools import finetune, retrain, search


@pytest.fixture(scope="session")
def runs(encoder, sst2_folder, tmp_path_factory):
    """A run of each stage: dense, search, ticket."""
    root = tmp_path_factory.mktemp("runs")
    finetune(encoder, sst2_folder, root / "dense", epochs=4, keep_epochs="1,3")
    search(root / "dense", root / "search", epochs=3, keep_scores="best,1")
    retrain(encoder, root / "search", root / "ticket", epochs=4)
    return root


QUICK = {"quiet": True, "bsz": 16, "epochs": 2, "lr": 1e-2}
RESULTS = {
    "finetune": "last/model.safetensors",
    "search_ticket": "scores.safetensors",
    "retrain_ticket": "last/model.safetensors",
    "prune_iteratively": "scores.safetensors",
}


def command(stage: str, encoder, data, runs_folder: Path, folder: Path) -> tuple:
    """Script and arguments of a small run of a stage in `folder`."""
    rows = {"task_name": "sst2", "data_dir": data, "max_train_rows": 96, "max_eval_rows": 40}
    scores = runs_folder / "search_ticket"
    flags = {
        "finetune": {"model_name": encoder, "method": "freelb"} | rows,
        "search_ticket": {"model_name": runs_folder / "finetune", "adv_steps": 2},
        "retrain_ticket": {"model_name": encoder, "scores": scores, "sparsity": 0.4},
        "prune_iteratively": {"model_name": encoder, "to_sparsity": 0.2} | rows,
    }[stage]
    return stage, *words_of(flags | QUICK | {"output_dir": folder})


@pytest.fixture(scope="session")
def whole(encoder, sst2_folder, tmp_path_factory):
    """A small uninterrupted run of each stage, and of iterative pruning."""
    root = tmp_path_factory.mktemp("whole")
    for stage in RESULTS:
        call(*command(stage, encoder, sst2_folder, root, root / stage))
    return root
