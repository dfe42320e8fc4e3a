"""The study's tables from invented records."""

import os
import subprocess
import sys

import numpy as np
import pytest
from record_tools import (
    ROBUST_30,
    ROOT,
    SEARCH,
    TASK,
    attack,
    controlled,
    rows_of,
    study,
    study_flags,
    write,
)

import reproduce
from evaluation import records
from evaluation.intervals import mean_difference
from experiments.models import DENSE, Model
from training import deviations

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.draws
def test_the_study_has_no_columns_of_the_paper_and_a_figure(tmp_path):
    ticket = controlled(row_outcomes="rrrfffffww")
    ticket["ticket"] |= {"search": SEARCH, "scores_epoch": 6}
    softmax = {"score_with": "softmax", "recipe": "textfooler-neighbours"}
    lines = [
        ticket | {"recipe": "textfooler-neighbours"},
        attack(DENSE, 42, 20.0, recipe="textfooler-neighbours", training_rows=1800),
        attack(DENSE, 42, 45.0, **softmax),
        attack(DENSE, 42, 25.0, **softmax, temperature_rule="fitted", temperature=2.0),
        attack(Model(epochs=12), 42, 15.0, **softmax, temperature_rule="fitted", temperature=3.0),
    ]
    write(tmp_path / "runs", lines)
    study(tmp_path, "--tasks", TASK)
    text = (tmp_path / "out" / "study.md").read_text()
    assert "| Method | Sparsity | Clean % | Aua % | Suc % | #Query |" in text
    assert (
        "| RobustT 30 % (control missing) | 30 % | 80.0 [70.0, 88.0] (n=1) | 30.0 (n=1) |" in text
    )
    assert "| LTH 80 %, 10 epochs | 80 % | — |" in text and "## Calibration" in text
    summary = (tmp_path / "out" / "study-summary.md").read_text()
    assert "| Fine-tune | 80.0 | 20.0 |  |  |  |" in summary
    row = "| RobustT 30 % (control missing) | 80.0 | 30.0 | other rows | not run | not run |"
    assert row in summary and "Not run: Fine" in summary
    for name in ("study.png", "study.pdf", "study.csv", "study.tex"):
        assert (tmp_path / "out" / name).stat().st_size > 500
    # All that its tables show can be made again from what it keeps.
    kept = records.read_records([tmp_path / "out" / "study-records.jsonl"])
    assert len(kept) == 5
    # The controls of a ticket have intervals as well.
    tempered = rows_of(tmp_path / "out" / "study-calibration.csv")
    assert [(r["epochs"], r["temperature_rule"]) for r in tempered] == [
        *(("3", "1"), ("3", "fitted"), ("12", "fitted"))
    ]


def test_what_fills_a_table_of_another_attack_names_it(tmp_path):
    lines = [
        attack(DENSE, 1, 20.0, recipe="textfooler-neighbours"),
        attack(DENSE, 1, 10.0, recipe="textbugger-minilm"),
    ]
    write(tmp_path / "runs", lines)
    study(
        tmp_path,
        "--tasks",
        TASK,
        "--further_flags",
        "--recipes pwws textbugger-minilm --data 'a b'",
    )
    text = (tmp_path / "out" / "study.md").read_text()
    usual, other = text.split("textbugger-minilm", 1)
    assert "sh reproduce.sh study" in usual and "--recipes" not in usual
    commands = [line for line in other.splitlines() if line.startswith("sh reproduce.sh")]
    assert len(commands) == 1
    assert commands[0].endswith(
        "'w/o Adv 80 %, 10 epochs' --recipes textbugger-minilm --data 'a b'"
    )


@pytest.mark.slow
def test_the_study_means_over_its_data_sets(tmp_path):
    """Ten rows, two seeds. Ticket minus dense: 2 and 4 rows on one data set, 1 and 1 on the other,
    so 30 and 10 points, 20 in the mean."""
    right = {TASK: {"ticket": (5, 7), "dense": (3, 3)}, "sst2": {"ticket": (4, 4), "dense": (3, 3)}}
    lines = []
    for task, models in right.items():
        for name, counts in models.items():
            for seed, count in enumerate(counts, 1):
                model = DENSE if name == "dense" else ROBUST_30
                line = attack(
                    model,
                    seed,
                    10.0 * count,
                    recipe="textfooler-neighbours",
                    task=task,
                    rows_attacked=10,
                    row_outcomes="r" * count + "f" * (10 - count),
                )
                if name == "ticket":
                    line["ticket"] = line["ticket"] | {"search": SEARCH, "scores_epoch": 6}
                lines.append(line)

    def table(given: list[dict], name: str) -> str:
        write(tmp_path / name, given)
        study(tmp_path, records=name, out=f"{name}-out")
        text = (tmp_path / f"{name}-out" / "study-summary.md").read_text()
        return text.partition("**Mean over ")[2]

    found = table(lines, "both")
    assert found.startswith(f"{TASK}, sst2**, textfooler-neighbours")
    rows = [line for line in found.splitlines() if line.startswith("| RobustT")]
    ten = np.arange(10)
    points, low, high = mean_difference(
        [
            tuple(np.array([ten < count for count in counts]) for counts in models.values())
            for models in right.values()
        ]
    )
    assert points == pytest.approx(20)
    interval = f"[{low:+.1f}, {high:+.1f}]".replace("-", "−")
    assert len(rows) == 1 and f"| RobustT 30 % (control missing) | +20.0 {interval} |" in rows[0]
    # A third data set without the ticket leaves the mean of the two, and says so.
    third = attack(DENSE, 1, recipe="textfooler-neighbours", task="ag_news")
    found = table([*lines, third], "three")
    assert found.startswith(f"{TASK}, sst2, ag_news**")
    assert f"| RobustT 30 % (control missing) | +20.0 {interval} ({TASK}, sst2) |" in found
    assert not table([x for x in lines if x["task"] == TASK], "one")
    assert not table([x for x in lines if x["task"] == TASK or x["seed"] == 1], "one of two seeds")


