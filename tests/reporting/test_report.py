"""Tables and figures of the paper from invented records, logs and tickets; values by hand."""

import csv
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import call, fails
from record_tools import ROBUST_30, SEARCH, TASK, attack, controlled, rows_of, write

from evaluation import records
from evaluation.intervals import crossed_interval
from experiments.models import DENSE, ROBUST, Model
from experiments.paper import CURVES, FIGURES, TABLES
from experiments.scales import SCALES
from reporting import (
    cells,
    comparisons,
    paper_tables,
    paper_values,
    render,
    style,
    table_files,
)
from reporting.paper_tables import command
from utils.cli import UserError

pytestmark = pytest.mark.usefixtures("undrawn")

SPARSITIES = SCALES["mini"].sparsities
LTH = Model(kind="imp", sparsity=0.3)


def report(
    tmp_path: Path, *targets: str, scale: str = "mini", further: tuple = (), lines: tuple = ()
) -> Path:
    """Make the targets from tmp_path/runs, with `lines` if any; the folder they were written to."""
    if lines:
        write(tmp_path / "runs", lines)
    folders = ("--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    call("report", "--make", *targets, "--scale", scale, *folders, *further)
    return tmp_path / "out"


def general(tmp_path: Path, out: str = "out", lines: tuple = ()) -> Path:
    """Make the general table from tmp_path/runs, with `lines` if any; its folder."""
    if lines:
        write(tmp_path / "runs", lines)
    call("report", "--records", tmp_path / "runs", "--output_dir", tmp_path / out)
    return tmp_path / out


def row_of(path: Path, **wanted: str) -> dict:
    found = rows_of(path, **wanted)
    assert len(found) == 1
    return found[0]


def aua_of(out: Path, method: str, table: str = "table1") -> dict:
    """The row of a CSV file of the mini scale with a method's Aua."""
    wanted = {"method": method, "metric": "aua", "recipe": "textfooler-minilm"}
    return row_of(out / f"{table}.csv", **wanted)


def test_values_deviations_and_differences_by_hand(tmp_path):
    write(tmp_path / "runs" / "a", [attack(DENSE, 42, 20.0, clean_percent=90.0)])
    lines = [attack(ROBUST_30, seed, aua) for seed, aua in ((42, 30.0), (43, 34.0), (44, 41.0))]
    write(tmp_path / "runs" / "b", lines)
    out = report(tmp_path, "table1")
    # (30 + 34 + 41) / 3 = 35; squares 25 + 1 + 36 = 62, over n - 1 = 2: sqrt(31) = 5.5678
    robust = aua_of(out, "RobustT")
    assert (robust["ours_mean"], robust["n"]) == ("35", "3")
    assert float(robust["ours_deviation"]) == pytest.approx(31**0.5, abs=1e-4)
    assert robust["values_by_seed"] == "42:30;43:34;44:41"
    assert robust["attack_ids"] == ";".join(line["attack_id"] for line in lines)
    assert (robust["paper"], robust["difference"]) == ("", "")  # another attack than the paper's
    assert (robust["rows_attacked"], robust["sparsity"], robust["dataset_in_paper"]) == (
        "100",
        "0.3",
        "SST-2",
    )
    # The paper's Clean on SST-2: 90.9 for RobustT, 92.0 for Fine-tune.
    clean = row_of(out / "table1.csv", method="RobustT", metric="clean", recipe="textfooler-minilm")
    assert (clean["paper"], clean["difference"]) == ("90.9", "-10.9")
    text = (out / "table1.md").read_text()
    assert "| RobustT (control missing) | 30 % | 90.9 | 80.0 ± 0.0 (n=3) | −10.9 | " in text
    assert " | −10.9 | — | 35.0 ± 5.6 (n=3) | — |" in text
    assert (
        "| Fine-tune | 0 % | 92.0 | 90.0 [70.0, 88.0] (n=1) | −2.0 | — | 20.0 (n=1) | — |" in text
    )
    kept = records.read_records([out / "table1-records.jsonl"])
    assert {r.attack_id for r in kept} == set(
        robust["attack_ids"].split(";") + [attack(clean_percent=90.0)["attack_id"]]
    )


def test_the_papers_tables_hold_its_values(tmp_path):
    write(tmp_path / "runs", [attack()])
    for name, table in TABLES.items():
        out = report(tmp_path, name, scale="paper")
        found = rows_of(out / f"{name}.csv")
        recipes = 4 if len(table.attacks) == 3 else len(table.attacks)  # BERT-Attack has two
        assert len(found) == 3 * recipes * len(table.rows) * (1 + len(table.metrics))
        assert all(r["n"] == "0" and not r["ours_mean"] for r in found)
    row = row_of(out / "table4.csv", task="imdb", method="w/o Structure + Longer", metric="aua")
    assert (row["paper"], row["sparsity"]) == ("18.6", "0")
    queries = {"task": "imdb", "method": "RobustT", "metric": "queries"}
    for recipe in ("bertattack", "bertattack-released"):
        assert row_of(out / "table1.csv", recipe=recipe, **queries)["paper"] == "3128"
    matched = {"task": "sst2", "metric": "aua", "recipe": "textbugger"}
    for label in ("Rand (matched)", "Rand (global)"):
        assert row_of(out / "table1.csv", method=label, **matched)["paper"] == "16.5"


def test_what_is_missing_carries_its_command(tmp_path):
    both = [attack(DENSE, 42), attack(DENSE, 43), attack(LTH, 43)]
    out = report(tmp_path, "table1", lines=both)
    text = (out / "table1.md").read_text()
    line = f"sh reproduce.sh table1 --scale mini --tasks {TASK} --seeds"
    # LTH lacks seed 42, and with seed 43 its controls.
    labels = "LTH FreeLB InfoBERT 'Rand (matched)' 'Rand (global)' RobustT"
    assert f"{line} 42 43 --rows {labels}\n" in text
    assert "| InfoBERT | 0 % | 92.1 | — | — |" in text
    empty = aua_of(out, "Rand (global)")
    assert empty["n"] == "0" and empty["ours_mean"] == "" and empty["attack_ids"] == ""
    assert shlex.split(empty["command_if_missing"])[-3:] == ["43", "--rows", "Rand (global)"]
    assert aua_of(out, "LTH")["command_if_missing"] == ""


def test_the_mini_scale_states_why_its_numbers_are_not_comparable(tmp_path):
    write(tmp_path / "runs", [attack(), attack(recipe="deepwordbug", aua=10.0)])
    text = (report(tmp_path, "table1") / "table1.md").read_text()
    assert text.count("\n## ") == 3  # two attacks, and the paper's once
    assert "BERT-base on SST-2. This is another data set and another encoder" in text
    assert "not a reproduction gap" in text
    assert "deepwordbug is not one of the paper's attacks" in text
    reason = "TextBugger: not run; textbugger needs the counter-fitted vectors and the Universal"
    assert reason in text and "| LTH | 30 % | 92.1 | 2.2 | 97.6 |" in text
    for task, encoder, reason in (
        ("sst2", "bert-base-uncased", ""),
        ("sst2", "google-bert/bert-base-uncased", ""),
        ("sst2", "builtin/minilm", "another encoder"),
        ("custom", "bert-base-uncased", "no values for custom"),
    ):
        text = paper_values.orientation(task, encoder)
        assert reason in text and bool(reason) == bool(text)


def test_two_recipes_fill_one_column_of_the_paper(tmp_path):
    facts = {"task": "sst2", "encoder": {"name": "bert-base-uncased"}}
    lines = [
        attack(aua=3.0, recipe="bertattack", **facts),
        attack(aua=5.0, recipe="bertattack-released", **facts),
    ]
    out = report(tmp_path, "table1", scale="paper", further=("--tasks", "sst2"), lines=lines)
    dense = {"method": "Fine-tune", "metric": "aua", "attack_in_paper": "BERT-Attack"}
    for recipe, mean, difference in (("bertattack", 3, 0.1), ("bertattack-released", 5, 2.1)):
        row = row_of(out / "table1.csv", recipe=recipe, **dense)
        assert (float(row["ours_mean"]), row["paper"]) == (mean, "2.9")
        assert float(row["difference"]) == pytest.approx(difference)
        assert f"## SST-2 (sst2), BERT-Attack ({recipe})" in (out / "table1.md").read_text()
    assert "reproduction gap" not in (out / "table1.md").read_text()


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


def test_latex_is_escaped_and_balanced(tmp_path):
    write(tmp_path / "runs", [attack(seed=seed, aua=20.0 + seed) for seed in (1, 2)])
    text = (report(tmp_path, "table1") / "table1.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    assert r"rotten\_tomatoes" in text and r"Clean \%" in text and r"\#Query" in text
    assert r"21.5$^{(2)}_{\pm 0.7}$" in text
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#]|[±—−]|[^\x00-\x7f]", code)
    plain = re.sub(r"\\[{}]", "", code)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    for tabular in re.findall(r"\\begin\{tabular\}\{(l.*?)\}(.*?)\\end", code, re.S):
        body = tabular[1].split(r"\midrule")[1].split(r"\bottomrule")[0]
        for line in filter(None, map(str.strip, body.splitlines())):
            assert len(re.split(r"(?<!\\)&", line)) == len(tabular[0])
    assert table_files.escaped(r"a_b & 5 % \ {x} ~^ #$") == (
        r"a\_b \& 5 \% \textbackslash{} \{x\} \textasciitilde{}\textasciicircum{} \#\$"
    )


def test_no_cell_of_a_csv_is_a_formula(tmp_path):
    for text in ("=1+1", "+a", "-a", "@a"):
        assert render.csv_cell(text) == f"'{text}"
    assert render.csv_cell("a=b") == "a=b" and render.csv_cell(None) == ""
    out = report(tmp_path, "table1", lines=[attack(attack_id="=HYPERLINK(1)")])
    row = rows_of(out / "table1.csv", method="Fine-tune", metric="aua")[0]
    assert row["attack_ids"] == "'=HYPERLINK(1)"
    write(tmp_path / "general", [attack(encoder={"name": "=1+1"})])
    call("report", "--records", tmp_path / "general", "--output_dir", tmp_path / "table")
    assert row_of(tmp_path / "table" / "table.csv", encoder="'=1+1")["model"] == "dense fine-tuned"


@pytest.mark.draws
def test_figure_2_shows_the_records(tmp_path):
    lines = [attack(DENSE, 42, 10.0), attack(DENSE, 43, 14.0)]
    for i, sparsity in enumerate(SPARSITIES):
        lines.append(attack(replace(ROBUST, sparsity=sparsity), 42, 20.0 + i))
        lines.append(attack(replace(ROBUST, sparsity=sparsity), 43, 22.0 + i))
    lines.append(attack(LTH, 42, 5.0))
    lines.append(attack(LTH, 42, 5.0, recipe="pwws"))  # of a table alone: no curve
    out = report(tmp_path, "figure2", lines=lines)
    assert_drawn(out, "figure2")
    found = rows_of(out / "figure2.csv", curve="RobustT", quantity="Aua")
    assert [float(r["x"]) for r in found] == list(SPARSITIES)
    assert [float(r["mean"]) for r in found] == [21.0 + i for i in range(5)]
    assert {r["deviation"] for r in found} == {"1.41421"} and {r["n"] for r in found} == {"2"}
    dense = row_of(out / "figure2.csv", curve="Fine-tune", quantity="Aua")
    assert (dense["x"], dense["mean"], dense["values_by_seed"]) == ("", "12", "42:10;43:14")
    assert dense["attack_ids"] == f"{lines[0]['attack_id']};{lines[1]['attack_id']}"
    text = (out / "figure2.md").read_text()
    assert "no LTH at 0.1, 0.5, 0.7, 0.9." in text and "no FreeLB." in text
    assert "pwws" not in text and command("figure2", SCALES["mini"], [TASK], [42, 43]) in text


def test_a_curve_shows_models_as_trained_and_names_the_protocol(tmp_path):
    """As many attacks at a fitted temperature, which are newer."""
    for name, rule, aua in (("a", None, 20.0), ("b", "fitted", 5.0)):
        changes = {"protocol_id": f"protocol-{name}", "temperature_rule": rule}
        write(tmp_path / "runs" / name, [attack(m, 42, aua, **changes) for m in (DENSE, ROBUST_30)])
    out = report(tmp_path, "figure2")
    found = rows_of(out / "figure2.csv", quantity="Aua")
    assert [r["mean"] for r in found] == ["20", "20"]
    assert "evaluation protocol protocol-a" in (out / "figure2.md").read_text()


@pytest.mark.slow
@pytest.mark.draws
def test_figure_4_shows_the_epochs_of_the_longer_training(tmp_path):
    longer = [replace(model.at(TASK), epochs=10) for model in CURVES.values()]
    lines = [
        attack(model, 42, 10.0 * i + epoch, checkpoint=f"epoch{epoch}", epoch=epoch)
        for i, model in enumerate(longer)
        for epoch in (1, 2, 10)
    ]
    of_table = attack(longer[0], 42, 70.0)  # "last" of the same run: no epoch of the figure
    short = attack(replace(longer[0], epochs=None), 42, 70.0, checkpoint="epoch2")
    out = report(tmp_path, "figure4", lines=[*lines, of_table, short])
    assert_drawn(out, "figure4")
    for i, name in enumerate(CURVES):
        found = rows_of(out / "figure4.csv", curve=name, quantity="Aua")
        assert [(r["x"], float(r["mean"])) for r in found] == [
            (str(epoch), 10.0 * i + epoch) for epoch in (1, 2, 10)
        ]
    assert "no RobustT at 3, 4, 6, 8." in (out / "figure4.md").read_text()


def assert_drawn(out: Path, name: str) -> None:
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert f"![{FIGURES[name]}]({name}.png)" in (out / f"{name}.md").read_text()


def search(folder: Path, seed: int, amp: float, shift: float, **changes) -> None:
    run = {
        "stage": "search",
        "status": "finished",
        "task": TASK,
        "encoder": {"name": "builtin/minilm"},
        "args": {"seed": seed, "lambda_amp": amp, "lr": 0.1, "keep_scores": []},
    }
    write(folder, [run | changes], "run.json")
    lines = [{"optimizer_step": step, "penalty": 0.9 + shift - step / 100} for step in range(1, 41)]
    shares = {"at_zero": 0.1 + shift, "at_one": 0.2, "undecided": 0.7 - shift}
    lines[9]["gate_shares"] = shares
    lines.append({"optimizer_step": 40, "epoch": 1, "dev": {"gate_shares": shares}})
    write(folder, lines, "log.jsonl")


@pytest.mark.slow
@pytest.mark.draws
def test_figures_1_and_5_show_the_logs(tmp_path):
    for seed, shift in ((42, 0.0), (43, 0.02)):
        search(tmp_path / "runs" / f"seed{seed}" / "search-robust", seed, 0.5, shift)
    search(tmp_path / "runs" / "seed42" / "search-robust-lambda1", 42, 1.0, 0.05)
    search(tmp_path / "runs" / "seed42" / "search-no_adversary", 42, 0.5, 0.5)
    search(tmp_path / "runs" / "seed44" / "search-robust", 44, 0.5, 0.5, status="running")
    args = {"seed": 45, "lambda_amp": 0.5, "lr": 0.2, "keep_scores": []}
    search(tmp_path / "runs" / "seed45" / "search-robust", 45, 0.5, 0.5, args=args)
    out = report(tmp_path, "figure1", "figure5")
    assert_drawn(out, "figure1")
    assert_drawn(out, "figure5")
    found = rows_of(out / "figure1.csv", quantity="R(m)")
    assert [int(r["x"]) for r in found] == list(range(1, 41))
    assert float(found[9]["mean"]) == pytest.approx(0.81)  # of .80 and .82
    assert found[9]["values_by_seed"] == "42:0.8;43:0.82"
    shares = rows_of(out / "figure1.csv", quantity="gates at 0 or 1")
    assert [(r["x"], float(r["mean"])) for r in shares] == [("10", 0.31), ("40", 0.31)]
    assert {r["curve"] for r in rows_of(out / "figure5.csv")} == {"λ = 0.5", "λ = 1"}
    one = rows_of(out / "figure5.csv", curve="λ = 1", quantity="gates at 0 or 1")
    assert [(r["x"], r["mean"], r["n"]) for r in one] == [("10", "0.35", "1"), ("40", "0.35", "1")]
    text = (out / "figure5.md").read_text()
    assert "no search at λ = 0.1." in text and "1 search run, differing in lr (0.2 there" in text


def ticket(folder: Path, seed: int, density: float, **changes) -> None:
    write(
        folder, [{"stage": "retrain", "status": "finished", "task": TASK, "seed": seed}], "run.json"
    )
    heads = [[density + layer / 100 + head / 1000 for head in range(4)] for layer in range(3)]
    manifest = {
        "sparsity_asked": 0.3,
        "rewound_to": {"name": "builtin/minilm"},
        "source": {"kind": "robust", "seed": seed, "settings": {"seed": seed, "lr": 0.1}},
        "density_by_head": {"heads": heads, "mlp": [density - 0.1] * 3},
    }
    write(folder, [manifest | changes], "ticket.json")


@pytest.mark.draws
def test_figure_3_shows_the_densities(tmp_path):
    ticket(tmp_path / "runs" / "seed42" / "ticket-robust-0.3", 42, 0.6)
    ticket(tmp_path / "runs" / "seed42" / "ticket-robust-0.3-epochs10", 42, 0.6)  # the same ticket
    ticket(tmp_path / "runs" / "seed43" / "ticket-robust-0.3", 43, 0.8)
    ticket(tmp_path / "runs" / "seed42" / "ticket-robust-0.5", 42, 0.1, sparsity_asked=0.5)
    other = {"kind": "random", "seed": 42, "settings": {}}
    ticket(tmp_path / "runs" / "seed42" / "ticket-random-0.3", 42, 0.1, source=other)
    ticket(tmp_path / "runs" / "seed44" / "ticket-robust-0.3", 44, 0.1, density_by_head=None)
    out = report(tmp_path, "figure3")
    assert_drawn(out, "figure3")
    found = rows_of(out / "figure3.csv")
    assert len(found) == 3 * 5 and {r["n"] for r in found} == {"2"}
    cell = row_of(out / "figure3.csv", layer="3", column="head 2")
    assert float(cell["mean"]) == pytest.approx(0.7 + 0.02 + 0.001)
    assert cell["values_by_seed"] == "42:0.621;43:0.821"
    assert float(row_of(out / "figure3.csv", layer="1", column="MLP")["mean"]) == pytest.approx(0.6)
    assert "1 without density_by_head" in (out / "figure3.md").read_text()


def test_all_is_made_as_far_as_it_can_be(tmp_path, capsys):
    out = report(tmp_path, "all", lines=[attack()])
    printed = capsys.readouterr().out
    for name in TABLES:
        assert {p.name for p in out.glob(f"{name}*")} == {
            f"{name}.md",
            f"{name}.csv",
            f"{name}.tex",
            f"{name}-records.jsonl",
        }
    for name in ("figure1", "figure3", "figure4", "figure5"):
        assert not list(out.glob(f"{name}*"))
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} not made"))
        assert line.endswith(f"run: sh reproduce.sh {name} --scale mini --tasks {TASK} --seeds 42")


@pytest.mark.slow
@pytest.mark.draws
def test_figures_are_of_one_size_and_the_same_bytes_again(tmp_path):
    search(tmp_path / "runs" / "search-robust", 42, 0.5, 0.0)
    out = report(tmp_path, "figure1")
    first = {kind: (out / f"figure1.{kind}").read_bytes() for kind in ("png", "pdf")}
    width = int.from_bytes(first["png"][16:20], "big")
    assert width == round(style.WIDTH * 300)
    assert first == {
        kind: (report(tmp_path, "figure1") / f"figure1.{kind}").read_bytes() for kind in first
    }


def refused(capsys, tmp_path, *flags) -> str:
    folders = ("--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    line = fails(capsys, "report", *folders, "--scale", "mini", "--make", *flags)
    assert not (tmp_path / "out").exists()
    return line


def test_records_of_an_earlier_version_are_read(tmp_path):
    """Those of the first quickstart, which know no method and no settings."""
    folder = Path(__file__).resolve().parents[1] / "records_of_earlier_versions"
    call("report", "--records", folder, "--output_dir", tmp_path / "out")
    table = rows_of(tmp_path / "out" / "table.csv")
    assert [(r["model"], r["sparsity"], r["rows_attacked"]) for r in table] == [
        ("dense fine-tuned", "0.0", "60"),
        ("random ticket", "0.3", "60"),
        ("robust ticket", "0.3", "60"),
    ]


def test_intervals_and_paired_comparisons_from_the_rows_outcomes(tmp_path):
    """Ten rows. Dense: 8 right before, 4 after; the ticket of seed 42 has 1 of them, 5 others."""
    dense = {"row_outcomes": "rrrrffffww", "rows_attacked": 10, "clean_percent": 80.0}
    lines = [
        attack(DENSE, 42, 40.0, **dense, intervals_95={"aua_percent": [16.8, 68.7]}),
        attack(ROBUST_30, 42, 60.0, **dense | {"row_outcomes": "rfffrrrrrf"}),
    ]
    out = report(tmp_path, "table1", lines=lines)
    text = (out / "table1.md").read_text()
    assert "40.0 [16.8, 68.7] (n=1)" in text
    # Only the ticket right on 5 rows, only the dense model on 3: p = 2 (1 + 8 + 28 + 56) / 2^8.
    assert (
        "RobustT +20.0 (right alone on 5 rows against 3, p = 0.73), not distinguishable from noise"
        in text
    )
    lines += [
        attack(DENSE, 43, 40.0, **dense),
        attack(ROBUST_30, 43, 40.0, **dense | {"row_outcomes": "rrrffffrff"}),
    ]
    text = (report(tmp_path, "table1", lines=lines) / "table1.md").read_text()
    cell = re.search(r"\| RobustT .*? 50\.0 ± 14\.1 \[([\d.]+), ([\d.]+)\] \(n=2\)", text)
    table = np.array([[c == "r" for c in "rfffrrrrrf"], [c == "r" for c in "rrrffffrff"]])
    assert tuple(map(float, cell.groups())) == pytest.approx(crossed_interval(table), abs=0.06)
    assert re.search(r"RobustT \+10\.0 \[−[\d.]+, \+[\d.]+\], not distinguishable", text)
    row = aua_of(tmp_path / "out", "RobustT")
    assert float(row["ours_low_95"]) < 50 < float(row["ours_high_95"])


def test_the_general_table_compares_rows_and_shows_each_seed(tmp_path):
    """As above, of two seeds; the ticket's third seed has no dense model beside it."""
    facts = {"rows_attacked": 10}
    lines = [
        attack(DENSE, 42, 40.0, row_outcomes="rrrrffffww", label_passes=3, **facts),
        attack(DENSE, 43, 50.0, row_outcomes="rrrrrfffww", label_passes=3, **facts),
        attack(ROBUST_30, 42, 60.0, row_outcomes="rfffrrrrrf", **facts),
        attack(ROBUST_30, 43, 60.0, row_outcomes="rrrrrrffff", **facts),
    ]
    text = (general(tmp_path, lines=lines) / "table.md").read_text()
    assert "| 45.0 ± 7.1 [" in text and "| 60.0 ± 0.0 [" in text
    assert re.search(
        r"Aua compared with dense fine-tuned, .*: robust ticket, 30 % \+15\.0 \[.*\], not "
        r"distinguishable from noise \(McNemar's p by seed: 42: 0\.73, 43: 1\)",
        text,
    )
    assert (
        "Aua of robust ticket, 30 % compared with its dense controls: same epochs (3 epochs)"
        in text
    )
    row = rows_of(tmp_path / "out" / "table.csv", model="dense fine-tuned")[0]
    assert row["aua_percent_by_seed"] == "42:40;43:50"
    assert float(row["aua_percent_deviation"]) == pytest.approx(50**0.5)
    general(tmp_path, lines=[lines[0], lines[2], attack(ROBUST_30, 44, 60.0)])
    assert "p = 0.73), seed 42 only, not" in (tmp_path / "out" / "table.md").read_text()


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


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"seed": None}, "seed must be a whole number"),
        ({"row_outcomes": 5}, "row_outcomes must be a text, but is '5'"),
        ({"row_outcomes": "x" * 100}, "of f, r, w"),
        ({"flags": [{}]}, "flags[0].flag is missing"),
        ({"task": None}, "task must be a text"),
        ({"score_with": ["softmax"]}, "score_with must be a text"),
        ({"aua_percent": 900}, "0 to 100"),
        ({"aua_percent": float("inf")}, "0 to 100"),
        ({"rows_attacked": "200"}, "rows_attacked must be a whole number above 0"),
        ({"label_passes": "12"}, "label_passes must be a whole number"),
        ({"similarity_threshold": "x"}, "similarity_threshold must be a finite number"),
        ({"made_in": 5}, "made_in must be a list of two texts"),
        ({"encoder": "minilm"}, "encoder must be an object"),
        ({"intervals_95": {"aua_percent": [1]}}, "intervals_95 must be an object of pairs"),
        ({"stop_at_loss": {"loss": 0.1}}, "epoch must be a whole number"),
        ({"ticket": {"kind": "robust", "sparsity_asked": 1.7}}, "ticket.sparsity_asked must be"),
        ({"ticket": {"kind": "robust", "sparsity_asked": None}}, "[0, 1)"),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path, capsys, damage, said):
    write(tmp_path / "runs", [attack(**damage)])
    line = fails(capsys, "report", "--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    assert "record 1" in line and said in line and not (tmp_path / "out").exists()


def test_dev_rows_are_in_no_table_of_the_paper_and_named_elsewhere(tmp_path):
    lines = [attack(DENSE, 42, 20.0), attack(DENSE, 42, 60.0, split="dev", protocol_id="other")]
    row = aua_of(report(tmp_path, "table1", lines=lines), "Fine-tune")
    assert row["ours_mean"] == "20"
    found = rows_of(general(tmp_path, "general") / "table.csv")
    assert {r["model"]: r["aua_percent"] for r in found} == {
        "dense fine-tuned": "20.0",
        "dense fine-tuned, dev rows": "60.0",
    }


def test_a_report_loses_no_line_of_what_it_reads(tmp_path, capsys):
    runs = write(tmp_path / "runs", [{"kind": "evaluation"}, attack()])
    before = (runs / "records.jsonl").read_bytes()
    line = fails(capsys, "report", "--records", runs, "--output_dir", runs)
    assert "1 lines that no row shows: choose another --output_dir" in line
    assert (runs / "records.jsonl").read_bytes() == before and not (runs / "table.md").exists()
    for _ in range(2):  # its own records can be read and written again
        source = runs if not (tmp_path / "out").exists() else tmp_path / "out"
        call("report", "--records", source, "--output_dir", tmp_path / "out")
    assert len(records.read_records([tmp_path / "out"])) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"aua_percent": 32.0}, "aua_percent is 32, but its row_outcomes give 40"),
        ({"rows_attacked": 11}, "for each of 11 rows"),
    ],
)
def test_a_record_whose_rates_are_not_its_rows_is_one_line(tmp_path, capsys, change, said):
    write(tmp_path / "runs", [attack(row_outcomes="rrrrffffww") | change])
    line = fails(capsys, "report", "--records", tmp_path / "runs", "--output_dir", tmp_path / "out")
    assert "record 1: " in line and said in line


