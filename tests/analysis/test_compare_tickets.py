"""compare_tickets.py on tickets whose agreement and densities are known."""

import csv
import json
import math

import pandas as pd
import pytest
import torch
from conftest import call, fails
from safetensors import safe_open

from masking import hard_concrete, overlap, ticket_files, tickets
from reporting import overlap_tables

pytestmark = pytest.mark.usefixtures("undrawn")

KINDS = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")

SHAPES = {
    f"bert.layer.{layer}.{kind}": {"ffn_in": (32, 16), "ffn_out": (16, 32)}.get(kind, (16, 16))
    for layer in range(2)
    for kind in KINDS
} | {"bert.pooler.dense": (16, 16)}


def test_kinds_by_layers():
    """The mean over pairs; the pooler, in no layer, is shown in the last one."""
    columns = ("kind", "layer", "measure")
    rows = [("query", 1, 0.1), ("query", 2, 0.2), ("pooler", None, 0.3)]
    rows += [("query", 1, 0.3), ("query", 2, math.nan), ("pooler", None, 0.5)]
    means = overlap_tables.grid(pd.DataFrame(rows, columns=columns), "measure")
    assert list(means.index) == ["query", "pooler"] and list(means.columns) == [1, 2]
    assert means.loc["query"].tolist() == pytest.approx([0.2, 0.2])
    assert math.isnan(means.loc["pooler", 1]) and means.loc["pooler", 2] == pytest.approx(0.4)


def save(path, scores, kind="robust", **facts):
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest = {
        "kind": kind,
        "task": "sst2",
        "seed": 1,
        "epoch": 2,
        "encoder": {"name": "tiny", "fingerprint": "f"},
    } | facts
    ticket_files.save_scores(path, scores, {n: tuple(s.shape) for n, s in scores.items()}, manifest)
    return path


def random_scores(seed):
    noise = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=noise) for name, shape in SHAPES.items()}


@pytest.fixture
def place(tmp_path):
    """Two searches with the scores of two epochs each, random scores, and a ticket's run."""
    for seed in (1, 2):
        folder = tmp_path / f"search{seed}"
        save(folder / "scores_epoch1.safetensors", random_scores(10 + seed), seed=seed, epoch=1)
        save(folder / "scores.safetensors", random_scores(seed), seed=seed)
    save(
        tmp_path / "random" / "scores.safetensors",
        random_scores(5),
        "random",
        task=None,
        epoch=None,
    )
    masks = tickets.draw(random_scores(1), SHAPES, 0.3)
    with safe_open(tmp_path / "search1" / "scores.safetensors", "pt") as f:
        source = json.loads(f.metadata()["manifest"])
    ticket_files.save_ticket(
        tmp_path / "run" / "ticket.safetensors", masks, {"source": source, "sparsity_asked": 0.3}
    )
    return tmp_path


def rows_of(path):
    with open(path) as f:
        return list(csv.DictReader(f))


