"""The general tables and figure: one per task, encoder, attack and set of attacked rows."""

import csv
import io
import textwrap
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from evaluation.records import (
    COMPARISON,
    ROW_SETTINGS,
    Cell,
    doubts_of,
    identity,
    interval,
    one_per_seed,
    text_cell,
    write_records,
    write_text,
)
from reporting import calibration_table
from reporting.comparisons import TESTS, controls_of, difference, missing_controls
from utils.cli import UserError
from utils.files import read_jsonl, write_atomically

METRICS = (
    "clean_percent",
    "aua_percent",
    "suc_percent",
    "queries_per_row",
    "words_changed_percent",
    "clean_full_test_percent",
    "mean_training_loss",
)


@dataclass
class Row:
    """One line of a table: one model in one setting, over its seeds."""

    name: str
    sparsity: float
    epochs: int | None
    protocol: str | None
    records: list[dict]

    def over_seeds(self, metric: str) -> Cell:
        return Cell.of(self.records, metric)

    @property
    def is_ticket(self) -> bool:
        return self.sparsity > 0

    def interval(self, metric: str) -> tuple[float, float] | None:
        return interval(self.records, metric)


def make_tables(records: list[dict]) -> list[tuple[dict, list[Row]]]:
    """(what the table's rows share, its rows): dense first, then by sparsity and kind."""
    tables: dict[tuple, dict[tuple, Row]] = {}
    for r in records:
        shared = tuple(r.get(key) for key in COMPARISON)
        own = (r["name"], r["sparsity"], r["epochs"], r["protocol"])
        # Rows of the same name but other settings are never averaged.
        key = (*own, *(r.get(name) for name in ROW_SETTINGS), r.get("training_rows"))
        row = tables.setdefault(shared, {}).setdefault(key, Row(*own, records=[]))
        row.records.append(r)
    order = lambda row: (row.sparsity, row.name != "random ticket", row.name, row.epochs or 0)  # noqa: E731
    for row in (row for rows in tables.values() for row in rows.values()):
        row.records = one_per_seed(row.records)
    return [
        (dict(zip(COMPARISON, shared, strict=True)), sorted(rows.values(), key=order))
        for shared, rows in sorted(tables.items(), key=lambda item: str(item[0]))
    ]


def cell(row: Row, metric: str) -> str:
    values, interval = row.over_seeds(metric), row.interval(metric)
    if values.mean is None:
        return "-"
    spread = "" if values.deviation is None else f" ± {values.deviation:.1f}"
    text = f"{values.mean:.1f}{spread}"
    return f"{text} [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else text


def caption(shared: dict) -> str:
    return (
        f"{shared['task']}, {shared['encoder']}, attack {shared['recipe']} (candidates ranked "
        f"by {shared['score_with']}), {shared['checkpoint_rule']} checkpoint"
        + (f", temperature {shared['temperature_rule']}" if shared["temperature_rule"] else "")
        + (f", protocol {shared['protocol_id']}" if shared["protocol_id"] else "")
    )


def labels(rows: list[Row]) -> list[str]:
    """A name for each of a table's rows, with what of it differs."""
    names = [f"{r.name}, {100 * r.sparsity:g} %" if r.sparsity else r.name for r in rows]
    if len({r.epochs for r in rows}) > 1:
        names = [f"{n}, {r.epochs} epochs" for n, r in zip(names, rows, strict=True)]
    return names


def comparisons(rows: list[Row], records: list[dict]) -> list[str]:
    """Aua of each row against the first one's, and of each ticket against its controls."""
    (first, *others), names = rows, labels(rows)
    told = [
        f"{name} {text}"
        for name, row in zip(names[1:], others, strict=True)
        if (text := difference(row.records, first.records))
    ]
    notes = [f"Aua against {names[0]}, on the same rows ({TESTS}): {'; '.join(told)}."] * bool(told)
    for name, row in zip(names, rows, strict=True):
        controls = controls_of(row.records, records) if row.is_ticket else []
        found = [(c, difference(row.records, c.records)) for c in controls if c.records]
        told = [f"{c.name} ({c.wanted}) {text}" for c, text in found if text]
        notes += [f"Aua of {name} against its dense controls: {'; '.join(told)}."] * bool(told)
    return notes


