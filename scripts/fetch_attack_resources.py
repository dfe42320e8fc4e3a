"""Fetch the files that attack recipes need into the cache folder (fetch_attack_resources.sh)."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from evaluation import availability, fetching
from evaluation.presets import RECIPES, needs_of
from evaluation.resource_table import MIRRORS, RESOURCES, File
from utils import cli
from utils.cache import writable_cache
from utils.files import lock_folder


def parse_args() -> list[str]:
    parser = cli.Parser(__doc__.split("\n")[0])
    parser.add_argument(
        "recipes", nargs="*", metavar="recipe", help=f"of {', '.join(RECIPES)} (default: all)"
    )
    recipes = parser.parse_args().recipes
    if unknown := [recipe for recipe in recipes if recipe not in RECIPES]:
        raise cli.UserError(f"unknown recipe {unknown[0]!r}; known are {', '.join(RECIPES)}")
    return recipes or [*RECIPES]


def to_fetch(recipes: list[str]) -> list[File]:
    """Print what the recipes need, with sizes and places. Returns the files that are missing."""
    needs = {name for recipe in recipes for name in needs_of(recipe, {})}
    # TextFooler has a list of its own.
    needs |= {"stop_words"} if any(not r.startswith("textfooler") for r in recipes) else set()
    files = []
    for name in (name for name in RESOURCES if name in needs):
        resource, place = RESOURCES[name], availability.find(name)
        is_known = all(file.sha256 for file in resource.files)
        size = "about " * (not is_known) + megabytes(sum(file.size for file in resource.files))
        print(f"{resource.what}, {size}: {place or 'missing'}")
        files += [] if place else resource.files
    if "textfooler-neighbours" in recipes:
        print("textfooler-neighbours needs a neighbor table of yours as well: --neighbours FILE")
    return files


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def check_disk(files: list[File], folder: Path) -> None:
    """Print what is left to fetch. Raises UserError if the disk has not enough space."""
    left = sum(max(0, file.size - fetching.bytes_here(file, folder)) for file in files)
    # An archive is removed only after it is unpacked.
    unpacked = sum(file.size for file in files if file.place != file.name)
    free = shutil.disk_usage(folder).free
    print(f"to fetch: {megabytes(left)} into {folder} ({megabytes(free)} free)")
    if left + unpacked > free:
        raise cli.UserError(
            f"{folder} has {megabytes(free)} free, and {megabytes(left + unpacked)} are needed; "
            "free some, or set ROBUST_TICKETS_CACHE to another folder"
        )


def main() -> None:
    recipes = parse_args()
    folder = writable_cache()
    with lock_folder(folder, "fetch.lock"):
        fetch_for(recipes, folder)


def fetch_for(recipes: list[str], folder: Path) -> None:
    """Fetch what the recipes need and is missing. Raises UserError if any file could not be had."""
    files = [file for file in to_fetch(recipes) if not fetching.is_whole(file, folder)]
    if not files:
        print("nothing to fetch")
        return
    check_disk(files, folder)
    failures: list[File] = []
    unreachable: set[str] = set()
    for file in files:
        try:
            facts = fetching.fetch(file, folder, unreachable)
        except cli.UserError as e:
            cli.warn(f"not fetched: {e}")
            failures.append(file)
            continue
        checked = "as known" if facts["checked"] else "not checked: no known one"
        print(f"fetched {file.place} (SHA-256 {facts['sha256']}, {checked})", flush=True)
    if failures:
        raise cli.UserError(
            f"{len(failures)} of {len(files)} files were not fetched (reasons above): run the same "
            f"command again to resume, name a mirror in {MIRRORS}, or put the files at "
            f"{', '.join(str(folder / file.place) for file in failures)}"
        )


if __name__ == "__main__":
    cli.run(main)
