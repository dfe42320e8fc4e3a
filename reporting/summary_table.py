"""The general table and figure: one per task, encoder, attack and set of attacked rows."""

import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from evaluation.records import COMPARISON, identity
from reporting import calibration_table, render
from reporting.cells import (
    EQUALIZED,
    Cell,
    Records,
    grouped,
    model_of,
    one_per_seed,
    worst_class,
)
from reporting.comparisons import Result, classes_of, controls_of, difference
from utils.cli import UserError
from utils.files import read_jsonl, write_atomically

COLUMNS = {  # of the Markdown, as cells over seeds
    "Clean %": "clean_percent",
    "Aua %": "aua_percent",
    "Suc %": "suc_percent",
    "#Query": "queries_per_row",
    "words changed %": "words_changed_percent",
}
METRICS = (*COLUMNS.values(), EQUALIZED, "clean_full_test_percent", "mean_training_loss")
LEGEND = (
    f"{render.OF_MEASURES}Words changed: mean share over rows where the attack succeeded. ±: "
    f"standard deviation over seeds (n - 1). {render.OF_INTERVALS}Test accuracy: on all test rows. "
    "Control missing: a dense control of this ticket (same epochs, same training loss, same label "
    f"passes) lacks a seed. {render.OF_FLAGS}"
)
OF_SUITES = (
    "A suite's Aua is that of the union of its attacks. Class-equalized: at the bias at which all "
    "classes of the attacked dev rows survive alike (docs/evaluation.md). "
    "analysis/compare_suites.py compares two models by it."
)


Table = list[Result]  # its models: dense ones first, then by sparsity and kind


def _caption(table: Table) -> str:
    first = table[0].first
    return (
        f"{first.task}, {first.encoder}, attack {first.recipe} (candidates ranked by "
        f"{first.score_with}), {first.checkpoint_rule} checkpoint"
        + (f", temperature {first.temperature_rule}" if first.temperature_rule else "")
        + (f", evaluation protocol {first.protocol_id}" if first.protocol_id else "")
    )


def _notes(table: Table) -> list[str]:
    """What is suspicious; Aua of each row minus the first one's, and minus its controls'."""
    notes = render.suspicious((row.first.name, row.records) for row in table)
    notes += render.compared(table)
    for row in table:
        controls = [c for c in row.controls if c.records]
        for measure, name in (("aua_percent", "Aua"), (EQUALIZED, "Class-equalized Aua")):
            pairs = [(c, difference(row.records, c.records, measure)) for c in controls]
            texts = [f"{c.name} ({c.wanted}) {render.long(d)}" for c, d in pairs if d]
            start = f"{name} of {row.label} compared with its dense controls"
            notes += [f"{start}: {'; '.join(texts)}."] if texts else []
        for control, gains in row.gains.items():
            of_classes = [f"{c} {render.rate(rate)}" for c, rate in gains.items()]
            start = f"By class, {row.label} minus dense ({control})"
            why = row.carried.get(control)
            carried = f". One class carries the gain: {why}" if why else ""
            notes += [f"{start}: {'; '.join(of_classes)}{carried}."] if of_classes else []
    return notes


def make_tables(records: Records) -> list[Table]:
    """A table per group of records that may be compared; its rows never mix settings."""
    alike = grouped(records, lambda r: tuple(getattr(r, key) for key in COMPARISON))
    tables = []
    for _, members in sorted(alike.items(), key=lambda item: str(item[0])):
        models = sorted(map(one_per_seed, grouped(members, model_of).values()), key=_order)
        with_epochs = len({model[0].epochs for model in models}) > 1
        rows = []
        for model in models:
            first = model[0]
            label = first.name + (f", {100 * first.sparsity:g} %" if first.sparsity else "")
            label += f", {first.epochs} epochs" if with_epochs else ""
            rows.append(Result(label, model, controls_of(model, records) if first.sparsity else []))
        tables.append(rows)
    return tables


def _order(model: Records) -> tuple:
    first = model[0]
    return first.sparsity, first.name != "random ticket", first.name, first.epochs or 0


def markdown(title: str, tables: list[Table]) -> str:
    parts = [f"# {title}"]
    for table in tables:
        classes = classes_of(table)
        rows = [_markdown_row(row, classes, _has_suites([table])) for row in table]
        parts += [f"## {_caption(table)}", render.table_of(rows), *_notes(table)]
    return render.paragraphs([*parts, LEGEND, OF_SUITES if _has_suites(tables) else ""])


def _has_suites(tables: list[Table]) -> bool:
    return any(r.equalized_outcomes for table in tables for row in table for r in row.records)


