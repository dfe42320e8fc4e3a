"""Check correctness, speed and memory on this device: one command, most important parts first.

    sh benchmarks/gpu.sh --minutes 10
    sh benchmarks/gpu.sh --data FOLDER --minilm FOLDER --output_dir FOLDER
    sh benchmarks/gpu.sh --device cpu --toy

Each part runs in a process of its own, which is killed at its deadline. After each part, its record
is appended to gpu.jsonl and the table gpu.md is written; gpu.log holds what the parts print. The
same command runs the parts that are not finished. Needs torch, transformers, accelerate,
safetensors, pandas, scikit-learn and scipy; reads no network.
"""

import argparse
import contextlib
import importlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import common
import gpu_inputs
import gpu_job
from gpu_records import Records

from utils import cli, files, interrupts, process_state

RESERVE = 15.0  # seconds for the imports before main and for what follows the last deadline


@dataclass(frozen=True)
class Part:
    """`minutes`: at most. `least`: minutes below which it is not begun. `where`: its function.

    `uses`: the inputs of gpu_inputs that it reads.
    """

    name: str
    minutes: float
    least: float
    where: str
    what: str
    uses: tuple[str, ...] = ()


GIVEN = ("data", "minilm")


PARTS = (
    Part("golden", 1, 0.3, "gpu_checks.golden", "the released trajectory, fp32"),
    Part("gates", 1, 0.4, "gpu_checks.gates", "fast gates against plain ones, bf16"),
    Part("steps_sst2", 2, 0.8, "gpu_speed.steps_sst2", "seconds, memory, floors of steps, SST-2"),
    Part("steps_imdb", 2, 0.8, "gpu_speed.steps_imdb", "the same at IMDB's lengths"),
    Part("profile", 1, 0.4, "gpu_speed.profile_step", "kernels, gaps and waits of one search step"),
    Part("repeat", 1, 0.4, "gpu_checks.repeat", "two runs with one seed; zeros of a ticket", GIVEN),
    Part(
        "deterministic", 1, 0.5, "gpu_checks.deterministic", "the same; killed and resumed", GIVEN
    ),
    Part(
        "processes",
        1,
        0.5,
        "gpu_checks.processes",
        "a search on two GPUs, if there are two",
        (*GIVEN, "gpus"),
    ),
    Part("stages", 4, 0.8, "gpu_stages.stages", "the three stages, MiniLM's shape, K = 5", GIVEN),
    Part("victim", 1, 0.3, "gpu_speed.victim", "queries per second at batch sizes 1 to 512"),
    Part(
        "stages_base",
        60,
        0.8,
        "gpu_stages.stages_base",
        "the three stages, BERT-base's shape",
        ("data",),
    ),
)
BY_NAME = {part.name: part for part in PARTS}
# A part, the arguments, its seconds -> the facts of its record.
Runner = Callable[[Part, argparse.Namespace, float], dict]


