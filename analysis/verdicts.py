"""Apply the rules of docs/analysis_plan.md to the suites of the study's second half.

    python analysis/verdicts.py --suites results/study/second-half \\
        --output_dir results/study/second-half

It writes verdicts.md and verdicts.json: the gate, the three primary hypotheses with Holm's
correction, and the class-equalized Aua of every planned run, with the command for each that was not
run.
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
    """Verdicts."""

    suites: str = setting(
        REQUIRED, "folder with a file MODEL.jsonl of suites per model", role=Role.PLACE
    )
    output_dir: str = changed(FolderSettings, "output_dir", REQUIRED)


def main() -> None:
    args = parse(Settings, __doc__.split("\n")[0])
    from reporting import verdicts
    from reporting.render import write_text
    from utils.files import write_json

    suites = verdicts.read(Path(args.suites))
    text = verdicts.markdown(suites)
    result = {"gate": verdicts.gate(suites), "hypotheses": verdicts.hypotheses(suites)}
    write_json(Path(args.output_dir, "verdicts.json"), result | {"notes": suites.notes})
    write_text(Path(args.output_dir, "verdicts.md"), text)
    print(text)


if __name__ == "__main__":
    cli.run(main)
