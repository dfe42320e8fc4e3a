"""The runtimes that benchmarks/latency.py compares, and what a model takes in each.

    python benchmarks/latency_runtimes.py RUNTIME FOLDER THREADS BATCH LENGTH

prints the peak memory of a process that loads a model and runs one batch, in bytes above what its
libraries take. Only the runtime's own packages are imported there.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

# In the order of the table's columns.
RUNTIMES = {
    "torch-fp32": "torch fp32",
    "torch-bf16": "torch bf16",
    "torch-compile": "torch.compile fp32",
    "torch-2:4": "torch bf16, 2:4",
    "onnx": "ONNX Runtime fp32",
    "onnx-int8": "ONNX Runtime int8",
}
ON_GPU = ("torch-fp32", "torch-bf16", "torch-compile", "torch-2:4")
Pass = Callable[[dict[str, np.ndarray]], object]


def file_of(runtime: str, folder: Path) -> Path:
    """The weights of a model that `folder` holds in all formats."""
    return folder / {"onnx": "model.onnx", "onnx-int8": "int8.onnx"}.get(
        runtime, "model.safetensors"
    )


def start(runtime: str, folder: Path, threads: int, device: str = "cpu") -> Pass:
    """Load a model; the result runs one batch, int64 (rows, tokens).

    torch's number of threads is that of the process. Raises RuntimeError where the runtime cannot
    compute the model.
    """
    if runtime.startswith("onnx"):
        return _onnx(file_of(runtime, folder), threads)
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    if runtime in ("torch-bf16", "torch-2:4"):
        model = model.to(torch.bfloat16)
    model = model.to(device)
    if runtime == "torch-2:4":
        _keep_two_of_four(model)
    run = torch.compile(model, dynamic=True) if runtime == "torch-compile" else model

    @torch.inference_mode()
    def run_batch(batch: dict[str, np.ndarray]) -> object:
        tensors = {name: torch.from_numpy(v).to(device) for name, v in batch.items()}
        return run(**tensors).logits

    return run_batch


def _onnx(path: Path, threads: int) -> Pass:
    from training.onnx_models import load_onnx

    return load_onnx(path, threads)


def _keep_two_of_four(model) -> None:
    """Set the two smallest of each four weights of the encoder's matrices to 0, in 2:4 form."""
    import torch

    for module in model.base_model.modules():
        if isinstance(module, torch.nn.Linear):
            groups = module.weight.detach().unflatten(1, (-1, 4))
            smallest = groups.abs().argsort(dim=-1)[..., :2]
            pruned = groups.scatter(-1, smallest, 0.0).flatten(1)
            sparse = torch.sparse.to_sparse_semi_structured(pruned)
            module.weight = torch.nn.Parameter(sparse, requires_grad=False)


def batch_of(rows: int, tokens: int, vocabulary: int) -> dict[str, np.ndarray]:
    """Random tokens without padding."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (rows, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def peak_bytes(runtime: str, folder: Path, threads: int, rows: int, tokens: int) -> int | None:
    """Peak memory of the model and one batch, in a process of its own; None where unknown."""
    command = [sys.executable, __file__, runtime, str(folder), *map(str, (threads, rows, tokens))]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    runtime, folder, *numbers = sys.argv[1:]
    threads, rows, tokens = map(int, numbers)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    if runtime.startswith("onnx"):
        import onnxruntime  # noqa: F401

        from training import onnx_models  # noqa: F401
    else:
        import torch
        from transformers import AutoModelForSequenceClassification  # noqa: F401

        torch.set_num_threads(threads)
    before = _memory("VmRSS")
    run = start(runtime, Path(folder), threads)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from loading
    run(batch_of(rows, tokens, 100))
    print(_memory("VmHWM") - before)


if __name__ == "__main__":
    main()
