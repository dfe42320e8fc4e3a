"""A table of the paper or of the study as Markdown, LaTeX (which needs booktabs) and CSV."""

from experiments.paper import PAPER_DATASET, Table
from reporting import render
from reporting.cells import Cell, doubts_of, worst_class
from reporting.grids import Grid, grids
from reporting.paper_tables import Line, SubTable

OURS = f"Ours: mean ± standard deviation (n - 1) over n seeds. {render.OF_INTERVALS}"
OURS_IN_TEX = (
    "Ours: mean over seeds; subscript: standard deviation (n - 1); superscript: number of seeds."
)
LEGEND = (
    f"Diff.: ours minus the paper's. {render.OF_MEASURES}A row without numbers was not run. "
    "Control missing: a matched dense control of this ticket lacks a seed, so it is open whether "
    "longer or closer fitting explains its numbers. The control with the same training loss is an "
    "epoch from the middle of a longer schedule: its learning rate was not annealed. "
    f"{render.OF_FLAGS}"
)
OF_SEARCHES = (
    " Dev: accuracy of the trained model on the dev rows. R(m): expected share of open gates in "
    "the scores that the ticket is drawn from."
)
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "Δ": r"$\Delta$",
    render.NONE: "---",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_TEX |= {c: f"\\{c}" for c in "&%$#_{}"}


def _legend(table: Table) -> str:
    return LEGEND + (OF_SEARCHES if "open" in table.metrics else "")


def markdown(table: Table, subs: list[SubTable], remark: str = "") -> str:
    parts = [f"# {table.title}", remark]
    for grid in grids(subs):
        heads = [f"{head} {sub}".strip() for head, below in grid.columns for sub in below]
        rows = [[v if isinstance(v, str) else render.cell(v) for v in row] for row in grid.rows]
        parts += [f"## {grid.heading}", *grid.remarks, render.markdown_table(heads, rows)]
        parts += grid.notes
        if grid.controls:
            parts += [
                "Matched dense controls: the same training settings, checkpoint rule, attack and "
                "rows.",
                render.table_of(grid.controls, left=2),
            ]
        if grid.commands:
            commands = "\n".join(["```sh", *grid.commands, "```"])
            parts += ["To run what is missing or has fewer seeds:", commands]
    return render.paragraphs([*parts, f"{OURS}{_legend(table)}"])


def latex(table: Table, subs: list[SubTable]) -> str:
    """A floating table per grid."""
    lines = [rf"% {table.title}. Needs \usepackage{{booktabs}}."]
    legends = [OURS_IN_TEX, _legend(table)]  # once
    for grid in grids(subs):
        start = f"{table.title}. {grid.heading}."
        caption = " ".join([start, *grid.remarks, *grid.notes, *legends])
        legends = []
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
        *(" & ".join(map(tex_cell, row)) + r" \\" for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def tex_cell(value: Cell | str) -> str:
    """Deviation and count above each other, without interval: four measures fill a page."""
    if isinstance(value, str):
        return escaped(value)
    if value.mean is None:
        return escaped(render.NONE)
    below = "" if value.deviation is None else rf"_{{\pm {value.deviation:.1f}}}"
    return rf"{value.mean:.1f}$^{{({value.n})}}{below}$"


def escaped(text: str) -> str:
    """For LaTeX: special characters, and the few beyond ASCII that our tables have."""
    return "".join(_TEX.get(character, character) for character in text)


def csv_text(subs: list[SubTable]) -> str:
    """A line per row, attack and metric. Aua of a class is the metric aua:NAME, that of the worst
    class aua:worst class."""
    rows = []
    for sub in subs:
        for line in sub.lines:
            for metric in sub.metrics:
                cells = {metric: line.ours(metric)}
                if metric == "aua" and line.by_class:
                    of_classes = line.by_class | {"worst class": worst_class(line.by_class)}
                    cells |= {f"aua:{name}": cell for name, cell in of_classes.items()}
                rows += [_csv_row(sub, line, name, cell) for name, cell in cells.items()]
    return render.csv_text(rows)


def _csv_row(sub: SubTable, line: Line, metric: str, ours: Cell) -> dict[str, object]:
    first = line.records[0] if line.records else None
    low, high = ours.interval
    to_run = sub.command(sub.seeds, [line.label]) if not first and sub.recipe else None
    return {
        "table": sub.table.name,
        "task": sub.task,
        "dataset_in_paper": PAPER_DATASET.get(sub.task),
        "method": line.label,
        "sparsity": line.sparsity,
        "attack_in_paper": sub.attack,
        "recipe": sub.recipe,
        "metric": metric,
        "paper": line.paper.get(metric),
        "ours_mean": ours.mean,
        "ours_deviation": ours.deviation,
        "ours_low_95": low,
        "ours_high_95": high,
        "n": ours.n,
        "values_by_seed": render.by_seed(ours),
        "difference": line.difference(metric) if metric in sub.metrics else None,
        "attack_ids": ";".join(r.attack_id for r in line.records if r.seed in ours.values),
        "rows_attacked": first and first.rows_attacked,
        "encoder": first and sub.encoder,
        "command_if_missing": to_run,
        "controls_missing": "; ".join(line.missing_controls),
        "one_class_carries_gain_over": "; ".join(line.carried),
        "suspicious": "; ".join(doubts_of(line.records)),
    }
