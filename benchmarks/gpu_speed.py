"""Parts of benchmarks/gpu.py that time: steps_sst2, steps_imdb, profile, victim."""

import collections
import functools
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path

import common
import torch
import training_steps
from gpu_job import Job
from torch import nn
from torch.profiler import ProfilerActivity, profile

# What docs/benchmarks.md aims at on a GPU: "a : b" -> lengths -> (least, most).
TARGETS = {
    "released : search": {"sst2": (5, None), "imdb": (3, None)},
    "search : dense_adversarial": dict.fromkeys(("sst2", "imdb"), (None, 1.10)),
    "retrain : dense": dict.fromkeys(("sst2", "imdb"), (None, 1.03)),
    "peak memory, search : released": dict.fromkeys(("sst2", "imdb"), (None, 0.6)),
}
BUSY = {"cuda": ("kernel", "gpu_memcpy", "gpu_memset"), "cpu": ("cpu_op",)}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def steps_sst2(job: Job) -> None:
    """Search, retraining and dense steps against the released one, at SST-2's lengths."""
    _steps(job, "sst2")


def steps_imdb(job: Job) -> None:
    """The same at IMDB's lengths."""
    _steps(job, "imdb")


def _steps(job: Job, lengths: str) -> None:
    encoder = job.size("bert-base", "bert-1x64")
    args = job.bench_args(encoder, lengths)
    args.variants, args.repeats = training_steps.VARIANTS, job.size(9, 1)
    args.minutes = job.left() / 2 / 60

    def note(ratios: dict) -> None:
        for pair, value in ratios.items():
            least, most = TARGETS[pair][lengths]
            is_one = isinstance(value, float)  # of memory
            number = value if is_one else value["median"]
            fine = number >= least if least else number <= most
            target = f"at least {least}" if least else f"at most {most:.2f}"
            text = f"{value:.2f}" if is_one else common.spread(value)
            judged = None if job.toy else fine
            job.find(f"{encoder}, {lengths}: {pair}", text, target, judged)

    record = training_steps.measure(args, note)
    record["row"]["device"] = record["device"]  # the card: the folder can hold another's records
    job.numbers["record"] = record
    common.publish(job.folder, "training_steps", record, training_steps.rows_of)
    for name, step in record["steps"].items():
        peak = step["peak_memory_bytes"]
        result = f"{1000 * step['seconds_a_step']['median']:.1f} ms"
        result += f", {peak / 2**30:.2f} GiB" if peak else ""
        result += f"; {step['time_over_flops_floor']:.1f} times the operations' floor"
        result += f", {step['time_over_bytes_floor']:.1f} times the bytes'"
        job.find(f"{encoder}, {lengths}: {name} step", result)
    for precision, rates in record["machine_rates"].items():
        result = f"{rates['flops_per_second'] / 1e12:.1f} TFLOP/s in a product"
        result += f", {rates['bytes_per_second'] / 1e12:.2f} TB/s in a copy"
        job.find(f"measured ceilings, {precision}", result)


def profile_step(job: Job) -> None:
    """One search step and one dense adversarial step: kernels, gaps, waits for the device."""
    encoder = job.size("bert-base", "bert-1x64")
    bench = training_steps.Bench(job.bench_args(encoder, "sst2"))
    for name in ("search", "dense_adversarial"):
        step = functools.partial(getattr(bench, name)(), job.size(1, 0))
        for _ in range(3):
            step()
        seconds = [common.seconds_of(step, job.device) for _ in range(job.size(9, 2))]
        wall = statistics.median(seconds)
        job.find(f"a {name} step", f"{1000 * wall:.1f} ms, median of {len(seconds)}")
        numbers = job.numbers[name] = {"seconds": seconds}
        if job.device == "cuda":
            waits = numbers["waits"] = _waits(step)
            count = sum(waits.values())
            job.find(f"host waits in a {name} step", f"{count}: {waits}", "1", count <= 1)
            _kernels(step, job)  # the first profile sets itself up
        kernels = _kernels(step, job)
        numbers |= kernels
        span, busy = kernels["span_seconds"], kernels["busy_seconds"]
        unit = "kernels and copies" if job.device == "cuda" else "operations"
        result = f"{kernels['count']} {unit} busy for {1000 * busy:.1f} ms "
        result += f"({100 * busy / wall:.0f} % of the step); between them "
        result += f"{1000 * (span - busy):.1f} ms when profiled"
        job.find(f"profile of a {name} step", result)
        for kernel in kernels["longest"][:3]:
            result = f"{1000 * kernel['seconds']:.2f} ms in {kernel['count']}"
            job.find(f"{name}: {kernel['name'][:60]}", result)