def test_outcomes_of_different_numbers_of_rows_are_not_compared(tmp_path):
    lines = [attack(seed=42, row_outcomes="rrfff"), attack(seed=43, row_outcomes="rrff")]
    general(tmp_path, lines=lines)
    assert "| 45.0 ± 7.1 |" in (tmp_path / "out" / "table.md").read_text()


def test_two_protocols_are_never_in_one_comparison(tmp_path):
    lines = [
        attack(DENSE, 42, 40.0, protocol_id="aaa"),
        attack(ROBUST_30, 42, 50.0, protocol_id="aaa"),
        attack(LTH, 42, 60.0, protocol_id="bbb"),
    ]
    out = report(tmp_path, "table1", lines=lines)
    text = (out / "table1.md").read_text()
    assert (
        "evaluation protocol aaa" in text
        and "differing in protocol_id (bbb there, aaa here)" in text
    )
    lth = aua_of(out, "LTH")
    assert lth["ours_mean"] == ""
    general(tmp_path, "general")
    assert (tmp_path / "general" / "table.md").read_text().count("## ") == 2


def stopped(seed: int = 42, loss: float = 0.04, of: dict | None = None, **changes) -> dict:
    """A dense model that was trained until its loss was the ticket's."""
    ticket = of or controlled(seed)
    stop = {"loss": 0.05, "ticket": ticket["ticket"], "seed": seed, "epochs": ticket["epochs"]}
    return attack(
        DENSE, seed, 25.0, epochs=12, epoch=7, mean_training_loss=loss, stop_at_loss=stop, **changes
    )


