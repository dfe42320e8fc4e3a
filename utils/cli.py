"""Command lines: one-line errors with status 2, and the flags that several scripts share."""

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
from argparse import BooleanOptionalAction
from collections.abc import Callable, Iterator

from utils import interrupts, process_state
from utils.progress import make_progress

DATA_FLAGS = (
    *("dataset_name", "task_name", "data_dir", "train_file", "validation_file", "test_file"),
    *("text_columns", "label_column", "split_seed", "max_seq_length"),
    *("max_train_rows", "max_eval_rows"),
)
# Arguments that say where something lies: no part of a manifest, whose bytes they would change.
PLACES = {
    "output_dir",
    "model_name",
    "scores",
    "data_dir",
    "device",
    "quiet",
    "overwrite",
    "train_file",
    "validation_file",
    "test_file",
    "checkpoint_every",
    "tensorboard",
    "time_budget",
    # How the passes are cut, not what comes out of them.
    "micro_bsz",
    "checkpoint_activations",
}
DEFAULT_SPLIT_SEED = 42


def settings_of_search(settings: dict) -> dict:
    """How scores were found: of a search's or a pruning's arguments those that are the same for
    every seed and task, wherever it is run."""
    dropped = {*DATA_FLAGS, *PLACES, "seed", "precision", "compile", "keep_scores", "sparsity"}
    return {k: v for k, v in settings.items() if k not in dropped}


class UserError(Exception):
    """Something the person at the keyboard can mend: one line, what is wrong and what to do."""


class Parser(argparse.ArgumentParser):
    """argparse with exact flag names, defaults in --help, and errors of one line."""

    def __init__(self, description: str):
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    def parse_args(self, args=None, namespace=None):
        for word in sys.argv[1:] if args is None else args:
            if not word.isascii() and any("\ud800" <= c <= "\udfff" for c in word):
                self.error(f"{word!r} is not UTF-8")
        return super().parse_args(args, namespace)

    def error(self, message: str):
        fail(f"{message} (see {self.prog} --help)")


