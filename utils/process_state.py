"""Save and restore the state that all code of a process shares.

Threads, the environment, the global random generators, the default dtype, deterministic kernels
and logging levels belong to the process: a script's `main` (see `cli.run`) or the start function of
a worker sets them. A library function that needs another state uses one of the context managers
below. This module does not import torch at its top.
"""

import contextlib
import logging
import os
import random
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables, and restore the whole environment at the end."""
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
    """Use `count` CPU threads per operation, and restore the number at the end."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def generators() -> Iterator[None]:
    """Restore the global generators of random, numpy and torch at the end."""
    before, numpy, torch = random.getstate(), _loaded("numpy"), _loaded("torch")
    before_numpy = numpy.random.get_state() if numpy else None
    with torch.random.fork_rng(_used_gpus(torch)) if torch else contextlib.nullcontext():
        try:
            yield
        finally:
            random.setstate(before)
            if numpy:
                numpy.random.set_state(before_numpy)


def states_of_generators() -> tuple:
    """The states of the global generators of random, numpy and torch (on the CPU)."""
    import numpy
    import torch

    return random.getstate(), numpy.random.get_state(), torch.get_rng_state()


def set_generators(states: tuple) -> None:
    """Set the states that states_of_generators returned."""
    import numpy
    import torch

    random.setstate(states[0])
    numpy.random.set_state(states[1])
    torch.set_rng_state(states[2])


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of random, numpy and torch, and restore them at the end."""
    import numpy
    import torch

    with generators():
        random.seed(seed)
        numpy.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def logging_level(level: int, *names: str) -> Iterator[None]:
    """Set the level of the loggers `names`, and restore their levels at the end."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)


def settings() -> dict[str, object]:
    """The state of the process without the generators, as comparable values.

    The values of torch are included only if torch is loaded.
    """
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
            "fused attention": fused_attention(),
        }
    return values


def restore(before: dict[str, object]) -> None:
    """Restore the state that `settings` returned."""
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
    set_fused_attention(before["fused attention"])


FUSED_ATTENTION = ("flash", "mem_efficient", "cudnn")  # kinds of torch.backends.cuda


def fused_attention() -> dict[str, bool]:
    """Which fused kernels scaled dot product attention may use."""
    import torch

    cuda = torch.backends.cuda
    return {kind: getattr(cuda, f"{kind}_sdp_enabled")() for kind in FUSED_ATTENTION}


def set_fused_attention(enabled: dict[str, bool]) -> None:
    """Set what fused_attention returns."""
    import torch

    for kind, value in enabled.items():
        getattr(torch.backends.cuda, f"enable_{kind}_sdp")(value)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Restore `settings` and the global generators at the end."""
    before = settings()
    try:
        with generators():
            yield
    finally:
        restore(before)


def current_threads() -> int:
    """Number of CPU threads per operation."""
    import torch

    return torch.get_num_threads()


def resume_threads(earlier: int | None, what: str) -> str | None:
    """Set the number of threads with which `what` began. Returns a warning if it cannot be set.

    Threads split sums on a CPU, so results agree to the last bit only for the same number of
    threads. `earlier`: that number; None if it was not recorded.
    """
    import torch

    now = torch.get_num_threads()
    if earlier == now:
        return None
    if earlier is None:
        why = f"{what} does not record its number of threads ({now} now)"
    elif os.environ.get("OMP_NUM_THREADS"):
        why = f"{what} began with {earlier} threads, and OMP_NUM_THREADS asks for {now}"
    elif os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        why = f"{what} began with {earlier} threads in each process ({now} now)"
    else:
        torch.set_num_threads(earlier)
        return None
    return f"{why}: results can differ from an uninterrupted run in their last digits"


@contextlib.contextmanager
def without_weight_bars() -> Iterator[None]:
    """Hide the bars with which transformers 5 reads and writes weights. Downloads keep theirs."""
    logs, hub = map(sys.modules.get, ("transformers.utils.logging", "huggingface_hub.utils"))
    if logs is None or hub is None or hub.are_progress_bars_disabled():
        yield
        return
    logs.disable_progress_bar()  # the hub's bars, too
    hub.enable_progress_bars()
    try:
        yield
    finally:
        logs.enable_progress_bar()


def _used_gpus(torch) -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


def _loaded(name: str):
    """A module, if some code has imported it completely, else None."""
    module = sys.modules.get(name)
    return module if module is not None and hasattr(module, "random") else None
