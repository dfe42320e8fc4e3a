"""Texts that two tasks share, by hand-made files."""

from conftest import call

from analysis.shared_texts import key


def test_key_ignores_case_punctuation_and_brackets():
    assert key(("It 's -LRB- not -RRB- bad .",)) == key(("it's (not) bad!",)) == "itsnotbad"
    assert key(("a", "b")) == "ab" and key(("ab",)) != key(("abc",))


def test_shared_texts_are_counted(tmp_path, capsys):
    """SST-2 trains on three of IMDB's texts; IMDB trains on one text that SST-2 is tested on."""
    shared = [f"good plot {i} ." for i in range(3)]
    files = {
        "sst2/train.tsv": ("sentence", [*shared, *(f"sst {i}" for i in range(37))]),
        "sst2/test.tsv": ("sentence", ["imdb 5", "sst 100", "sst 101", "sst 102"]),
        "imdb/train.tsv": (
            "text",
            [*(s.upper() for s in shared), *(f"imdb {i}" for i in range(37))],
        ),
        "imdb/test.tsv": ("text", ["imdb 200", "imdb 201", "imdb 202", "imdb 203"]),
        "sst2/dev.tsv": ("sentence", ["dev 0", "dev 1"]),  # else dev is a part of train
        "imdb/dev.tsv": ("text", ["dev 2", "dev 3"]),
    }
    for name, (column, texts) in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        rows = "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts))
        path.write_text(f"{column}\tlabel\n{rows}")
    call("analysis.shared_texts", "--tasks", "sst2", "imdb", "--data", tmp_path)
    out = capsys.readouterr().out
    assert "| sst2 | 40 | 40 | 4 | 1 |" in out and "| imdb | 40 | 40 | 4 | 0 |" in out
    assert "in common: 3." in out
