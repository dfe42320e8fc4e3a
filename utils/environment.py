"""The environment of a run, for its record: versions, commit, device and threads."""

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
import subprocess
import sysconfig
from pathlib import Path

LIBRARIES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "scikit-learn",
    "scipy",
    "textattack",
    "tensorflow",
    "nltk",
    "onnxruntime",
)


def environment() -> dict:
    """Versions, commit, device name and number of CPU threads, for run.json and each record."""
    import torch  # takes seconds; programs that only read run folders do not need it

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "python": platform.python_version(),
        "versions": versions(),
        "installed": installed_digest(),
        "commit": git_commit(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def installed_digest() -> str:
    """16 hex digits of the SHA-256 of all installed packages and their versions."""
    # Not all of sys.path: some packages add copies of others to it when they are imported.
    places = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    packages = {
        f"{d.name.lower()}=={d.version}" for d in importlib.metadata.distributions(path=places)
    }
    return hashlib.sha256("\n".join(sorted(packages)).encode()).hexdigest()[:16]


@functools.cache
def git_commit() -> str | None:
    """Commit of this repository, followed by '+' if files differ from it; None outside git."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD")[:12] + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None