def fail(message: str) -> None:
    """Print one line on stderr and leave with status 2."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


def progress_bar(total: int, initial: int, unit: str, what: str, quiet: bool):
    """A bar in a terminal, plain lines elsewhere; see utils/progress.py."""
    return make_progress(total, initial, unit, what, quiet)


def warn(message: str) -> None:
    """Print one line on stderr and go on."""
    print(f"warning: {message}", file=sys.stderr)


PATH_ERRORS = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


def run(main: Callable[[], None]) -> None:
    """Call a script's main. An error that you can fix ends in one line and status 2.

    The main owns the state of the process (threads, deterministic kernels, generators and so on)
    while it runs; a caller that continues finds that state as it was.
    """
    # transformers imports TensorFlow wherever it is installed, which takes ten seconds and more.
    # The attack's sentence encoder alone needs TensorFlow, and imports it itself.
    os.environ.setdefault("USE_TF", "0")
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with process_state.preserved():
            main()
    except UserError as e:
        fail(str(e))
    except interrupts.Stopped as e:
        print(e, *["(without --overwrite)"] * ("--overwrite" in sys.argv), file=sys.stderr)
        sys.exit(e.status)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # who read the output has left, as `head` does
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
        if e.errno in PATH_ERRORS:
            fail(f"{e.filename or 'a path'}: {e.strerror}; choose another folder")
        raise
    except Exception as e:  # the writers of tensors have error types of their own for a full disk
        if "No space left" in str(e) or "PytorchStreamWriter failed writing" in str(e):
            fail("no space left on the disk; free some and run the same command again")
        raise
    finally:
        interrupts.release_signals()


@contextlib.contextmanager
def explain(prefix: str = "") -> Iterator[None]:
    """Turn a library's ValueError about a person's input into a UserError."""
    try:
        yield
    except ValueError as e:
        raise UserError(f"{prefix}{e}") from e


def positive_int(text: str) -> int:
    return _number(text, int, lambda v: 1 <= v < 2**31, "a whole number >= 1 (and below 2^31)")


def non_negative_int(text: str) -> int:
    return _number(text, int, lambda v: 0 <= v < 2**31, "a whole number >= 0 (and below 2^31)")


def positive_float(text: str) -> float:
    return _number(text, float, lambda v: 0 < v < float("inf"), "a number > 0")


def non_negative_float(text: str) -> float:
    return _number(text, float, lambda v: 0 <= v < float("inf"), "a number >= 0")


def fraction(text: str) -> float:
    return _number(text, float, lambda v: 0 <= v <= 1, "a number in [0, 1]")


def sparsity(text: str) -> float:
    return _number(text, float, lambda v: 0 <= v < 1, "a fraction removed in [0, 1)")


def save_interval(text: str) -> tuple[str, float]:
    """'500' -> ("steps", 500): optimizer steps; '10m' -> ("minutes", 10.0)."""
    if text.endswith("m"):
        return "minutes", positive_float(text.removesuffix("m"))
    return "steps", non_negative_int(text)


def duration(text: str) -> float:
    """'90m' -> 5400.0 seconds; s, m and h are known."""
    units = {"s": 1, "m": 60, "h": 3600}
    if text[-1:] not in units:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 45m or 8h")
    return units[text[-1]] * positive_float(text[:-1])


def add_time_budget(group) -> None:
    group.add_argument(
        "--time_budget",
        type=duration,
        help="save and leave after this time, such as 45m or 8h; the same command goes on",
    )


def open_fraction(text: str) -> float:
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
    """'1,3,10' -> [1, 3, 10]; epochs count from 1."""
    return sorted({positive_int(part) for part in text.split(",") if part.strip()})


def epochs_or_words(*words: str) -> Callable[[str], list]:
    """Type of a list like 'best,5,10': epochs, or one of `words`."""

    def parse(text: str) -> list:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        try:
            return [part if part in words else positive_int(part) for part in parts]
        except argparse.ArgumentTypeError:
            allowed = "epochs from 1 or " + ", ".join(words)
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of {allowed}") from None

    return parse


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    g = parser.add_argument_group("data")
    g.add_argument("--dataset_name", help="glue, imdb, ag_news, builtin/... or custom")
    g.add_argument("--task_name", help="sst2, qnli, qqp, mnli, or the same as --dataset_name")
    g.add_argument(
        "--data_dir",
        help="local folder holding {train,dev,test}*.{tsv,csv,jsonl,"
        "parquet}[.gz] with the task's columns, instead of the hub",
    )
    g.add_argument("--train_file", help="local training file (tsv, csv, jsonl, parquet; .gz)")
    g.add_argument("--validation_file", help="local dev file; without it dev is 10 %% of train")
    g.add_argument("--test_file", help="local test file")
    g.add_argument(
        "--text_columns",
        help="names of the text column(s) in local files, with a comma between two",
    )
    g.add_argument("--label_column", help="name of the label column in local files")
    g.add_argument(
        "--split_seed",
        type=non_negative_int,
        default=DEFAULT_SPLIT_SEED,
        help="seed of the train/dev split, of row bounds, of built-in test rows",
    )
    g.add_argument(
        "--max_seq_length",
        type=positive_int,
        help="tokens after which a text is cut (default: the task's)",
    )
    g.add_argument(
        "--max_train_rows",
        type=positive_int,
        help="use at most this many training rows, drawn with equal class shares",
    )
    g.add_argument(
        "--max_eval_rows", type=positive_int, help="use at most this many rows of dev and of test"
    )


def inherit_data_flags(args: argparse.Namespace, earlier: dict) -> None:
    """Where no task was named, take over the data flags of the stage before, but those given."""
    if args.task_name is not None or args.dataset_name is not None:
        return
    for flag in DATA_FLAGS:
        if getattr(args, flag) in (None, DEFAULT_SPLIT_SEED):
            setattr(args, flag, earlier.get(flag))


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    g = parser.add_argument_group("run")
    g.add_argument(
        "--output_dir",
        required=True,
        help="the run's folder; a run that was "
        "interrupted there goes on, a finished one is left alone",
    )
    g.add_argument(
        "--overwrite",
        action=BooleanOptionalAction,
        default=False,
        help="discard what an earlier run left in --output_dir",
    )
    g.add_argument(
        "--seed",
        type=non_negative_int,
        default=42,
        help="seed of the run: classifier, batches, dropout, and in the search gates and delta",
    )
    g.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto: CUDA where there is one",
    )
    g.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="auto: bf16 autocast where the hardware computes in it, else fp32",
    )
    g.add_argument(
        "--attn_implementation", choices=["sdpa", "eager"], default="sdpa", help="attention kernels"
    )
    g.add_argument(
        "--checkpoint_every",
        type=save_interval,
        default="10m",
        help="time between resume points: optimizer steps, or minutes with an m (0: only the end "
        "of each epoch)",
    )
    g.add_argument(
        "--group_by_length",
        action=BooleanOptionalAction,
        default=True,
        help="put texts of like length into one batch, so that little is padded",
    )
    g.add_argument(
        "--deterministic",
        action=BooleanOptionalAction,
        help="kernels that give the same bytes each time (default: on a CPU only)",
    )
    g.add_argument(
        "--tensorboard",
        action=BooleanOptionalAction,
        default=False,
        help="write the numbers of log.jsonl for TensorBoard, too",
    )
    add_time_budget(g)
    g.add_argument("--quiet", action=BooleanOptionalAction, default=False, help="no progress bar")
    g = parser.add_argument_group("memory")
    g.add_argument(
        "--micro_bsz",
        type=positive_int,
        help="rows per forward and backward pass; their gradients add up to the batch's "
        "(default: the whole batch)",
    )
    g.add_argument(
        "--checkpoint_activations",
        action=BooleanOptionalAction,
        default=False,
        help="keep one activation a layer and compute the others again in the backward pass",
    )


def add_training_flags(parser: Parser, of_epochs: str = "passes over the training rows") -> None:
    g = parser.add_argument_group("training (paper's Table 5)")
    add = g.add_argument
    add("--epochs", type=positive_int, default=3, help=of_epochs)
    add("--bsz", type=positive_int, default=32, help="rows per optimizer step")
    add("--lr", type=positive_float, default=2e-5, help="peak learning rate")
    add(
        "--weight_decay",
        type=non_negative_float,
        default=1e-2,
        help="AdamW's, not on biases and LayerNorm weights",
    )
    add("--warmup_ratio", type=fraction, default=0.1, help="share of steps in which lr rises")
    add("--dropout", type=fraction, help="every dropout probability (default: encoder's own)")


def add_keep_epochs(parser: Parser) -> None:
    parser.add_argument(
        "--keep_epochs",
        type=epoch_list,
        default=[],
        help="keep checkpoints of these epochs too, e.g. 1,2,3 (attack.py --attack_epochs)",
    )


def check_epochs(args: argparse.Namespace) -> None:
    """UserError where an epoch is to be kept that there will not be."""
    if args.keep_epochs and max(args.keep_epochs) > args.epochs:
        raise UserError(f"--keep_epochs names an epoch beyond --epochs {args.epochs}")