def controls_in(tmp_path, *lines: dict) -> dict[str, str]:
    """Text of the controls' rows of the robust ticket in Table 1, by control."""
    text = (report(tmp_path, "table1", lines=list(lines)) / "table1.md").read_text()
    rows = re.findall(r"^\| RobustT \| (same [a-z ]+) \((.*)$", text, re.MULTILINE)
    assert len(rows) == 3
    return dict(rows)


def test_a_ticket_is_compared_with_its_matched_dense_controls(tmp_path):
    same = attack(DENSE, 42, 20.0, epoch=3, mean_training_loss=0.3, label_passes=3)
    longer = attack(DENSE, 42, 22.0, epochs=12, epoch=12, mean_training_loss=0.001)
    found = controls_in(tmp_path, controlled(), same, longer, stopped())
    assert "3 epochs) | 3 | 0.300 | 80.0" in found["same epochs"]
    assert "loss 0.050) | 7 | 0.040 | 80.0" in found["same training loss"]
    assert "25.0 (n=1)" in found["same training loss"]
    assert "12 epochs) | 12 | 0.001 | 80.0" in found["same label passes"]
    text = (tmp_path / "out" / "table1.md").read_text()
    assert "| RobustT |" in text and "RobustT (" not in text
    # The control does not get a row, although it is dense.
    dense = aua_of(tmp_path / "out", "Fine-tune")
    assert dense["ours_mean"] == "20" and dense["n"] == "1"
    kept = records.read_records([tmp_path / "out" / "table1-records.jsonl"])
    assert len(kept) == 4  # enough to make the same table again


