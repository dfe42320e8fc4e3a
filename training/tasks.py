"""The tasks: the sources of their rows, their columns and labels, and the paper's settings."""

import argparse
import contextlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from utils.cli import UserError
from utils.files import public_name


@dataclass(frozen=True)
class Task:
    """A classification task.

    `label_names`: empty for a custom task until load_splits reads its training file.
    `attack_column`: the column that is attacked (D12). `max_seq_length`: in tokens.
    `test_split`: the hub split that serves as test (GLUE's official dev, because GLUE's test has no
    labels). dev is 10 % of train unless the data set or a flag gives one. `paper_attacked_rows`:
    number of rows that the paper attacks. `is_open`: any other data set, in `hub_id`, an id or a
    local folder. Its columns, labels and splits are empty until load_splits reads it, unless flags
    name them.
    """

    name: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]
    attack_column: str
    max_seq_length: int
    hub_id: str | None = None
    hub_config: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    label_column: str = "label"
    paper_attacked_rows: int | None = None
    is_open: bool = False


def _glue(name: str, columns: tuple, labels: tuple, attack: str, test: str, rows: int | None):
    return Task(
        name,
        columns,
        labels,
        attack,
        max_seq_length=128 if name == "sst2" else 256,
        hub_id="nyu-mll/glue",
        hub_config=name,
        test_split=test,
        paper_attacked_rows=rows,
    )


_SENTIMENT = ("negative", "positive")
_NEWS = ("World", "Sports", "Business", "Sci/Tech")
_NLI = ("entailment", "neutral", "contradiction")

# Maximum lengths: the released scripts use 128 for SST-2, and 256 for IMDB and AG News. The pair
# tasks have no released script; 256 is this repository's choice. Attacked rows (section B.2 of the
# paper): all of SST-2's dev, 500 of IMDB, 1000 of the others. For the attacked columns, see D12.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _glue("sst2", ("sentence",), _SENTIMENT, "sentence", "validation", 872),
        _glue(
            "qnli",
            ("question", "sentence"),
            ("entailment", "not_entailment"),
            "question",
            "validation",
            1000,
        ),
        _glue(
            "qqp",
            ("question1", "question2"),
            ("not_duplicate", "duplicate"),
            "question2",
            "validation",
            1000,
        ),
        _glue("mnli", ("premise", "hypothesis"), _NLI, "hypothesis", "validation_matched", 1000),
        Task(
            "imdb", ("text",), _SENTIMENT, "text", 256, "stanfordnlp/imdb", paper_attacked_rows=500
        ),
        Task(
            "ag_news", ("text",), _NEWS, "text", 256, "fancyzhx/ag_news", paper_attacked_rows=1000
        ),
        # Labeled training splits in a PyPI package; test rows are split off.
        Task("builtin/rotten_tomatoes", ("text",), _SENTIMENT, "text", 64),
        Task("builtin/imdb", ("text",), _SENTIMENT, "text", 256),
        # Local files with any columns and labels; see --text_columns and --label_column.
        Task("custom", ("text",), (), "text", 128),
    )
}


def check_task(args: argparse.Namespace) -> None:
    """Raise UserError if the named task does not exist. A stage can take the task from a run."""
    if args.dataset_name is not None or args.task_name is not None:
        resolve_task(args)


def resolve_task(args: argparse.Namespace) -> Task:
    """The task that --dataset_name and --task_name select, with the column flags applied.

    Raises UserError if there is no such task, or if the column flags do not fit it.
    """
    dataset, task = args.dataset_name, args.task_name
    if dataset is None and task is None:
        raise UserError("no task: give --task_name (" + ", ".join(TASKS) + ")")
    name = task or dataset
    if name == "glue":
        raise UserError("--dataset_name glue needs --task_name sst2, qnli, qqp or mnli")
    selected = TASKS.get(name) or _open_task(name, args.dataset_config)
    if dataset is not None and dataset != name:
        expected = {"glue"} if selected.hub_id == "nyu-mll/glue" and not selected.is_open else set()
        if dataset not in expected:
            raise UserError(f"--dataset_name {dataset} does not hold the task {name}")
    splits = {"train_split": args.train_split, "test_split": args.test_split}
    given = {name: value for name, value in splits.items() if value}
    unread = [*given, *["dataset_config"] * bool(args.dataset_config)]
    if unread and not selected.is_open:
        raise UserError(f"--{unread[0]} has no effect on the task {name}: omit it")
    selected = replace(selected, **given)
    if args.text_columns:
        selected = _with_text_columns(selected, args.text_columns)
    if args.label_column:
        selected = replace(selected, label_column=args.label_column)
    return selected


def known_or_open(name: str) -> bool:
    """Whether `name` can be a task: one of TASKS, a hub id OWNER/NAME or a local folder."""
    return name in TASKS or "/" in name and not name.startswith("builtin/") or Path(name).is_dir()


def name_in_records(name: str) -> str:
    """The name of a task in its records, also if its folder is not here. UserError for no task."""
    if not known_or_open(name) or (name not in TASKS and Path(name.partition(":")[0]).is_dir()):
        return _open_task(name, None).name
    return name


def _open_task(name: str, config: str | None) -> Task:
    """The task of a data set OWNER/NAME of the hub or a local folder, each also as NAME:CONFIG."""
    place, _, own_config = name.partition(":") if not Path(name).is_dir() else (name, "", "")
    if own_config and config and own_config != config:
        raise UserError(f"{name} and --dataset_config {config} name two configurations")
    config = config or own_config or None
    suffix = f":{config}" if config else ""
    if Path(place).is_dir():
        # Records name the folder, not its path; ./ distinguishes it from hub ids and TASKS.
        public = f"./{public_name(place)}{suffix}"
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", place) and not place.startswith("builtin/"):
        public = place + suffix
    elif place.startswith((".", "/", "~")):
        raise UserError(f"no folder {place}; check the path")
    else:
        raise UserError(
            f"unknown task {name!r}; known are {', '.join(TASKS)}, data sets of the hub as "
            "OWNER/NAME, and local folders"
        )
    return Task(
        public,
        text_columns=(),
        label_names=(),
        attack_column="",
        max_seq_length=128,
        hub_id=place,
        hub_config=config,
        test_split="",
        label_column="",
        is_open=True,
    )


def _with_text_columns(task: Task, text: str) -> Task:
    """`text`: one or two names with a comma, or a JSON list of names, which may have commas."""
    with contextlib.suppress(ValueError):
        text = json.loads(text)
    names = text if isinstance(text, list) else [c.strip() for c in str(text).split(",")]
    columns = tuple(str(name) for name in names if name)
    is_free = task.is_open or task.name == "custom"
    if not 1 <= len(columns) <= 2 or (len(columns) != len(task.text_columns) and not is_free):
        fitting = "1 or 2" if is_free else len(task.text_columns)
        raise UserError(f"--text_columns names {len(columns)} columns; {task.name} has {fitting}")
    position = -1 if is_free else task.text_columns.index(task.attack_column)
    return replace(task, text_columns=columns, attack_column=columns[position])


def folder_of(task: str) -> str:
    """The name of a task's run folder: that of a data set is one folder, owner--name--config."""
    if task in TASKS:
        return task
    return re.sub(r"[/:]", "--", task.rstrip("/").lstrip("./"))
