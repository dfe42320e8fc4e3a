"""What the page shows of tickets and searches, against their files."""

import csv

import numpy as np
import pytest
from record_tools import ROOT

from experiments.study import STUDY
from reporting.page import curves, tickets

FOLDER = ROOT / "results" / "study"


@pytest.fixture(scope="module")
def of_sst2() -> list[tickets.TicketFile]:
    """The tickets lie next to the record file."""
    found = tickets.find([FOLDER / "study-records.jsonl", FOLDER])
    assert len(found) == 6
    return [ticket for ticket in found if ticket.task == "sst2"]


def test_densities_are_the_means_of_the_manifests(of_sst2):
    by_head, by_matrix = tickets.densities(of_sst2)
    assert by_head.title.startswith("robust ticket, 30 % removed, sst2, seeds 1, 2, 3")
    assert by_head.columns == [*map(str, range(1, 13)), "MLP"]
    mlp = np.mean([t.manifest["density_by_head"]["mlp"][0] for t in of_sst2])
    assert by_head.rows[0][0] == "layer 1" and by_head.rows[0][1][-1][0] == f"{mlp:.2f}"
    assert by_matrix.columns == ["query", "key", "value", "attention output", "ffn in", "ffn out"]
    name = "bert.encoder.layer.5.attention.self.query"
    query = np.mean([t.manifest["density_by_matrix"][name] for t in of_sst2])
    assert by_matrix.rows[5][1][0][0] == f"{query:.2f}"
    shades = [shade for _, cells in by_matrix.rows for _, shade in cells]
    assert min(shades) == 0 and max(shades) == 1


def test_agreement_is_that_of_the_committed_table(of_sst2, monkeypatch):
    monkeypatch.setattr(tickets, "MOST_COMPARED", 2)
    [shown], [note] = tickets.agreement(of_sst2)
    with open(FOLDER / "agreement-of-tickets" / "agreement.csv", newline="") as f:
        wanted = {"first": "sst2, seed 1", "second": "sst2, seed 2", "matrix": "all"}
        [row] = [r for r in csv.DictReader(f) if all(r[k] == v for k, v in wanted.items())]
    (_, (_, chance)), (_, (jaccard, _)) = shown.rows
    assert jaccard[0] == f"{float(row['removed_jaccard']):.2f}"
    assert chance[0] == f"{float(row['removed_chance_by_matrix']):.2f}"
    assert note.startswith("1 further tickets of 30 % were not compared")


def test_searches_are_those_of_the_log():
    log = FOLDER / "study-searches.jsonl"
    plots = curves.over_search_epochs([], log, "builtin/minilm", STUDY.tasks)
    assert [(plot.title, plot.y_label) for plot in plots] == [
        (task, quantity) for task in STUDY.tasks for quantity in ("R(m)", "dev accuracy")
    ]
    # docs/study.md: SST-2's R(m) is 88.1 ± 0.2 after the sixth epoch.
    assert plots[2].numbers[-1] == ("RobustT", "6", "0.881 ± 0.002")