def test_the_shortest_control_with_at_least_the_tickets_label_passes_counts(tmp_path):
    """A plan counts stage 1's epochs; the search may have started from an earlier one."""
    ticket = controlled() | {"label_passes": 11}
    longer = [attack(DENSE, 42, 20.0 + n, epochs=n, epoch=n) for n in (13, 12, 10)]
    found = controls_in(tmp_path, ticket, *longer)
    assert "| 12 |" in found["same label passes"] and "32.0" in found["same label passes"]


def test_a_best_checkpoint_s_control_may_be_of_an_earlier_epoch(tmp_path):
    """Both runs ended at a loss of 0.05 or less; their best epochs were before that."""
    ticket = controlled(checkpoint="best") | {"mean_training_loss": 0.2, "last_training_loss": 0.05}
    dense = stopped(loss=0.3, checkpoint="best", last_training_loss=0.04)
    report(tmp_path, "table1", further=("--checkpoint", "best"), lines=[ticket, dense])
    text = (tmp_path / "out" / "table1.md").read_text()
    assert (
        "| RobustT | same training loss (epoch of a longer schedule, loss 0.050) | 7 | 0.300 | 80.0"
        in text
    )


def test_a_ticket_of_the_same_scores_but_another_seed_has_another_loss(tmp_path):
    other = stopped(43)
    other["stop_at_loss"]["ticket"]["scores_sha256"] = "scores of seed 42"
    found = controls_in(tmp_path, controlled(), other | {"seed": 42, "attack_id": "x"})
    assert "**control missing**" in found["same training loss"]


