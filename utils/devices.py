"""Device, precision and processes, through accelerate."""

import argparse
import os
import resource
import sys
from collections.abc import Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from utils.cli import UserError


def make_accelerator(args: argparse.Namespace) -> Accelerator:
    """One process or several (torchrun), on --device, in --precision."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch sees no CUDA device here")
    cpu = args.device == "cpu" or not torch.cuda.is_available()
    bf16 = args.precision == "bf16" or (args.precision == "auto" and computes_in_bf16(cpu))
    if args.deterministic or (args.deterministic is None and cpu):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Which fills fresh memory with NaN, a tenth and more of a step on a CPU, against programs
        # that read what they have not written; ours does not.
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = False
    return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")


def peak_memory_bytes() -> int:
    """The most that this process has held so far: tensors on its GPU, or all of it on a CPU."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def computes_in_bf16(cpu: bool) -> bool:
    """Whether the hardware itself multiplies bf16 matrices (emulated they are slower than fp32)."""
    if not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not public in torch 2.11 to 2.13; elsewhere fp32 is the safe answer.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def to_device(batch: dict, accelerator: Accelerator) -> dict[str, Tensor]:
    """This process' rows of a batch of arrays, as tensors; with `rows_in_batch`, of all of them.

    A process that no row falls to gets the first row, with `row_weight` 0.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    rows = len(batch["labels"])
    mine = slice(rank, None, world) if rank < rows else slice(0, 1)
    out = {
        name: torch.from_numpy(values[mine]).to(accelerator.device, non_blocking=True)
        for name, values in batch.items()
    }
    out["row_weight"] = torch.tensor(float(rank < rows) / rows, device=accelerator.device)
    return out


def sum_over_processes(accelerator: Accelerator, parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all processes, once per optimizer step.

    Losses are divided by the rows of the whole batch, so the sum is the gradient of its mean.
    """
    if accelerator.num_processes > 1:
        for p in parameters:
            if p.grad is not None:
                torch.distributed.all_reduce(p.grad)


def gather_rows(accelerator: Accelerator, rows: list) -> list:
    """All processes' lists, one after the other, in every process."""
    return gather_object(rows) if accelerator.num_processes > 1 else rows
