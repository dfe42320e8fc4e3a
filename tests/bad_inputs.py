"""Invalid inputs of every kind next to valid ones, and the valid flags of each script."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import call, make_encoder, sentences, words_of, write_tsv
from safetensors.torch import load_file, save_file

from masking import ticket_files

OUT = "OUT"  # placeholder for the output folder


@pytest.fixture(scope="session")
def place(encoder, sst2_folder, tmp_path_factory):
    """A folder with one valid input and many invalid ones of each kind."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(encoder, root / "encoder")
    shutil.copytree(sst2_folder, root / "data")
    call(
        "finetune",
        model_name=root / "encoder",
        task_name="sst2",
        data_dir=root / "data",
        output_dir=root / "dense",
        quiet=True,
        epochs=1,
        max_train_rows=32,
        max_eval_rows=20,
    )
    call("make_scores", kind="random", model_name=root / "encoder", output_dir=root / "scores")
    bad_data(root)
    bad_runs(root)
    bad_scores(root)
    bad_encoders(root)
    (root / "notes").mkdir()
    (root / "notes" / "thesis.tex").write_text("mine")
    return root


def bad_data(root: Path) -> None:
    files = {
        "empty.tsv": b"",
        "header.tsv": b"sentence\tlabel\n",
        "one_class.tsv": b"sentence\tlabel\n" + b"".join(b"a%d\t1\n" % i for i in range(30)),
        "columns.tsv": b"text\tlabel\na\t1\nb\t0\n",
        "no_label.tsv": b"sentence\tgold\na\t1\nb\t0\n",
        "label_7.tsv": b"sentence\tlabel\na\t7\nb\t0\n",
        "label_nan.tsv": b"sentence\tlabel\na\tnan\nb\t0\n",
        "no_text.tsv": b"sentence\tlabel\n \t1\nb\t0\n",
        "latin1.tsv": "sentence\tlabel\ncaf\u00e9\t1\nb\t0\n".encode("latin-1"),
        "utf16.tsv": "sentence\tlabel\na\t1\nb\t0\n".encode("utf-16"),
        "binary.tsv": bytes(range(256)) * 40,
        "ragged.tsv": b"sentence\tlabel\na\t1\nb\t0\tz\tw\n",
        "wide.tsv": b"sentence\tlabel\n" + b"a\t1\tx\nb\t0\ty\n" * 20,
        "listed.jsonl": b'{"sentence": ["a"], "label": 1}\n{"sentence": "b", "label": 0}\n' * 20,
        "absent.jsonl": b'{"label": 1}\n{"sentence": "b", "label": 0}\n' * 20,
        "few.tsv": b"sentence\tlabel\na\t1\nb\t0\nc\t1\n",
        "torn.tsv.gz": b"\x1f\x8b\x08\x00 and no more",
        "torn.parquet": b"PAR1",
        "torn.jsonl": b'{"sentence": "a"',
        "quote.csv": b'sentence,label\n"a,1\n',
        "table.xlsx": b"PK",
    }
    (root / "bad").mkdir()
    for name, content in files.items():
        (root / "bad" / name).write_bytes(content)
    (root / "none").mkdir()
    write_tsv(root / "two" / "train_a.tsv", sentences(20, 1))
    write_tsv(root / "two" / "train_b.tsv", sentences(20, 2))


