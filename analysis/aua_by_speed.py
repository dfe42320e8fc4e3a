"""Aua against speed-up: the study's tickets of neurons with measured times.

    python analysis/aua_by_speed.py --records results/study/study-records.jsonl \\
        --latency results/benchmarks/latency.jsonl --output_dir results/study

With --suites it shows the suites on the same rows as well. Writes a table (Markdown and CSV) and a
figure. Rows that were not attacked stay visible.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from training.settings import FolderSettings
from utils import cli
from utils.settings import REQUIRED, Role, changed, parse, setting


@dataclass(kw_only=True)
class Settings:
    """Aua by speed."""

    records: str = setting(REQUIRED, "attack records of the study", role=Role.PLACE)
    latency: str = setting(
        REQUIRED, "latency.jsonl of benchmarks/latency.py, dense model first", role=Role.PLACE
    )
    suites: list | None = setting(
        None, "files suites.jsonl of these models", role=Role.PLACE, nargs="+"
    )
    batch: int = setting(32, "rows per pass of the times that are shown", cli.positive_int)
    length: int = setting(64, "tokens per row of these times", cli.positive_int)
    output_dir: str = changed(FolderSettings, "output_dir", REQUIRED)


def main() -> None:
    args = parse(Settings, __doc__.split("\n")[0])
    from evaluation.records import read_records
    from experiments.scales import SCALES
    from experiments.study import STUDIES, STUDY_RECIPE
    from reporting import render, speed, suite_records

    matching = [
        record
        for record in speed.read_latencies(Path(args.latency))
        if (record.batch, record.length) == (args.batch, args.length)
    ]
    if not matching:
        raise cli.UserError(
            f"{args.latency} has no times of {args.batch} rows of {args.length} tokens: give "
            "--batch and --length of a record in it"
        )
    latency = max(matching, key=lambda record: (len(record.models), record.threads))
    records = [r for r in read_records([args.records]) if r.recipe == STUDY_RECIPE]
    rows = STUDIES["study-units"].rows
    suites = map(suite_records.as_attack, suite_records.read(args.suites or ()))
    found = speed.points(rows, records, latency, SCALES["study"].epochs, suites)
    folder, text = Path(args.output_dir), speed.markdown(found, latency)
    render.write_text(folder / "aua_by_speed.md", text)
    numbers = speed.frame(found).to_csv(index=False, float_format="%.4g")
    render.write_text(folder / "aua_by_speed.csv", numbers)
    speed.draw(found, folder)
    print(text)


if __name__ == "__main__":
    cli.run(main)
