"""Which records fill a row of a table, and which are skipped, from invented records."""

from dataclasses import replace

import pytest
from record_tools import (
    LTH,
    ROBUST_30,
    SEARCH,
    TASK,
    attack,
    aua_of,
    general,
    report,
    row_of,
    rows_of,
    write,
)

from evaluation import records
from experiments.models import DENSE, Model
from experiments.paper import TABLES
from experiments.scales import SCALES
from reporting import cells, paper_tables, table_files

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.parametrize(
    "key, change",
    [
        ("encoder", {"encoder": {"name": "another"}}),
        ("score_with", {"score_with": "softmax"}),
        ("similarity_threshold", {"similarity_threshold": 0.7}),
        ("max_seq_length", {"max_seq_length": 128}),
        ("rows_fingerprint", {"rows": {"ids_fingerprint": "c", "fingerprint": "b"}}),
        ("training_rows", {"training_rows": 900}),
        ("deviations", {"protocol": "released"}),
        ("resource_digests", {"resources": {"neighbours": {"name": "n", "sha256": "0"}}}),
    ],
)
def test_incomparable_records_are_skipped_and_named(tmp_path, key, change):
    write(tmp_path / "runs", [attack(DENSE, 42), attack(DENSE, 43), attack(LTH, 44, 0.0, **change)])
    found = records.read_records([tmp_path / "runs"])
    sub = paper_tables.sub_tables(TABLES["table1"], TASK, SCALES["mini"], found, "last")[0]
    assert [r.seed for r in sub.records] == [42, 43]
    assert len(sub.notes) == 1 and f"Skipped: 1 record, differing in {key}" in sub.notes[0]
    assert sub.notes[0] in table_files.markdown(TABLES["table1"], [sub])


def test_which_group_is_taken():
    items = [{"k": k, "encoder": e} for k, e in ((1, "a"), (2, "a"), (3, "b"), (3, "b"))]
    assert cells.largest_group(items, ["k"], "none")[0] == items[2:]  # the largest
    assert cells.largest_group(items, ["k"], "a")[0] == items[1:2]  # the scale's, the newest
    assert cells.largest_group([], ["k"], "a") == ([], [])


def test_an_attack_counts_once_and_a_seed_once(tmp_path):
    again = attack(DENSE, 42, 25.0)
    other_rule = attack(DENSE, 43, 70.0, checkpoint="best")
    other_length = attack(DENSE, 44, 70.0, epochs=5)
    write(tmp_path / "runs", [attack(DENSE, 42, 20.0)] * 2 + [again, other_rule, other_length])
    wanted = {"method": "Fine-tune", "metric": "aua", "recipe": "textfooler-minilm"}
    out = report(tmp_path, "table1")
    assert row_of(out / "table1.csv", **wanted)["values_by_seed"] == "42:25"
    assert "1 earlier of several attacks" in (out / "table1.md").read_text()
    out = report(tmp_path, "table1", further=("--checkpoint", "best"))
    assert row_of(out / "table1.csv", **wanted)["values_by_seed"] == "43:70"


def test_rows_distinguish_methods_and_reinitialized_weights(tmp_path):
    models = [
        DENSE,
        Model(method="freelb"),
        ROBUST_30,
        replace(ROBUST_30, reinitialise="ticket"),
        replace(ROBUST_30, reinitialise="rest"),
        replace(ROBUST_30, reinitialise="rest", epochs=10),
    ]
    lines = [attack(model, aua=float(i)) for i, model in enumerate(models)]
    lines[0].pop("method")  # older records have none
    older = attack(Model(kind="random_matched", sparsity=0.3), aua=9.0)
    older["ticket"] = {"kind": "random matched", "sparsity_asked": 0.3}
    shuffled = attack(models[3], 43, 50.0)
    shuffled["ticket"] = shuffled["ticket"] | {"reinit_law": "shuffled"}
    out = report(tmp_path, "table1", "table4", lines=[*lines, older, shuffled])
    for name, values in (
        ("table1", {"Fine-tune": "0", "FreeLB": "1", "Rand (matched)": "9", "RobustT": "2"}),
        ("table4", {"RobustT": "2", "w/o Structure": "4", "w/o Structure + Longer": "5"}),
    ):
        for label, value in values.items():
            row = aua_of(out, label, name)
            assert row["ours_mean"] == value
    # Shuffled weights are not the noise of Table 4.
    row = aua_of(out, "w/o Initialization", "table4")
    assert row["values_by_seed"] == "42:3"