def markdown(title: str, tables: list[tuple[dict, list[Row]]], records: list[dict]) -> str:
    """`records`: all that controls are looked for among."""
    lines = [f"# {title}", ""]
    for shared, rows in tables:
        lines += [
            f"## {caption(shared)}",
            "",
            "| model | sparsity | epochs | Clean % | Aua % | Suc % | #Query | words changed % "
            "| rows | seeds | test accuracy % | last training loss |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            loss = row.over_seeds("mean_training_loss").mean
            controls = controls_of(row.records, records) if row.is_ticket else []
            marks = " †" * bool(missing_controls(controls, row.records)) + " ‡" * bool(
                doubts_of(row.records)
            )
            lines.append(
                f"| {row.name}{marks} | {100 * row.sparsity:g} % | {row.epochs} | "
                f"{cell(row, 'clean_percent')} | {cell(row, 'aua_percent')} | "
                f"{cell(row, 'suc_percent')} | {cell(row, 'queries_per_row')} | "
                f"{cell(row, 'words_changed_percent')} | {row.records[0]['rows_attacked']} | "
                f"{len(row.records)} | {cell(row, 'clean_full_test_percent')} | "
                f"{'-' if loss is None else f'{loss:.3f}'} |"
            )
        lines.append("")
        notes = [
            f"Suspicious: {row.name}: {'; '.join(doubts)}."
            for row in rows
            if (doubts := doubts_of(row.records))
        ]
        notes += comparisons(rows, records)
        lines += [line for note in notes for line in (note, "")]
    lines += [
        "Clean: right before the attack; Aua: right after it; both of all attacked rows. Suc = 100 "
        "(1 - Aua / Clean). #Query: victim queries per row that was right before the attack. Words "
        "changed: mean share over rows where the attack succeeded. ±: standard deviation over "
        "seeds (n - 1). In brackets 95 % intervals: Wilson's over rows for one seed, for several "
        "those of new rows and new seeds (two-way random effects). Test accuracy is that of all "
        "test rows. †: a dense control of this ticket (as many epochs, the same training loss, as "
        "many passes over the labels) is missing. ‡: suspicious, see the notes.",
        "",
    ]
    return "\n".join(lines)


def csv_text(tables: list[tuple[dict, list[Row]]]) -> str:
    header = [*COMPARISON, "model", "sparsity", "epochs", "protocol", "seeds", "rows_attacked"]
    for metric in METRICS:
        header += [
            metric,
            f"{metric}_deviation",
            f"{metric}_low_95",
            f"{metric}_high_95",
            f"{metric}_by_seed",
        ]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    for shared, rows in tables:
        for row in rows:
            line = [
                *map(text_cell, shared.values()),
                text_cell(row.name),
                row.sparsity,
                row.epochs,
                text_cell(row.protocol),
                len(row.records),
                row.records[0]["rows_attacked"],
            ]
            for metric in METRICS:
                low, high = row.interval(metric) or ("", "")
                values = row.over_seeds(metric)
                line += [values.mean, values.deviation, low, high, text_cell(values.by_seed)]
            writer.writerow(line)
    return text.getvalue()


def draw_figure(path: Path, title: str, tables: list[tuple[dict, list[Row]]]) -> None:
    """Clean and Aua of every row as points with their 95 % intervals, a panel per table."""
    heights = [0.5 * len(rows) + 1.4 for _, rows in tables]
    figure = Figure(figsize=(7.2, sum(heights) + 0.5))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
    # Two colours that differ in lightness, and two shapes: also told apart in grey.
    looks = {"clean_percent": ("Clean", "#56B4E9", "o"), "aua_percent": ("Aua", "#D55E00", "s")}
    for axes, (shared, rows) in zip(panels[:, 0], tables, strict=True):
        for metric, (label, colour, marker) in looks.items():
            for y, row in enumerate(rows):
                mean, interval = row.over_seeds(metric).mean, row.interval(metric)
                low, high = interval or (mean, mean)
                axes.errorbar(
                    mean,
                    y,
                    xerr=[[max(0, mean - low)], [max(0, high - mean)]],
                    fmt=marker,
                    color=colour,
                    capsize=3,
                    label=label if y == 0 else None,
                )
        axes.set_yticks(range(len(rows)), labels(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("percent of attacked rows, with 95 % intervals")
        count = rows[0].records[0]["rows_attacked"]
        title_of_panel = f"{caption(shared)}, {count} rows"
        axes.set_title("\n".join(textwrap.wrap(title_of_panel, 80)), fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    write_atomically(path, lambda p: figure.savefig(p, dpi=160, format="png"))


def write(folder: Path, title: str, records: list[dict], read: list[Path]) -> str:
    """table.md, table.csv, figure.png and records.jsonl; returns the Markdown. UserError where
    that would lose lines of one of the files that were `read`."""
    tables = make_tables(records)
    used = [record for _, rows in tables for row in rows for record in row.records]
    target = folder / "records.jsonl"
    if target.resolve() in {path.resolve() for path in read}:
        shown = {identity(r) for r in used}
        lost = [
            line
            for line in read_jsonl(target)
            if line.get("kind") != "attack" or identity(line) not in shown
        ]
        if lost:
            raise UserError(
                f"{target} is read and has {len(lost)} lines that no row shows: "
                "choose another --output_dir, so that they are not lost"
            )
    text = markdown(title, tables, records) + calibration_table.markdown(records)
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", csv_text(tables))
    if calibration_table.groups(records):
        write_text(folder / "calibration.csv", calibration_table.csv_text(records))
    draw_figure(folder / "figure.png", title, tables)
    write_records(target, used)
    return text
