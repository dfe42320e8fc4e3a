"""Kill each stage and the attack at random moments, and check that each ends with the same bytes.

    python tests/kill.py [COUNT] [SEED]

Run it by hand; it takes about COUNT (default 20) seconds per stage. Each stage runs once without
interruption. Then, COUNT times, it gets one SIGKILL, SIGTERM or SIGINT at a random moment of its
duration, and the same command runs again until it ends. The moments cover the data, the steps, the
evaluations and the files. Each run is a forked child, so that the imports are paid for once.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
os.environ.setdefault("USE_TF", "0")  # as conftest.py does, before anything imports transformers

import torch  # noqa: E402
from conftest import call, make_encoder, sentences, write_tsv  # noqa: E402

from evaluation import resources  # noqa: E402
from utils.files import read_jsonl  # noqa: E402

QUICK = ("--quiet", "--bsz", 8, "--epochs", 3, "--lr", "1e-2", "--checkpoint_every", 3)
COMPARED = {
    "finetune": "last/model.safetensors",
    "search_ticket": "scores.safetensors",
    "retrain_ticket": "last/model.safetensors",
    "prune_iteratively": "scores.safetensors",
    "attack": "summary.json",
}
TIMES = {"seconds", "seconds_of_training"}


def commands(root: Path) -> dict[str, tuple]:
    rows = ("--task_name", "sst2", "--data_dir", root / "data")
    rows += ("--max_train_rows", 96, "--max_eval_rows", 60)
    encoder, dense = (("--model_name", root / name) for name in ("encoder", "finetune"))
    return {
        "finetune": (*encoder, *rows, *QUICK, "--method", "freelb"),
        "search_ticket": (*dense, *QUICK, "--keep_scores", "best,1"),
        "retrain_ticket": (*encoder, "--scores", root / "search_ticket", "--sparsity", 0.4, *QUICK),
        "prune_iteratively": (*encoder, *rows, *QUICK, "--to_sparsity", 0.3),
        "attack": (*dense, "--recipe", "deepwordbug", "--num_examples", 40, "--quiet"),
    }


def in_child(stage: str, arguments: tuple, kill_after: float | None = None, number: int = 0) -> int:
    """Exit status of the stage in a child; negative: it died of a signal.

    After `kill_after` seconds, the child gets the signal `number`.
    """
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = 0
        try:
            call(stage, *arguments)
        except SystemExit as e:
            status = e.code or 0
        except BaseException:
            status = 99  # a traceback
        os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, number)
    start = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if kill_after is not None and time.monotonic() - start > 30:
        raise SystemExit(f"{stage} took more than 30 s to exit")
    return status


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def same(stage: str, folder: Path, whole: Path) -> bool:
    name = COMPARED[stage]
    lines = "rows.jsonl" if stage == "attack" else "log.jsonl"
    if without_times(read_jsonl(folder / lines)) != without_times(read_jsonl(whole / lines)):
        return False
    if stage == "attack":
        mine, other = (json.loads((f / name).read_text()) for f in (folder, whole))
        return without_times(mine) == without_times(other)
    return (folder / name).read_bytes() == (whole / name).read_bytes()


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    os.environ["ROBUST_TICKETS_CACHE"] = str(root / "cache")
    make_encoder(root / "encoder")
    write_tsv(root / "data" / "train.tsv", sentences(240, 1))
    write_tsv(root / "data" / "dev.tsv", sentences(60, 2))
    resources.import_textattack("cpu")
    bad = 0
    for stage, arguments in commands(root).items():
        whole = root / stage
        start = time.monotonic()
        if in_child(stage, (*arguments, "--output_dir", whole)):
            raise SystemExit(f"{stage} fails without an interruption")
        length = time.monotonic() - start
        outcomes, wrong = {}, 0
        for trial in range(count):
            folder = root / f"{stage}-{trial}"
            number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            command = (*arguments, "--output_dir", folder)
            status = in_child(stage, command, draw.uniform(0, length), number)
            outcomes[status] = outcomes.get(status, 0) + 1
            again = in_child(stage, command)
            fine = again == 0 and status != 99 and same(stage, folder, whole)
            wrong += not fine
            if not fine:
                print(f"  {stage}, trial {trial}: {signal.Signals(number).name}, then {again}")
            shutil.rmtree(folder)
        bad += wrong
        print(
            f"{stage:18} {length:5.1f} s; {count} kills, exit statuses {outcomes}: "
            f"{count - wrong} ended with the same bytes",
            flush=True,
        )
    shutil.rmtree(root)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
