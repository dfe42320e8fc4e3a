"""Parts of benchmarks/gpu.py that check numbers."""

import functools
import gc
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import common
import torch
import training_steps
from accelerate.state import AcceleratorState
from gpu_job import Job, Killed, cache_in, call, data_folder, encoder_folder
from safetensors.torch import load_file

import search_ticket
from masking import hard_concrete, surgery, ticket_files
from training import optim
from utils import process_state

TESTS = common.ROOT / "tests"
# Relative distance of bf16's gradients of the scores from fp32's.
LARGEST_DISTANCE, LARGEST_RATIO = 0.1, 1.5
# Distance of the scores that two processes learn from those of one, relative to what was learned:
# AdamW's first steps move a score by the sign of its gradient, which rounding can turn.
LARGEST_OF_PROCESSES = 0.01


def golden(job: Job) -> None:
    """The trajectory of the released code, in fp32 on this device."""
    sys.path.insert(0, str(TESTS))
    import golden

    worst = golden.replay(TESTS / "golden_released", device=job.device, steps=job.size(None, 4))
    job.numbers["matmul_precision"] = torch.get_float32_matmul_precision()
    job.numbers["deviations"] = {name: off for name, (off, _) in worst.items()}
    for name, (off, tolerance) in worst.items():
        job.find(f"golden trajectory, {name}", f"{off:.1e}", f"{tolerance:.0e}", off <= tolerance)


def gates(job: Job) -> None:
    """Fast gates against plain ones, in bf16, with the same noise; fp32 is the reference."""
    reference = _score_gradients(job, "fp32", "plain")
    off = job.numbers["relative_distance_from_fp32"] = {}
    for way in ("plain", "fast", *["compiled"] * job.compiles()):
        gradients = _score_gradients(job, "bf16", way)
        off[way] = float((gradients - reference).norm() / reference.norm())
        most = LARGEST_DISTANCE if way == "plain" else LARGEST_RATIO * off["plain"]
        what = f"gates, bf16, {way}: distance of the scores' gradients from fp32"
        job.find(what, f"{off[way]:.1e}", f"{most:.1e}", off[way] <= most)


def _score_gradients(job: Job, precision: str, way: str) -> torch.Tensor:
    """The gradients of all scores after one pass without dropout: fp64, (gates,), on the CPU."""
    shape = job.size("bert-base", "bert-1x64")
    args = job.bench_args(shape, "sst2", precision=precision, adv_steps=1)
    AcceleratorState._reset_state(True)  # another precision
    bench = training_steps.Bench(args)
    settings = bench.search_args
    settings.max_grad_norm = 0.0  # do not rescale
    model = bench._model().eval()
    gated = surgery.install_gates(model, settings.mask_p)
    if way == "compiled":
        with bench.accelerator.autocast():
            surgery.compile_gates(gated)

    def draw(generator: torch.Generator) -> None:
        surgery.draw_noise(gated, generator, "key")
        for layer in gated.values() if way == "plain" else ():
            layer.uniform = layer.uniform_draws()

    draws = bench._draws(model, settings, draw)
    search = search_ticket.Search(model, gated, settings, bench.accelerator, draws)
    gradients: list[torch.Tensor] = []

    def keep(losses: torch.Tensor, norm: torch.Tensor) -> bool:
        gradients.extend(s.grad.double().flatten().cpu() for s in search.scores)
        return False

    draws.start_step(1, bench.batches[0], bench.shapes[0])
    search.step(bench.batches[0], 0.0, 0.0, keep)
    return torch.cat(gradients)


def repeat(job: Job) -> None:
    """Every stage twice with one seed, with the kernels that are the default on this device."""
    with cache_in(job.scratch / "cache"):
        _twice(job, [])


def deterministic(job: Job) -> None:
    """The same with --deterministic, and a search that is killed and resumed."""
    words = ["--deterministic"]
    # cuBLAS reads this variable once, and the stages would take it back.
    cublas = process_state.environment(CUBLAS_WORKSPACE_CONFIG=":4096:8")
    caught = warnings.catch_warnings(record=True)
    with cublas, cache_in(job.scratch / "cache"), caught as noted:
        warnings.simplefilter("always")
        runs = _twice(job, words)
        name = "scores.safetensors"
        folder = job.scratch / "killed"
        flags = runs["flags"]["search_ticket"] | {"output_dir": folder}
        _killed_in_step(job.size(30, 12), lambda: call("search_ticket", *words, **flags))
        call("search_ticket", *words, **flags)
        _compare(job, "search killed and resumed", folder / name, runs["search"] / name, True)
    texts = {str(w.message).split(".")[0] for w in noted if "determinis" in str(w.message)}
    job.numbers["not_deterministic"] = sorted(texts)
    job.find("operations without a deterministic kernel", str(len(texts)), "0", not texts)


