"""Fetch what a plan's trainings read from the hub, once, so that a hundred jobs need not ask it."""

from pathlib import Path

from experiments.jobs import Job
from training.tasks import TASKS


def prefetch(jobs: list[Job], runs: Path) -> None:
    """Load the data and the encoders of all trainings that are missing.

    Raises UserError for what is neither here nor available from the hub.
    """
    trainings = [job.training.args for job in jobs if not job.trained]
    tasks = dict.fromkeys(args.task_name for args in trainings if not args.data_dir)
    tasks = [task for task in tasks if TASKS[task].hub_id is not None]
    names = dict.fromkeys(args.model_name for args in trainings)
    names = [n for n in names if not Path(n).is_dir() and not Path(n).is_relative_to(runs)]
    if not tasks and not names:
        return
    from training import data_sources, loading, models  # here: these imports take seconds

    for task in tasks:
        data_sources.hub_tables(TASKS[task], {"train", "test"})
    for name in names:
        if not Path(loading.resolve_model_name(name)).is_dir():
            models.load_tokenizer(name)
            models.load_pretrained(name, ("0", "1"), 0, None, "eager")