@pytest.mark.draws
def test_the_script_compares_a_ticket_with_what_scores_draw(place, capsys):
    out = place / "out"
    call(
        "analysis.compare_tickets",
        "--tickets",
        place / "run",
        "--scores",
        place / "search1",
        place / "search2",
        place / "random",
        "--search_epochs",
        "all",
        "--sparsity",
        0.3,
        0.5,
        "--output_dir",
        out,
    )
    rows = rows_of(out / "agreement.csv")
    # 6 tickets at 30 %, 5 at 50 %: 15 + 10 pairs, each a line over all and 13 matrices.
    assert len(rows) == 25 * 14 and sum(r["matrix"] == "all" for r in rows) == 25
    same = [r for r in rows if r["matrix"] == "all" and not r["differ_in"]]
    assert len(same) == 1 and float(same[0]["removed_jaccard"]) == 1
    assert {same[0]["first"], same[0]["second"]} == {
        "robust, seed 1, epoch 2 (1)",
        "robust, seed 1, epoch 2 (2)",
    }
    pooler = [r for r in rows if r["kind"] == "pooler"]
    assert len(pooler) == 25 and {(r["layer"], r["weights"]) for r in pooler} == {("", "256")}
    drawn = (overlap.pack(tickets.draw(random_scores(s), SHAPES, 0.5)) for s in (1, 2))
    by_hand = overlap.measures(overlap.overlaps(*drawn))[0]
    (found,) = [
        r
        for r in rows
        if r["sparsity"] == "0.5"
        and r["matrix"] == "all"
        and r["relation"] == "seed only"
        and "epoch 2" in r["first"]
    ]
    assert float(found["removed_jaccard"]) == pytest.approx(by_hand["removed_jaccard"], rel=1e-5)
    text = (out / "agreement.md").read_text()
    assert "## Sparsity 30 %" in text and "| kind only: robust and random |" in text
    assert str(place) not in text and str(place) not in (out / "agreement.csv").read_text()
    for name in ("agreement.png", "agreement.pdf", "density.png", "density.pdf"):
        assert (out / name).stat().st_size > 5_000
    assert "written to" in capsys.readouterr().out


def test_expected_density_by_hand(tmp_path):
    """Score SHIFT: open with probability 1/2. Score 0: soft gate 1/2 * 1.2 - .1 = .5."""
    names = list(SHAPES)
    scores = {n: torch.full(s, 20.0) for n, s in SHAPES.items()}
    scores[names[0]][:8] = hard_concrete.SHIFT
    scores[names[1]][:] = 0.0
    save(tmp_path / "a" / "scores.safetensors", scores)
    save(tmp_path / "b" / "scores.safetensors", random_scores(3), "magnitude")
    call(
        "analysis.compare_tickets",
        "--scores",
        tmp_path / "a",
        tmp_path / "b",
        "--sparsity",
        0.1,
        "--output_dir",
        tmp_path / "out",
    )
    rows = rows_of(tmp_path / "out" / "density.csv")
    assert [r["matrix"] for r in rows] == names  # magnitude has no gates
    assert float(rows[0]["expected"]) == pytest.approx(0.75)
    open_at_0 = 1 / (1 + math.exp(hard_concrete.SHIFT))
    assert float(rows[1]["expected"]) == pytest.approx(open_at_0, rel=1e-5)
    assert float(rows[1]["soft_gate"]) == pytest.approx(0.5)
    assert float(rows[2]["expected"]) == float(rows[2]["soft_gate"]) == 1
    # 435 of 4,352 weights are removed: all 256 of the second matrix (score 0), the 128 of the first
    # at SHIFT, and the first 51 of the equal scores.
    drawn = [float(r["drawn_at_0.1"]) for r in rows[:4]]
    assert drawn == pytest.approx([0.5 - 51 / 256, 0, 1, 1], abs=1e-5)
    text = (tmp_path / "out" / "density.md").read_text()
    assert "No expected density: magnitude" in text


def test_tickets_alone_have_no_expected_density(place):
    run, out = place / "run" / "ticket.safetensors", place / "out"
    out.mkdir()
    (out / "density.csv").write_text("of an earlier comparison")
    call("analysis.compare_tickets", "--tickets", run, run, "--output_dir", out)
    assert "The score file (--scores) holds" in (out / "density.md").read_text()
    assert not (out / "density.csv").exists()
    assert "| nothing | 1 | 1.000 |" in (out / "agreement.md").read_text()


def test_epochs_can_be_chosen(place):
    out = place / "out"
    flags = ("--scores", place / "search1", "--sparsity", 0.3, "--output_dir", out)
    call("analysis.compare_tickets", *flags, "--search_epochs", "1,last")
    assert {r["differ_in"] for r in rows_of(out / "agreement.csv")} == {"epoch"}
    # The last epoch counts once, also if it is kept under its number.
    save(place / "search1" / "scores_epoch2.safetensors", random_scores(1), epoch=2)
    call("analysis.compare_tickets", *flags, "--search_epochs", "all")
    assert len(rows_of(out / "agreement.csv")) == 14


