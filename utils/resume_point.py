"""The resume point of a run: tensors and numbers in one file, followed by a checksum."""

import hashlib
import io
from pathlib import Path

from utils.cli import UserError
from utils.files import write_atomically

STATE_FORMAT = 3  # increase it when the contents change
DIGEST_BYTES = 32  # SHA-256, after the state


def write(path: Path, state: dict) -> None:
    """Write a resume point. `state`: tensors, numbers, strings, and lists and dicts of them."""
    import torch

    # Serialize in memory: if the disk is full, torch's writer raises errors of many types.
    buffer = io.BytesIO()
    torch.save(state | {"format": STATE_FORMAT}, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    write_atomically(path, lambda p: p.write_bytes(buffer.getbuffer()))


def read(path: Path) -> dict:
    """Read a resume point onto the CPU. UserError if it is damaged or has another format."""
    import torch

    data = path.read_bytes()
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise UserError(f"{path} is damaged (its checksum differs); start over with --overwrite")
    state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    if state.get("format") != STATE_FORMAT:
        raise UserError(
            f"{path} was written by another version of this program: finish the run with that "
            "version, or start over with --overwrite"
        )
    return state
