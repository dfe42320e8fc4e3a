"""Device, precision and processes, set up with accelerate."""

import argparse
import os
import resource
import sys
from collections.abc import Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from utils import launch, process_state
from utils.cli import UserError


def make_accelerator(args: argparse.Namespace) -> Accelerator:
    """An accelerator for one process or several (torchrun).

    Reads device, precision and deterministic of `args`. Raises UserError for --device cuda without
    a CUDA device, and if the processes that the environment announces cannot be joined.
    Deterministic kernels are a setting of the whole process. Call this function inside `cli.run` or
    `process_state.preserved`, which restore the setting.
    """
    launch.check()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch sees no CUDA device here; pass --device cpu")
    cpu = args.device == "cpu" or not torch.cuda.is_available()
    bf16 = args.precision == "bf16" or (args.precision == "auto" and computes_in_bf16(cpu))
    if args.deterministic or (args.deterministic is None and cpu):
        use_deterministic_kernels(cpu)
    try:
        return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")
    except Exception as e:  # of several types
        if not launch.announced():
            raise
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"the processes cannot be joined ({reason}): {launch.how_to_leave()}"
        ) from e


def use_deterministic_kernels(cpu: bool) -> None:
    """Switch the process to deterministic kernels. An operation without such a kernel warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The mode also fills new memory with NaN, to protect programs that read it before they write.
    # On a CPU that takes at least a tenth of a step, and this program has no such reads.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    if not cpu:  # with warn_only, the fused attentions of a GPU stay as they are
        process_state.set_fused_attention(dict.fromkeys(process_state.FUSED_ATTENTION, False))


def peak_memory_bytes() -> int:
    """Peak memory of this process in bytes: of its GPU tensors, or on a CPU its resident set."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def computes_in_bf16(cpu: bool) -> bool:
    """Whether the hardware multiplies bf16 matrices; emulation is slower than fp32."""
    if not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # This function is not public in torch 2.11 to 2.13. If it is missing, fp32 is safe.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def to_device(batch: dict, accelerator: Accelerator) -> dict[str, Tensor]:
    """Tensors on the device with this process's rows of a batch of numpy arrays.

    Process r of n takes rows r, r + n, r + 2n, ... A process without a row takes the first row.
    Adds `row_weight`, a float32 scalar: 1 / (rows of the whole batch), or 0 for a process without a
    row.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    rows = len(batch["labels"])
    share = slice(rank, None, world) if rank < rows else slice(0, 1)
    out = {
        name: torch.from_numpy(values[share]).to(accelerator.device, non_blocking=True)
        for name, values in batch.items()
    }
    # Not torch.tensor, which waits for the copy to a GPU.
    out["row_weight"] = torch.full((), float(rank < rows) / rows, device=accelerator.device)
    return out


def sum_over_processes(accelerator: Accelerator, parameters: Iterable[Tensor]) -> None:
    """Sum the gradients over all processes, in place. Call this once per optimizer step.

    Each process divides its loss by the rows of the whole batch. The sum is therefore the gradient
    of the mean loss.
    """
    if accelerator.num_processes > 1:
        for p in parameters:
            if p.grad is not None:
                torch.distributed.all_reduce(p.grad)


def gather_rows(accelerator: Accelerator, rows: list) -> list:
    """The concatenated lists of all processes, in process order, in each process."""
    return gather_object(rows) if accelerator.num_processes > 1 else rows
