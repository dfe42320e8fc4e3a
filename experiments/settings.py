"""Settings that choose runs of a table, shared by scripts."""

from dataclasses import dataclass

from experiments.scales import SCALES
from utils import cli
from utils.settings import Role, setting


@dataclass(kw_only=True)
class ChoiceOfRuns:
    """Choice of runs."""

    scale: str | None = setting(
        None,
        "paper: BERT-base and hub data; mini: MiniLM and built-in or local data; study: the "
        "study's own",
        choices=tuple(SCALES),
        role=Role.MEASURE,
        unset="study for the study, which has no other",
    )
    tasks: list | None = setting(
        None,
        "names of tasks, such as sst2",
        role=Role.DATA,
        nargs="+",
        unset="those of the table or of the scale",
    )
    seeds: list | None = setting(
        None,
        "seeds of the runs",
        cli.non_negative_int,
        role=Role.SEED,
        nargs="+",
        unset="42; 1 2 3 for the study",
    )
    encoder: str | None = setting(
        None,
        "encoder of the runs: hub name or local folder",
        role=Role.PLACE,
        unset="that of the scale",
    )
    data: str | None = setting(
        None,
        "folder with a folder per task, such as DATA/sst2/train.tsv",
        role=Role.DATA_PLACE,
    )