@pytest.mark.parametrize(
    ("control", "lacking"),
    {
        "none was run": ("same training loss", None),
        "it never got there": ("same training loss", stopped(loss=0.06)),
        "another ticket's": ("same training loss", stopped(of=controlled(43))),
        "another attack": ("same training loss", stopped(score_with="softmax")),
        "another seed": ("same epochs", attack(DENSE, 43, 20.0)),
        "other settings": ("same epochs", attack(DENSE, 42, 20.0, training={"lr": 1.0})),
        "FreeLB": ("same epochs", attack(Model(method="freelb"), 42, 20.0)),
        "too few passes": ("same label passes", attack(DENSE, 42, 20.0, epochs=11)),
        "too many passes": ("same label passes", attack(DENSE, 42, 20.0, epochs=15)),
        "another checkpoint": ("same epochs", attack(DENSE, 42, 20.0, checkpoint="best")),
    }.values(),
)
def test_a_control_that_does_not_match_is_missing(tmp_path, control, lacking):
    found = controls_in(tmp_path, controlled(), *[lacking] * (lacking is not None))
    assert "**control missing**" in found[control]
    never = lacking is not None and lacking.get("mean_training_loss") == 0.06
    assert ("not reached in 12 epochs" in found["same training loss"]) == never
    text = (tmp_path / "out" / "table1.md").read_text()
    assert "| RobustT (control missing) |" in text and "Control missing: a matched" in text
    row = aua_of(tmp_path / "out", "RobustT")
    assert control in row["controls_missing"]
    general(tmp_path, "general")
    assert "| robust ticket (control missing) |" in (tmp_path / "general" / "table.md").read_text()


