"""The texts of report.html, from the folders of attacks."""

import json

import pytest
from page_tools import attacked, data_of, outcomes, page_of, shown_text, two_models
from record_tools import attack, controlled

from evaluation import minilm
from reporting.page import texts
from reporting.page.write import embedded

pytestmark = pytest.mark.usefixtures("undrawn")

ODD = "</script><!-- \u2028 \U0001f600 \u0627\u0644\u0641\u064a\u0644\u0645 'q' \"p\" &amp; film"


@pytest.fixture
def without_encoder(monkeypatch):
    """Similarity is then 0.5 for every pair, in no time."""
    monkeypatch.setattr(texts, "_similarities", lambda pairs: dict.fromkeys(pairs, 0.5))


def apply(text: str, edits: list) -> str:
    """What page.js shows without the struck out words. Places count UTF-16 units."""
    units = text.encode("utf-16-le", "surrogatepass")
    parts, done = [], 0
    for start, end, new in edits:
        parts += [units[2 * done : 2 * start], new.encode("utf-16-le", "surrogatepass")]
        done = end
    return b"".join([*parts, units[2 * done :]]).decode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize(
    "original, adversarial, edits",
    [
        ("a good film", "a goood film", [(2, 6, "goood")]),
        ("a film", "a good film", [(2, 2, "good ")]),
        ("not bad", "bad", [(0, 4, "")]),
        ("bad", "b ad", [(0, 3, "b ad")]),
        ("\U0001f600 good \U0001f44d", "\U0001f600 bad \U0001f44d", [(3, 7, "bad")]),
        ("same", "same", []),
        ("", "new", [(0, 0, "new")]),
        ("two  spaces", "two spaces", [(0, 5, "two ")]),
        (ODD, ODD.replace("film", "f\u0456lm"), None),
        ("\ud800 film", "\ud800 movie", None),
    ],
)
def test_edits_turn_one_text_into_the_other(original, adversarial, edits):
    found = texts.edits_of(original, adversarial)
    assert apply(original, found) == adversarial
    assert edits is None or found == edits


def test_embedded_data_survives_and_cannot_end_its_element():
    half = f"{ODD} \ud800"
    text = str(embedded([half]))
    assert json.loads(text) == [half]
    assert json.loads(text.encode("utf-8", "backslashreplace")) == [half]
    assert not set(text) & set("<>&\u2028\u2029")


def test_the_texts_of_two_models_lie_next_to_each_other(tmp_path, without_encoder):
    pairs = [(f"{ODD} {i}", f"{ODD} {i}".replace("film", "movie")) for i in range(4)]
    attacked(tmp_path / "runs" / "dense", attack(seed=1, row_outcomes="rffw"), pairs)
    attacked(tmp_path / "runs" / "ticket", controlled(1, row_outcomes="rrfr"), pairs)
    html = page_of(tmp_path, [])
    assert html.count("<script>") == 1 and html.count("</script>") == 2
    (of_set,) = data_of(html, "texts-data")
    assert of_set["name"] == "builtin/rotten_tomatoes, 4 rows"
    assert of_set["labels"] == ["negative", "positive"]
    names = [model["name"] for model in of_set["models"]]
    assert names == [
        "dense fine-tuned, seed 1, textfooler-minilm",
        "robust ticket, 30 %, seed 1, textfooler-minilm",
    ]
    assert of_set["pair"] == [1, 0]  # the ticket, then its control
    for row, cell, (original, adversarial) in zip(
        of_set["rows"], of_set["models"][0]["rows"], pairs, strict=True
    ):
        assert row["text"] == original and apply(original, cell[4]) == adversarial
    assert of_set["models"][0]["rows"][1][:4] == ["f", 1, 0, 11]
    assert of_set["models"][1]["rows"][1][5] == 0.5


def test_records_without_folders_say_where_the_texts_lie(tmp_path):
    html = page_of(tmp_path, two_models(seeds=(1,)))
    assert "No texts: the records hold the outcome of each row" in shown_text(html)


def test_a_damaged_folder_is_named_and_the_others_are_shown(tmp_path, without_encoder):
    pairs = [("good", "bad")] * 4
    attacked(tmp_path / "runs" / "dense", attack(seed=1, row_outcomes="rffw"), pairs)
    attacked(tmp_path / "runs" / "ticket", controlled(1, row_outcomes="rrfr"), pairs)
    rows = tmp_path / "runs" / "ticket" / "attacks" / "name" / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"outcome"', '"came"'))
    html = page_of(tmp_path, [])
    assert "ticket/attacks/name is damaged" in shown_text(html)
    assert [m["name"][:5] for m in data_of(html, "texts-data")[0]["models"]] == ["dense"]


def test_too_many_rows_are_thinned_and_it_is_said(tmp_path, without_encoder, monkeypatch):
    monkeypatch.setattr(texts, "MOST_BYTES", 10_000)
    pairs = [("a good film " * 20, "a bad film " * 20)] * 100
    line = attack(seed=1, row_outcomes=outcomes(20, 60, 20))
    attacked(tmp_path / "runs" / "dense", line, pairs)
    html = page_of(tmp_path, [])
    (of_set,) = data_of(html, "texts-data")
    share = int(of_set["rows"][1]["id"].removeprefix("test:"))
    assert share > 1 and len(of_set["rows"]) == -(-100 // share)
    assert f"One row in {share} is shown" in shown_text(html)


@pytest.mark.slow
def test_similarity_is_that_of_minilm():
    pair = ("a good film", "a bad film")
    encoder = minilm.MiniLM()
    a, b = encoder.encode([pair[0]])[0], encoder.encode([pair[1]])[0]
    assert texts._similarities({pair}) == {pair: round(float(a @ b), 3)}
    assert texts._similarities(set()) == {}