def _twice(job: Job, words: list[str]) -> dict:
    """Run all stages twice; compare the bytes, and count the pruned weights that are not 0.0."""
    encoder, _ = encoder_folder(job, job.size("bert-6x384", "bert-1x64"), is_minilm=True)
    data, _ = data_folder(job)
    small = {"bsz": job.size(32, 16), "device": job.device, "checkpoint_every": 10}
    rows = {"task_name": "sst2", "data_dir": data, "max_train_rows": job.size(640, 128)}
    fresh = small | rows | {"model_name": encoder, "max_eval_rows": job.size(200, 40), "epochs": 1}
    ticket = fresh | {"scores": job.scratch / "search_ticket-1", "sparsity": 0.3}
    dense = job.scratch / "finetune-1"
    searched = small | {"model_name": dense, "epochs": 2, "adv_steps": job.size(5, 2)}
    flags = {"finetune": fresh, "search_ticket": searched, "retrain_ticket": ticket}
    expected = bool(words) or job.device == "cpu"
    name = {"search_ticket": "scores.safetensors"}
    for stage, of_stage in flags.items():
        for number in (1, 2):
            call(stage, *words, **of_stage, output_dir=job.scratch / f"{stage}-{number}")
        file = name.get(stage, "last/model.safetensors")
        first, second = (job.scratch / f"{stage}-{number}" / file for number in (1, 2))
        what = f"{stage} twice with one seed{', '.join(['', *words])}"
        _compare(job, what, first, second, expected)
    run = job.scratch / "retrain_ticket-1"
    masks, _ = ticket_files.load_ticket(ticket_files.ticket_file(run))
    weights = load_file(run / "last" / "model.safetensors")
    left = sum(int(weights[f"{n}.weight"][~mask].count_nonzero()) for n, mask in masks.items())
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    result = f"{left} of {pruned}"
    job.find("pruned weights that are not 0.0 after retraining", result, "0", left == 0)
    return {"flags": flags, "search": job.scratch / "search_ticket-1"}


def _compare(job: Job, what: str, a: Path, b: Path, expected: bool) -> None:
    equal = a.read_bytes() == b.read_bytes()
    first, second = load_file(a), load_file(b)
    off = max(float((first[n].float() - second[n].float()).abs().max()) for n in first)
    job.numbers[what] = {"bytes_equal": equal, "largest_difference": off}
    result = "equal bytes" if equal else f"bytes differ, values by at most {off:.1e}"
    target = "equal bytes" if expected else "-"
    job.find(what, result, target, equal if expected else None)


def _killed_in_step(number: int, run) -> None:
    """`run` dies in its optimizer step `number`."""
    real, steps = optim.set_lr, iter(range(1, number + 1))

    @functools.wraps(real)
    def set_lr(*arguments):
        if next(steps) == number:
            raise Killed
        return real(*arguments)

    optim.set_lr = set_lr
    try:
        run()
        raise RuntimeError(f"the run made fewer than {number} steps")
    except Killed:
        pass
    finally:
        optim.set_lr = real
    gc.collect()  # the lock of the folder


def processes(job: Job) -> None:
    """A search in two processes, on two GPUs, against the same search in one."""
    if job.device == "cuda" and torch.cuda.device_count() < 2:
        job.find("a search in two processes", "not run: this machine has one GPU")
        return
    encoder, _ = encoder_folder(job, job.size("bert-6x384", "bert-1x64"), is_minilm=True)
    data, _ = data_folder(job)
    # An odd batch, so that the processes have different numbers of rows.
    usual = {"bsz": 15, "dropout": 0, "precision": "fp32", "device": job.device, "epochs": 1}
    rows = {"task_name": "sst2", "data_dir": data, "max_train_rows": job.size(450, 45)}
    dense = job.scratch / "dense"
    search = usual | {"model_name": dense, "adv_steps": job.size(5, 2)}
    with cache_in(job.scratch / "cache"):
        call("finetune", **usual, **rows, model_name=encoder, max_eval_rows=40, output_dir=dense)
        call("search_ticket", **search, output_dir=job.scratch / "in-1")
        _call_in_two("search_ticket", **search, output_dir=job.scratch / "in-2")
    one, two = (_flat_scores(job.scratch / f"in-{n}") for n in (1, 2))
    learned = (one - hard_concrete.score_for_gate(0.9)).norm()
    off = job.numbers["relative_distance_of_two_processes"] = float((two - one).norm() / learned)
    what = "a search in two processes: distance of its scores from those of one"
    most = LARGEST_OF_PROCESSES
    job.find(what, f"{off:.1e}", f"{most:.0e}", off <= most)


def _flat_scores(run: Path) -> torch.Tensor:
    scores, *_ = ticket_files.load_scores(run / "scores.safetensors")
    return torch.cat([s.double().flatten() for s in scores.values()])


def _call_in_two(stage: str, **flags: object) -> None:
    """Run a stage in two processes, as torchrun does, but in the part's process group, which ends
    with the part."""
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    words = [sys.executable, common.ROOT / f"{stage}.py", *common.flags(**flags), "--quiet"]
    children = [
        subprocess.Popen(words, env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    if [child.wait() for child in children] != [0, 0]:
        raise RuntimeError(f"{stage}.py failed in two processes; see gpu.log")
