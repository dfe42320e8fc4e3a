"""Slow tokenizers, tokenizers without a padding token, and tokenizers with unused inputs."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import GOOD, PLAIN, call, make_encoder, make_tokenizer, sentences
from transformers import (
    AutoConfig,
    BertForSequenceClassification,
    BertTokenizer,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PhobertTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from training import batching, models, tokenizers
from training.rows import Rows
from utils.cli import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *PLAIN]


def vocabulary(folder, words=WORDS):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return str(folder / "vocab.txt")


def rows_of(*texts):
    texts = [text if isinstance(text, tuple) else (text,) for text in texts]
    return Rows(texts, [0] * len(texts), [f"x:{i}" for i in range(len(texts))], "made")


TEXTS = ["good film", "the film was very very good", "great"]
PAIRS = [("good film plot", "the"), ("the film was very good", "a"), ("good", "bad")]


@pytest.mark.parametrize(("texts", "truncated"), [(TEXTS, 1), (PAIRS, 2)])
def test_a_slow_tokenizer_equals_the_fast_one(tmp_path, texts, truncated):
    path = vocabulary(tmp_path / "v")
    slow, fast = (
        batching.encode(rows_of(*texts), tokenizer(path), 6)
        for tokenizer in (BertTokenizer, BertTokenizerFast)
    )
    assert slow.truncated_rows == fast.truncated_rows == truncated
    assert slow.pad_token_id == fast.pad_token_id == 0
    for name in ("input_ids", "token_type_ids"):
        pairs = zip(getattr(slow, name), getattr(fast, name), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


def test_the_cache_distinguishes_slow_tokenizers(tmp_path, monkeypatch):
    rows = rows_of("good film unseen")
    first = batching.encode(rows, BertTokenizer(vocabulary(tmp_path / "a")), 9)
    other = [*WORDS[:5], *WORDS[:4:-1]]  # the same words with other numbers
    second = batching.encode(rows, BertTokenizer(vocabulary(tmp_path / "b", other)), 9)
    assert not np.array_equal(first.input_ids[0], second.input_ids[0])
    cased = BertTokenizer(vocabulary(tmp_path / "a"), do_lower_case=False)
    upper = rows_of("GOOD film")
    assert not np.array_equal(
        batching.encode(upper, cased, 9).input_ids[0],
        batching.encode(upper, BertTokenizer(vocabulary(tmp_path / "a")), 9).input_ids[0],
    )

    def never(*_):
        raise AssertionError("tokenized twice")

    monkeypatch.setattr(batching, "_tokenize", never)
    again = batching.encode(rows, BertTokenizer(vocabulary(tmp_path / "c")), 9)
    assert np.array_equal(again.input_ids[0], first.input_ids[0])


def phobert_in(folder):
    """A tokenizer that only has a slow form: words without merges."""
    words = sorted({word for text, _ in sentences(300, 1) for word in text.split()})
    (folder / "bpe.codes").write_text("#version: 0.2\n")
    letters = sorted({c for word in words for c in word})
    pieces = [*words, *letters, *(f"{c}@@" for c in letters)]
    (folder / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in pieces))
    tokenizer = PhobertTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"))
    tokenizer.model_max_length = 64
    return tokenizer


@pytest.mark.slow
def test_stage_1_runs_with_a_slow_tokenizer(tmp_path, encoder, sst2_folder):
    folder = shutil.copytree(encoder, tmp_path / "slow")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)  # transformers 5 writes two of them
    tokenizer = phobert_in(folder)
    config = AutoConfig.from_pretrained(folder)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert not tokenizers.load_tokenizer(str(folder)).is_fast
    call(
        *("finetune", "--model_name", folder, "--task_name", "sst2", "--data_dir", sst2_folder),
        *("--output_dir", tmp_path / "run", "--epochs", 1, "--bsz", 32, "--quiet"),
        *("--device", "cpu"),
    )
    assert not tokenizers.load_tokenizer(str(tmp_path / "run" / "last")).is_fast


def distilbert_in(folder, **settings):
    config = DistilBertConfig(
        dim=16,
        hidden_dim=32,
        n_layers=2,
        n_heads=2,
        vocab_size=len(make_tokenizer()),
        max_position_embeddings=128,
        **settings,
    )
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_an_encoder_without_token_types_accepts_a_tokenizer_with_them(tmp_path, sst2_folder):
    folder = distilbert_in(tmp_path / "distilbert")
    make_tokenizer().save_pretrained(folder)
    assert tokenizers.load_tokenizer(str(folder)).model_input_names == [
        "input_ids",
        "attention_mask",
    ]
    call(
        *("finetune", "--model_name", folder, "--task_name", "sst2", "--data_dir", sst2_folder),
        *("--output_dir", tmp_path / "run", "--epochs", 1, "--bsz", 32, "--quiet"),
        *("--device", "cpu"),
    )


def test_a_roberta_whose_configuration_names_no_padding_token(tmp_path):
    """Its positions count from the id of the padding token, which the tokenizer knows."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(vocab_size=50, intermediate_size=32, pad_token_id=0, **sizes)
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text()) | {"pad_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    model = models.load_pretrained(str(tmp_path), ("a", "b"), 1, None, "sdpa")
    tokenizers.fit_tokenizer(model, tokenizers.load_tokenizer(str(tmp_path)))
    assert model.config.pad_token_id == 0


def test_a_tokenizer_that_cannot_encode_an_unknown_word_is_refused(tmp_path):
    folder = distilbert_in(tmp_path / "distilbert")
    make_tokenizer().save_pretrained(folder)
    written = json.loads((folder / "tokenizer.json").read_text())
    written["model"]["unk_token"] = "<none>"
    (folder / "tokenizer.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match="no tokenizer that transformers can load"):
        tokenizers.load_tokenizer(str(folder))


def test_an_encoder_with_one_token_type_takes_pairs(tmp_path):
    folder = make_encoder(tmp_path / "encoder")
    config = AutoConfig.from_pretrained(folder)
    config.type_vocab_size = 1
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = tokenizers.load_tokenizer(str(folder))
    model = models.load_pretrained(str(folder), ("a", "b"), 1, None, "sdpa")
    tokenizers.fit_tokenizer(model, tokenizer)
    pair = tokenizer("good film", "bad plot", return_tensors="pt")
    assert pair.keys() == {"input_ids", "attention_mask"}
    assert model(**pair).logits.shape == (1, 2)


def test_a_tokenizer_without_a_padding_token(tmp_path):
    folder = distilbert_in(tmp_path / "distilbert", pad_token_id=4)
    make_tokenizer().save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = {k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}
    path.write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)  # of transformers 4
    assert tokenizers.load_tokenizer(str(folder)).pad_token == "[MASK]"  # the configuration's
    config = json.loads((folder / "config.json").read_text())
    for wrong in (None, 10_000):
        (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": wrong}))
        with pytest.raises(UserError, match="has no padding token: name one as pad_token"):
            tokenizers.load_tokenizer(str(folder))


def test_loading_restores_the_generator_and_the_log_levels(encoder):
    from huggingface_hub.utils import logging as hub_logging

    before, level = torch.random.get_rng_state(), hub_logging.get_verbosity()
    models.load_pretrained(str(encoder), ("a", "b"), 5, None, "eager")
    with pytest.raises(UserError):
        tokenizers.load_tokenizer("/nowhere")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hub_logging.get_verbosity() == level


def test_a_damaged_token_cache_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path))
    rows = Rows([("a good film",), ("a bad film",)], [1, 0], ["x:0", "x:1"], "made")
    good = batching.encode(rows, make_tokenizer(), 32)
    (path,) = (tmp_path / "tokens").iterdir()
    whole = path.read_bytes()
    for offset in (5, 60, -1, -20, len(whole) // 2):
        data = bytearray(whole)
        data[offset] ^= 2
        path.write_bytes(data)
        again = batching.encode(rows, make_tokenizer(), 32)
        assert [a.tolist() for a in again.input_ids] == [a.tolist() for a in good.input_ids]
    assert path.read_bytes() == whole
