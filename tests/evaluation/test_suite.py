"""The suite on models whose truth is known, and attack.py --suite from end to end."""

import json

import attack_tools as tools
import numpy as np
import pytest
import torch
from conftest import call, fails
from safetensors.torch import load_file, save_file

from evaluation import default_answer, outcomes, resources
from evaluation.by_class import one_class_survives
from evaluation.margins import Margins, equalizing_bias, letters_of
from evaluation.presets import SUITE_PARTS, suite_parts
from training.rows import Rows
from utils.files import read_json, read_jsonl

NAMES = ("negative", "positive")
WORDS = [f"{polarity}{c}" for polarity in ("bad", "good") for c in "abcdefgh"]
SYNONYMS = {word: [f"{word}like"] for word in WORDS}
STOP_WORDS = {"the": 0.2, "is": -0.2, "of": 0.3, "and": -0.3}  # with their evidence
UNKNOWN = "[UNK]"


def rows(count: int, seed: int) -> Rows:
    """Sentences with two to five words for their class, one against it, and two stop words."""
    generator = np.random.default_rng(seed)
    texts, labels = [], [i % 2 for i in range(count)]
    for label in labels:
        own, other = (("bad", "good"), ("good", "bad"))[label]
        chosen = [f"{own}{c}" for c in generator.choice(list("abcdefgh"), generator.integers(2, 6))]
        chosen += [f"{other}{c}" for c in generator.choice(list("abcdefgh"), 1)]
        chosen += generator.choice(list(STOP_WORDS), 2).tolist()
        texts.append((" ".join(generator.permutation(chosen).tolist()),))
    return Rows(texts, labels, [f"test:{i}" for i in range(count)], "made")


def base() -> dict[str, float]:
    """Evidence for "positive" of each word; a synonym carries a part of its word's evidence."""
    generator = np.random.default_rng(0)
    evidence = dict(STOP_WORDS)
    for c in "abcdefgh":
        strength, share = generator.uniform(1, 2), generator.uniform(-0.4, 0.8)
        for polarity, sign in (("good", 1), ("bad", -1)):  # the classes are mirror images
            evidence[f"{polarity}{c}"] = sign * strength
            evidence[f"{polarity}{c}like"] = sign * strength * share
    return evidence


def robust() -> dict[str, float]:
    """Evidence of a model that knows that half of the synonyms mean the same."""
    evidence = base()
    for polarity in ("good", "bad"):
        for c in "abcd":
            evidence[f"{polarity}{c}like"] = evidence[f"{polarity}{c}"]
    return evidence


class Model:
    """A bag of words, queried like a `Victim`. `unknown`: evidence of a word that it lacks."""

    model = None  # TextAttack looks at its class

    def __init__(self, evidence: dict[str, float], bias: float = 0.0, unknown: float = 0.0):
        self.evidence, self.bias, self.unknown = evidence, bias, unknown

    def forget(self):
        pass

    def logit(self, text: str) -> float:
        return self.bias + sum(self.evidence.get(word, self.unknown) for word in text.split())

    def __call__(self, texts):
        logits = torch.tensor([self.logit(text) for text in texts], dtype=torch.float64)
        return torch.stack([-logits / 2, logits / 2], dim=1)


class Memorizer(Model):
    """Knows the test texts by heart and answers "negative" to all others."""

    def __init__(self, known: Rows):
        self.known = {t[0]: y for t, y in zip(known.texts, known.labels, strict=True)}

    def logit(self, text: str) -> float:
        return {None: -1.0, 0: -9.0, 1: 9.0}[self.known.get(text)]


DEV, TEST = rows(40, 1), rows(60, 2)


@pytest.fixture(scope="module")
def parts():
    """Our modules that need TextAttack, which takes seconds to import."""
    resources.import_textattack("cpu")
    from textattack.transformations import WordSwapEmbedding

    from evaluation import attack_rows, margin_search, suite_record
    from evaluation.textattack_parts import NeighbourTable, watch_ranking

    return (
        attack_rows,
        margin_search,
        suite_record,
        lambda: WordSwapEmbedding(max_candidates=5, embedding=NeighbourTable(SYNONYMS)),
        watch_ranking,
    )


