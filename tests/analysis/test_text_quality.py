"""text_quality.py: measures whose values are known, judges, and the sheet of pairs."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_tools import fake_run, tiny_bert, write_rows
from conftest import call, fails, make_tokenizer, sentences
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from evaluation import fluency, judges, outcomes, quality, schema
from evaluation.attack_folder import AttackFolder
from evaluation.finished_attacks import AttackedRow
from evaluation.minilm import MiniLM
from training.rows import Rows
from utils.cli import UserError
from utils.files import read_jsonl

TRAIN = sentences(240, 1)

SETTINGS = {
    "task": "sst2",
    "checkpoint": "last",
    "checkpoint_sha256": "x",
    "recipe": "made",
    "max_seq_length": 32,
}

# label, original, adversarial (None: the attack failed), words changed, of how many
ROWS = [
    (1, "a great and funny film", "a great and dark film", 1, 5),
    (0, "the plot was dull", "the polt was <script>alert(1)</script>", 2, 4),
    (1, "sweet and smart story", None, 0, 4),
    (0, "=bad & awful actor", "=bad & awful actor", 1, 3),
]


def line(number: int, label: int, original: str, adversarial: str | None, changed=0, total=1):
    won = adversarial is not None
    return {
        "row_id": f"test:{number}",
        "label": label,
        "predicted_before": label,
        "predicted_after": 1 - label if won else label,
        "queries": 3,
        "seconds": 0.0,
        "outcome": outcomes.SUCCESS if won else outcomes.FAILED,
        "words_changed": changed,
        "words_total": total,
        "original": {"sentence": original},
        "perturbed": {"sentence": adversarial or original},
    }


LINES = [line(i, *row) for i, row in enumerate(ROWS)]


def attack(run: Path, lines: list[dict], name: str = "made", **settings) -> Path:
    """A finished attack in a run's folder, as attack.py leaves it."""
    folder, ids = run / "attacks" / name, [one["row_id"] for one in lines]
    made = AttackFolder(folder, SETTINGS | settings, ids, run / f"{name}.jsonl")
    made.begin()
    for one in lines:
        made.append(one)
    made.finish({"attack_id": made.attack_id, "label_names": ["negative", "positive"]}, {})
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    """A run on SST-2 files, whose run.json says where its training rows are."""
    train = write_rows(tmp_path / "train.tsv", TRAIN)
    folder = fake_run(tmp_path / "run", train)
    about = json.loads((folder / "run.json").read_text())
    about["args"] |= {"train_file": str(train), "test_file": None, "max_train_rows": 8}
    (folder / "run.json").write_text(json.dumps(about))
    return folder


def results(folder: Path) -> list[dict]:
    return json.loads((folder / "quality.json").read_text())["results"]


