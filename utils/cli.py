"""Command lines: errors of one line with status 2, and the types of flags."""

import argparse
import contextlib
import errno
import functools
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator

from utils import cache, interrupts, process_state
from utils.progress import make_progress


class UserError(Exception):
    """An error that you can fix. Its message, one line, says what is wrong and what to do."""


class _Formatter(argparse.HelpFormatter):
    """Help with the default of each flag, if it has one that the help does not state already."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        is_plain = action.default not in (None, False, [], argparse.SUPPRESS)
        default = "on" if action.default is True else "%(default)s"
        return f"{text} (default: {default})" if is_plain and "(default" not in text else text


class Parser(argparse.ArgumentParser):
    """An argparse parser with exact flag names, defaults in --help, and errors of one line."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False, formatter_class=_Formatter)

    def parse_args(self, args=None, namespace=None):
        for word in sys.argv[1:] if args is None else args:
            if not word.isascii() and any("\ud800" <= c <= "\udfff" for c in word):
                self.error(f"{word!r} is not UTF-8")
            if "\r" in word:
                self.error(f"{word!r} contains a carriage return (Windows line endings?)")
        return super().parse_args(args, namespace)

    def error(self, message: str):
        fail(f"{message} (see {self.prog} --help)")


def fail(message: str) -> None:
    """Print one line to standard error and exit with status 2."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


def progress_bar(total: int, initial: int, unit: str, what: str, quiet: bool):
    """A progress bar in a terminal, plain lines elsewhere; see utils/progress.py."""
    return make_progress(total, initial, unit, what, quiet)


def warn(message: str) -> None:
    """Print one line to standard error."""
    print(f"warning: {message}", file=sys.stderr)


PATH_ERRORS = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


def run(main: Callable[[], None]) -> None:
    """Call a script's main function. An error that you can fix prints one line; the status is 2.

    `main` may change the state of the process (threads, deterministic kernels, generators and so
    on). `run` restores that state at the end.
    """
    # transformers imports TensorFlow if it is installed, which takes more than ten seconds. Only
    # the attack's sentence encoder needs TensorFlow, and it imports TensorFlow itself.
    os.environ.setdefault("USE_TF", "0")
    settle_caches()
    for stream in (sys.stdout, sys.stderr):  # for names that the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with (
            process_state.preserved(),
            process_state.without_weight_bars(),
            warnings.catch_warnings(),
        ):
            # Funnel's, in transformers: nobody who runs a script can act on it.
            warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
            main()
    except UserError as e:
        fail(str(e))
    except interrupts.Stopped as e:
        again = e.has_saved and "--overwrite" in sys.argv
        print(e, *["(without --overwrite)"] * again, file=sys.stderr)
        sys.exit(e.status)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has exited, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(
                f"no space left on the disk while writing {e.filename or 'the run'}; free some "
                "and run the same command again"
            )
        if e.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            fail(f"not allowed to write {e.filename or 'there'}; choose another --output_dir")
        # A folder that exists but takes none, such as /proc.
        is_of_mkdir = traceback.extract_tb(e.__traceback__)[-1].name == "mkdir"
        if e.errno in PATH_ERRORS or is_of_mkdir:
            fail(f"{e.filename or 'a path'}: {e.strerror}; choose another folder")
        raise
    except Exception as e:  # libraries that write tensors report a full disk by other types
        if "No space left" in str(e) or "PytorchStreamWriter failed writing" in str(e):
            fail("no space left on the disk; free some and run the same command again")
        raise
    finally:
        interrupts.release_signals()


@functools.cache  # a script calls `run` twice
def settle_caches() -> None:
    """Choose places for caches that can be written, and warn if they are not the usual ones."""
    try:
        warnings = cache.settle()
    except OSError as e:
        fail(f"no folder for temporary files can be written ({e}); set TMPDIR to one that can")
    if os.environ.get("LOCAL_RANK", "0") == "0":  # once, not in each process of a run
        for message in warnings:
            warn(message)


@contextlib.contextmanager
def explain(prefix: str = "") -> Iterator[None]:
    """Turn a ValueError about your input into a UserError that starts with `prefix`."""
    try:
        yield
    except ValueError as e:
        raise UserError(f"{prefix}{e}") from e


def positive_int(text: str) -> int:
    """Type of a flag: a whole number in [1, 2^31)."""
    return _number(text, int, lambda v: 1 <= v < 2**31, "a whole number >= 1 (and below 2^31)")


def non_negative_int(text: str) -> int:
    """Type of a flag: a whole number in [0, 2^31)."""
    return _number(text, int, lambda v: 0 <= v < 2**31, "a whole number >= 0 (and below 2^31)")


def positive_float(text: str) -> float:
    """Type of a flag: a finite number > 0."""
    return _number(text, float, lambda v: 0 < v < float("inf"), "a number > 0")


def non_negative_float(text: str) -> float:
    """Type of a flag: a finite number >= 0."""
    return _number(text, float, lambda v: 0 <= v < float("inf"), "a number >= 0")


def fraction(text: str) -> float:
    """Type of a flag: a number in [0, 1]."""
    return _number(text, float, lambda v: 0 <= v <= 1, "a number in [0, 1]")


def sparsity(text: str) -> float:
    """Type of a flag: the fraction of the weights that is removed, in [0, 1)."""
    return _number(text, float, lambda v: 0 <= v < 1, "a fraction removed in [0, 1)")


def save_interval(text: str) -> tuple[str, float]:
    """Type of a flag: '500' -> ("steps", 500), optimizer steps; '10m' -> ("minutes", 10.0)."""
    if text.endswith("m"):
        return "minutes", positive_float(text.removesuffix("m"))
    return "steps", non_negative_int(text)


def duration(text: str) -> float:
    """Type of a flag: '90m' -> 5400.0 seconds; the units are s, m and h."""
    units = {"s": 1, "m": 60, "h": 3600}
    if text[-1:] not in units:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 45m or 8h")
    return units[text[-1]] * positive_float(text[:-1])


def open_fraction(text: str) -> float:
    """Type of a flag: a number strictly between 0 and 1."""
    return _number(text, float, lambda v: 0 < v < 1, "a number strictly between 0 and 1")


def _number(text: str, kind: type, admits: Callable, what: str):
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
    if not admits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def epoch_list(text: str) -> list[int]:
    """Type of a flag: '1,3,10' -> [1, 3, 10]; epochs count from 1."""
    return sorted({positive_int(part) for part in text.split(",") if part.strip()})


def word_list(text: str) -> list[str]:
    """Type of a flag: 'query,value' -> ["query", "value"]."""
    words = [part.strip() for part in text.split(",") if part.strip()]
    if not words:
        raise argparse.ArgumentTypeError("it names nothing")
    return words


def epochs_or_words(*words: str) -> Callable[[str], list]:
    """Type of a flag for a list like 'best,5,10' of epochs and `words`."""

    def parse(text: str) -> list:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        try:
            return [part if part in words else positive_int(part) for part in parts]
        except argparse.ArgumentTypeError:
            allowed = "epochs from 1 or " + ", ".join(words)
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of {allowed}") from None

    return parse