def part_names(text: str) -> list[str]:
    """Type of a flag: names of parts with commas."""
    names, known = [name for name in text.split(",") if name], ", ".join(BY_NAME)
    if not names:
        raise argparse.ArgumentTypeError(f"no part; known are {known}")
    if unknown := [name for name in names if name not in BY_NAME]:
        raise argparse.ArgumentTypeError(f"unknown part {', '.join(unknown)}; known are {known}")
    return names


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = common.make_parser(__doc__)
    add = parser.add_argument
    parser.set_defaults(output_dir=common.RESULTS / "gpu")
    add("--minutes", type=cli.positive_float, default=10.0, help="minutes of all parts together")
    add("--toy", action="store_true", help="tiny sizes, which show that every part runs")
    add(
        "--parts",
        type=part_names,
        default=list(BY_NAME),
        help="these only, with commas (default: all)",
    )
    data = "folder with sst2/train.tsv and dev.tsv (default: made-up sentences)"
    add("--data", type=Path, help=data)
    add("--minilm", type=Path, help="folder of MiniLM (default: random weights of its shape)")
    here = "run the parts in this process: nothing stops a part at its deadline"
    add("--one_process", action="store_true", help=here)
    add("--child", nargs=3, metavar=("PART", "END", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def in_this_process(part: Part, args: argparse.Namespace, seconds: float, folder=None) -> dict:
    """Run a part. Returns status, reason, findings and numbers; an error of the part is a reason.

    With `folder`, these are also in its RECORD, with the findings so far while the part runs.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as folder:
            return in_this_process(part, args, seconds, Path(folder))
    module, _, function = part.where.partition(".")
    paths = (args.output_dir, folder, args.data, args.minilm)
    job = gpu_job.Job(args.device, args.toy, seconds, *paths)
    facts = {"status": "finished", "reason": ""}
    try:
        with process_state.preserved():
            getattr(importlib.import_module(module), function)(job)
    except (Exception, SystemExit) as e:  # a stage ends with SystemExit where a flag is wrong
        traceback.print_exc()
        text = " ".join(str(e).split())[:300]
        facts = {"status": "failed", "reason": f"{type(e).__name__}: {text}"}
    job.write(**facts)
    return facts | {"findings": job.findings, "numbers": job.numbers}


def in_a_process(part: Part, args: argparse.Namespace, seconds: float) -> dict:
    """Run a part in a new process, which is killed after `seconds`; its output goes to the log."""
    with tempfile.TemporaryDirectory() as folder:
        end = time.monotonic() + seconds  # the clock is the same in all processes
        words = [sys.executable, __file__, "--child", part.name, str(end), folder]
        words += common.flags(device=args.device, output_dir=args.output_dir)
        words += ["--toy"] * args.toy
        for name in ("data", "minilm"):
            if path := getattr(args, name):
                words += common.flags(**{name: path})
        with open(args.output_dir / "gpu.log", "ab") as log:
            child = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
            try:
                status = child.wait(seconds)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # compilers' workers, too
                child.wait()
        file = Path(folder) / gpu_job.RECORD
        facts = files.read_json(file) if file.is_file() else {"findings": [], "numbers": {}}
    if facts.get("status") in ("finished", "failed"):
        return facts
    if status is None or time.monotonic() >= end:  # it may have ended itself
        return facts | {"status": "out of time", "reason": f"killed after {seconds:.0f} s"}
    return facts | {"status": "failed", "reason": f"ended with status {status}; see gpu.log"}


def end_at(end: float) -> None:
    """Kill this process and those that it started at `end`, also if the first script is gone."""
    left = max(0.0, end - time.monotonic())
    timer = threading.Timer(left, os.killpg, (os.getpgrp(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def run_parts(
    args: argparse.Namespace, records: Records, run: Runner, end=math.inf, clock=time.monotonic
) -> list[dict]:
    """Run the parts that are not finished, most important first, and write each record.

    `end`: the last deadline, in the seconds of `clock`.
    """
    new = []
    for part in (part for part in PARTS if part.name in args.parts):
        why = records.why_again(part.name, part.uses)
        if why is None:
            say(args, f"{part.name}: finished earlier")
            continue
        left, start = end - clock(), clock()
        if left < 60 * part.least * (not args.toy):
            facts = {"status": "not run", "reason": f"{max(0, left):.0f} s were left"}
        else:
            say(args, f"{part.name}: {part.what} ...{f' (runs again: {why})' * bool(why)}")
            facts = run(part, args, min(left, 60 * part.minutes))
        facts = {"seconds": clock() - start} | facts
        record = records.add(part.name, part.uses, facts)
        new.append(record)
        reason = f": {record['reason']}" if record.get("reason") else ""
        say(args, f"{part.name}: {record['status']}, {record['seconds']:.0f} s{reason}")
    return new


def say(args: argparse.Namespace, line: str) -> None:
    """Print a line, and append it to the log."""
    print(line, flush=True)
    with open(args.output_dir / "gpu.log", "a", encoding="utf-8") as log:
        log.write(line + "\n")


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu.log").touch()
    except OSError as e:
        raise cli.UserError(
            f"--output_dir {folder} cannot be written ({e.strerror}); choose another folder"
        ) from e


def main() -> None:
    args = parse_args()
    if args.child:
        name, end, folder = args.child
        end_at(float(end))
        in_this_process(BY_NAME[name], args, float(end) - time.monotonic(), Path(folder))
        return
    end = time.monotonic() + 60 * args.minutes - RESERVE
    records = Records(args, gpu_inputs.check(args))
    for name in ("output_dir", "data", "minilm"):
        path = getattr(args, name)
        setattr(args, name, path and path.resolve())
    make_folder(args.output_dir)
    interrupts.raise_on_signals("the parts that are not finished")  # and the part's process ends
    say(args, f"device {args.device}, {args.minutes:g} minutes, records in {args.output_dir}")
    for part in (part for part in PARTS if part.name in args.parts):
        say(args, f"  {part.name}: at most {part.minutes:g} minutes; {part.what}")
    new = run_parts(args, records, in_this_process if args.one_process else in_a_process, end)
    print(records.table(), end="")
    bad = [r["row"]["part"] for r in new if r["status"] in ("failed", "out of time")]
    if bad:
        raise cli.UserError(f"not finished: {', '.join(bad)}; the same command runs them again")


if __name__ == "__main__":
    cli.run(main)