def test_one_epoch_may_be_the_control_of_two_tickets(tmp_path):
    """The same weights, so the same attack, and two records of it."""
    tickets = [controlled(), controlled(aua=61.0)]
    tickets[1]["ticket"] |= {"sparsity_asked": 0.5}
    lines = [*tickets, *(stopped(of=t, attack_id="one") for t in tickets)]
    write(tmp_path / "runs", lines)
    found = records.read_records([tmp_path / "runs"])
    assert len(found) == 4
    for ticket in found[:2]:
        controls = comparisons.controls_of([ticket], found)
        assert len(controls[1].records) == 1, controls[1].wanted


def test_a_control_that_lacks_a_seed_is_marked(tmp_path):
    tickets = [controlled(seed) for seed in (42, 43)]
    dense = [attack(DENSE, seed, 20.0, epochs=e, epoch=e) for seed in (42, 43) for e in (3, 12)]
    controls_in(tmp_path, *tickets, *dense, stopped(42))
    row = aua_of(tmp_path / "out", "RobustT")
    assert row["controls_missing"] == "same training loss"


def test_a_dense_model_that_ends_at_a_loss_is_not_the_one_with_the_same_epochs(tmp_path):
    longer = attack(DENSE, 42, 20.0, epochs=12, epoch=12)
    by_number = stopped() | {"stop_at_loss": {"loss": 0.2, "ticket": None}, "attack_id": "number"}
    write(tmp_path / "runs", [longer, stopped(), by_number, controlled()])
    rows = rows_of(general(tmp_path) / "table.csv", epochs="12")
    assert {r["model"]: r["aua_percent"] for r in rows} == {
        "dense fine-tuned": "20.0",
        "dense fine-tuned, until a loss of 0.2": "25.0",
        "dense fine-tuned, until the loss of the robust ticket (30 %, 3 epochs)": "25.0",
    }


