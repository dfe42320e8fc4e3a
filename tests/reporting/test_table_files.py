"""What the files of a table hold: valid LaTeX, no formulas in CSV, marks and their reasons."""

import re

import pytest
from conftest import call
from record_tools import LTH, attack, general, report, row_of, rows_of, write

from experiments.models import DENSE
from reporting import render, table_files

pytestmark = pytest.mark.usefixtures("undrawn")


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
