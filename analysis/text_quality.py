"""Measure adversarial texts, and write a sheet of them for a person to read.

    python analysis/text_quality.py --attacks RUN_A/attacks/NAME RUN_B/attacks/NAME \\
        --output_dir FOLDER

For the successful rows of each finished attack: share of words changed, sentence similarity,
perplexity before and after, and how often a judge that was not attacked still sees the row's label.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from evaluation.settings import FinishedAttacks, QualityTools, TrainingTexts
from training.settings import FolderSettings
from utils import cli
from utils.settings import REQUIRED, Role, changed, parse, setting


@dataclass(kw_only=True)
class Settings(FinishedAttacks, QualityTools, TrainingTexts):
    """Sheet."""

    pairs: int = setting(
        40, "pairs in the sheet, per attack", cli.non_negative_int, role=Role.OUTPUT
    )
    seed: int = changed(FolderSettings, "seed", 42)
    output_dir: str = changed(FolderSettings, "output_dir", REQUIRED)


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    if args.data_dir and args.train_file:
        raise cli.UserError("give either --data_dir or --train_file, not both")
    if args.language_model and not Path(args.language_model).is_dir():
        raise cli.UserError(
            f"no folder {args.language_model}: fetch a language model with: hf download "
            f"openai-community/gpt2 --local-dir {args.language_model}"
        )
    if Path(args.output_dir).is_file():
        raise cli.UserError(f"{args.output_dir} is a file; choose another --output_dir")
    return args


def main() -> None:
    args = parse_args()  # before the imports, which take seconds
    from evaluation import finished_attacks, judges, quality
    from reporting import pairs, text_tables
    from reporting.render import write_text
    from training.tasks import resolve_task
    from utils.files import write_json
    from utils.runs import environment

    attacks = finished_attacks.read_attacks(args.attacks)
    data = judges.data_settings(args, attacks[0])
    task = resolve_task(data)
    if not task.label_names:  # a custom task
        task = replace(task, label_names=attacks[0].label_names)
    successes = [quality.successful(attack, task) for attack in attacks]
    tools = quality.load_tools(args, data, task, attacks) if any(successes) else None

    results, sheet = [], []
    for attack, rows in zip(attacks, successes, strict=True):
        measures = quality.measure(rows, task.attack_column, tools) if rows else []
        result = quality.quality_of(attack, quality.summarize(rows, measures))
        results.append(result)
        chosen = pairs.sample(len(rows), args.pairs, args.seed, attack.attack_id)
        sheet += [pairs.pair_of(result, rows[i], measures[i], task) for i in chosen]

    language_model = tools.language_model.facts if tools else {}
    judge = tools.judge.facts if tools else {}
    record = {
        "kind": "text_quality",
        "task": task.name,
        "column": task.attack_column,
        "language_model": language_model,
        "judge": judge,
        "pairs": args.pairs,
        "seed": args.seed,
        "results": [vars(result) for result in results],
        "environment": environment(),
    }
    folder, text = Path(args.output_dir), text_tables.quality(results, language_model, judge)
    write_json(folder / "quality.json", record)
    write_text(folder / "quality.md", text)
    write_text(folder / "quality.csv", text_tables.quality_csv(results))
    write_text(folder / "pairs.csv", pairs.csv_text(sheet))
    remark = (
        f"{len(sheet)} pairs: at most {args.pairs} of each attack, drawn at random with seed "
        f"{args.seed}. Struck out: words that the attack removed. Underlined: words that it added. "
        "Write your answers into the boxes or into pairs.csv."
    )
    page = pairs.html_text(f"Adversarial texts, {task.name}", remark, sheet)
    write_text(folder / "pairs.html", page)
    print(text)


if __name__ == "__main__":
    cli.run(main)
