"""Small models and data sets in the layout of the hub's repositories."""

import io
import json
import string
import tempfile
from pathlib import Path

import datasets
from conftest import BAD, GOOD, PLAIN, SPECIAL, sentences
from hub.server import Hub
from transformers import BertConfig, BertForPreTraining

from utils import process_state

LABELS = {
    "sst2": ["negative", "positive"],
    "qnli": ["entailment", "not_entailment"],
    "qqp": ["not_duplicate", "duplicate"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "imdb": ["neg", "pos"],
    "ag_news": ["World", "Sports", "Business", "Sci/Tech"],
}
COLUMNS = {
    "sst2": ["sentence"],
    "qnli": ["question", "sentence"],
    "qqp": ["question1", "question2"],
    "mnli": ["premise", "hypothesis"],
}


def bert_files(max_shard_size: str = "1GB") -> dict[str, bytes]:
    """The files of bert-base-uncased, with a tiny encoder in files of at most this size."""
    letters = [*string.ascii_lowercase, *string.digits, *(f"##{c}" for c in string.ascii_lowercase)]
    words = [*SPECIAL, *letters, *GOOD, *BAD, *PLAIN]
    vocabulary = list(dict.fromkeys(words))  # "a" is a letter and a word
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    with process_state.seeded(0), tempfile.TemporaryDirectory() as folder:
        model = BertForPreTraining(config)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    files["vocab.txt"] = "\n".join(vocabulary).encode() + b"\n"
    files["tokenizer_config.json"] = json.dumps(
        {"do_lower_case": True, "model_max_length": 512}
    ).encode()
    return files


def parquet(columns: dict[str, list], labels: list[str], label_column: str = "label") -> bytes:
    """A parquet file as push_to_hub writes it: its metadata hold the label names."""
    features = datasets.Features(
        {name: datasets.Value("string") for name in columns if name != label_column}
        | {label_column: datasets.ClassLabel(names=labels)}
    )
    file = io.BytesIO()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(file)
    return file.getvalue()


def rows(names: list[str], count: int, seed: int, classes: int, labeled: bool = True) -> dict:
    """Columns of texts, of which the last has the words of its class, and of labels."""
    texts = [text for text, _ in sentences(count, seed)]
    labels = [i % classes for i in range(count)]
    columns = {name: [f"{text} {name}" for text in texts] for name in names}
    columns[names[-1]] = [
        f"{text} {(BAD + GOOD)[label * 3]}" for text, label in zip(texts, labels, strict=True)
    ]
    return columns | {"label": labels if labeled else [-1] * count}


def add_paper(hub: Hub) -> None:
    """bert-base-uncased and the six tasks of the paper."""
    hub.add("models", "google-bert/bert-base-uncased", bert_files())
    hub.renamed["bert-base-uncased"] = "google-bert/bert-base-uncased"
    glue, card = {}, ["---", "configs:"]
    for task, names in COLUMNS.items():
        classes = len(LABELS[task])
        dev = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
        card += [f"- config_name: {task}", "  data_files:"]
        for seed, split in enumerate(("train", *dev, "test")):
            part = rows(names, 96 if split == "train" else 24, seed, classes, split != "test")
            glue[f"{task}/{split}-00000-of-00001.parquet"] = parquet(part, LABELS[task])
            card += [f"  - split: {split}", f"    path: {task}/{split}-*"]
    glue["README.md"] = "\n".join([*card, "---", ""]).encode()
    hub.add("datasets", "nyu-mll/glue", glue)
    for task, name, folder in (
        ("imdb", "stanfordnlp/imdb", "plain_text"),
        ("ag_news", "fancyzhx/ag_news", "data"),
    ):
        files = {
            f"{folder}/{split}-00000-of-00001.parquet": parquet(
                rows(["text"], count, seed, len(LABELS[task])), LABELS[task]
            )
            for split, count, seed in (("train", 96, 1), ("test", 24, 2))
        }
        hub.add("datasets", name, files)
