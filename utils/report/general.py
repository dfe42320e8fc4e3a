"""The general tables and figure: one per task, encoder, attack and set of attacked rows."""

import csv
import io
import statistics
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from utils.files import write_atomically
from utils.report import calibrated
from utils.report.comparing import controls_of, missing_controls
from utils.report.records import (
    COMPARISON,
    ROW_SETTINGS,
    doubts_of,
    interval,
    one_per_seed,
    text_cell,
    write_records,
    write_text,
)

METRICS = ("clean_percent", "aua_percent", "suc_percent", "queries_per_row",
           "words_changed_percent", "clean_full_test_percent", "mean_training_loss")  # fmt: skip


@dataclass
class Row:
    """One line of a table: one model in one setting, over its seeds."""

    name: str
    sparsity: float
    epochs: int | None
    protocol: str | None
    records: list[dict]

    def values(self, metric: str) -> list[float]:
        return [r[metric] for r in self.records if r.get(metric) is not None]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.fmean(values) if values else None

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
    mean = row.mean(metric)
    if mean is None:
        return "-"
    interval = row.interval(metric)
    text = f"{mean:.1f}"
    return f"{text} [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else text


def caption(shared: dict) -> str:
    return (f"{shared['task']}, {shared['encoder']}, attack {shared['recipe']} (candidates ranked "
            f"by {shared['score_with']}), {shared['checkpoint_rule']} checkpoint"
            + (f", temperature {shared['temperature_rule']}" if shared["temperature_rule"] else "")
            + (f", protocol {shared['protocol_id']}" if shared["protocol_id"] else ""))  # fmt: skip


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
            loss = row.mean("mean_training_loss")
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
        notes = [f"Suspicious: {row.name}: {'; '.join(doubts)}."
                 for row in rows if (doubts := doubts_of(row.records))]  # fmt: skip
        lines += [line for note in notes for line in (note, "")]
    lines += [
        "Clean: right before the attack; Aua: right after it; both of all attacked rows. Suc = 100 "
        "(1 - Aua / Clean). #Query: victim queries per row that was right before the attack. Words "
        "changed: mean share over rows where the attack succeeded. In brackets 95 % intervals: "
        "Wilson's over rows for one seed, for several those of new rows and new seeds (two-way "
        "random effects). Test accuracy is that of all test rows. †: a dense control of this "
        "ticket (as many epochs, the same training loss, as many passes over the labels) is "
        "missing. ‡: suspicious, see the notes.",
        "",
    ]
    return "\n".join(lines)


def csv_text(tables: list[tuple[dict, list[Row]]]) -> str:
    header = [*COMPARISON, "model", "sparsity", "epochs", "protocol", "seeds", "rows_attacked"]
    for metric in METRICS:
        header += [metric, f"{metric}_low_95", f"{metric}_high_95", f"{metric}_by_seed"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    for shared, rows in tables:
        for row in rows:
            line = [*map(text_cell, shared.values()), text_cell(row.name), row.sparsity, row.epochs,
                    text_cell(row.protocol),
                    len(row.records), row.records[0]["rows_attacked"]]  # fmt: skip
            for metric in METRICS:
                low, high = row.interval(metric) or ("", "")
                values = ";".join(f"{v:.6g}" for v in row.values(metric))
                line += [row.mean(metric), low, high, values]
            writer.writerow(line)
    return text.getvalue()


def draw_figure(path: Path, title: str, tables: list[tuple[dict, list[Row]]]) -> None:
    """Clean and Aua of every row as points with their 95 % intervals, a panel per table."""
    heights = [0.5 * len(rows) + 1.1 for _, rows in tables]
    figure = Figure(figsize=(7.2, sum(heights) + 0.5))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
    # Two colours that differ in lightness, and two shapes: also told apart in grey.
    looks = {"clean_percent": ("Clean", "#56B4E9", "o"), "aua_percent": ("Aua", "#D55E00", "s")}
    for axes, (shared, rows) in zip(panels[:, 0], tables, strict=True):
        for metric, (label, colour, marker) in looks.items():
            for y, row in enumerate(rows):
                mean, interval = row.mean(metric), row.interval(metric)
                low, high = interval or (mean, mean)
                axes.errorbar(mean, y, xerr=[[max(0, mean - low)], [max(0, high - mean)]],
                              fmt=marker, color=colour, capsize=3,
                              label=label if y == 0 else None)  # fmt: skip
        names = [f"{r.name}, {100 * r.sparsity:g} %" if r.sparsity else r.name for r in rows]
        epochs = {r.epochs for r in rows}
        if len(epochs) > 1:
            names = [f"{n}, {r.epochs} epochs" for n, r in zip(names, rows, strict=True)]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("percent of attacked rows, with 95 % intervals")
        count = rows[0].records[0]["rows_attacked"]
        axes.set_title(f"{shared['task']}, {shared['recipe']}, {count} rows", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    write_atomically(path, lambda p: figure.savefig(p, dpi=160, format="png"))


def write(folder: Path, title: str, records: list[dict]) -> str:
    """table.md, table.csv, figure.png and records.jsonl; returns the Markdown."""
    tables = make_tables(records)
    text = markdown(title, tables, records) + calibrated.markdown(records)
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", csv_text(tables))
    if calibrated.groups(records):
        write_text(folder / "calibration.csv", calibrated.csv_text(records))
    draw_figure(folder / "figure.png", title, tables)
    used = [record for _, rows in tables for row in rows for record in row.records]
    write_records(folder / "records.jsonl", used)
    return text
