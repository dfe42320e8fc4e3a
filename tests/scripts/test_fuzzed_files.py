"""Files with random damage are read exactly or refused by name."""

import json
import random

import pandas as pd
import pytest
import torch

from evaluation import readers
from masking import ticket_files, tickets
from training.data_sources import read_table
from utils import files
from utils.cli import UserError


def mutations(data: bytes, count: int, seed: int):
    """Flip, cut, repeat or replace bytes at random offsets."""
    draw = random.Random(seed)
    for _ in range(count):
        changed = bytearray(data)
        kind = draw.randrange(4)
        at = draw.randrange(len(data))
        if kind == 0:
            for _ in range(draw.randint(1, 8)):
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at:at] = changed[max(0, at - 50) : at] * draw.randint(1, 20)
        else:
            changed[at : at + 16] = draw.randbytes(16)
        yield bytes(changed)


def test_fuzzed_score_and_ticket_files(place, tmp_path):
    """A damaged file is refused by name, or its contents are exactly those that were written."""
    path = place / "scores" / "scores.safetensors"
    scores, shapes, _ = ticket_files.load_scores(path)
    masks = tickets.draw(scores, shapes, 0.3)
    ticket_files.save_ticket(tmp_path / "ticket.safetensors", masks, {"kind": "random"})
    of_ticket = (tmp_path / "ticket.safetensors", ticket_files.load_ticket, masks)
    for file, load, good in ((path, ticket_files.load_scores, scores), of_ticket):
        refused = 0
        for changed in mutations(file.read_bytes(), 150, 1):
            (tmp_path / "fuzzed.safetensors").write_bytes(changed)
            try:
                found = load(tmp_path / "fuzzed.safetensors")[0]
            except ValueError as e:
                assert "fuzzed.safetensors" in str(e)
                refused += 1
            else:
                assert all(torch.equal(found[n], good[n]) for n in good)
        assert refused > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("x.jsonl", b'{"a": 1, "b": [1, 2]}\n' * 20, files.read_jsonl),
        ("x.json", b'{"stage": "x", "args": {"lr": 0.1, "l": [1, {"a": null}]}}', files.read_json),
        (
            "n.json",
            json.dumps({"good": ["fine", "great"], "bad": ["poor"]}).encode(),
            readers.read_neighbours,
        ),
        ("v.txt", b"good 0.1 0.2\nbad 0.3 -0.4\nfilm 1 2\n" * 1, readers.read_word_vectors),
        ("t.tsv", b"sentence\tlabel\n" + b"a fine film\t1\na dull one\t0\n" * 20, read_table),
        ("t.csv", b"sentence,label\n" + b'"a, fine film",1\na dull one,0\n' * 20, read_table),
        ("j.jsonl", b'{"sentence": "a fine film", "label": 1}\n' * 20, read_table),
    ],
)
def test_fuzzed_text_files(tmp_path, name, content, read):
    """The file is read, or refused by name. There is no other error."""
    refused = 0
    for changed in mutations(content, 300, 2):
        (tmp_path / name).write_bytes(changed)
        try:
            read(tmp_path / name)
        except UserError as e:
            assert name in str(e) and "\n" not in str(e)
            refused += 1
    assert refused > 20
    for hostile in (b"[" * 200_000, b'{"a":' * 100_000, b"\x00" * 1000, b"\n" * 1000, b"\xff" * 99):
        (tmp_path / name).write_bytes(hostile)
        try:
            read(tmp_path / name)
        except UserError as e:
            assert name in str(e)


@pytest.mark.slow
def test_fuzzed_and_oversized_parquet_files(tmp_path):
    path = tmp_path / "t.parquet"
    texts = ["a fine film", "a dull one"] * 50
    pd.DataFrame({"sentence": texts, "label": [1, 0] * 50}).to_parquet(path)
    assert len(read_table(path)) == 100
    refused = 0
    for changed in mutations(path.read_bytes(), 200, 3):
        path.write_bytes(changed)
        try:
            read_table(path)
        except UserError as e:
            assert "t.parquet" in str(e)
            refused += 1
    assert refused > 50
    pd.DataFrame({"label": pd.Series([0], dtype="int8").repeat(21_000_000)}).to_parquet(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match="21000000 rows"):
        read_table(path)
