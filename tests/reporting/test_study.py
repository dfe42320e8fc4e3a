"""The study's tables, searches, costs and page, from invented and from committed records."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import call, fails
from record_tools import ROBUST_30, ROOT, SEARCH, TASK, attack, controlled, rows_of, write

import reproduce
from evaluation import records
from evaluation.intervals import mean_difference
from experiments.models import DENSE, Model
from reporting import costs, style
from training import deviations
from utils import files
from utils.cli import UserError

pytestmark = pytest.mark.usefixtures("undrawn")


def flags(
    tmp_path: Path, records: str = "runs", out: str = "out", make: str = "study"
) -> list[str]:
    folders = ["--records", str(tmp_path / records), "--output_dir", str(tmp_path / out)]
    return ["--make", make, "--scale", "study", *folders]


def study(tmp_path: Path, *further, **folders: str) -> None:
    """Make the study from tmp_path/runs in tmp_path/out, or from and in other `folders`."""
    call("report", *flags(tmp_path, **folders), *further)


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
    command = [sys.executable, "report.py", *flags(tmp_path)]
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


def search_run(folder: Path, seed: int, dev: tuple[float, ...], task: str = TASK, **other) -> None:
    """A finished search: dev accuracies of its tickets by epoch; R(m) falls by .1 an epoch."""
    encoder = other.pop("encoder", "builtin/minilm")
    data = {"splits": {"train": {"fingerprint": other.pop("data", "a")}}}
    args = SEARCH | {
        "epochs": len(dev),
        "adv_steps": 3,
        "lambda_amp": 0.5,
        "seed": seed,
        "output_dir": str(folder),
    }
    run = {
        "stage": "search",
        "status": "finished",
        "task": task,
        "encoder": {"name": encoder},
        "data": data,
        "args": args | other,
    }
    files.write_json(folder / "run.json", run)
    for epoch, accuracy in enumerate(dev, 1):
        files.append_jsonl(folder / "log.jsonl", {"optimizer_step": epoch, "penalty": 0.9})
        found = {"dev_accuracy_ticket_percent": accuracy, "penalty_of_all_gates": 1 - epoch / 10}
        files.append_jsonl(folder / "log.jsonl", {"finished_epochs": epoch, "dev": found})


def searches_of(tmp_path: Path) -> dict[tuple[str, str], list[str]]:
    """The table of the study's searches: cells by row and quantity."""
    study(tmp_path, "--tasks", TASK)
    lines = (tmp_path / "out" / "study-searches.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return {(row[0], row[1]): row[2:] for row in rows[2:]}


@pytest.mark.slow
@pytest.mark.draws
def test_the_studys_searches_are_kept_epoch_by_epoch(tmp_path):
    search_run(tmp_path / "runs" / "a", 1, (60, 70))
    search_run(tmp_path / "runs" / "b", 2, (64, 72))
    search_run(tmp_path / "runs" / "c", 1, (50, 51), penalty_mean="matrices")
    found = searches_of(tmp_path)
    assert found["RobustT", "R(m) %"] == ["90.0 ± 0.0 (n=2)", "80.0 ± 0.0 (n=2)"]
    assert found["RobustT", "dev accuracy %"] == ["62.0 ± 2.8 (n=2)", "71.0 ± 1.4 (n=2)"]
    assert found["D9, mean in R(m)", "dev accuracy %"] == ["50.0 (n=1)", "51.0 (n=1)"]
    out = tmp_path / "out"
    shown = rows_of(out / "study-searches.csv", quantity="dev accuracy", curve="RobustT")
    assert [row["values_by_seed"] for row in shown] == ["1:0.6;2:0.64", "1:0.7;2:0.72"]
    assert all((out / f"study-searches.{kind}").stat().st_size > 500 for kind in ("png", "pdf"))
    # The runs may be gone: what was kept is shown again, and a further search beside it.
    shutil.rmtree(tmp_path / "runs")
    search_run(tmp_path / "runs" / "d", 3, (68, 74))
    found = searches_of(tmp_path)
    assert found["RobustT", "dev accuracy %"] == ["64.0 ± 4.0 (n=3)", "72.0 ± 2.0 (n=3)"]


@pytest.mark.parametrize(
    "other",
    [
        {"lr": 7},
        {"lambda_amp": 1.0},
        {"mask_p": 0.99},
        {"data": "b"},
        {"max_seq_length": 9},
        {"encoder": "bert-base-uncased"},
        {"task": "imdb"},
    ],
)
def test_searches_of_another_kind_are_in_no_row_of_the_study(tmp_path, other):
    """Though they have more epochs, and the same seeds."""
    for seed in (1, 2):
        search_run(tmp_path / "runs" / f"a{seed}", seed, (60, 70))
    before = searches_of(tmp_path)
    search_run(tmp_path / "runs" / "z", 1, (11, 11, 11, 11, 11), **other)
    assert searches_of(tmp_path) == before


def test_all_rows_of_the_studys_searches_look_different(tmp_path):
    switches = {
        "w/o Adv": {"adv_steps": 0},
        "RobustT": {},
        "released search": deviations.SEARCH["released"] | {"protocol": "released"},
        "D1, lambda's clock": {"lambda_clock": "tensors"},
        "D2, what is clipped": {"clip_over": "accumulated"},
        "D9, mean in R(m)": {"penalty_mean": "matrices"},
        "D10, the last pass alone": {"adv_gradient": "last"},
        "D14, AdamW": {"adamw": "released"},
        "D17, length of the schedule": {"schedule_length": "examples"},
    }
    for i, own in enumerate(switches.values()):
        search_run(tmp_path / "runs" / str(i), 1, (60 + i, 70), **own)
    found = searches_of(tmp_path)
    dev = {label: found[label, "dev accuracy %"][0] for label in switches}
    assert dev == {label: f"{60 + i}.0 (n=1)" for i, label in enumerate(switches)}
    looks = [tuple(look.values()) for look in style.looks(switches).values()]
    assert len(set(looks)) == len(switches)


@pytest.mark.parametrize(
    "damage",
    [
        {"search": None},
        {"seed": "1"},
        {"epochs": []},
        {"epochs": [{"epoch": 1}]},
        {"task": None},
        {"search": {"epochs": [6], "adv_steps": 3}},
        {"search": {"epochs": 6}},
        {"data": 1},
        {"epochs": [{"epoch": 1, "open_gates_percent": "9", "dev_accuracy_ticket_percent": 1}]},
    ],
)
def test_a_damaged_search_of_the_study_is_one_line(tmp_path, capsys, damage):
    search_run(tmp_path / "runs" / "a", 1, (60, 70))
    searches_of(tmp_path)
    path = tmp_path / "out" / "study-searches.jsonl"
    kept = json.loads(path.read_text())
    path.write_text("".join(json.dumps(line) + "\n" for line in (kept | damage, kept)))
    said = fails(capsys, "report", *flags(tmp_path))
    assert "study-searches.jsonl, line 1 is damaged" in said


@pytest.mark.slow
def test_the_study_s_tables_are_those_of_its_records(tmp_path):
    kept = ROOT / "results" / "study"
    given = kept / "study-records.jsonl"
    shutil.copy(kept / "costs.jsonl", tmp_path)
    study(tmp_path, records=given, out=".")
    names = ("study.md", "study-summary.md", "study.csv", "study-calibration.csv")
    for name in (*names, "study-costs.csv"):
        assert (tmp_path / name).read_text() == (kept / name).read_text(), name


def test_the_page_quotes_the_study_s_summary():
    """Its rows may leave out the marks after a model's name, and the summary's further tables."""
    summary = (ROOT / "results" / "study" / "study-summary.md").read_text()
    known = {_cells(line) for line in summary.splitlines() if line.startswith("|")}
    quoted, is_summary, head = [], False, "Δ Aua vs. dense (same epochs)"
    for line in (ROOT / "docs" / "study.md").read_text().splitlines():
        is_summary = line.startswith("|") and (is_summary or head in line)
        quoted += [_cells(line)] if is_summary else []
    assert all(row in known for row in quoted), [row for row in quoted if row not in known]
    assert len(quoted) > 20


def _cells(line: str) -> tuple[str, ...]:
    """Of a table's row, without "(control missing)" and the like after the model's name."""
    name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
    return (re.sub(r" (†|\((control|suspicious|one class).*\))$", "", name), *cells)


def test_costs_are_epochs_times_what_an_epoch_costs(tmp_path):
    """1,800 rows. Dense: 3 epochs of 2 s per 1,000 rows. The ticket: 3 of fine-tuning, 6 of a
    search at 10 s, 3 of retraining at 3 s; 20 points more, none of them by chance."""
    ways = {"plain": (2.0, 2**30), "search": (10.0, 3 * 2**30), "retrain": (3.0, 2**30)}
    named = {
        name: {"seconds_per_1000_rows": seconds, "peak_memory_bytes": held}
        for name, (seconds, held) in ways.items()
    }
    measured = {
        "row": {"adv_steps": 3, "encoder": "builtin/minilm"},
        "device": "d",
        "threads": 2,
        "ways": named,
    }
    told = {"recipe": "textfooler-neighbours", "rows_attacked": 100}
    ticket = controlled(aua=40.0, row_outcomes="r" * 40 + "f" * 60, **told)
    ticket["ticket"] |= {"search": SEARCH | {"adv_steps": 3}, "scores_epoch": 6}
    dense = attack(DENSE, 42, 20.0, row_outcomes="r" * 20 + "f" * 80, training_rows=1800, **told)
    freelb = attack(Model(method="freelb"), 42, 30.0, **told)  # its epochs were not measured
    # Two seeds of a longer training, a little above: an interval, and a gain that may be noise.
    again = [attack(DENSE, 43, 20.0, row_outcomes="r" * 20 + "f" * 80, **told)]
    again += [
        attack(Model(epochs=10), s, 22.0, row_outcomes="r" * 22 + "f" * 78, **told)
        for s in (42, 43)
    ]
    write(tmp_path / "runs", [ticket, dense, freelb, *again])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "costs.jsonl").write_text(json.dumps(measured) + "\n")
    study(tmp_path, "--tasks", TASK)
    first, longer, second = rows_of(tmp_path / "out" / "study-costs.csv")
    assert longer["model"] == "Fine-tune, 10 epochs"
    assert longer["aua_minus_fine_tune"] == "2" and longer["low_95"]
    assert [first[k] for k in ("model", "label passes", "minutes", "peak GiB")] == [
        *("Fine-tune", "3", f"{1.8 * 3 * 2 / 60:.6g}", "1")
    ]
    before, own = 1.8 * (6 * 10 + 3 * 2) / 60, 1.8 * 3 * 3 / 60
    assert second["model"] == "RobustT 30 %" and second["label passes"] == "12"
    assert second["gradient passes"] == str(3 + 6 * 3 + 3)
    assert second["minutes before its training"] == f"{before:.6g}"
    assert second["minutes"] == f"{before + own:.6g}" and second["peak GiB"] == "3"
    further = before + own - 1.8 * 3 * 2 / 60
    assert float(second["further_minutes_per_point"]) == pytest.approx(further / 20, rel=1e-5)
    other = measured | {"row": {"adv_steps": 5}}  # a search of other passes costs something else
    assert costs.cost_of(records.read_records([tmp_path / "runs"])[0], other) is None
    assert costs.read(tmp_path / "out", "another encoder") is None
    (tmp_path / "out" / "costs.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="is damaged"):
        costs.read(tmp_path / "out", "builtin/minilm")
