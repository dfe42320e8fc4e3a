"""Finding checkpoints, and the order of their labels. No TextAttack."""

import json
from dataclasses import replace

import attack_tools as tools
import pytest

from evaluation import checkpoints
from training.tasks import TASKS
from utils.cli import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = tools.write_rows(folder / "test.tsv", tools.SENTENCES)
    return tools.fake_run(folder / "run", data, epochs=(1, 3))


def target_of(folder):
    return checkpoints.find_targets(str(folder), "last", None)[0]


def test_checkpoints_of_a_run(run):
    assert target_of(run).folder == run / "last"
    assert checkpoints.find_targets(str(run), "best", None)[0].name == "best"
    targets = checkpoints.find_targets(str(run), "last", [1, 3])
    assert [t.name for t in targets] == ["epoch1", "epoch3"]
    assert all(t.home == run for t in targets)
    with pytest.raises(UserError, match=r"epoch 2 \(it has: 1, 3\)"):
        checkpoints.find_targets(str(run), "last", [1, 2])


def test_a_checkpoint_inside_a_run_knows_its_run(run):
    target = target_of(run / "best")
    assert target.name == "best" and target.home == run and target.run["stage"] == "retrain"
    known = target_of(run).known(TASKS["sst2"])
    assert known["ticket"] == {"kind": "robust", "sparsity": 0.3} and known["seed"] == 7
    assert known["clean_full_test_percent"] == 62.5


def test_a_foreign_checkpoint(tmp_path):
    target = target_of(tools.tiny_bert(tmp_path / "model"))
    assert target.run is None and target.home == tmp_path / "model"
    known = target.known(TASKS["sst2"])
    assert known["stage"] is None and known["task"] == "sst2"
    assert known["encoder"]["architecture"] == "BertForSequenceClassification"
    with pytest.raises(UserError, match="needs a run folder"):
        checkpoints.find_targets(str(tmp_path / "model"), "last", [1])


def test_folders_that_are_not_checkpoints(tmp_path):
    with pytest.raises(UserError, match="no folder .* hf download"):
        target_of("someone/bert-sst2")
    with pytest.raises(UserError, match="has no config.json"):
        target_of(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"stage": "search", "status": "finished"}))
    with pytest.raises(UserError, match="holds a search"):
        target_of(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"stage": "finetune", "status": "running"}))
    with pytest.raises(UserError, match="finish its run"):
        target_of(tmp_path)


def test_label_names_decide_the_order(tmp_path):
    mnli = TASKS["mnli"]
    labels = {0: "CONTRADICTION", 1: "Entailment", 2: "neutral"}
    named = target_of(tools.tiny_bert(tmp_path / "named", 3, labels=labels))
    assert checkpoints.label_order(named, mnli) == [1, 2, 0]
    unnamed = target_of(tools.tiny_bert(tmp_path / "unnamed", 3))
    assert checkpoints.label_order(unnamed, mnli) == [0, 1, 2]
    with pytest.raises(UserError, match="3 labels, sst2 has 2"):
        checkpoints.label_order(unnamed, TASKS["sst2"])
    with pytest.raises(UserError, match="names its labels"):
        checkpoints.label_order(named, replace(mnli, label_names=("a", "b", "c")))
    custom = checkpoints.with_checkpoint_labels(TASKS["custom"], named)
    assert custom.label_names == ("CONTRADICTION", "Entailment", "neutral")
    custom = checkpoints.with_checkpoint_labels(TASKS["custom"], unnamed)
    assert custom.label_names == ("0", "1", "2")


def test_an_encoder_without_a_classifier_is_refused(tmp_path):
    from transformers import BertModel

    folder = tools.tiny_bert(tmp_path / "encoder")
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    with pytest.raises(UserError, match="not a fine-tuned classifier"):
        checkpoints.load_classifier(target_of(folder))
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="holds no classifier that"):
        checkpoints.load_classifier(target_of(folder))


def test_the_digest_depends_on_the_weights(tmp_path):
    a = target_of(tools.tiny_bert(tmp_path / "a", seed=1))
    b = target_of(tools.tiny_bert(tmp_path / "b", seed=1))
    c = target_of(tools.tiny_bert(tmp_path / "c", seed=2))
    assert checkpoints.weights_digest(a) == checkpoints.weights_digest(b)
    assert checkpoints.weights_digest(a) != checkpoints.weights_digest(c)