def test_a_row_does_not_average_over_settings(tmp_path):
    lines = [
        attack(DENSE, 42, 10.0, training={"lr": 1e-4}),
        attack(DENSE, 43, 20.0, training={"lr": 1e-4}),
        attack(DENSE, 44, 60.0, training={"lr": 2e-5}),
        attack(ROBUST_30, 42, 10.0),
        attack(ROBUST_30, 43, 30.0),
    ]
    for line, amp in zip(lines[3:], (0.5, 0.1), strict=True):
        line["ticket"]["search"] = {"lambda_amp": amp}
    again = attack(ROBUST_30, 44, 50.0)  # computed otherwise, the same search
    again["ticket"]["search"] = {"lambda_amp": 0.1, "compile": None}
    out = report(tmp_path, "table1", lines=[*lines, again])
    found = {
        r["method"]: r
        for r in rows_of(out / "table1.csv", metric="aua", recipe="textfooler-minilm")
    }
    assert found["Fine-tune"]["values_by_seed"] == "42:10;43:20"
    assert found["RobustT"]["values_by_seed"] == "43:30;44:50"
    text = (out / "table1.md").read_text()
    assert "differing in training_settings" in text and "differing in search_settings" in text
    table = rows_of(general(tmp_path, "general") / "table.csv")
    assert sorted((r["model"], r["seeds"]) for r in table) == [
        ("dense fine-tuned", "1"),
        ("dense fine-tuned", "2"),
        ("robust ticket", "1"),
        ("robust ticket", "2"),
    ]


def test_the_general_table_names_methods_and_noise(tmp_path):
    lines = [
        attack(),
        attack(Model(method="freelb")),
        attack(replace(ROBUST_30, epochs=3)),
        attack(replace(ROBUST_30, reinitialise="rest")),
    ]
    general(tmp_path, lines=lines)
    assert {(r["model"], r["seeds"]) for r in rows_of(tmp_path / "out" / "table.csv")} == {
        ("dense fine-tuned", "1"),
        ("dense freelb", "1"),
        ("robust ticket", "1"),
        ("robust ticket, rest re-initialised", "1"),
    }


def test_training_rows_come_from_the_runs_evaluations(tmp_path):
    bare = attack()
    del bare["training_rows"]
    evaluations = [{"kind": "evaluation", "training_rows": 777}] * 2
    write(tmp_path / "runs", [*evaluations, bare])
    assert records.read_records([tmp_path / "runs"])[0].training_rows == 777


def test_each_checkpoint_without_a_run_is_a_model(tmp_path):
    """Neither seed nor epochs are known of them; two of their folders have one name."""
    unknown = {"stage": None, "seed": None, "epochs": None, "protocol": None, "rows_attacked": 10}
    lines = [
        attack(aua=aua, checkpoint=name, checkpoint_sha256=sha, row_outcomes=outcomes, **unknown)
        for name, sha, aua, outcomes in (
            ("plain", "aaaaaaa", 40.0, "rrrrffffww"),
            ("plain", "bbbbbbb", 60.0, "rfffrrrrrf"),
            ("sure", "ccccccc", 80.0, "rrrrrrrrww"),
        )
    ]
    found = rows_of(general(tmp_path, lines=lines) / "table.csv")
    assert {r["model"]: r["aua_percent"] for r in found} == {
        "plain (aaaaaa)": "40.0",
        "plain (bbbbbb)": "60.0",
        "sure (cccccc)": "80.0",
    }
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.count("\n## ") == 1 and "plain (bbbbbb) +20.0 (right alone on 5 rows" in text


def test_dev_rows_are_in_no_table_of_the_paper_and_named_elsewhere(tmp_path):
    lines = [attack(DENSE, 42, 20.0), attack(DENSE, 42, 60.0, split="dev", protocol_id="other")]
    row = aua_of(report(tmp_path, "table1", lines=lines), "Fine-tune")
    assert row["ours_mean"] == "20"
    found = rows_of(general(tmp_path, "general") / "table.csv")
    assert {r["model"]: r["aua_percent"] for r in found} == {
        "dense fine-tuned": "20.0",
        "dense fine-tuned, dev rows": "60.0",
    }


def test_a_ticket_of_an_earlier_epoch_is_no_seed_of_the_last_ones_row(tmp_path):
    lines = []
    for seed, epoch, aua in ((1, 6, 50.0), (2, 6, 52.0), (1, 2, 40.0)):
        line = attack(ROBUST_30, seed, aua)
        line["ticket"] = line["ticket"] | {"search": SEARCH, "scores_epoch": epoch}
        lines.append(line)
    out = report(tmp_path, "table1", lines=lines)
    row = aua_of(out, "RobustT")
    assert row["values_by_seed"] == "1:50;2:52"
    assert "differing in early_scores_epoch (2 there" in (out / "table1.md").read_text()
    found = rows_of(general(tmp_path, "general") / "table.csv")
    assert sorted(r["seeds"] for r in found) == ["1", "2"]