def sheet(folder: Path) -> list[dict]:
    with open(folder / "pairs.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_a_text_compared_with_itself():
    """Similarity 1, perplexity ratio 1, the same label from the judge."""
    ngrams = fluency.NgramModel([text for text, _ in TRAIN])
    judge = judges.WordsJudge(Rows([(t,) for t, _ in TRAIN], [y for _, y in TRAIN], [], "made"))
    texts = enumerate(sentences(20, 5))
    same = [schema.read(AttackedRow, line(i, y, text, text)) for i, (text, y) in texts]
    measures = quality.measure(same, "sentence", quality.Tools(MiniLM(), ngrams, judge))
    assert [m.similarity for m in measures] == pytest.approx([1.0] * 20)
    summary = quality.summarize(same, measures)
    assert summary.perplexity_ratio == 1 and summary.similarity == pytest.approx(1)
    assert summary.perplexity_original == summary.perplexity_adversarial > 1
    # All words that decide the label are in the training rows.
    assert summary.judge_accuracy_percent == 100 == summary.label_kept_percent
    assert summary.judge_accuracy_interval_95 == summary.label_kept_interval_95


def test_summary_by_hand():
    lines = [line(i, 1, "a", "b", changed, 4) for i, changed in enumerate((1, 2, 4))]
    rows = [schema.read(AttackedRow, one) for one in lines]
    measures = [
        quality.RowMeasures(s, math.log(before), math.log(after), judge_before, judge_after)
        for s, before, after, judge_before, judge_after in (
            (0.9, 2, 8, 1, 1),
            (0.6, 2, 2, 1, 0),
            (0.3, 16, 16, 0, 1),
        )
    ]
    summary = quality.summarize(rows, measures)
    assert summary.words_changed_percent == pytest.approx(100 * (1 + 2 + 4) / 12)
    assert summary.words_changed_percent == outcomes.tally(lines)["words_changed_percent"]
    assert summary.similarity == pytest.approx(0.6)
    assert summary.perplexity_original == pytest.approx(4)
    assert summary.perplexity_adversarial == pytest.approx((8 * 2 * 16) ** (1 / 3))
    assert summary.perplexity_ratio == pytest.approx(4 ** (1 / 3))
    assert summary.judge_accuracy_percent == pytest.approx(200 / 3)
    # The third row does not count: the judge was wrong on its original.
    assert summary.rows_judged_right == 2 and summary.label_kept_percent == 50
    empty = vars(quality.summarize([], [])).copy()
    assert empty.pop("rows_successful") == empty.pop("rows_judged_right") == 0
    assert set(empty.values()) == {None}


def test_a_page_with_a_script_an_emoji_and_an_apostrophe(run, tmp_path):
    texts = ("it\u2019s <b>fine</b> \U0001f600", "it\u2019s <script>alert(1)</script> \U0001f622")
    made = attack(run, [line(0, 1, *texts, 2, 4)], recipe="<img src=x>")
    out = tmp_path / "out"
    call("analysis.text_quality", "--attacks", made, "--output_dir", out)
    page = (out / "pairs.html").read_text(encoding="utf-8")
    assert "it\u2019s " in page and "<del>\U0001f600</del>" in page
    assert "<ins>\U0001f622</ins>" in page and "&lt;img src=x&gt;" in page
    assert not any(tag in page for tag in ("<script", "<b>fine", "<img"))
    [row] = sheet(out)
    assert (row["original"], row["adversarial"]) == texts


def test_from_an_attack_to_its_table_and_sheet(run, tmp_path, capsys):
    made, other = attack(run, LINES), attack(run, LINES[:2], "other", recipe="a|b")
    out = tmp_path / "out"
    out.mkdir()
    (out / "quality.md").write_text("of an earlier call")
    call("analysis.text_quality", "--attacks", made, other, "--output_dir", out)
    assert (out / "quality.md").read_text() in capsys.readouterr().out
    record = json.loads((out / "quality.json").read_text())
    first, second = record["results"]
    shown = outcomes.tally(LINES)["words_changed_percent"]
    assert (
        first["words_changed_percent"] == shown == pytest.approx(100 * (1 / 5 + 2 / 4 + 1 / 3) / 3)
    )
    assert (first["rows_attacked"], first["rows_successful"]) == (4, 3)
    assert first["judge_accuracy_percent"] == 100  # 216 training rows, not the run's 8
    assert record["judge"]["training_rows"] == record["language_model"]["training_texts"] == 216
    assert first["attack_id"] != second["attack_id"] and second["model"] == "run/last"
    assert record["environment"]["versions"] and "| a\\|b | 2 |" in (out / "quality.md").read_text()
    with open(out / "quality.csv") as f:
        rows = list(csv.DictReader(f))
    assert float(rows[0]["similarity"]) == pytest.approx(first["similarity"], abs=1e-5)
    assert float(rows[0]["label_kept_percent"]) == pytest.approx(first["label_kept_percent"])
    page, read = (out / "pairs.html").read_text(), sheet(out)
    assert len(read) == 5 == page.count("<tr><td>") and "<script" not in page
    assert "<del>funny</del>" in page and "<ins>dark</ins>" in page
    assert read[2]["original"] == "'=bad & awful actor" and read[2]["similarity"] == "1"
    assert read[2]["perplexity_ratio"] == "1" and read[0]["predicted_after"] == "negative"
    assert (read[1]["words_changed"], read[1]["words_total"]) == ("2", "4")
    assert read[0]["same_label"] == "" == read[0]["reads_well"]
    call("analysis.text_quality", "--attacks", made, "--output_dir", out, "--pairs", 1)
    assert len(sheet(out)) == 1 and not [p for p in out.iterdir() if p.name.startswith(".")]


def test_an_attack_without_success_has_a_reason_in_place_of_numbers(tmp_path):
    """Neither training rows nor models are needed for it."""
    run = fake_run(tmp_path / "run", tmp_path / "nowhere.tsv")
    made = attack(run, [LINES[2]])
    call("analysis.text_quality", "--attacks", made, "--output_dir", tmp_path / "out")
    found = results(tmp_path / "out")[0]
    assert found["empty_because"] and found["similarity"] is None
    assert found["empty_because"] in (tmp_path / "out" / "quality.md").read_text()
    assert sheet(tmp_path / "out") == []


def test_pair_tasks_compare_one_column_and_show_the_other(tmp_path):
    """The judge reads both: here the column that is not attacked tells the label."""
    train = [(*(["good film", "bad film"][y], f"plot {i}"), y) for i, y in enumerate([0, 1] * 30)]
    header = ("question1", "question2", "label")
    data = write_rows(tmp_path / "train.tsv", train, header)
    lines = []
    for i, y in enumerate((0, 1, 0)):
        texts = [
            {"question1": ["good film", "bad film"][y], "question2": q} for q in ("a b", "a c")
        ]
        lines.append(line(i, y, "", "", 1, 4) | dict(zip(("original", "perturbed"), texts)))  # noqa: B905
    made = attack(fake_run(tmp_path / "run", data), lines, task="qqp")
    call(
        "analysis.text_quality",
        "--attacks",
        made,
        "--train_file",
        data,
        "--output_dir",
        tmp_path / "out",
    )
    found, read = results(tmp_path / "out")[0], sheet(tmp_path / "out")
    assert found["judge_accuracy_percent"] == 100 == found["label_kept_percent"]
    assert read[0]["context"] == "question1: good film" and read[0]["adversarial"] == "a c"


def test_a_checkpoint_as_judge(run, tmp_path, capsys):
    """One that always answers its first label, which is the task's second."""
    made = attack(run, LINES)
    judge = tiny_bert(tmp_path / "judge", seed=9, labels={0: "positive", 1: "negative"})
    weights = load_file(judge / "model.safetensors")
    weights["classifier.weight"] *= 0
    weights["classifier.bias"] = torch.tensor([1.0, 0.0])
    save_file(weights, judge / "model.safetensors", {"format": "pt"})
    out = ("--output_dir", tmp_path / "out")
    call("analysis.text_quality", "--attacks", made, "--judge", judge, *out)
    found = results(tmp_path / "out")[0]
    assert found["judge_accuracy_percent"] == pytest.approx(100 / 3)
    assert found["label_kept_percent"] == 100 and found["rows_judged_right"] == 1
    assert {row["judge_after"] for row in sheet(tmp_path / "out")} == {"positive"}
    for same in (run, run / "best"):
        assert "not an independent judge" in fails(
            capsys, "analysis.text_quality", "--attacks", made, "--judge", same, *out
        )
    digest = json.loads((tmp_path / "out" / "quality.json").read_text())["judge"]["sha256"]
    copied = attack(fake_run(tmp_path / "b", tmp_path / "x"), LINES, checkpoint_sha256=digest)
    said = fails(capsys, "analysis.text_quality", "--attacks", copied, "--judge", judge, *out)
    assert "not an independent judge" in said


def test_a_causal_language_model(run, tmp_path, capsys):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "[CLS]"})
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=12, n_embd=16, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "gpt")
    tokenizer.save_pretrained(tmp_path / "gpt")
    loaded = fluency.CausalModel(str(tmp_path / "gpt"), "cpu")
    ids = torch.tensor([[2, *tokenizer("the film was good", add_special_tokens=False).input_ids]])
    with torch.inference_mode():
        want = float(model(input_ids=ids, labels=ids).loss)
    found = loaded.log_perplexities(["the film was good", "good film " * 40, ""])
    assert found[0] == pytest.approx(want, abs=1e-5) and np.isfinite(found).all()
    made, out = attack(run, LINES), tmp_path / "out"
    call(
        "analysis.text_quality",
        "--attacks",
        made,
        "--language_model",
        tmp_path / "gpt",
        "--output_dir",
        out,
    )
    assert json.loads((out / "quality.json").read_text())["language_model"]["name"] == "gpt"
    assert results(out)[0]["perplexity_ratio"] > 0

    bert = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.5,
    )
    BertForMaskedLM(bert).save_pretrained(tmp_path / "masked")
    tokenizer.save_pretrained(tmp_path / "masked")
    with pytest.raises(UserError, match="not a causal language model"):
        fluency.CausalModel(str(tmp_path / "masked"), "cpu")
    (tmp_path / "gpt" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="holds no language model that"):
        fluency.CausalModel(str(tmp_path / "gpt"), "cpu")