def test_what_the_study_has_kept_stays_in_its_tables(tmp_path):
    """Whatever records, and of whichever data set, are added later, or none."""
    usual = {"recipe": "textfooler-neighbours"}
    given = {
        "first": [attack(DENSE, 1, 30.0, **usual)],
        "second": [attack(DENSE, 1, 20.0, task="ag_news", **usual)],
        "none": [],
    }
    for name, lines in given.items():
        write(tmp_path / name, lines)
        study(tmp_path, records=name)
        summary = (tmp_path / "out" / "study-summary.md").read_text()
        assert ("**ag_news**" in summary) == (name != "first")
        assert summary.count("| Fine-tune | 80.0 | 30.0 |") == 1
    assert len(records.read_records([tmp_path / "out" / "study-records.jsonl"])) == 2


def test_a_study_of_another_encoder_has_its_own_tables(tmp_path):
    lines = [
        attack(DENSE, 1, aua, recipe="textfooler-neighbours", encoder={"name": name})
        for name, aua in (("builtin/minilm", 30.0), ("other", 20.0))
    ]
    write(tmp_path / "runs", lines)
    (tmp_path / "other").mkdir()
    for further, aua in (((), "30.0"), (("--encoder", tmp_path / "other"), "20.0")):
        study(tmp_path, *further, out=f"out{len(further)}")
        summary = (tmp_path / f"out{len(further)}" / "study-summary.md").read_text()
        assert summary.count("| Fine-tune |") == 1 and f"| Fine-tune | 80.0 | {aua} |" in summary
        kept = records.read_records([tmp_path / f"out{len(further)}" / "study-records.jsonl"])
        assert [r.aua_percent for r in kept] == [float(aua)]
    assert reproduce.parse_args(["study"]).output_dir.endswith("results/study")
    other = reproduce.parse_args(["study", "--encoder", str(tmp_path / "other")])
    assert other.output_dir.endswith("results/study-other")


@pytest.mark.slow
def test_a_reader_that_leaves_early_loses_no_table(tmp_path):
    write(tmp_path / "runs", [attack(DENSE, 1, recipe="textfooler-neighbours")])
    command = [sys.executable, "report.py", *study_flags(tmp_path)]
    unread, pipe = os.pipe()
    os.close(unread)
    done = subprocess.run(command, cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True)
    os.close(pipe)
    assert done.returncode == 141 and "Traceback" not in done.stderr
    for name in ("study.md", "study.csv", "study-grid.md", "study-summary.md"):
        assert (tmp_path / "out" / name).is_file()


def test_a_studys_ticket_is_in_the_row_of_its_search_alone(tmp_path):
    made = (
        (SEARCH, 6),
        (SEARCH, 2),
        (SEARCH | {"penalty_mean": "matrices"}, 6),
        (deviations.SEARCH["released"] | {"epochs": 6, "protocol": "released"}, 6),
    )
    lines = []
    for aua, (settings, epoch) in enumerate(made, start=51):
        line = attack(
            ROBUST_30,
            1,
            aua,
            recipe="textfooler-neighbours",
            attack_id=f"{aua}",
            row_outcomes="r" * aua + "f" * (100 - aua),
        )
        line["ticket"] = line["ticket"] | {"search": settings, "scores_epoch": epoch}
        lines.append(line)
    write(tmp_path / "runs", lines)
    out = tmp_path / "out"
    study(tmp_path, "--tasks", TASK)

    def shown(table: str) -> dict[str, str]:
        rows = rows_of(out / f"{table}.csv", metric="aua")
        return {r["method"]: r["ours_mean"] for r in rows if r["ours_mean"]}

    assert shown("study") == {"RobustT 30 %": "51"}
    assert shown("study-epochs") == {"RobustT 30 %": "51", "search epoch 2": "52"}
    assert shown("study-switches") == {
        "RobustT 30 %": "51",
        "D9, mean in R(m)": "53",
        "released search (D1, D2, D9, D14, D17)": "54",
    }
    text = (out / "study-switches.md").read_text()
    assert "RobustT 30 % |" in text and "Aua compared with RobustT 30 %" in text
    assert "Matched dense controls" not in text
    # A report of other records adds to what is kept, and loses nothing of it.
    write(tmp_path / "more", [attack(DENSE, 2, 20.0, recipe="textfooler-neighbours")])
    study(tmp_path, "--tasks", TASK, records="more", make="study-epochs")
    assert len(records.read_records([out / "study-records.jsonl"])) == 5