def test_what_is_suspicious_is_marked_and_explained(tmp_path):
    flag = {"flag": "saturated_softmax", "why": "on 40 % of the rows ..."}
    write(tmp_path / "runs", [attack(DENSE, 42, 20.0, flags=[flag]), attack(LTH, 42, flags=[])])
    text = (report(tmp_path, "table1") / "table1.md").read_text()
    assert "| Fine-tune (suspicious) |" in text and "| LTH (control missing) |" in text
    assert "Suspicious: Fine-tune: saturated softmax (on 40 % of the rows ...)." in text
    tex = (tmp_path / "out" / "table1.tex").read_text()
    assert "Fine-tune (suspicious)" in tex
    table = (general(tmp_path, "general") / "table.md").read_text()
    assert "dense fine-tuned (suspicious)" in table and "Suspicious: dense fine-tuned" in table


def test_calibrated_attacks_have_a_table_of_their_own(tmp_path):
    def at(rule: str | None, aua: float, **facts) -> dict:
        changes = {"temperature_rule": rule, "protocol_id": rule or "plain"} if rule else {}
        return attack(DENSE, 42, aua, score_with="softmax", **changes, **facts)

    lines = [
        at(None, 45.0, ece_percent=12.0, saturated_percent=30.0),
        at("fitted", 25.0, temperature=3.5, ece_percent=4.0),
        at("4xfitted", 23.0, temperature=14.0),
        attack(LTH, 42, 30.0, score_with="softmax"),
    ]
    text = (general(tmp_path, lines=lines) / "table.md").read_text()
    assert text.count("## Calibration") == 1
    cells = (
        "| dense fine-tuned | 0 % | 3 | 3.50 | 12.0 | 4.0 | 30.0 | 45.0 | 25.0 | 23.0 | 4xfitted |"
    )
    assert cells in text and "| imp ticket | 30 % | 3 |" not in text.split("## Calibration")[1]
    with open(tmp_path / "out" / "calibration.csv", newline="") as f:
        assert [r["aua_percent"] for r in csv.DictReader(f)] == ["45.0", "25.0", "23.0"]
    # In the paper's tables only what was attacked as trained.
    row = aua_of(report(tmp_path, "table1"), "Fine-tune")
    assert (row["ours_mean"], row["n"]) == ("45", "1")
    # Below them the others stand in this table, too, and can be made again.
    assert cells in (tmp_path / "out" / "table1.md").read_text()
    assert len(rows_of(tmp_path / "out" / "table1-calibration.csv")) == 3
    kept = records.read_records([tmp_path / "out" / "table1-records.jsonl"])
    assert {r.temperature_rule for r in kept} == {None, "fitted", "4xfitted"}