def attacked(parts, model: Model, data: Rows, width: int = 1, order: str = "delete") -> list[dict]:
    """The margin attack on each row: lines as in rows.jsonl."""
    from textattack import Attack
    from textattack.constraints.pre_transformation import RepeatModification

    attack_rows, margin_search, _, transformation, watch_ranking = parts
    search = margin_search.MarginSearch(order, width)
    watch_ranking(search)
    goal = margin_search.Margin(model, model_batch_size=2**20)
    attack = Attack(goal, [RepeatModification()], transformation(), search)
    return [
        attack_rows.attack_row(attack, model, tools.SST2, data, i, 42) for i in range(len(data))
    ]


def evaluated(parts, model: Model) -> dict:
    """Percentages without a bias and at that of the attacked dev rows."""
    record = parts[2]
    dev = record.margins_of(attacked(parts, model, DEV), NAMES, -1)
    bias = equalizing_bias(dev)
    lines = attacked(parts, model, TEST)
    clean, after = (record.margins_of(lines, NAMES, entry) for entry in (0, -1))
    return {
        "clean": record.percentages(clean, bias)["no_bias"]["mean"],
        **record.percentages(after, bias),
        "bias": bias[1] - bias[0],
    }


def default_of(model: Model):
    def predict(texts):
        return model(texts).argmax(dim=1).numpy()

    return default_answer.default_class(default_answer.probe(predict, TEST, 2, UNKNOWN, 0))


@pytest.fixture(scope="module")
def honest(parts):
    return evaluated(parts, Model(base()))


def test_an_honest_model_needs_no_bias_and_has_no_default(honest):
    assert honest["clean"] == 100 and abs(honest["bias"]) < 1
    gap = np.ptp([*honest["no_bias"]["by_class"].values()])
    assert gap < 20 and 10 < honest["no_bias"]["mean"] < 80
    assert honest["equalized"]["mean"] == pytest.approx(honest["no_bias"]["mean"], abs=4)
    assert default_of(Model(base())) is None


@pytest.mark.parametrize("shift", [-2.0, -1.0, 1.0, 2.0])
def test_a_shifted_bias_moves_the_classes_and_not_the_equalized_aua(parts, honest, shift):
    """A copy of the honest model with another bias is no more robust."""
    shifted = evaluated(parts, Model(base(), bias=shift))
    of_class, before = (r["no_bias"]["by_class"] for r in (shifted, honest))
    favored, other = NAMES[::-1] if shift > 0 else NAMES
    assert of_class[favored] > before[favored] + 5 and of_class[other] < before[other] - 5
    assert shifted["equalized"] == honest["equalized"]
    assert shifted["bias"] == pytest.approx(honest["bias"] - shift, abs=1e-6)


def test_a_model_that_answers_positive_to_unknown_words_is_caught(parts, honest):
    """It does not know the synonyms: its mean Aua rises, through one class."""
    known = {word: value for word, value in base().items() if not word.endswith("like")}
    model = Model(known, unknown=2.0)
    result = evaluated(parts, model)
    assert result["no_bias"]["by_class"]["positive"] > 95
    assert result["no_bias"]["by_class"]["negative"] < 10
    assert result["no_bias"]["mean"] > honest["no_bias"]["mean"] - 5
    assert result["equalized"]["mean"] < result["no_bias"]["mean"] - 5
    assert default_of(model) == (1, 100.0)


def test_a_memorizer_is_caught(parts):
    """Every change of a text brings its default answer, so half of the rows cannot be attacked."""
    model = Memorizer(TEST)
    result = evaluated(parts, model)
    assert result["clean"] == 100 and result["no_bias"]["mean"] == 50
    assert result["no_bias"]["worst_class"] == 0 and result["equalized"]["worst_class"] == 0
    assert default_of(model) == (0, 100.0)