def _waits(step: Callable[[], object]) -> dict[str, int]:
    """Place -> number of operations of a step at which the host waits for the device."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in caught if "called a synchronizing" in str(w.message)]
    places = ("/".join(Path(w.filename).parts[-2:]) + f":{w.lineno}" for w in waits)
    return dict(collections.Counter(places))


def _kernels(step: Callable[[], object], job: Job) -> dict:
    """Number and seconds of a step's kernels (on a CPU of its operations), from a trace."""
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] * (job.device == "cuda")
    with profile(activities=activities) as measured:
        step()
        common.synchronize(job.device)
    path = job.scratch / "trace.json"
    measured.export_chrome_trace(str(path))
    events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    work = [e for e in events if e.get("cat") in BUSY[job.device] and "dur" in e]
    if not work:
        raise RuntimeError("the profiler recorded no work of the device")
    by_name: dict[str, list[float]] = collections.defaultdict(list)
    for event in work:
        by_name[event["name"]].append(event["dur"] / 1e6)
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:15]
    spans = [(e["ts"] / 1e6, (e["ts"] + e["dur"]) / 1e6) for e in work]
    return {
        "count": len(work),
        "busy_seconds": covered(spans),
        "span_seconds": max(end for _, end in spans) - min(start for start, _ in spans),
        "longest": [{"name": n, "seconds": sum(s), "count": len(s)} for n, s in longest],
    }


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end)."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def victim(job: Job) -> None:
    """Queries per second of an attacked model, by the number of texts in a forward pass.

    Batches of similar length, padded to their longest text and read back as fp64, as
    evaluation/victim.py does; without its tokenizer and its cache, as it imports TextAttack.
    """
    sizes = job.size(BATCH_SIZES, (1, 4))
    for shape in job.size(("bert-base", "bert-6x384"), ("bert-1x64",)):
        model = common.load_model(shape, job.device).eval()
        for precision in ("fp32", "bf16"):
            rates = {}
            for size in sizes:
                if job.left() < 5:
                    raise TimeoutError(f"no time left for batches of {size}")
                rates[size] = _queries_per_second(model, size, precision, job)
            job.numbers[f"{shape}, {precision}"] = rates
            shown = ", ".join(f"{size}: {rate:.0f}" for size, rate in rates.items())
            job.find(f"victim queries/s by batch size, {shape}, {precision}", shown)


def _queries_per_second(model: nn.Module, size: int, precision: str, job: Job) -> float:
    rows = common.draw_rows(job.size("sst2", "8"), job.size(max(64, 2 * size), size), seed=0)
    ids = [torch.from_numpy(r).long() for r in sorted(rows.input_ids, key=len)]

    @torch.inference_mode()
    def answer() -> None:
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            padded = nn.utils.rnn.pad_sequence(part, batch_first=True)
            mask = nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in part], batch_first=True)
            with torch.autocast(job.device, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(padded.to(job.device), mask.to(job.device)).logits
            if not torch.isfinite(logits).all():
                raise RuntimeError("logits are not finite")
            logits.double().cpu()

    answer()
    return len(ids) / statistics.median(common.seconds_of(answer, job.device) for _ in range(3))
