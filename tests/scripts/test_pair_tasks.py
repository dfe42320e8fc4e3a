"""Tasks with two texts per row: token types, and three labels in another order."""

import json

import pytest
import torch
from conftest import BAD, GOOD, PLAIN, sentences, write_tsv
from safetensors.torch import load_file, save_file
from script_tools import finetune, retrain, search

from masking import ticket_files
from utils.files import read_jsonl


@pytest.mark.slow
def test_pair_task_with_token_types(encoder, tmp_path):
    rows = [(a, b, y) for (a, y), (b, _) in zip(sentences(80, 3), sentences(80, 4), strict=True)]
    for name, part in (("train", rows[:60]), ("dev", rows[60:])):
        write_tsv(tmp_path / "data" / f"{name}.tsv", part, "question\tsentence\tlabel")
    task = {"dataset_name": "glue", "task_name": "qnli", "max_seq_length": 64}
    finetune(encoder, tmp_path / "data", tmp_path / "d", **task, epochs=1)
    plain = search(tmp_path / "d", tmp_path / "s", epochs=1)
    without = search(tmp_path / "d", tmp_path / "s0", "--no-token_type_ids", epochs=1)
    a, b = ((f / "scores.safetensors").read_bytes() for f in (plain, without))
    assert a != b


def mnli_rows(count: int, seed: int) -> list[tuple]:
    """Premise, hypothesis and label (GLUE: 0 entailment, 1 neutral, 2 contradiction)."""
    both = sentences(2 * count, seed)
    words = (GOOD, PLAIN, BAD)
    return [(both[i][0], " ".join(words[i % 3][:4]), i % 3) for i in range(count)]


@pytest.mark.slow
def test_mnli_in_all_stages_and_a_checkpoint_of_another_label_order(encoder, tmp_path):
    """The search puts the logits of a checkpoint into the task's order, by label names."""
    header = "premise\thypothesis\tlabel"
    write_tsv(tmp_path / "data" / "train.tsv", mnli_rows(120, 5), header)
    write_tsv(tmp_path / "data" / "dev_matched.tsv", mnli_rows(30, 6), header)
    write_tsv(tmp_path / "data" / "dev_mismatched.tsv", mnli_rows(9, 7), header)
    task = {"dataset_name": "glue", "task_name": "mnli", "max_seq_length": 64}
    finetune(encoder, tmp_path / "data", tmp_path / "d", **task, epochs=6)
    result = json.loads((tmp_path / "d" / "result.json").read_text())
    assert result["splits"]["test"]["source"] == "dev_matched.tsv"
    assert result["checkpoints"]["last"]["clean_percent"] > 80
    plain = search(tmp_path / "d", tmp_path / "s", epochs=1)

    best = tmp_path / "d" / "best"  # the same model with its logits in another order
    order = [2, 0, 1]
    weights = load_file(best / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order].clone()
    save_file(weights, best / "model.safetensors", {"format": "pt"})
    config = json.loads((best / "config.json").read_text())
    names = [config["id2label"][str(i)] for i in order]
    config["id2label"] = {str(i): name for i, name in enumerate(names)}
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (best / "config.json").write_text(json.dumps(config))
    facts = json.loads((best / "checkpoint.json").read_text())
    del facts["sha256"]  # of the original weights
    (best / "checkpoint.json").write_text(json.dumps(facts))
    turned = search(tmp_path / "d", tmp_path / "s2", epochs=1)
    a, b = (ticket_files.load_scores(f / "scores.safetensors")[0] for f in (plain, turned))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-4)
    retrain(encoder, plain, tmp_path / "t", sparsity=0.3, epochs=1)
    assert read_jsonl(tmp_path / "t" / "records.jsonl")[0]["task"] == "mnli"