@pytest.mark.slow
def test_a_more_robust_model_gains_in_both_classes(parts, honest):
    result = evaluated(parts, Model(robust()))
    for name in NAMES:
        assert result["no_bias"]["by_class"][name] > honest["no_bias"]["by_class"][name] + 10
    assert result["equalized"]["mean"] > honest["equalized"]["mean"] + 10
    assert default_of(Model(robust())) is None


def carried(parts, model: Model, others: list[dict]) -> Margins:
    """Margins of `model` on the texts that attacks on another model found for TEST."""
    logits = model([line["perturbed"]["sentence"] for line in others]).numpy()
    return Margins.of_logits(logits, np.array(TEST.labels), NAMES)


@pytest.mark.slow
def test_the_union_and_the_warning_on_the_four_models(parts, honest):
    """Greedy search, a random order, and the texts that fooled the honest model."""
    suite_record = parts[2]
    found = attacked(parts, Model(base()), TEST)
    known = {word: value for word, value in base().items() if not word.endswith("like")}
    models = {
        "honest": Model(base()),
        "shifted": Model(base(), bias=3.0),
        "unknown words": Model(known, unknown=2.0),
        "memorizer": Memorizer(TEST),
        "more robust": Model(robust()),
    }
    aua, warns = {}, {}
    for name, model in models.items():
        greedy = attacked(parts, model, TEST)
        shuffled = attacked(parts, model, TEST, order="random")
        clean = suite_record.margins_of(greedy, NAMES, 0)
        after = [suite_record.margins_of(lines, NAMES, -1) for lines in (greedy, shuffled)]
        union = after[0].lowest(after[1], carried(parts, model, found))
        assert (union.margins <= np.minimum(after[0].margins, after[1].margins)).all()
        aua[name] = suite_record.percentages(union, None)["no_bias"]
        letters = letters_of(clean, union)
        labels = outcomes.encode_labels(TEST.labels)
        about = {"row_outcomes": letters, "row_labels": labels, "label_names": NAMES}
        warns[name] = one_class_survives(about)
    assert aua["honest"]["mean"] == honest["no_bias"]["mean"]  # other texts fool it no better
    flagged = {name for name, why in warns.items() if why}
    assert flagged == {"shifted", "unknown words", "memorizer"}
    assert {name for name in flagged if "on positive rows" in warns[name]} == flagged - {
        "memorizer"
    }
    gains = [aua["more robust"]["by_class"][n] - aua["honest"]["by_class"][n] for n in NAMES]
    assert min(gains) > 10 and aua["memorizer"]["worst_class"] == 0


def test_the_search_goes_on_after_success_and_skips_no_row(parts):
    lines = attacked(parts, Model(base(), bias=3.0), TEST)
    wrong_before = [line for line in lines if line["outcome"] == "skipped"]
    assert wrong_before and all(len(line["curve"]) > 1 for line in wrong_before)
    for line in lines:
        margins = [entry[1] for entry in line["curve"]]
        assert margins == sorted(margins, reverse=True)
        expected = "skipped" if margins[0] <= 0 else "success" if margins[-1] <= 0 else "failed"
        assert line["outcome"] == expected
        # The text of the lowest margin, in which every word that helps is replaced.
        text, label = line["perturbed"]["sentence"], line["label"]
        logits = Model(base(), bias=3.0)([text])[0]
        assert float(logits[label] - logits[1 - label]) == pytest.approx(margins[-1], abs=1e-4)


@pytest.mark.slow
def test_with_two_classes_the_path_does_not_depend_on_the_bias(parts):
    texts = [
        [line["perturbed"] for line in attacked(parts, Model(base(), bias=bias), TEST)]
        for bias in (-2.0, 0.0, 2.0)
    ]
    assert texts[0] == texts[1] == texts[2]


class ThreeClasses(Model):
    """Logits of "negative", "positive" and "neutral", which does not depend on the words."""

    def __call__(self, texts):
        return torch.cat([super().__call__(texts), torch.zeros(len(texts), 1).double()], dim=1)


