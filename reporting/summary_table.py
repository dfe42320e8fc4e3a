"""The general table and figure: one per task, encoder, attack and set of attacked rows."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from evaluation.records import COMPARISON, ROW_SETTINGS, AttackRecord, identity
from reporting import calibration_table, render
from reporting.cells import Cell, Records, one_per_seed, worst_class
from reporting.comparisons import Result, controls_of, difference
from utils.cli import UserError
from utils.files import read_jsonl, write_atomically

COLUMNS = {  # of the Markdown, as cells over seeds
    "Clean %": "clean_percent",
    "Aua %": "aua_percent",
    "Suc %": "suc_percent",
    "#Query": "queries_per_row",
    "words changed %": "words_changed_percent",
}
METRICS = (*COLUMNS.values(), "clean_full_test_percent", "mean_training_loss")
LEGEND = (
    "Clean: accuracy before the attack. Aua: accuracy under attack. Both are shares of all "
    "attacked rows. Suc = 100 (1 - Aua / Clean). #Query: victim queries per row that was right "
    "before the attack. Words changed: mean share over rows where the attack succeeded. ±: "
    "standard deviation over seeds (n - 1). Brackets: 95 % intervals; for one seed Wilson's over "
    "rows, for several over new rows and new seeds (two-way random effects). Test accuracy: on all "
    "test rows. Control missing: a dense control of this ticket (same epochs, same training loss, "
    "same label passes) lacks a seed. Suspicious: see the notes. One class survives: "
    "Aua of one class is far above the others', so the mean hides which class is robust."
)


class Row(Result):
    """One model in one setting."""

    @property
    def first(self) -> AttackRecord:
        return self.records[0]

    def over_seeds(self, metric: str) -> Cell:
        return Cell.of(self.records, metric)


@dataclass(frozen=True)
class Comparable:
    """The rows of one table: dense models first, then by sparsity and kind."""

    rows: list[Row]

    @property
    def caption(self) -> str:
        first = self.rows[0].first
        return (
            f"{first.task}, {first.encoder}, attack {first.recipe} (candidates ranked by "
            f"{first.score_with}), {first.checkpoint_rule} checkpoint"
            + (f", temperature {first.temperature_rule}" if first.temperature_rule else "")
            + (f", evaluation protocol {first.protocol_id}" if first.protocol_id else "")
        )

    @property
    def names(self) -> list[str]:
        """A name per row, with what differs between the rows."""
        firsts = [row.first for row in self.rows]
        names = [f"{r.name}, {100 * r.sparsity:g} %" if r.sparsity else r.name for r in firsts]
        if len({r.epochs for r in firsts}) > 1:
            names = [f"{n}, {r.epochs} epochs" for n, r in zip(names, firsts, strict=True)]
        return names

    @property
    def classes(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.by_class))

    @property
    def notes(self) -> list[str]:
        """What is suspicious; Aua of each row minus the first one's, and minus its controls'."""
        named = list(zip(self.names, self.rows, strict=True))
        notes = render.suspicious((row.first.name, row.records) for row in self.rows)
        notes += render.compared([(name, row.records) for name, row in named])
        for name, row in named:
            pairs = [(c, difference(row.records, c.records)) for c in row.controls if c.records]
            texts = [f"{c.name} ({c.wanted}) {render.long(d)}" for c, d in pairs if d]
            start = f"Aua of {name} compared with its dense controls"
            notes += [f"{start}: {'; '.join(texts)}."] if texts else []
            for control in row.controls:
                gains = row.gain_over(control)
                of_classes = [f"{c} {render.rate(rate)}" for c, rate in gains.points.items()]
                start = f"By class, {name} minus dense ({control.name})"
                carried = f". One class carries the gain: {gains.carried}" if gains.carried else ""
                notes += [f"{start}: {'; '.join(of_classes)}{carried}."] if of_classes else []
        return notes


def make_tables(records: Records) -> list[Comparable]:
    """A table per group of records that may be compared; its rows never mix settings."""
    tables: dict[tuple, dict[tuple, Records]] = {}
    for r in records:
        shared = tuple(getattr(r, key) for key in COMPARISON)
        settings = (getattr(r, key) for key in ROW_SETTINGS)
        row = (r.name, r.sparsity, r.epochs, r.deviations, *settings, r.training_rows)
        tables.setdefault(shared, {}).setdefault(row, []).append(r)
    return [
        Comparable(sorted((_row(row, records) for row in rows.values()), key=_order))
        for _, rows in sorted(tables.items(), key=lambda item: str(item[0]))
    ]


def _row(of_model: Records, all_records: Records) -> Row:
    latest = one_per_seed(of_model)
    is_ticket = latest[0].sparsity > 0
    return Row(latest, controls_of(latest, all_records) if is_ticket else [])


def _order(row: Row) -> tuple:
    first = row.first
    return first.sparsity, first.name != "random ticket", first.name, first.epochs or 0


def markdown(title: str, tables: list[Comparable]) -> str:
    parts = [f"# {title}"]
    for table in tables:
        rows = [_markdown_row(row, table.classes) for row in table.rows]
        parts += [f"## {table.caption}", render.table_of(rows), *table.notes]
    return render.paragraphs([*parts, LEGEND])


def _markdown_row(row: Row, classes: list[str]) -> dict[str, str]:
    def over_seeds(metric: str) -> str:
        return render.cell(row.over_seeds(metric), count=False)

    of_classes = {name: row.by_class.get(name, Cell({})) for name in classes}
    of_classes |= {"worst class": worst_class(row.by_class)} if classes else {}
    return {
        "model": row.first.name + row.marks,
        "sparsity": f"{100 * row.first.sparsity:g} %",
        "epochs": str(row.first.epochs),
        **{column: over_seeds(metric) for column, metric in COLUMNS.items()},
        **{f"Aua {n} %": render.cell(cell, count=False) for n, cell in of_classes.items()},
        "rows": str(row.first.rows_attacked),
        "seeds": str(len(row.records)),
        "test accuracy %": over_seeds("clean_full_test_percent"),
        "last training loss": render.number(row.over_seeds("mean_training_loss").mean, ".3f"),
    }


def csv_text(tables: list[Comparable]) -> str:
    return render.csv_text([_csv_row(row) for table in tables for row in table.rows], spec="")


def _csv_row(row: Row) -> dict[str, object]:
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
        cell = row.over_seeds(metric)
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


def draw_figure(path: Path, title: str, tables: list[Comparable]) -> None:
    """Clean and Aua of every row as points with their 95 % intervals, a panel per table."""
    heights = [0.5 * len(table.rows) + 1.4 for table in tables]
    figure = Figure(figsize=(7.2, sum(heights) + 0.5))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
    for axes, table in zip(panels[:, 0], tables, strict=True):
        _draw_panel(axes, table)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    write_atomically(path, lambda p: figure.savefig(p, dpi=160, format="png"))


# Two colors that differ in lightness, and two shapes, so that they also differ in gray.
LOOKS = {"clean_percent": ("Clean", "#56B4E9", "o"), "aua_percent": ("Aua", "#D55E00", "s")}


def _draw_panel(axes, table: Comparable) -> None:
    for metric, (label, color, marker) in LOOKS.items():
        for y, row in enumerate(table.rows):
            name = label if y == 0 else None
            point(axes, row.over_seeds(metric), y, fmt=marker, color=color, capsize=3, label=name)
    axes.set_yticks(range(len(table.rows)), table.names)
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent of attacked rows, with 95 % intervals")
    title = f"{table.caption}, {table.rows[0].first.rows_attacked} rows"
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
    shown = [r for table in tables for row in table.rows for r in row.records]
    target = folder / "records.jsonl"
    if target.resolve() in {path.resolve() for path in read}:
        _refuse_loss(target, shown)
    tempered = calibration_table.groups(records)
    text = markdown(title, tables) + calibration_table.markdown(tempered)
    render.write_text(folder / "table.md", text)
    render.write_text(folder / "table.csv", csv_text(tables))
    if tempered:
        render.write_text(folder / "calibration.csv", calibration_table.csv_text(tempered))
    draw_figure(folder / "figure.png", title, tables)
    render.write_records(target, shown)
    return text


def _refuse_loss(target: Path, shown: Records) -> None:
    known, lines = {r.identity for r in shown}, read_jsonl(target)
    lost = [line for line in lines if line.get("kind") != "attack" or identity(line) not in known]
    if lost:
        raise UserError(
            f"{target} is read and has {len(lost)} lines that no row shows: choose another "
            "--output_dir to keep them"
        )
