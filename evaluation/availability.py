"""Which resources of the recipes are here, and one line for all that are missing.

This module imports nothing heavy at its top, so that a script can look before it starts.
"""

import importlib.util
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from evaluation.presets import needs_of
from evaluation.resource_table import FETCH, IN_NLTK, PACKAGES, RESOURCES
from utils.cache import cache_folder, cached, writable_cache
from utils.cli import UserError

Given = Mapping[str, str | None]  # resource -> the path that a flag gives, or None


def find(name: str, given: str | None = None) -> Path | None:
    """The path of a resource: as given, in the hub's cache or in ours; None if it is missing.

    The path of NLTK's packages is the name that `nltk.data.find` finds.
    """
    if given is not None:
        return Path(given) if os.path.exists(given) else None
    resource = RESOURCES[name]
    if name in IN_NLTK:
        is_there = all(map(in_nltk, resource.shown_by))
        return Path(resource.shown_by[0]) if is_there else None
    [place] = {file.place.split("/")[0] for file in resource.files}
    folders = [cached(place)]
    if name == "masked_lm" and (snapshot := _in_the_hubs_cache()):
        folders.insert(0, snapshot)
    for folder in folders:
        if folder.exists() and all((folder / path).exists() for path in resource.shown_by):
            return folder
    return None


def in_nltk(path: str) -> bool:
    """Whether NLTK finds a file in its data folders or in that of the cache."""
    if importlib.util.find_spec("nltk") is None:
        return False
    import nltk

    folders = [str(folder / "nltk") for folder in (cache_folder(), writable_cache())]
    nltk.data.path += [f for f in dict.fromkeys(folders) if f not in nltk.data.path]
    try:
        return bool(nltk.data.find(path))
    except (LookupError, zipfile.BadZipFile):
        return False


def _in_the_hubs_cache() -> Path | None:
    """The folder of bert-base-uncased in the cache of the hub, under its old or its new name."""
    from huggingface_hub import try_to_load_from_cache

    for repository in ("bert-base-uncased", "google-bert/bert-base-uncased"):
        path = try_to_load_from_cache(repository, "config.json")
        if isinstance(path, str):
            return Path(path).parent
    return None


def missing(recipe: str, given: Given) -> dict[str, str]:
    """What a recipe lacks: name -> what it is, and what to do if it cannot be fetched."""
    lacking = {}
    needs = needs_of(recipe, given)
    for name in needs:
        path = given.get(name)
        if path is not None and not os.path.exists(path):
            lacking[name] = f"--{name} {path} (it does not exist; check the path)"
        elif name == "neighbours" and path is None:
            lacking[name] = "a neighbor table (give --neighbours FILE; JSON: word -> list of words)"
        elif name in RESOURCES and find(name, path) is None:
            lacking[name] = RESOURCES[name].what
    packages = {"textattack", *needs, *["tensorflow"] * ("sentence_encoder" in needs)}
    for name, (package, module, command) in PACKAGES.items():
        if name in packages and importlib.util.find_spec(module) is None:
            lacking[name] = f"the package {package} ({command})"
    return lacking


def check(recipes: Iterable[str], given: Given) -> None:
    """Raise UserError with all that the recipes lack, and the command that fetches it."""
    lacking = {recipe: found for recipe in recipes if (found := missing(recipe, given))}
    if not lacking:
        return
    names = {name: what for found in lacking.values() for name, what in found.items()}
    to_fetch = [n for n, what in names.items() if n in RESOURCES and what == RESOURCES[n].what]
    parts = []
    if to_fetch:
        wanted = ", ".join(names[name] for name in to_fetch)
        asked = " ".join(recipe for recipe in lacking if lacking[recipe].keys() & {*to_fetch})
        flags = [f"--{name}" for name in to_fetch if name not in IN_NLTK]
        flags += ["NLTK_DATA"] * bool({*IN_NLTK} & {*to_fetch})
        parts = [f"{wanted} (fetch with: {FETCH} {asked}; or give {', '.join(flags)})"]
    parts += [what for name, what in names.items() if name not in to_fetch]
    raise UserError(f"missing for {', '.join(lacking)}: {'; '.join(parts)}")
