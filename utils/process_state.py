"""State that all code of a process shares, and how to put it back.

Threads, the environment, the global random generators, the default dtype, deterministic kernels
and logging levels belong to the process that started them: a script's `main` (see `cli.run`) or
the start function of a worker. A library function that needs another state for a while uses one of
the context managers below. No torch at import.
"""

import contextlib
import logging
import os
import random
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables; at the end, the whole environment is as it was before."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        _restore_environment(before)


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads inside an operation."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def generators() -> Iterator[None]:
    """Put the global generators of random, numpy and torch back at the end."""
    before, numpy, torch = random.getstate(), _loaded("numpy"), _loaded("torch")
    before_numpy = numpy.random.get_state() if numpy else None
    with torch.random.fork_rng(_used_gpus(torch)) if torch else contextlib.nullcontext():
        try:
            yield
        finally:
            random.setstate(before)
            if numpy:
                numpy.random.set_state(before_numpy)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of random, numpy and torch, which libraries draw from."""
    import numpy
    import torch

    with generators():
        random.seed(seed)
        numpy.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def logging_level(level: int, *names: str) -> Iterator[None]:
    """Give the loggers `names` a level."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)


def settings() -> dict[str, object]:
    """The state other than generators, as values that can be compared; torch's where loaded."""
    values: dict[str, object] = {"environment": dict(os.environ)}
    if torch := _loaded("torch"):
        values |= {
            "threads": torch.get_num_threads(),
            "default dtype": torch.get_default_dtype(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "deterministic, warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
            "fill memory": torch.utils.deterministic.fill_uninitialized_memory,
            "cudnn benchmark": torch.backends.cudnn.benchmark,
            "cudnn deterministic": torch.backends.cudnn.deterministic,
        }
    return values


def restore(before: dict[str, object]) -> None:
    """Put back what `settings` returned."""
    _restore_environment(before["environment"])
    if "threads" not in before:
        return
    import torch

    torch.set_num_threads(before["threads"])
    torch.set_default_dtype(before["default dtype"])
    torch.use_deterministic_algorithms(
        before["deterministic"], warn_only=before["deterministic, warn only"]
    )
    torch.utils.deterministic.fill_uninitialized_memory = before["fill memory"]
    torch.backends.cudnn.benchmark = before["cudnn benchmark"]
    torch.backends.cudnn.deterministic = before["cudnn deterministic"]


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Whatever happens inside, `settings` and the global generators are as before at the end."""
    before = settings()
    try:
        with generators():
            yield
    finally:
        restore(before)


def current_threads() -> int:
    """Number of CPU threads inside an operation."""
    import torch

    return torch.get_num_threads()


def resume_threads(earlier: int | None, what: str) -> str | None:
    """Set the number of threads that `what` began with; where that cannot be, return a warning.

    Sums on a CPU are split by threads, so results are equal to the last bit for the same number
    only. `earlier`: that number, None where it was not recorded.
    """
    import torch

    now = torch.get_num_threads()
    if earlier == now:
        return None
    if earlier is None:
        why = f"{what} does not record its number of threads ({now} now)"
    elif os.environ.get("OMP_NUM_THREADS"):
        why = f"{what} began with {earlier} threads, and OMP_NUM_THREADS asks for {now}"
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        why = f"{what} began with {earlier} threads in each process ({now} now)"
    else:
        torch.set_num_threads(earlier)
        return None
    return f"{why}: results can differ from an uninterrupted run in their last digits"


def _used_gpus(torch) -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


def _loaded(name: str):
    """A module that something has imported completely, else None: nothing to preserve then."""
    module = sys.modules.get(name)
    return module if module is not None and hasattr(module, "random") else None