@pytest.mark.slow
def test_with_three_classes_each_margin_is_the_lowest_of_any_text(parts):
    model = ThreeClasses(base())
    for line in attacked(parts, model, TEST):
        curve, label = np.array(line["curve"]), line["label"]
        assert curve.shape[1] == 3 and (np.diff(curve[:, 1:], axis=0) <= 0).all()
        logits = model([line["perturbed"]["sentence"]])[0].numpy()
        margins = np.delete(logits[label] - logits, label)
        assert margins.min() == pytest.approx(curve[-1, 1:].min(), abs=1e-4)
        assert (margins >= curve[-1, 1:] - 1e-4).all()


@pytest.mark.slow
def test_a_beam_and_a_random_order_find_what_greedy_search_finds_here(parts):
    """A bag of words has no traps for greedy search."""
    greedy = attacked(parts, Model(base()), TEST)
    for width, order in ((4, "delete"), (1, "random")):
        other = attacked(parts, Model(base()), TEST, width, order)
        assert [x["curve"][-1][1] for x in other] == [x["curve"][-1][1] for x in greedy]
    assert sum(x["queries"] for x in attacked(parts, Model(base()), TEST, 4)) > sum(
        x["queries"] for x in greedy
    )


def test_the_probe_replaces_content_words_only():
    seen = []

    def predict(texts):
        seen.append(texts)
        return np.zeros(len(texts), dtype=int)

    data = Rows([("the film is a good story .",), ("It's bad",)], [1, 0], ["t:0", "t:1"], "made")
    answers = default_answer.probe(predict, data, 2, UNKNOWN, 0)
    assert answers == {kind: [[100.0, 0.0]] * 5 for kind in ("random", "unknown")}
    by_unknown = seen[5:]
    assert by_unknown[0] == [text[0] for text in data.texts]
    assert by_unknown[-1][0] == "the [UNK] is a [UNK] [UNK] ."
    assert by_unknown[2][0].count(UNKNOWN) == 2
    assert default_answer.default_class(answers) == (0, 100.0)
    assert set(seen[4][0].split()) - {"the", "is", "a", "."} <= {"film", "good", "story", "bad"}


def test_a_default_needs_to_be_halfway_to_all():
    shares = [[50.0, 50.0]] * 4
    assert default_answer.default_class({"random": [*shares, [74.9, 25.1]]}) is None
    assert default_answer.default_class({"random": [*shares, [25.0, 75.0]]}) == (1, 75.0)
    four = {"random": [[25.0] * 4] * 5, "unknown": [[25.0] * 4, [10.0, 65.0, 15.0, 10.0]]}
    assert default_answer.default_class(four) == (1, 65.0)