def bad_runs(root: Path) -> None:
    run = json.loads((root / "dense" / "run.json").read_text())
    for name, text in {
        "unfinished": json.dumps(run | {"status": "running"}),
        "torn_run": '{"stage": ',
        "list_run": "[1, 2]",
        "deep_run": "[" * 100_000,
        "other_stage": json.dumps(run | {"stage": "search"}),
    }.items():
        (root / name).mkdir()
        (root / name / "run.json").write_text(text)
    for name in ("no_checkpoint", "altered", "four_labels", "other_tokenizer"):
        shutil.copytree(root / "dense", root / name)
    shutil.rmtree(root / "no_checkpoint" / "best")
    weights = root / "altered" / "best" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-9] ^= 4
    weights.write_bytes(data)
    config = json.loads((root / "four_labels" / "best" / "config.json").read_text())
    config["id2label"] = {str(i): str(i) for i in range(4)}
    config["label2id"] = {str(i): i for i in range(4)}
    (root / "four_labels" / "best" / "config.json").write_text(json.dumps(config))
    facts = json.loads((root / "four_labels" / "best" / "checkpoint.json").read_text())
    del facts["sha256"]
    (root / "four_labels" / "best" / "checkpoint.json").write_text(json.dumps(facts))
    for name, change in (("ticketed", {"stage": "retrain"}), ("no_gradient", {})):
        shutil.copytree(root / "dense", root / name)
        (root / name / "best" / "checkpoint.json").write_text(json.dumps(facts | change))
    weights = root / "no_gradient" / "best" / "model.safetensors"
    values = load_file(weights)
    values["classifier.weight"].zero_()
    save_file(values, weights, {"format": "pt"})
    tokenizer = root / "other_tokenizer" / "best" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("good", "gooe"))


def bad_scores(root: Path) -> None:
    whole = (root / "scores" / "scores.safetensors").read_bytes()
    (root / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "text.safetensors").write_text("no scores")
    altered = bytearray(whole)
    altered[-100] ^= 1
    (root / "altered.safetensors").write_bytes(altered)
    scores, shapes, manifest = ticket_files.load_scores(root / "scores" / "scores.safetensors")
    save = ticket_files.save_scores
    save(root / "imp.safetensors", scores, shapes, manifest | {"up_to_sparsity": 0.2})
    save(root / "rest.safetensors", scores, shapes, manifest | {"from_sparsity": 0.8})
    name = next(iter(scores))
    nan = scores | {name: torch.full_like(scores[name], float("nan"))}
    save(root / "nan.safetensors", nan, shapes, manifest)


def bad_encoders(root: Path) -> None:
    make_encoder(root / "wider", hidden=32)
    make_encoder(root / "another", seed=7)
    for name in ("torn_encoder", "three_layers", "no_tokenizer", "no_config"):
        shutil.copytree(root / "encoder", root / name)
    weights = root / "torn_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    path = root / "three_layers" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    for file in (root / "no_tokenizer").glob("tokenizer*"):
        file.unlink()
    (root / "no_config" / "config.json").write_text("{torn")
    shutil.copytree(root / "encoder", root / "evil")  # asks transformers to run its code
    config = json.loads((root / "evil" / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (root / "evil" / "config.json").write_text(json.dumps(config))
    code = f"open({str(root / 'RAN')!r}, 'w').close()\nclass EvilConfig: pass\n"
    (root / "evil" / "evil.py").write_text(code)


# Valid flags of each script. A case changes some of them (None: omits the flag). A leading slash
# marks names of files and folders in `place`.
VALID = {
    "finetune": {
        "model_name": "/encoder",
        "task_name": "sst2",
        "data_dir": "/data",
        "output_dir": OUT,
    },
    "search_ticket": {"model_name": "/dense", "output_dir": OUT},
    "prune_iteratively": {
        "model_name": "/encoder",
        "task_name": "sst2",
        "data_dir": "/data",
        "to_sparsity": 0.3,
        "output_dir": OUT,
    },
    "retrain_ticket": {
        "model_name": "/encoder",
        "scores": "/scores",
        "sparsity": 0.3,
        "task_name": "sst2",
        "data_dir": "/data",
        "output_dir": OUT,
    },
    "make_scores": {"kind": "random", "model_name": "/encoder", "output_dir": OUT},
    "attack": {"model_name": "/dense", "recipe": "deepwordbug", "output_dir": OUT},
    "report": {"records": "/dense", "output_dir": OUT},
}


def arguments(place: Path, out: Path, script: str, changes: dict) -> list[str]:
    flags = VALID[script] | changes
    for name, value in flags.items():
        if value == OUT:
            flags[name] = out
        elif str(value).startswith("/"):
            flags[name] = place / value[1:]
    return words_of(flags)
