"""Models and data sets by id, from a stand-in of the hub: each works, or one line says why not."""

import dataclasses
import re
from argparse import Namespace

import huggingface_hub
import pytest
from hub.clients import clients_of
from hub.content import COLUMNS, LABELS, bert_files
from hub.server import MEMBER, Fault, serving

from training import data_sources, models, splits, tokenizers
from training.tasks import TASKS
from utils.cli import UserError

BERT, IMDB = "bert-base-uncased", "stanfordnlp/imdb"


def load_model(name: str):
    return models.load_pretrained(name, ("a", "b"), 1, None, "sdpa")


def load_data(name: str):
    task = dataclasses.replace(TASKS["imdb"], hub_id=name)
    return data_sources.hub_tables(task, {"train", "test"})


LOADERS = {"model": load_model, "tokenizer": tokenizers.load_tokenizer, "data set": load_data}


def refusal(what: str, name: str) -> str:
    with pytest.raises(UserError) as error:
        LOADERS[what](name)
    line = str(error.value)
    assert line.startswith(f"cannot load the {what} ") and name in line and "\n" not in line
    return line


def test_a_model_and_its_tokenizer_by_id(hub, tmp_path):
    with clients_of(hub, tmp_path):
        model, tokenizer = load_model(BERT), tokenizers.load_tokenizer(BERT)
    assert model.config.num_hidden_layers == 2
    assert tokenizer.tokenize("A film") == ["a", "film"]
    assert any(r.startswith("GET /google-bert/bert-base-uncased/resolve/") for r in hub.requests)


def test_a_model_in_shards(hub, tmp_path):
    hub.add("models", "o/shards", bert_files("10KB"))
    with clients_of(hub, tmp_path):
        sharded, whole = load_model("o/shards"), load_model(BERT)
    assert sum("GET /o/shards/resolve/" in r and "safetensors " not in r for r in hub.requests) > 3
    for name, weight in whole.state_dict().items():
        assert weight.equal(sharded.state_dict()[name]), name


@pytest.mark.parametrize("task", LABELS)
def test_each_task_of_the_paper_online_and_then_from_the_cache(task, hub, tmp_path):
    with clients_of(hub, tmp_path):
        online = data_sources.hub_tables(TASKS[task], {"train", "test"})
    asked = len(hub.requests)
    with clients_of(hub, tmp_path, offline=True):
        offline = data_sources.hub_tables(TASKS[task], {"train", "test"})
    assert len(hub.requests) == asked
    table, source = online["train"]
    assert len(table) == 96 and len(online["test"][0]) == 24
    assert {*COLUMNS.get(task, ["text"]), "label"} <= {*table.columns}
    assert source == f"hub:{TASKS[task].hub_id}/train"
    assert all(online[split][0].equals(offline[split][0]) for split in online)


def test_a_model_from_the_cache(hub, tmp_path):
    with clients_of(hub, tmp_path):
        online = load_model(BERT), tokenizers.load_tokenizer(BERT)
    asked = len(hub.requests)
    with clients_of(hub, tmp_path, offline=True):
        offline = load_model(BERT), tokenizers.load_tokenizer(BERT)
    assert len(hub.requests) == asked
    assert online[1].get_vocab() == offline[1].get_vocab()
    weights = (next(m.base_model.parameters()) for m in (online[0], offline[0]))
    assert next(weights).equal(next(weights))
    hub.fault = Fault(status=503)  # as well as without the variable, while the hub is down
    with clients_of(hub, tmp_path):
        load_model(BERT)


@pytest.mark.parametrize("task", ["sst2", "mnli"])
def test_files_that_were_downloaded_from_the_hub(task, hub, tmp_path):
    """The remedy that the messages name: `hf download`, then --data_dir."""
    with clients_of(hub, tmp_path / "cache"):
        folder = tmp_path / "glue"
        huggingface_hub.snapshot_download("nyu-mll/glue", repo_type="dataset", local_dir=folder)
    files = dict.fromkeys(("train_file", "validation_file", "test_file", "max_train_rows"))
    args = Namespace(**files, data_dir=str(folder / task), split_seed=1, max_eval_rows=None)
    found = splits.load_splits(args, TASKS[task])
    assert len(found["test"]) == 24


