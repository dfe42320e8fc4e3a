"""Figures from invented records, logs and tickets, and what cannot be made."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import fails
from record_tools import LTH, ROBUST_30, TASK, attack, report, row_of, rows_of, write

from experiments.models import DENSE, ROBUST
from experiments.paper import CURVES, FIGURES
from experiments.scales import SCALES
from reporting import paper_values, style
from reporting.paper_tables import command
from utils.cli import UserError

pytestmark = pytest.mark.usefixtures("undrawn")

SPARSITIES = SCALES["mini"].sparsities


@pytest.mark.slow
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
