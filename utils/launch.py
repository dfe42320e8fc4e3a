"""Variables by which a launcher, such as torchrun or mpirun, tells a process about the others.

Jobs and shells inherit them from launchers that have ended. accelerate and torch then wait for
processes that do not exist, or end in a traceback.
"""

import os

from utils.cli import UserError

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# Set by `accelerate launch` for plugins; any of them would change the run, or fail to load.
PLUGINS = tuple(
    f"ACCELERATE_USE_{name}"
    for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "SAGEMAKER", "PARALLELISM_CONFIG")
)


def announced() -> dict[str, int]:
    """The variables that announce a launch, with their values. Empty: one process on its own.

    Raises UserError if a variable is not a whole number.
    """
    values = {}
    for name in (*SIZES, "LOCAL_RANK"):
        text = os.environ.get(name, "-1")
        try:
            values[name] = int(text)
        except ValueError:
            raise UserError(
                f"{name}={text!r} in the environment is not a whole number: unset {name}"
            ) from None
    return {n: v for n, v in values.items() if v > 1 or (n == "LOCAL_RANK" and v >= 0)}


def check() -> None:
    """Raise UserError, with the names of the variables, for a launch that cannot work."""
    for name in PLUGINS:
        if os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "y", "on", "t"):
            raise UserError(
                f"{name}={os.environ[name]} in the environment: this plugin of accelerate is not "
                f"supported; unset {name}"
            )
    if announced() and not os.environ.get("MASTER_ADDR"):
        raise UserError(f"no MASTER_ADDR in the environment, but {how_to_leave()}")


def how_to_leave() -> str:
    """What announces the launch, and how to run alone or with the other processes."""
    names = announced()
    shown = ", ".join(f"{name}={value}" for name, value in names.items())
    return (
        f"{shown} of a launcher: to run in one process, unset {' '.join(names)}; to run in "
        "several, launch the script with torchrun"
    )
