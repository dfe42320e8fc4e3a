"""The stages and an attack, with default flags, in families of encoders of every kind."""

import json

import pytest
import torch
from conftest import call, fails, log_lines
from families import FAMILIES, build
from script_tools import finetune, retrain, search

from masking import encoders, ticket_files
from training import models, tokenizers
from utils.files import read_json, read_jsonl

STEP = {"epochs": 1, "bsz": 32, "max_train_rows": 64, "max_eval_rows": 32}
EVERY_KIND = ["ALBERT", "DeBERTa", "DeBERTa-v2", "ELECTRA", "GPT-2", "GPT-NeoX (Pythia)"]
EVERY_KIND += ["Llama", "MPNet", "ModernBERT", "T5", "XLNet"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_KIND)
def test_the_stages_and_an_attack_with_default_flags(
    name, tmp_path, sst2_folder, textattack, capsys
):
    encoder = build(FAMILIES[name], tmp_path / "encoder")
    dense = finetune(encoder, sst2_folder, tmp_path / "dense", **STEP)
    scores = search(dense, tmp_path / "search", epochs=1)
    ticket = retrain(
        *(encoder, scores, tmp_path / "ticket"), task_name="sst2", data_dir=sst2_folder, **STEP
    )
    call("attack", model_name=ticket, recipe="deepwordbug", num_examples=2, quiet=True)
    err = capsys.readouterr().err
    manifest = ticket_files.load_ticket(ticket / "ticket.safetensors")[1]
    has_sdpa = name in ("ALBERT", "GPT-2", "GPT-NeoX (Pythia)", "Llama", "ModernBERT")
    assert ("has no sdpa attention: eager attention is used" in err) is not has_sdpa
    assert ("attention" in manifest["rewound_to"]) is not has_sdpa
    assert manifest["sparsity"] == pytest.approx(0.4, abs=1e-3)
    densities = log_lines(scores)[-1]["dev"]["ticket_density_by_kind"]
    assert {"query", "key", "value"} <= set(densities)
    assert len(manifest["density_by_head"]["heads"][0]) == 2
    [attacked] = [r for r in read_jsonl(ticket / "records.jsonl") if r["kind"] == "attack"]
    assert len(attacked["row_outcomes"]) == 2


@pytest.mark.slow
def test_only_the_chosen_kinds_have_gates(tmp_path, encoder, sst2_folder):
    """--matrices and --exclude: in the scores, the ticket, the manifests and the identity."""
    dense = finetune(encoder, sst2_folder, tmp_path / "dense", **STEP)
    scores = search(dense, tmp_path / "search", matrices="query,value,pooler", exclude="pooler")
    learned, _, manifest = ticket_files.load_scores(scores / "scores.safetensors")
    assert manifest["matrices"] == ["query", "value"] and len(learned) == 4
    assert manifest["gates"] == 4 * 16 * 16
    with pytest.raises(SystemExit):
        search(dense, tmp_path / "search", matrices="query,value")
    data = {"task_name": "sst2", "data_dir": sst2_folder}
    ticket = retrain(encoder, scores, tmp_path / "ticket", **data, **STEP)
    masks, manifest = ticket_files.load_ticket(ticket / "ticket.safetensors")
    assert masks.keys() == learned.keys() and manifest["source"]["matrices"] == ["query", "value"]
    assert manifest["sparsity"] == pytest.approx(0.4, abs=1e-3)
    model = models.load_pretrained(str(ticket / "last"), ("a", "b"), 1, None, "sdpa")
    zeros = {
        n: float((m.weight == 0).float().mean())
        for n, m in encoders.prunable_matrices(model).items()
    }
    assert {n for n, share in zeros.items() if share} == set(masks)
    permuted = tmp_path / "permuted"
    call("make_scores", kind="random_matched", scores=scores, output_dir=permuted)
    assert read_scores(permuted)[2]["matrices"] == ["query", "value"]
    again = retrain(encoder, permuted, tmp_path / "again", **data, **STEP)
    assert ticket_files.load_ticket(again / "ticket.safetensors")[0].keys() == masks.keys()


def read_scores(folder):
    return ticket_files.load_scores(folder / "scores.safetensors")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"matrices": "ffn_gate"}, "BertForSequenceClassification has no matrices of the kind 'ff"),
        (
            {"exclude": "queries"},
            "no matrices of the kind 'queries'; it has query, key, value, ",
        ),
        ({"matrices": "query", "exclude": "query"}, "no matrix is left to prune"),
        ({"matrices": ","}, "argument --matrices: it names nothing"),
    ],
)
def test_kinds_that_do_not_exist(flags, message, tmp_path, encoder, capsys):
    flags |= {"kind": "magnitude", "model_name": encoder, "output_dir": tmp_path / "scores"}
    assert message in fails(capsys, "make_scores", **flags)
    assert not (tmp_path / "scores").exists()


def test_a_part_of_a_fused_matrix_cannot_be_chosen(tmp_path, capsys):
    encoder = build(FAMILIES["GPT-2"], tmp_path / "encoder")
    flags = {"kind": "random", "model_name": encoder, "output_dir": tmp_path / "scores"}
    line = fails(capsys, "make_scores", matrices="query", **flags)
    assert "attn.c_attn holds query, key, value in one matrix: name all of them, or none" in line
    call("make_scores", **flags, matrices="query,key,value")
    assert [n.endswith("attn.c_attn") for n in read_scores(tmp_path / "scores")[0]] == [True] * 2


def test_a_decoder_whose_tokenizer_has_no_padding_token(tmp_path):
    """GPT-2 as the hub has it: the token for the end of a text pads, and answers stay the same."""
    folder = build(FAMILIES["GPT-2"], tmp_path / "encoder")
    for name, change in (
        ("config.json", {"pad_token_id": None}),
        ("tokenizer_config.json", {"pad_token": None, "eos_token": "[SEP]"}),
    ):
        settings = read_json(folder / name)
        (folder / name).write_text(json.dumps(settings | change))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    tokenizer = tokenizers.load_tokenizer(str(folder))
    model = models.load_pretrained(str(folder), ("a", "b"), 1, None, "sdpa").eval()
    tokenizers.fit_tokenizer(model, tokenizer)
    assert tokenizer.pad_token == "[SEP]" and model.config.pad_token_id == 3
    texts = ["good", "a bad film with a plot"]
    with torch.inference_mode():
        single = [model(**tokenizer(text, return_tensors="pt")).logits for text in texts]
        batch = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    torch.testing.assert_close(torch.cat(single), batch)


def test_a_decoder_with_absolute_positions_is_padded_on_the_right(tmp_path):
    """A tokenizer that pads on the left, as for generation, is corrected; Llama keeps its side."""
    for name, side in (("GPT-2", "right"), ("Llama", "left")):
        folder = build(FAMILIES[name], tmp_path / name)
        tokenizer = tokenizers.load_tokenizer(str(folder))
        tokenizer.padding_side = "left"
        model = models.load_pretrained(str(folder), ("a", "b"), 1, None, "sdpa")
        tokenizers.fit_tokenizer(model, tokenizer)
        assert tokenizer.padding_side == side
