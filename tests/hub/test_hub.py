"""Models and data sets by id, from a stand-in of the hub."""

import pytest
from hub.clients import clients_of
from hub.content import COLUMNS, LABELS

from training import data_sources, models
from training.tasks import TASKS


def load_model(name: str):
    return models.load_pretrained(name, ("a", "b"), 1, None, "sdpa"), models.load_tokenizer(name)


def test_model_and_tokenizer_by_id(hub, tmp_path):
    with clients_of(hub, tmp_path):
        model, tokenizer = load_model("bert-base-uncased")
    assert model.config.num_hidden_layers == 2 and tokenizer("A film")["input_ids"][0] == 2
    assert "GET /google-bert/bert-base-uncased/resolve" in " ".join(hub.requests)


@pytest.mark.parametrize("task", LABELS)
def test_all_tasks_of_the_paper(task, hub, tmp_path):
    with clients_of(hub, tmp_path):
        tables = data_sources.hub_tables(TASKS[task], {"train", "test"})
    train, source = tables["train"]
    assert len(train) == 96 and len(tables["test"][0]) == 24
    assert {*COLUMNS.get(task, ["text"]), "label"} <= {*train.columns}
    assert source.startswith(f"hub:{TASKS[task].hub_id}")
