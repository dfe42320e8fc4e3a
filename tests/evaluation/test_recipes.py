"""The recipes with small resources: equal to TextAttack's, and for texts in any script."""

import json
from pathlib import Path

import attack_tools as tools
import pytest
import torch
from attack_tools import attack_all, make_victim
from resource_tools import NOTHING, needs_use3

from evaluation import readers, resources
from evaluation.presets import RECIPES
from training.rows import Rows
from training.tasks import TASKS
from utils import process_state

pytestmark = pytest.mark.usefixtures("textattack")


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
