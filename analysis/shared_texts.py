"""Count the texts that two tasks share, and the attacked rows that the other task trains on.

    python analysis/shared_texts.py --tasks builtin/rotten_tomatoes sst2 --data FOLDER

Two data sets count as independent evidence only if they hold different texts. Two texts are the
same if they agree in letters and digits, apart from case. The bracket tokens of treebank text
(such as -lrb-) do not count. The attacked rows are those that attack.py draws with its default
preset and seed. Prints a Markdown page.
"""

import dataclasses
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from evaluation.settings import AttackSettings
from experiments.scales import ChoiceOfRuns
from training.settings import DEFAULT_SPLIT_SEED, DataSettings
from utils import cli
from utils.settings import REQUIRED, changed, parse

BRACKETS = re.compile(r"-(lrb|rrb|lsb|rsb)-")


@dataclasses.dataclass(kw_only=True)
class Settings:
    """Two tasks."""

    tasks: list[str] = changed(ChoiceOfRuns, "tasks", REQUIRED)
    data: str | None = changed(ChoiceOfRuns, "data", None)
    num_examples: int = changed(AttackSettings, "num_examples", 200)


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    if len(args.tasks) != 2:
        cli.fail("--tasks needs two names")
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # reports wrong arguments before the imports, which take seconds

from evaluation.protocol import choose_rows
from training.splits import Splits, load_splits
from training.tasks import resolve_task


def key(text: tuple[str, ...]) -> str:
    """Letters and digits of a text (of both parts of a pair), in lower case.

    >>> key(("It 's -LRB- not -RRB- bad .",))
    'itsnotbad'
    """
    joined = BRACKETS.sub("", " ".join(text).lower())
    return "".join(character for character in joined if character.isalnum())


def load(task: str, data: str | None) -> Splits:
    """The splits of a task: from its folder in `data`, else from the package or the hub."""
    folder = Path(data or "") / task
    settings = DataSettings(
        task_name=task,
        data_dir=str(folder) if data and folder.is_dir() else None,
        split_seed=DEFAULT_SPLIT_SEED,
    )
    return load_splits(settings, resolve_task(settings))


def main() -> None:
    args = parse_args()
    splits = {task: load(task, args.data) for task in args.tasks}
    train = {task: {key(text) for text in s["train"].texts} for task, s in splits.items()}
    first, second = args.tasks
    shared = len(train[first] & train[second])
    print(f"# Texts that {first} and {second} share\n")
    print(
        "| task | training rows | different texts | attacked rows | in the other's training rows |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for task, other in ((first, second), (second, first)):
        rows = choose_rows(splits[task]["test"], args.num_examples, "balanced", seed=42)
        seen = sum(key(text) in train[other] for text in rows.texts)
        print(
            f"| {task} | {len(splits[task]['train'])} | {len(train[task])} | {len(rows)} | {seen} |"
        )
    print(f"\nTraining texts in common: {shared}.")


if __name__ == "__main__":
    cli.run(main)
