r"""A table of the paper or of the study in LaTeX; needs \usepackage{booktabs}."""

from experiments.paper import Table
from reporting.cells import Cell
from reporting.grids import Grid, Value, grids
from reporting.markdown import legend, note, text_of
from reporting.paper_tables import SubTable
from reporting.render import NONE

OURS = "Ours: mean over seeds; subscript: standard deviation (n - 1); superscript: number of seeds."
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "Δ": r"$\Delta$",
    NONE: "---",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_TEX |= {c: f"\\{c}" for c in "&%$#_{}"}


def latex(table: Table, subs: list[SubTable]) -> str:
    """A floating table per grid."""
    lines = [rf"% {table.title}. Needs \usepackage{{booktabs}}."]
    for i, grid in enumerate(grids(subs)):
        notes = [*map(note, grid.comparisons), *grid.notes]
        legends = [] if i else [OURS, legend(table)]
        caption = " ".join([f"{table.title}. {grid.heading}.", *grid.remarks, *notes, *legends])
        lines += [
            "",
            *(f"% to run: {command}" for command in grid.commands),
            r"\begin{table*}[t]",
            r"\centering\scriptsize\setlength{\tabcolsep}{2pt}",
            *_tabular(grid),
            rf"\caption{{{escaped(caption)}}}",
            r"\end{table*}",
        ]
    return "\n".join([*lines, ""])


def _tabular(grid: Grid) -> list[str]:
    heads, rules, start = [], [], 1
    for head, parts in grid.columns:
        width = len(parts)
        heads.append(escaped(head))
        if width > 1:
            heads[-1] = rf"\multicolumn{{{width}}}{{c}}{{{heads[-1]}}}"
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    sub_heads = [escaped(part) for _, parts in grid.columns for part in parts]
    return [
        rf"\begin{{tabular}}{{l{'r' * (start - 2)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        *(["".join(rules)] if rules else []),
        " & ".join(sub_heads) + r" \\",
        r"\midrule",
        *(" & ".join(map(_cell, row)) + r" \\" for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _cell(value: Value) -> str:
    """Deviation and count above each other, without interval: four measures fill a page."""
    if not isinstance(value, Cell) or value.mean is None:
        return escaped(text_of(value))
    below = "" if value.deviation is None else rf"_{{\pm {value.deviation:.1f}}}"
    return rf"{value.mean:.1f}$^{{({value.n})}}{below}$"


def escaped(text: str) -> str:
    """For LaTeX: special characters, and the few beyond ASCII that our tables have."""
    return "".join(_TEX.get(character, character) for character in text)
