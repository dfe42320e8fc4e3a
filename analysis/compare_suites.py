"""Compare the suites of models with those of a reference model, over seeds.

    python analysis/compare_suites.py --suites TICKET/suites.jsonl --reference DENSE/suites.jsonl \\
        --output_dir FOLDER

Give one file per seed and task, or files that hold several records. Each record of --suites is
paired with that of --reference with its task and seed, on the same rows. Every number is computed
from the margins in the records.
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
    """Comparison."""

    suites: list = setting(
        REQUIRED, "files suites.jsonl of the compared models", role=Role.PLACE, nargs="+"
    )
    reference: list = setting(
        REQUIRED, "files suites.jsonl of the reference model", role=Role.PLACE, nargs="+"
    )
    seeds: list | None = setting(
        None, "compare these seeds only", cli.non_negative_int, role=Role.MEASURE, nargs="+"
    )
    output_dir: str = changed(FolderSettings, "output_dir", REQUIRED)


def main() -> None:
    args = parse(Settings, __doc__.split("\n")[0])
    from reporting import compared_suites, suite_records
    from reporting.render import write_text
    from utils.files import write_json

    suites, reference = (
        [s for s in suite_records.read(files) if args.seeds is None or s.seed in args.seeds]
        for files in (args.suites, args.reference)
    )
    if not suites:
        raise cli.UserError(f"--suites has none of --seeds {' '.join(map(str, args.seeds))}")
    result = compared_suites.compare(suites, reference)
    folder, text = Path(args.output_dir), compared_suites.markdown(result)
    write_json(folder / "compared.json", result)
    write_text(folder / "compared.md", text)
    curves = compared_suites.curves(suites, reference)
    write_text(folder / "thresholds.csv", curves.to_csv(index=False, float_format="%.4g"))
    print(text)


if __name__ == "__main__":
    cli.run(main)