def test_parts_bring_the_parts_that_they_need():
    assert suite_parts("standard") == list(SUITE_PARTS)
    assert suite_parts("beam") == ["dev", "margin", "second", "beam"]
    assert suite_parts("probe , margin") == ["margin", "probe"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """attack.py --suite on a word counter: two runs of one command, and their output folder."""
    root = tmp_path_factory.mktemp("suite")
    checkpoint = tools.word_counter(root / "model")
    files = [
        (f"--{name}_file", tools.write_rows(root / f"{name}.tsv", list(tools.SENTENCES)))
        for name in ("train", "validation", "test")
    ]
    flags = (
        *("attack", "--model_name", checkpoint, "--task_name", "sst2"),
        *(word for pair in files for word in pair),
        *("--suite", "standard", "--num_examples", 4, "--dev_examples", 4, "--quiet"),
        *("--max_seq_length", 32),
        *("--output_dir", root / "out"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_TICKETS_CACHE", str(tools.session_cache()))
        call(*flags)
        first = (root / "out" / "summary.json").read_text()
        call(*flags)
    return root, flags, json.loads(first)


@pytest.mark.slow
def test_the_suite_from_end_to_end(suite):
    root, _, record = suite
    assert record["kind"] == "suite" and record["parts"] == list(SUITE_PARTS)
    assert len(record["row_labels"]) == 4 and len(record["margins"]["union"]) == 4
    for part in ("dev", "margin"):
        assert len(read_jsonl(root / "out" / part / "rows.jsonl")) == 4
    clean, margin, union = (
        np.array(record["margins"][name])[:, 0] for name in ("clean", "margin", "union")
    )
    assert (margin <= clean).all() and (union <= margin).all()
    assert (margin < clean).any()
    means = {name: p["no_bias"]["mean"] for name, p in record["percent"].items()}
    assert means["clean"] >= means["margin"] >= means["union"] >= means["lower_bound"]
    assert means["union"] == 100 * float((union > 0).mean())
    bias = np.array(record["bias"])
    labels = np.array([int(digit) for digit in record["row_labels"]])
    right = union + bias[labels] - bias[1 - labels] > 0
    assert record["percent"]["union"]["equalized"]["mean"] == 100 * float(right.mean())
    assert set(record["default_answer"]) == {"shares", "random", "unknown"}


@pytest.mark.slow
def test_the_suite_resumes_and_does_not_repeat(suite):
    root, _, record = suite
    assert read_json(root / "out" / "summary.json") == record  # the second run changed nothing
    records = read_jsonl(root / "model" / "suites.jsonl")
    assert len(records) == 1 and records[0] == record


@pytest.mark.slow
def test_texts_of_another_suite_are_carried_over(suite, tmp_path):
    root, flags, record = suite
    other = tools.word_counter(tmp_path / "other", scale=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_TICKETS_CACHE", str(tools.session_cache()))
        call(
            *("attack", "--model_name", other, *flags[3:11], "--suite", "margin,carried"),
            *(
                "--num_examples",
                4,
                "--quiet",
                "--max_seq_length",
                32,
                "--output_dir",
                tmp_path / "out",
            ),
            *("--carry_over", root / "out"),
        )
    mine = read_json(tmp_path / "out" / "summary.json")
    assert mine["rows_per_part"]["carried"] == 4
    # Half the logits, so half the margins of the texts that fool the first model most.
    of_first = np.array(record["margins"]["margin"])
    assert (np.array(mine["margins"]["union"]) <= of_first / 2 + 1e-4).all()
    # Before the carried texts: the only other part. The first suite had none to carry.
    assert (
        mine["margins"]["alone"] == mine["margins"]["margin"] and "alone" not in record["margins"]
    )


@pytest.mark.slow
def test_suites_without_these_rows_are_refused_before_the_first_attack(suite, tmp_path, capsys):
    root, flags, _ = suite
    (tmp_path / "other" / "margin").mkdir(parents=True)
    (tmp_path / "other" / "margin" / "rows.jsonl").write_text('{"row_id": "test:999"}\n')
    for place, part in ((tmp_path, "holds no suite"), (tmp_path / "other", "has other rows")):
        line = fails(capsys, *flags[:-1], tmp_path / "out", "--carry_over", root / "out", place)
        assert f"--carry_over {place} {part}" in line and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_dev_rows_of_one_class_choose_no_bias(suite, tmp_path, capsys):
    flags = [1 if i and suite[1][i - 1] == "--dev_examples" else f for i, f in enumerate(suite[1])]
    line = fails(capsys, *flags[:-1], tmp_path / "out")
    assert "the dev rows have none of the class" in line and "more --dev_examples" in line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of a word counter with files of its own: train.tsv, dev.tsv and test.tsv."""
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tools.session_cache()))
    own = {"train": tools.SENTENCES[:4], "dev": tools.SENTENCES[4:6], "test": tools.SENTENCES[6:]}
    for name, sentences in own.items():
        tools.write_rows(tmp_path / f"{name}.tsv", sentences)
    run = tools.fake_run(tmp_path / "run", tmp_path / "test.tsv")
    tools.word_counter(run / "last")
    about = read_json(run / "run.json")
    about["args"] |= {f"{flag}_file": str(tmp_path / f"{name}.tsv") for flag, name in FILES.items()}
    (run / "run.json").write_text(json.dumps(about))
    return run


FILES = {"train": "train", "validation": "dev", "test": "test"}


def record_of(run, *flags, parts: str = "dev,margin") -> dict:
    records = run / "suites.jsonl"
    out = run / f"out{len(read_jsonl(records)) if records.is_file() else 0}"
    fixed = ("--num_examples", 4, "--quiet", "--output_dir", out)
    call("attack", "--model_name", run, "--suite", parts, *fixed, *flags)
    return read_jsonl(records)[-1]


def flags_in(record: dict) -> set[str]:
    return {flag["flag"] for flag in record["flags"]}


@pytest.mark.slow
def test_rows_and_bias_come_from_the_files_that_the_flags_name(run, tmp_path):
    record = record_of(run)
    assert [record["data"]["source"], record["dev"]["data"]["source"]] == ["test.tsv", "dev.tsv"]
    assert not flags_in(record) & {"trained_on_attacked_rows", "selected_on_attacked_rows"}
    # Other test rows say nothing about the dev rows.
    seen = tools.write_rows(tmp_path / "seen.tsv", tools.SENTENCES[:6])
    record = record_of(run, "--test_file", seen)
    assert [record["data"]["source"], record["dev"]["data"]["source"]] == ["seen.tsv", "dev.tsv"]
    assert flags_in(record) >= {"trained_on_attacked_rows", "selected_on_attacked_rows"}
    other = tools.write_rows(tmp_path / "other.tsv", tools.SENTENCES[:2])
    test = ("--test_file", tmp_path / "test.tsv")
    record = record_of(run, *test, "--validation_file", other)
    assert [record["data"]["source"], record["dev"]["data"]["source"]] == ["test.tsv", "other.tsv"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--suite", "dev,margin"), ("--recipe", "deepwordbug")])
def test_a_dev_file_alone_is_not_attacked_in_place_of_the_test_rows(run, tmp_path, capsys, how):
    other = tools.write_rows(tmp_path / "other.tsv", tools.SENTENCES)
    line = fails(capsys, "attack", "--model_name", run, *how, "--validation_file", other)
    assert "--validation_file without --test_file would be attacked as test rows" in line
    assert not (run / "suites").exists() and not (run / "attacks").exists()


@pytest.mark.slow
def test_a_suite_has_the_flags_of_an_attack(run, tmp_path):
    """A model that says "positive" to every text, and cuts texts at another length than before."""
    path = run / "last" / "model.safetensors"
    weights = load_file(path) | {"classifier.bias": torch.tensor([0.0, 500.0])}
    save_file(weights, path, {"format": "pt"})
    shown = tools.write_rows(tmp_path / "shown.tsv", tools.SENTENCES)
    flags = ("--test_file", shown, "--max_seq_length", 16)
    record = record_of(run, *flags, parts="margin")
    expected = {"one_answer", "many_rows_skipped", "other_truncation", "saturated_softmax"}
    assert flags_in(record) >= expected | {"trained_on_attacked_rows"}
    lenient = record_of(run, *flags, "--flag_skipped_percent", 50, parts="probe")
    assert flags_in(lenient) >= {"one_answer", "other_truncation", "default_answer"}
    lenient = record_of(run, *flags, "--flag_skipped_percent", 50, parts="margin")
    assert flags_in(record) - flags_in(lenient) == {"many_rows_skipped"}


@pytest.mark.parametrize(
    "flags, part",
    [
        ((), "give --recipe, or --suite standard"),
        (("--suite", "strong"), "'strong' is not a part"),
        (("--suite", "standard", "--recipe", "pwws"), "--suite has no recipe pwws"),
        (("--suite", "standard", "--temperature", "2"), "omit --temperature"),
        (("--recipe", "deepwordbug", "--carry_over", "x"), "--carry_over is read by the suite"),
    ],
)
def test_wrong_suites(capsys, flags, part):
    assert part in fails(capsys, "attack", "--model_name", "x", *flags)
