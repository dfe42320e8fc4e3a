"""A table of the paper in LaTeX."""

import re

from experiments.paper import Table
from reporting.markdown import LEGEND, NONE, Grid, grids
from reporting.paper_tables import SubTable

OURS = "Ours: mean over seeds; below standard deviation (n - 1), above the number of seeds."


def latex(table: Table, subs: list[SubTable]) -> str:
    r"""A floating table for each grid; needs \usepackage{booktabs}."""
    lines = [rf"% {table.title}. Needs \usepackage{{booktabs}}."]
    for i, grid in enumerate(grids(subs)):
        legend = [] if i else [OURS, LEGEND]
        caption = " ".join([f"{table.title}. {grid.heading}.", *grid.remarks, *grid.notes, *legend])
        lines += [
            "",
            *(f"% to fill: {command}" for command in grid.commands),
            r"\begin{table*}[t]",
            r"\centering\scriptsize\setlength{\tabcolsep}{2pt}",
            *_tabular(grid),
            rf"\caption{{{escaped(caption)}}}",
            r"\end{table*}",
        ]
    return "\n".join([*lines, ""])


def _tabular(grid: Grid) -> list[str]:
    widths = [len(parts) for _, parts in grid.columns]
    heads, rules, start = [], [], 1
    for (head, _), width in zip(grid.columns, widths, strict=True):
        alone = width == 1
        heads.append(
            escaped(head) if alone else rf"\multicolumn{{{width}}}{{c}}{{{escaped(head)}}}"
        )
        rules += [] if alone else [rf"\cmidrule(lr){{{start}-{start + width - 1}}}"]
        start += width
    parts = [escaped(part) for _, parts in grid.columns for part in parts]
    body = [" & ".join(map(_tex_cell, row)) + r" \\" for row in grid.rows]
    return [
        rf"\begin{{tabular}}{{l{'r' * (sum(widths) - 1)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        *(["".join(rules)] if rules else []),
        " & ".join(parts) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    NONE: "---",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
}
_TEX |= {c: f"\\{c}" for c in "&%$#_{}"}


def _tex_cell(text: str) -> str:
    """Deviation and count above each other, no interval: four measures fill a page."""
    ours = re.fullmatch(r"([\d.]+)(?: ± ([\d.]+))?(?: \[[^]]*\])? \(n=(\d+)\)", text)
    if ours is None:
        return escaped(text)
    mean, deviation, count = ours.groups()
    below = rf"_{{\pm {deviation}}}" if deviation else ""
    return rf"{mean}$^{{({count})}}{below}$"


def escaped(text: str) -> str:
    """For LaTeX: special characters, and the few beyond ASCII that our tables have."""
    return "".join(_TEX.get(character, character) for character in text)