def test_text_quality_refuses(run, tmp_path, capsys):
    made, out = attack(run, LINES), tmp_path / "out"

    def refused(*arguments) -> str:
        return fails(capsys, "analysis.text_quality", *arguments, "--output_dir", out)

    assert "holds no finished attack" in refused("--attacks", run)
    assert "required: --attacks" in refused()
    assert "are one attack" in refused("--attacks", made, made)
    other = attack(run, LINES, "other", task="imdb")
    assert "one task at a time" in refused("--attacks", made, other)
    assert "hf download openai-community/gpt2 --local-dir nowhere" in refused(
        "--attacks", made, "--language_model", "nowhere"
    )
    assert "no folder nowhere" in refused("--attacks", made, "--judge", "nowhere")
    foreign = attack(fake_run(tmp_path / "foreign", tmp_path / "test.tsv"), LINES)
    assert "give --train_file" in refused("--attacks", foreign)
    own = attack(run, [line(i, y, text, text) for i, (text, y) in enumerate(TRAIN)], "own")
    assert "all training texts were attacked" in refused("--attacks", own)
    (tmp_path / "file").write_text("mine")
    said = fails(
        capsys, "analysis.text_quality", "--attacks", made, "--output_dir", tmp_path / "file"
    )
    assert "is a file" in said and (tmp_path / "file").read_text() == "mine"
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"words_total": 4}, "was altered: test:0"),
        ({"label": 7, "digest": None}, "is damaged: test:0"),
        ({"perturbed": {"text": "b"}, "digest": None}, "is damaged: test:0"),
        ({"original": "a", "digest": None}, "is damaged"),
        ({"original": {"sentence": "\ud800"}, "digest": None}, "is damaged"),
        ({"predicted_after": None, "digest": None}, "is damaged: test:0"),
    ],
)
def test_damaged_rows_are_named(run, tmp_path, capsys, change, what):
    made = attack(run, LINES)
    rows = read_jsonl(made / "rows.jsonl")
    rows[0] |= change
    if change.get("digest", "") is None:
        del rows[0]["digest"]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = ("--output_dir", tmp_path / "out")
    assert what in fails(capsys, "analysis.text_quality", "--attacks", made, *out)
    assert not (tmp_path / "out").exists()


def test_settings_of_another_attack_are_noticed(run, tmp_path, capsys):
    made = attack(run, LINES)
    about = json.loads((made / "attack.json").read_text())
    about["settings"]["recipe"] = "another"
    (made / "attack.json").write_text(json.dumps(about))
    said = fails(
        capsys, "analysis.text_quality", "--attacks", made, "--output_dir", tmp_path / "out"
    )
    assert "are of two attacks" in said
