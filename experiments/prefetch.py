"""Fetch what a plan's trainings read from the hub, once, so that a hundred jobs need not ask it."""

from pathlib import Path

from experiments.jobs import Job
from experiments.planner import BUILTIN
from training.tasks import resolve_task


def prefetch(jobs: list[Job], runs: Path) -> None:
    """Load the data and the encoders of all trainings that are missing.

    Raises UserError for what is neither here nor available from the hub.
    """
    trainings = [job.training.args for job in jobs if not job.trained]
    tasks = {args.task_name: args for args in trainings if not args.data_dir}
    tasks = {name: args for name, args in tasks.items() if not name.startswith(BUILTIN)}
    names = dict.fromkeys(args.model_name for args in trainings)
    names = [n for n in names if not Path(n).is_dir() and not Path(n).is_relative_to(runs)]
    if not tasks and not names:
        return
    from training import loading, models, splits, tokenizers  # here: these imports take seconds

    for args in tasks.values():  # as a run does
        splits.load_splits(args, resolve_task(args))
    for name in names:
        if not Path(loading.resolve_model_name(name)).is_dir():
            tokenizers.load_tokenizer(name)
            models.load_pretrained(name, ("0", "1"), 0, None, "eager")