def test_at_sparsity_0_nothing_is_removed(place):
    out = place / "out"
    call(
        "analysis.compare_tickets",
        "--scores",
        place / "search1",
        place / "search2",
        "--sparsity",
        0,
        "--output_dir",
        out,
    )
    first = rows_of(out / "agreement.csv")[0]
    assert first["removed_jaccard"] == "1" and first["removed_beyond_chance"] == ""


def test_one_search_alone_has_densities(place, capsys):
    out = place / "alone"
    call(
        "analysis.compare_tickets",
        "--scores",
        place / "search1",
        "--sparsity",
        0.3,
        "--output_dir",
        out,
    )
    assert "One ticket: nothing to compare" in capsys.readouterr().out
    assert rows_of(out / "density.csv") and not (out / "agreement.csv").exists()


def test_wrong_input_is_one_line_and_writes_nothing(place, capsys):
    good, other = place / "search1" / "scores.safetensors", place / "search2"
    out = place / "out"
    out.mkdir()
    (out / "agreement.md").write_text("mine")

    def refused(*flags):
        return fails(capsys, "analysis.compare_tickets", *flags, "--output_dir", out)

    at = ("--sparsity", 0.3)
    scores = random_scores(1)
    scores[next(iter(scores))][0, 0] = float("nan")
    nan = save(place / "nan.safetensors", scores)
    assert "not finite" in refused("--scores", other, nan, *at)
    assert "not a ticket file" in refused("--tickets", place / "run", good)
    assert "is not a score file" in refused(
        "--scores", good, place / "run" / "ticket.safetensors", *at
    )
    assert "no ticket file" in refused("--tickets", place / "run", place / "gone")
    assert "no score file" in refused("--scores", good, place / "gone", *at)
    assert "no score file" in refused("--scores", other, *at, "--search_epochs", "1,7")
    assert "two or more" in refused("--tickets", place / "run")
    noise = save(place / "noise.safetensors", random_scores(4), "random")
    assert "two or more" in refused("--scores", noise, "--sparsity", 0.3, 0.5)
    for sparsity in (1, -0.1, "nan", "x"):
        assert "fraction removed in [0, 1)" in refused(
            "--scores", good, other, "--sparsity", sparsity
        )
    assert "not a list of" in refused("--scores", other, *at, "--search_epochs", "first")
    assert "--scores needs --sparsity" in refused("--scores", good, other)
    assert "--sparsity needs --scores" in refused("--tickets", place / "run", *at)
    assert "nothing to compare" in refused()
    narrow = save(place / "narrow.safetensors", {"x": torch.randn(2, 2)})
    assert "cannot be compared with the first ticket" in refused("--scores", good, narrow, *at)
    stranger = {"name": "another", "fingerprint": "g"}
    strange = save(place / "strange.safetensors", random_scores(4), encoder=stranger)
    assert "made for the encoder another (g)" in refused("--scores", good, strange, *at)
    unsaid = save(place / "unsaid.safetensors", random_scores(4), seed="one")
    assert "lacks the kind, seed or encoder" in refused("--scores", good, unsaid, *at)
    pruned = save(place / "imp.safetensors", random_scores(4), "imp", up_to_sparsity=0.2)
    assert "only up to sparsity 0.2" in refused("--scores", good, pruned, *at)
    masks = tickets.draw(random_scores(1), SHAPES, 0.3)
    ticket_files.save_ticket(place / "bare.safetensors", masks, {})
    assert "which scores it was drawn from" in refused(
        "--tickets", place / "run", place / "bare.safetensors"
    )
    assert (out / "agreement.md").read_text() == "mine" and len(list(out.iterdir())) == 1