def test_a_calibration_table_mixes_neither_protocols_nor_seeds(tmp_path):
    def at(rule: str | None, seed: int, aua: float, protocol: str, **facts) -> dict:
        changes = {"temperature_rule": rule, "temperature": 2.0} if rule else {}
        return attack(DENSE, seed, aua, **changes, protocol_id=protocol, **facts)

    lines = [
        at(rule, 42, aua, f"{protocol}{rule}", query_budget=budget)
        for protocol, budget, auas in (("a", None, (40.0, 20.0)), ("b", 50, (70.0, 60.0)))
        for rule, aua in zip((None, "fitted"), auas, strict=True)
    ]
    lines += [
        at(None, 43, 90.0, "aNone"),
        at(None, 44, 50.0, "aNone"),
        at("fitted", 44, 30.0, "afitted"),
        at("0.5", 42, 99.0, "another"),
        at("0.5", 44, 10.0, "other"),
        at("0.5", 45, 10.0, "other"),
    ]
    general(tmp_path, lines=lines)
    with open(tmp_path / "out" / "calibration.csv", newline="") as f:
        rows = [(r["protocol_id"], r["aua_by_seed"]) for r in csv.DictReader(f)]
    # Seeds 42 and 44 of a would do without the third temperature; of that, one protocol is shown.
    assert rows == [
        ("aNone", "44:50"),
        ("afitted", "44:30"),
        ("other", "44:10"),
        ("bNone", "42:70"),
        ("bfitted", "42:60"),
    ]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "evaluation protocols aNone (as trained), afitted (fitted), other (0.5)" in text
    assert "not attacked at all of its temperatures: seeds 42, 43, 45." in text
    assert "Skipped: 1 record, differing in protocol_id (another there, other here)." in text


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


def test_both_checkpoint_rules_are_reported(tmp_path):
    write(tmp_path / "runs", [attack(DENSE, 42, 20.0), attack(DENSE, 42, 28.0, checkpoint="best")])
    out = report(tmp_path, "table1", further=("--checkpoint", "both"))
    for folder, aua in ((out, "20"), (out / "best", "28")):
        row = aua_of(folder, "Fine-tune")
        assert row["ours_mean"] == aua


def test_a_table_of_nothing_is_empty_and_prints_its_command(tmp_path):
    (tmp_path / "runs").mkdir()
    out = report(tmp_path, "table1", further=("--seeds", 1, 2, "--further_flags", "--data 'a b'"))
    text = (out / "table1.md").read_text()
    assert "| LTH | 30 % | 92.1 |" in text and "--seeds 1 2 --rows Fine-tune LTH" in text
    assert "RobustT --data 'a b'" in text
    out = report(tmp_path, "table1", scale="paper", further=("--tasks", "imdb"))
    assert len(rows_of(out / "table1.csv", ours_mean="")) == 4 * 7 * 4


def test_what_cannot_be_made_is_one_line(tmp_path, capsys):
    assert "does not exist" in refused(capsys, tmp_path, "table1")
    runs = tmp_path / "runs"
    runs.mkdir()
    assert "invalid choice: 'table9'" in refused(capsys, tmp_path, "table9")
    assert "unknown task 'sst3'" in refused(capsys, tmp_path, "table1", "--tasks", "sst3")
    assert "unknown task 'custom'" in refused(capsys, tmp_path, "table1", "--tasks", "custom")
    line = refused(capsys, tmp_path, "figure2", "figure1")
    assert "no attack records" in line and "sh reproduce.sh figure2 --scale mini" in line
    assert "no finished search" in line and "sh reproduce.sh figure1 --scale mini" in line
    quote = refused(capsys, tmp_path, "table1", "--further_flags", "--data 'x")
    assert "--further_flags: No closing quotation" in quote
    (runs / "records.jsonl").write_text("{torn\n{}\n")
    assert "line 1, is not JSON" in refused(capsys, tmp_path, "table1")
    write(runs, [attack()])
    search(runs / "search-robust", 42, 0.5, 0.0)
    (runs / "search-robust" / "log.jsonl").write_text('{"penalty": 1}\n')
    assert "log.jsonl, line 1, lacks 'optimizer_step'" in refused(capsys, tmp_path, "figure1")
    (runs / "search-robust" / "run.json").write_text("{")
    assert "is damaged" in refused(capsys, tmp_path, "figure1")
    (runs / "search-robust" / "run.json").unlink()
    ticket(runs / "ticket-robust-0.3", 42, 0.6, density_by_head={"heads": [[0.5]]})
    assert "density_by_head in ticket.json does not fit" in refused(capsys, tmp_path, "figure3")
    with pytest.raises(UserError, match="cannot be read"):
        paper_values.paper_values(tmp_path / "none.csv")