def _markdown_row(row: Result, classes: list[str], of_suites: bool) -> dict[str, str]:
    first, full_test = row.first, Cell.of(row.records, "clean_full_test_percent")
    cells = {column: Cell.of(row.records, metric) for column, metric in COLUMNS.items()}
    cells |= {f"Aua {name} %": row.by_class.get(name, Cell({})) for name in classes}
    cells |= {"Aua worst class %": worst_class(row.by_class)} if classes else {}
    cells |= {"Aua class-equalized %": row.cell(EQUALIZED)} if of_suites else {}
    return {
        "model": first.name + row.marks,
        "sparsity": f"{100 * first.sparsity:g} %",
        "epochs": str(first.epochs),
        **{column: render.cell(cell, count=False) for column, cell in cells.items()},
        "rows": str(first.rows_attacked),
        "seeds": str(len(row.records)),
        "test accuracy %": render.cell(full_test, count=False),
        "last training loss": render.number(Cell.of(row.records, "mean_training_loss").mean, ".3f"),
    }


def csv_text(tables: list[Table]) -> str:
    return render.csv_text([_csv_row(row) for table in tables for row in table], spec="")


def _csv_row(row: Result) -> dict[str, object]:
    first = row.first
    cells = {key: getattr(first, key) for key in COMPARISON} | {
        "model": first.name,
        "sparsity": first.sparsity,
        "epochs": first.epochs,
        "deviations": first.deviations,
        "seeds": len(row.records),
        "rows_attacked": first.rows_attacked,
    }
    for metric in METRICS:
        cell = Cell.of(row.records, metric)
        low, high = cell.interval
        cells |= {
            metric: cell.mean,
            f"{metric}_deviation": cell.deviation,
            f"{metric}_low_95": low,
            f"{metric}_high_95": high,
            f"{metric}_by_seed": render.by_seed(cell),
        }
    cells["aua_percent_by_class"] = render.by_class(row.by_class)
    cells["aua_percent_worst_class"] = worst_class(row.by_class).mean
    return cells


def draw_figure(path: Path, title: str, tables: list[Table]) -> None:
    """Clean and Aua of every row as points with their 95 % intervals, a panel per table."""
    heights = [0.5 * len(table) + 1.4 for table in tables]
    figure = Figure(figsize=(7.2, sum(heights) + 0.5))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
    for axes, table in zip(panels[:, 0], tables, strict=True):
        _draw_panel(axes, table)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    write_atomically(path, lambda p: figure.savefig(p, dpi=160, format="png"))


# Two colors that differ in lightness, and two shapes, so that they also differ in gray.
LOOKS = {"clean_percent": ("Clean", "#56B4E9", "o"), "aua_percent": ("Aua", "#D55E00", "s")}


def _draw_panel(axes, table: Table) -> None:
    for metric, (label, color, marker) in LOOKS.items():
        look = {"fmt": marker, "color": color, "capsize": 3}
        for y, row in enumerate(table):
            cell = Cell.of(row.records, metric)
            point(axes, cell, y, **look, label=None if y else label)
    axes.set_yticks(range(len(table)), [row.label for row in table])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent of attacked rows, with 95 % intervals")
    title = f"{_caption(table)}, {table[0].first.rows_attacked} rows"
    axes.set_title("\n".join(textwrap.wrap(title, 80)), fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def point(axes, cell: Cell, y: float, **look: object) -> None:
    """A mean with its interval, if there is one."""
    low, high = (cell.mean if end is None else end for end in cell.interval)
    bars = [[max(0, cell.mean - low)], [max(0, high - cell.mean)]]
    axes.errorbar(cell.mean, y, xerr=bars, **look)


def write(folder: Path, title: str, records: Records, read: list[Path]) -> str:
    """Write table.md, table.csv, figure.png and records.jsonl; returns the Markdown.

    Raises UserError if that would lose lines of one of the files that were `read`.
    """
    tables = make_tables(records)
    shown = [r for table in tables for row in table for r in row.records]
    target = folder / "records.jsonl"
    if target.resolve() in {path.resolve() for path in read}:
        known = {r.identity for r in shown}
        lines = read_jsonl(target)
        lost = [x for x in lines if "attack_id" not in x or identity(x) not in known]
        if lost:
            raise UserError(
                f"{target} is read and has {len(lost)} lines that no row shows: choose another "
                "--output_dir to keep them"
            )
    tempered = calibration_table.groups(records)
    text = markdown(title, tables) + calibration_table.markdown(tempered)
    render.write_text(folder / "table.md", text)
    render.write_text(folder / "table.csv", csv_text(tables))
    if tempered:
        render.write_text(folder / "calibration.csv", calibration_table.csv_text(tempered))
    draw_figure(folder / "figure.png", title, tables)
    render.write_records(target, shown)
    return text
