"""The cache folder, and a place for the caches of libraries if the home folder cannot hold them.

Files are read from the cache folder even if it cannot be written. New files then go to a folder of
the user's in the temporary folder.
"""

import contextlib
import functools
import os
import tempfile
from pathlib import Path

# Library -> the variable that moves its cache out of the home folder. The hub, datasets, torch and
# matplotlib follow XDG_CACHE_HOME; the others do not. What torch compiles is in TMPDIR anyway.
_OF_LIBRARIES = {
    "XDG_CACHE_HOME": "",
    "MPLCONFIGDIR": "matplotlib",
    "FLAIR_CACHE_ROOT": "flair",
    "TRITON_CACHE_DIR": "triton",
}


def cache_folder() -> Path:
    """Where cached files are read: ROBUST_TICKETS_CACHE, or .cache/robust_tickets in the home."""
    if chosen := os.environ.get("ROBUST_TICKETS_CACHE"):
        return Path(chosen)
    return (_home() or _temporary()) / ".cache" / "robust_tickets"


def writable_cache() -> Path:
    """The cache folder if it can be written, else the user's folder in the temporary folder."""
    folder = cache_folder()
    return folder if _can_hold_files(folder) else _temporary()


def cached(*parts: str) -> Path:
    """The path of a cached file: in the cache folder if it is there, else where it can be written.

    `parts`: of the path inside the cache.
    """
    path = cache_folder().joinpath(*parts)
    # Not Path.exists, which raises an error in a folder that cannot be read.
    return path if os.path.exists(path) else writable_cache().joinpath(*parts)


def settle() -> list[str]:
    """Choose places for all caches at the start of a script. Returns what to warn about.

    If there is no home folder, sets HOME. If it cannot be written, sets variables that move the
    caches of the libraries; a hub cache that is there is still read. Libraries read all of these
    when they are imported. Raises OSError if the temporary folder cannot be written either.
    """
    warnings = []
    tempfile.gettempdir()  # raises OSError if there is none, which libraries need as well
    home = _home()
    if home is None:
        os.environ["HOME"] = str(_temporary())  # NLTK cannot be imported without one
        warnings.append(f"HOME is not set: caches go to {_temporary()}")
    elif not _can_hold_files(home / ".cache"):
        if "XDG_CACHE_HOME" not in os.environ:  # else by you, or by the process that started this
            warnings.append(
                f"the home folder {home} cannot be written: caches go to {_temporary()}; to keep "
                "them, set HOME to a folder that you can write"
            )
        hub = str(home / ".cache" / "huggingface")
        if os.access(hub, os.R_OK | os.X_OK):
            os.environ.setdefault("HF_HOME", hub)
            os.environ.setdefault("HF_DATASETS_CACHE", str(_temporary() / "datasets"))
        for variable, name in _OF_LIBRARIES.items():
            os.environ.setdefault(variable, str(_temporary() / name))
    folder = cache_folder()
    if "ROBUST_TICKETS_CACHE" in os.environ and writable_cache() != folder:
        warnings.append(
            f"ROBUST_TICKETS_CACHE={folder} cannot be written: new files go to {_temporary()}"
        )
    return warnings


def _home() -> Path | None:
    """The home folder; None for a user without an entry in the password database and HOME."""
    with contextlib.suppress(RuntimeError):
        return Path.home()
    return None


def _temporary() -> Path:
    folder = Path(tempfile.gettempdir(), f"robust_tickets-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@functools.cache
def _can_hold_files(folder: Path) -> bool:
    """Whether a file can be written there. Tried, because root passes all checks of permissions."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
