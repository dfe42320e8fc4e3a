"""The victim, its scores, and equality with TextAttack's own wrapper and search."""

import json
import random

import attack_tools as tools
import numpy as np
import pytest
import torch
from attack_tools import attack_all, make_victim

from training.rows import Rows
from training.tasks import TASKS
from utils.cli import UserError
from utils.runs import seed_for

pytestmark = pytest.mark.usefixtures("textattack")


def recipe(name, victim, task=tools.SST2, score_with="log_odds", **loaded):
    from evaluation import recipes

    return recipes.build(name, victim, task, recipes.Loaded(**loaded), score_with)


def test_logits_do_not_depend_on_batches_or_padding(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    texts = [text for text, _ in tools.SENTENCES] + ["good", "a good film"]
    ours = make_victim(model_and_tokenizer, batch_size=3)(texts)
    assert ours.dtype == torch.float64 and ours.shape == (len(texts), 2)
    for text, logits in zip(texts, ours, strict=True):
        padded = tokenizer(text, padding="max_length", max_length=64, return_tensors="pt")
        with torch.no_grad():
            assert torch.allclose(model(**padded).logits[0].double(), logits, atol=1e-5)


def test_texts_are_cut_at_the_given_length(model_and_tokenizer):
    victim = make_victim(model_and_tokenizer, max_seq_length=6)
    same, other = "good film and story plot", "good film and story cast"  # cut after 4 words
    assert torch.equal(*victim([same, other]))
    victim = make_victim(model_and_tokenizer, max_seq_length=32)
    assert not torch.equal(*victim([same, other]))


def test_same_tokens_tie_exactly_within_a_row(model_and_tokenizer):
    victim = make_victim(model_and_tokenizer)
    alone = victim(["A Good Film"])[0]
    among = victim(["the movie is bad and very boring", "a good film"])[1]
    assert torch.equal(alone, among)
    victim.forget()
    assert not victim.known


def test_logits_are_in_the_order_of_the_tasks_labels(model_and_tokenizer):
    texts = ["a good film"]
    straight = make_victim(model_and_tokenizer)(texts)
    swapped = make_victim(model_and_tokenizer, label_order=[1, 0])(texts)
    assert torch.equal(swapped, straight.flip(1))


def test_pairs_get_their_token_types(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    pair = ("a good film", "the story is dull")
    ours = make_victim(model_and_tokenizer)([pair, ("good", "bad")])[0]
    with torch.no_grad():
        expected = model(**tokenizer(*pair, return_tensors="pt")).logits[0]
    assert torch.allclose(ours, expected.double(), atol=1e-5)


def test_bf16_keeps_the_output_layer_exact(model_and_tokenizer):
    texts = [text for text, _ in tools.SENTENCES]
    exact = make_victim(model_and_tokenizer)(texts)
    coarse = make_victim(model_and_tokenizer, precision="bf16")(texts)
    assert torch.allclose(exact, coarse, atol=0.2)
    assert not torch.equal(coarse, coarse.to(torch.bfloat16).double())


def test_outputs_that_are_not_finite_are_refused(model_and_tokenizer):
    victim = make_victim(model_and_tokenizer)
    victim.model.classifier.bias.data[0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        victim(["a good film"])


@pytest.mark.parametrize("labels", [2, 4])
def test_log_odds_order_as_one_minus_p_and_do_not_saturate(labels):
    from evaluation.textattack_parts import log_odds_against

    logits = torch.randn(
        200, labels, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    odds = torch.tensor([log_odds_against(row, 1) for row in logits], dtype=torch.float64)
    p = logits.softmax(1)[:, 1]
    assert torch.allclose(odds, torch.log((1 - p) / p))
    sure = torch.zeros(2, labels, dtype=torch.float64)
    sure[:, 1] = torch.tensor([900.0, 901.0])
    assert log_odds_against(sure[0], 1) > log_odds_against(sure[1], 1)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    import nltk

    folder = tools.nltk_tagger(tmp_path_factory.mktemp("nltk"))
    nltk.data.path.insert(0, str(folder))
    nltk.tag._get_tagger.cache_clear()
    yield folder
    nltk.data.path.remove(str(folder))
    nltk.tag._get_tagger.cache_clear()


@pytest.fixture(scope="module")
def table_resources(tagger):
    from evaluation.minilm import MiniLM
    from evaluation.textattack_parts import NeighbourTable

    return {"embedding": NeighbourTable(tools.TABLE), "minilm": MiniLM()}


@pytest.mark.parametrize("name", ["deepwordbug", "textfooler-neighbours"])
def test_equal_to_textattacks_own_wrapper(name, model_and_tokenizer, table_resources, request):
    """Outcome, text and query count of each row, with TextAttack's own scores."""
    from textattack import Attack
    from textattack.goal_functions import UntargetedClassification
    from textattack.models.wrappers import HuggingFaceModelWrapper

    loaded = {} if name == "deepwordbug" else table_resources
    victim = make_victim(model_and_tokenizer)
    ours = recipe(name, victim, score_with="softmax", **loaded)
    lines = attack_all(ours, victim)

    parts = recipe(name, victim, score_with="softmax", **loaded)
    goal = UntargetedClassification(HuggingFaceModelWrapper(*model_and_tokenizer))
    constraints = parts.pre_transformation_constraints + parts.constraints
    stock = Attack(goal, constraints, parts.transformation, parts.search_method)
    for line, (text, label) in zip(lines, tools.SENTENCES, strict=True):
        seed = seed_for(0, "attack", line["row_id"])
        random.seed(seed)
        np.random.seed(seed % 2**32)
        result = stock.attack(text, label)
        assert line["perturbed"]["sentence"] == result.perturbed_result.attacked_text.text
        assert line["queries"] == result.num_queries
        assert line["predicted_after"] == result.perturbed_result.output
    assert {"success", "failed"} & {line["outcome"] for line in lines}
    assert any(line["words_changed"] for line in lines)


@pytest.mark.parametrize("name", ["deepwordbug", "textfooler-neighbours"])
def test_log_odds_and_an_unsaturated_softmax_give_the_same_attack(
    name, model_and_tokenizer, table_resources
):
    loaded = {} if name == "deepwordbug" else table_resources
    victim = make_victim(model_and_tokenizer)
    outcomes = []
    for score_with in ("log_odds", "softmax"):
        lines = attack_all(recipe(name, victim, score_with=score_with, **loaded), victim)
        for line in lines:
            del line["score_before"], line["score_after"]
        outcomes.append(lines)
    assert outcomes[0] == outcomes[1]


def test_scaled_logits_change_nothing_for_log_odds(model_and_tokenizer):
    plain = make_victim(model_and_tokenizer)
    steep = make_victim(model_and_tokenizer)
    with torch.no_grad():
        steep.model.classifier.weight.mul_(128)  # a power of two, so that rounding is the same
        steep.model.classifier.bias.mul_(128)
    outcomes = []
    for victim in (plain, steep):
        lines = attack_all(recipe("deepwordbug", victim), victim)
        outcomes.append([(x["outcome"], x["perturbed"], x["queries"]) for x in lines])
    assert outcomes[0] == outcomes[1]
    blind = attack_all(recipe("deepwordbug", steep, score_with="softmax"), steep)
    assert [(x["outcome"], x["perturbed"], x["queries"]) for x in blind] != outcomes[0]


@pytest.mark.parametrize("name", ["deepwordbug", "textbugger-minilm"])
def test_the_outcome_of_a_row_does_not_depend_on_other_rows(
    name, model_and_tokenizer, table_resources
):
    loaded = {} if name == "deepwordbug" else table_resources
    victim = make_victim(model_and_tokenizer)
    together = attack_all(recipe(name, victim, **loaded), victim)
    for position in (1, 4, 6):
        fresh = make_victim(model_and_tokenizer)
        assert attack_all(recipe(name, fresh, **loaded), fresh, positions=[position]) == [
            together[position]
        ]
    twice = recipe(name, victim, **loaded)
    assert attack_all(twice, victim, positions=[3, 3, 0]) == [together[i] for i in (3, 3, 0)]


def test_only_one_column_of_a_pair_is_attacked(model_and_tokenizer):
    task = TASKS["qnli"]  # D12: question is attacked, although it comes first
    texts = [
        (a, "i " + b) for (a, _), (b, _) in zip(tools.SENTENCES, tools.SENTENCES[1:], strict=False)
    ]
    victim = make_victim(model_and_tokenizer)
    labels = victim(texts).argmax(1).tolist()
    rows = Rows(texts, labels, [f"test:{i}" for i in range(len(texts))], "made")
    lines = attack_all(recipe("deepwordbug", victim, task), victim, task, rows)
    assert all(x["perturbed"]["sentence"] == x["original"]["sentence"] for x in lines)
    assert any(x["perturbed"]["question"] != x["original"]["question"] for x in lines)
    assert all(set(x["perturbed"]) == {"question", "sentence"} for x in lines)
    assert json.dumps(lines)


def test_a_second_column_that_starts_with_a_letter_of_textattacks_separator(model_and_tokenizer):
    """Joined by <SPLIT>, "i" would be found inside the separator; QQP attacks question2."""
    task = TASKS["qqp"]
    texts = [("a good film", "I is very S and T")]
    victim = make_victim(model_and_tokenizer)
    rows = Rows(texts, victim(texts).argmax(1).tolist(), ["test:0"], "made")
    [line] = attack_all(recipe("deepwordbug", victim, task), victim, task, rows)
    assert line["perturbed"]["question1"] == "a good film"
    assert len(line["perturbed"]["question2"].split()) == 6


def test_texts_without_a_word_to_change_fail(model_and_tokenizer):
    victim = make_victim(model_and_tokenizer)
    sentences = ["...", "the and is", ". , ."]
    labels = victim(sentences).argmax(1).tolist()
    rows = tools.sst2_rows(list(zip(sentences, labels, strict=True)))
    for line in attack_all(recipe("deepwordbug", victim), victim, rows=rows):
        assert line["outcome"] == "failed" and line["queries"] == 1 and not line["words_changed"]


# Emoji, with a skin tone or joined; U+2019, U+02BC and U+0027 as apostrophes; accents.
UNUSUAL = (
    "a good film \U0001f600 with a great \U0001f468\u200d\U0001f469 story",
    "the plot isn\u2019t good and the cast\u02bcs weak",
    "\u2019tis a \u2018good\u2019 film , don\u02bct don't don\u2019t",
    "caf\u00e9 film \u2019s \u02bcstory na\u00efve movie \U0001f44d\U0001f3fd",
    "\U0001f600\U0001f44d\U0001f3fd",
    "\u2019 \u02bc",
)


@pytest.mark.parametrize("name", ["deepwordbug", "textfooler-minilm", "textbugger-minilm"])
def test_emoji_and_apostrophes(name, model_and_tokenizer, table_resources):
    """Everything that is not a word stays in place, and the outcome is the model's answer."""
    loaded = {} if name == "deepwordbug" else table_resources
    victim = make_victim(model_and_tokenizer)
    labels = victim(list(UNUSUAL)).argmax(1).tolist()
    rows = tools.sst2_rows(tuple(zip(UNUSUAL, labels, strict=True)))
    lines = attack_all(recipe(name, victim, **loaded), victim, rows=rows)
    for line, text, label in zip(lines, UNUSUAL, labels, strict=True):
        perturbed = line["perturbed"]["sentence"]
        assert line["original"]["sentence"] == text
        expected = [c for c in text if not c.isalnum() and c not in "' "]
        assert [c for c in perturbed if not c.isalnum() and c not in "' "] == expected
        assert int(victim([perturbed]).argmax()) == line["predicted_after"]
        assert (line["predicted_after"] == label) == (line["outcome"] == "failed")
        assert (perturbed != text) == bool(line["words_changed"])
    assert [line["words_total"] for line in lines[-2:]] == [0, 1]
    assert sum(bool(line["words_changed"]) for line in lines) >= 3


def test_an_attack_restores_the_global_generators(model_and_tokenizer):
    """`attack_row` seeds the generators of its process."""
    victim = make_victim(model_and_tokenizer)
    random.seed(11)
    np.random.seed(11)
    torch.manual_seed(11)
    expected = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    attack_all(recipe("deepwordbug", victim), victim, positions=[0, 1])
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert states == expected


def test_words_changed_counts_a_split_word_once():
    from textattack.shared import AttackedText

    from evaluation.attack_rows import words_changed

    text = AttackedText("a very good film with a story")
    split = text.replace_word_at_index(2, "go od")
    assert words_changed(text) == 0 and words_changed(split) == 1
    assert words_changed(split.replace_word_at_index(7, "plot")) == 2
