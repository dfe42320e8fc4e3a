"""An encoder without a pre-trained pooler: the random one is not gated, pruned or compared."""

import shutil

import pytest
import torch
from conftest import call, fails, make_encoder
from safetensors.torch import load_file
from transformers import BertForSequenceClassification, BertModel

from masking import encoders, ticket_files, tickets
from training import models
from utils.files import read_json
from utils.runs import read_run

POOLER = "bert.pooler.dense"
STAGE = ("--quiet", "--bsz", 16, "--device", "cpu", "--epochs", 1)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The tiny encoder without pooler and head."""
    folder = make_encoder(tmp_path_factory.mktemp("bare") / "bare-bert")
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    assert not [name for name in load_file(folder / "model.safetensors") if "pooler" in name]
    return folder


@pytest.fixture(scope="module")
def runs(bare, sst2_folder, tmp_path_factory):
    """Stages 1 and 2 with seed 1."""
    folder = tmp_path_factory.mktemp("runs")
    data = ("--task_name", "sst2", "--data_dir", sst2_folder)
    first = ("--model_name", bare, "--output_dir", folder / "dense", "--seed", 1, *data)
    call("finetune", *first, *STAGE)
    search = ("--model_name", folder / "dense", "--output_dir", folder / "search", "--seed", 1)
    call("search_ticket", *search, *STAGE, "--adv_steps", 1)
    return folder


def retrain(bare, scores, folder, *more) -> tuple:
    first = ("--model_name", bare, "--scores", scores, "--output_dir", folder, "--sparsity", 0.5)
    return "retrain_ticket", *first, "--lr", "1e-2", *STAGE, *more


def test_a_random_pooler_is_not_prunable_and_a_pretrained_one_is(bare, encoder):
    fresh, whole = (
        models.load_pretrained(str(e), ("a", "b"), 1, None, "eager") for e in (bare, encoder)
    )
    assert encoders.not_pretrained(fresh) == [POOLER] and encoders.not_pretrained(whole) == []
    assert len(encoders.weight_shapes(fresh)) == 12 and POOLER in encoders.weight_shapes(whole)
    assert POOLER in encoders.prunable_matrices(fresh, with_not_pretrained=True)
    other = models.load_pretrained(str(bare), ("a", "b"), 2, None, "eager")
    poolers = [m.get_submodule(POOLER).weight for m in (fresh, other)]
    assert not torch.equal(*poolers)
    assert encoders.encoder_fingerprint(fresh) == encoders.encoder_fingerprint(other)
    for with_pooler in (True, False):
        assert encoders.encoder_fingerprint(whole, with_pooler) == (
            encoders.encoder_fingerprint(whole)
        )
    assert not hasattr(whole.config, encoders.NOT_PRETRAINED)  # its checkpoints do not change


def test_a_checkpoint_of_a_stage_used_as_an_encoder_has_a_pooler(runs):
    model = models.load_pretrained(str(runs / "dense" / "last"), ("a", "b"), 1, None, "eager")
    assert POOLER in encoders.weight_shapes(model)


def test_the_ticket_of_one_seed_is_retrained_with_another(runs, bare, tmp_path, capsys):
    scores, _, manifest = ticket_files.load_scores(runs / "search" / "scores.safetensors")
    assert len(scores) == 12 and manifest["encoder"]["not_pretrained"] == [POOLER]
    call(*retrain(bare, runs / "search", tmp_path / "ticket", "--seed", 2))
    captured = capsys.readouterr().err
    assert captured.count("bare-bert holds no weights for bert.pooler.dense") == 1
    masks, ticket = ticket_files.load_ticket(tmp_path / "ticket" / "ticket.safetensors")
    assert POOLER not in masks
    assert ticket["rewound_to"]["fingerprint"] == manifest["encoder"]["fingerprint"]
    weights = load_file(tmp_path / "ticket" / "last" / "model.safetensors")
    assert (weights[f"{POOLER}.weight"] != 0).all()
    name = "bert.encoder.layer.0.output.dense"
    assert (weights[f"{name}.weight"][~masks[name]] == 0).all()
    assert read_run(tmp_path / "ticket")["encoder"] == read_run(runs / "dense")["encoder"]


def earlier_scores(runs, bare, path, seed: int, **encoder):
    """A score file of an earlier version, with the pooler in its fingerprint and scores."""
    scores, shapes, manifest = ticket_files.load_scores(runs / "search" / "scores.safetensors")
    model = models.load_pretrained(str(bare), ("a", "b"), seed, None, "eager")
    old = {k: v for k, v in manifest["encoder"].items() if k != "not_pretrained"}
    old["fingerprint"] = encoders.encoder_fingerprint(model, with_not_pretrained=True)
    pooler = encoders.prunable_matrices(model, with_not_pretrained=True)[POOLER].weight.shape
    ticket_files.save_scores(
        path,
        scores | {POOLER: torch.full(pooler, -9.0)},
        shapes | {POOLER: tuple(pooler)},
        manifest | {"encoder": old | encoder},
    )
    return path


@pytest.mark.parametrize("seed", [1, 2])
def test_score_files_with_the_pooler_stay_usable(runs, bare, tmp_path, capsys, seed):
    path = earlier_scores(runs, bare, tmp_path / "scores.safetensors", 1)
    call(
        *retrain(bare, path, tmp_path / "ticket", "--seed", seed, "--task_name", "sst2"),
        *("--data_dir", read_run(runs / "dense")["args"]["data_dir"]),
    )
    captured = capsys.readouterr().err
    assert "ranks bert.pooler.dense" in captured and "this part is ignored" in captured
    assert ("only the encoder's name is compared" in captured) == (seed == 2)
    masks, _ = ticket_files.load_ticket(tmp_path / "ticket" / "ticket.safetensors")
    new_scores, shapes, _ = ticket_files.load_scores(runs / "search" / "scores.safetensors")
    new = tickets.draw(new_scores, shapes, 0.5)
    assert list(masks) == list(new) and all(torch.equal(masks[n], new[n]) for n in new)


def test_scores_with_the_pooler_of_another_encoder_are_refused(runs, bare, tmp_path, capsys):
    path = earlier_scores(runs, bare, tmp_path / "scores.safetensors", 1, name="other-bert")
    data = ("--task_name", "sst2", "--data_dir", read_run(runs / "dense")["args"]["data_dir"])
    line = fails(capsys, *retrain(bare, path, tmp_path / "t", "--seed", 2, *data))
    assert "made for the encoder other-bert" in line


def test_magnitudes_of_a_finetuned_checkpoint_of_an_earlier_version(runs, bare, tmp_path):
    best = shutil.copytree(runs / "dense" / "best", tmp_path / "best")
    model = BertForSequenceClassification.from_pretrained(best)
    encoders.mark_not_pretrained(model, [])
    model.save_pretrained(best)
    (best / "checkpoint.json").unlink()
    call(
        *("make_scores", "--kind", "magnitude", "--model_name", bare, "--finetuned", best),
        *("--output_dir", tmp_path / "scores"),
    )
    scores, _, _ = ticket_files.load_scores(tmp_path / "scores" / "scores.safetensors")
    assert len(scores) == 12 and POOLER not in scores
    assert "not_pretrained" in read_json(tmp_path / "scores" / "run.json")["encoder"]