@pytest.mark.parametrize("what", LOADERS)
@pytest.mark.parametrize("token", [None, "hf_other"])
def test_an_id_that_does_not_exist(what, token, hub, tmp_path):
    with clients_of(hub, tmp_path, token=token):
        line = refusal(what, "nobody/nothing")
        noun = "data set" if what == "data set" else "model"
        assert f"the hub has no {noun} of this name, or a private one" in line
        assert line.endswith("log in: hf auth login")
        assert "not an id of the hub" in refusal(what, "a/b/c")


@pytest.mark.parametrize("what", LOADERS)
def test_a_gated_repository(what, hub, tmp_path):
    hub.add("models", "o/gated", bert_files(), gated=True)
    imdb = hub.repositories["datasets", IMDB].files
    hub.add("datasets", "o/gated", imdb, gated=True)
    page = f"{hub.address}/{'datasets/' if what == 'data set' else ''}o/gated"
    for token, access in ((None, "you are not logged in"), ("hf_other", "your account has no")):
        with clients_of(hub, tmp_path, token=token):
            line = refusal(what, "o/gated")
        assert f"it is gated, and {access}" in line
        assert line.endswith(f"ask for access at {page} and log in: hf auth login")
    with clients_of(hub, tmp_path, token=MEMBER):
        LOADERS[what]("o/gated")


@pytest.mark.parametrize("what", LOADERS)
def test_offline_without_a_cache(what, hub, tmp_path):
    name = IMDB if what == "data set" else BERT
    with clients_of(hub, tmp_path, offline=True):
        line = refusal(what, name)
    assert f"it is not in the cache ({tmp_path}/hub), and HF_HUB_OFFLINE is set" in line
    assert f"hf download {name}" in line and not hub.requests


@pytest.mark.parametrize("what", LOADERS)
@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_breaks(what, reset, hub, tmp_path):
    name = IMDB if what == "data set" else BERT
    with clients_of(hub, tmp_path):
        hub.fault = Fault(most_bytes=100, reset=reset)
        line = refusal(what, name)
        assert re.search(
            rf"the connection to {hub.address} failed \(\w+\): check the network", line
        )
        assert "run the same command again" in line
        hub.fault = Fault()
        LOADERS[what](name)  # the remedy


@pytest.mark.parametrize("what", LOADERS)
@pytest.mark.parametrize(
    ("status", "part"),
    [
        (500, "the hub has an error (status 500): run the same command again later"),
        (429, "no more requests for now (status 429): wait"),
        (403, "the hub refuses access (status 403): log in"),
        (404, "of this name"),
    ],
)
def test_a_hub_that_answers_with_an_error(what, status, part, hub, tmp_path):
    hub.fault = Fault(status=status)
    with clients_of(hub, tmp_path):
        assert part in refusal(what, IMDB if what == "data set" else BERT)


@pytest.mark.parametrize("what", LOADERS)
def test_a_slow_hub(what, hub, tmp_path, monkeypatch):
    name = IMDB if what == "data set" else BERT
    with clients_of(hub, tmp_path):
        hub.fault = Fault(seconds=0.01)
        LOADERS[what](name)
    for limit in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(huggingface_hub.constants, limit, 0.02)
    with clients_of(hub, tmp_path / "empty"):
        hub.fault = Fault(seconds=0.1)  # more than the limit
        line = refusal(what, name)
    assert "did not answer in time" in line and "HF_HUB_DOWNLOAD_TIMEOUT" in line


@pytest.mark.parametrize("what", LOADERS)
def test_no_hub_at_the_address(what, tmp_path):
    with serving() as gone:
        pass
    with clients_of(gone, tmp_path):
        line = refusal(what, IMDB if what == "data set" else BERT)
    assert f"the connection to {gone.address} failed" in line and "check the network" in line


@pytest.mark.parametrize("what", LOADERS)
def test_a_repository_without_the_files(what, hub, tmp_path):
    hub.add("datasets" if what == "data set" else "models", "o/empty", {"README.md": b"Soon."})
    with clients_of(hub, tmp_path):
        line = refusal(what, "o/empty")
    assert "doesn't contain any data" in line or "cannot load its files on the hub" in line
    assert "no model of this name" not in line and "connection" not in line


@pytest.mark.parametrize("what", LOADERS)
def test_a_cache_that_cannot_be_written(what, hub, tmp_path):
    (tmp_path / "file").touch()
    with clients_of(hub, tmp_path / "file"):
        line = refusal(what, IMDB if what == "data set" else BERT)
    assert "cannot be written" in line and line.endswith("set HF_HOME to another folder")
