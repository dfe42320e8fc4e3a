"""External resources of the recipes: found, checked and fingerprinted before the first row.

Nothing is downloaded without the user's knowledge: the error for a missing resource states the
command that fetches it. No pickle is loaded. This module imports TextAttack only in
`import_textattack`.
"""

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from evaluation.minilm import neighbour_table
from evaluation.presets import RECIPES
from evaluation.readers import read_neighbours
from training.batching import cache_folder
from training.loading import MINILM_SHA256
from utils.cli import UserError
from utils.files import sha256_of, write_atomically

# Files that show whether an NLTK package is present, as a folder or a zip. The tagger is the one in
# JSON; the older averaged_perceptron_tagger is a pickle.
_NLTK = {
    "tagger": (
        "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json",
        "taggers/universal_tagset/en-ptb.map",
    ),
    "wordnet": ("corpora/wordnet/data.noun",),
}


def _fetch(name: str) -> tuple[str, Path | str, str]:
    """(what it is, its default place, the command that fetches it to that place)."""
    cache = cache_folder()
    vectors = cache / "counter-fitted-vectors.txt.zip"
    encoder = cache / "universal-sentence-encoder"
    return {
        "word_vectors": (
            "the counter-fitted word vectors",
            vectors,
            f"curl -L --create-dirs -o {vectors} https://github.com/nmrksic/counter-fitting/raw/"
            "master/word_vectors/counter-fitted-vectors.txt.zip",
        ),
        "sentence_encoder": (
            "the Universal Sentence Encoder",
            encoder,
            f"mkdir -p {encoder} && curl -L 'https://tfhub.dev/google/universal-sentence-encoder/3"
            f"?tf-hub-format=compressed' | tar -xz -C {encoder}",
        ),
        "masked_lm": (
            "the masked language model",
            "bert-base-uncased",
            "hf download bert-base-uncased --include '*.json' '*.txt' 'model.safetensors'",
        ),
    }[name]


def locate(recipe: str, given: dict[str, str | None], device: str) -> dict[str, Path]:
    """Paths of the recipe's resources: the given path, or the default place.

    `given`: a path or None for each of word_vectors, sentence_encoder, masked_lm and neighbours.
    MiniLM's neighbor table is computed at its first use. Raises UserError for a missing resource.
    """
    needs = RECIPES[recipe]
    if "neighbours" in needs and given.get("neighbours") is None:
        raise UserError(
            f"{recipe} needs a neighbor table; give --neighbours FILE (JSON: word -> list of words)"
        )
    for name in needs:
        if name in _NLTK:
            _require_nltk(name)
    paths = {}
    for name in needs:
        if name == "neighbours":
            paths[name] = _existing(Path(given[name]), "the neighbor table")
            read_neighbours(paths[name])  # reports a damaged table before TextAttack's long import
        elif name in ("word_vectors", "sentence_encoder", "masked_lm"):
            paths[name] = _locate_one(name, given.get(name))
        elif name == "minilm_table":
            paths["neighbours"] = neighbour_table(device)[1]
    return paths


def _locate_one(name: str, given: str | None) -> Path:
    what, default, command = _fetch(name)
    if given is not None:
        return _existing(Path(given), what)
    if name == "masked_lm":
        return _in_hub_cache(str(default), command)
    if not Path(default).exists():
        raise UserError(
            f"{what} is not at {default}; fetch it with: {command} (or give its path with --{name})"
        )
    return Path(default)


def _existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise UserError(f"{what}: {path} does not exist; check the path")
    return path


def _in_hub_cache(name: str, command: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError as e:
        raise UserError(
            f"the masked language model {name} is not in the hub's cache; fetch it with: {command} "
            "(or give its folder with --masked_lm)"
        ) from e


def _require_nltk(name: str) -> None:
    import nltk

    try:
        for place in _NLTK[name]:
            nltk.data.find(place)
    except LookupError as e:
        packages = " ".join(place.split("/")[1] for place in _NLTK[name])
        raise UserError(
            f"NLTK's {name} is missing; fetch it with: python -m nltk.downloader {packages} (or "
            "set NLTK_DATA to a folder that has it)"
        ) from e


def describe(recipe: str, paths: dict[str, Path]) -> dict:
    """Record entries: the name of each resource and the first 16 hex digits of its SHA-256."""
    facts = {name: {"name": path.name, "sha256": digest_of(path)} for name, path in paths.items()}
    for name in RECIPES[recipe]:
        if name in _NLTK:
            facts[name] = {"name": _NLTK[name][0], "sha256": _nltk_digest(_NLTK[name][0])}
        elif name == "minilm":
            facts[name] = {"name": "builtin/minilm", "sha256": MINILM_SHA256[:16]}
    if recipe.startswith("textfooler"):
        return facts | {"stop_words": {"name": "textfooler"}}
    source = provide_stop_words()
    return facts | {"stop_words": {"name": source, "sha256": _stop_words_digest()}}


def digest_of(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file, or of the listing of a folder's files."""
    if path.is_file():
        return sha256_of(path)[:16]
    files = sorted(p for p in path.rglob("*") if p.is_file())
    listing = [(p.relative_to(path).as_posix(), sha256_of(p)) for p in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def _nltk_digest(place: str) -> str:
    import nltk

    with nltk.data.find(place).open() as f:
        return hashlib.sha256(f.read()).hexdigest()[:16]


def _stop_words_digest() -> str:
    from nltk.corpus import stopwords

    return hashlib.sha256(" ".join(sorted(stopwords.words("english"))).encode()).hexdigest()[:16]


def provide_stop_words() -> str:
    """Make sure that NLTK finds stop words, which TextAttack reads at import. Returns their source.

    If NLTK has none, scikit-learn's list is written to the cache folder in NLTK's layout.
    """
    import nltk

    folder = cache_folder() / "nltk_data"
    substitute = folder / "corpora" / "stopwords" / "english"
    try:
        path = nltk.data.find("corpora/stopwords/english")
        return "scikit-learn" if str(path) == str(substitute) else "nltk"
    except LookupError:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        text = "\n".join(sorted(ENGLISH_STOP_WORDS)) + "\n"
        write_atomically(substitute, lambda p: p.write_text(text, encoding="utf-8"))
        nltk.data.path.append(str(folder))
        return "scikit-learn"


def import_textattack(device: str) -> None:
    """Import TextAttack, which takes ten seconds, so that it downloads nothing.

    TextAttack reads its cache folder and device from the environment and redirects the cache of the
    hub; both changes are undone. Its own settings keep the values that our recipes need.
    """
    import transformers  # noqa: F401  reads the hub's cache folder before TextAttack redirects it

    provide_stop_words()
    cache = cache_folder() / "textattack"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "post_install_check_3").touch()  # without it the import starts six downloads
    with _environment(TA_CACHE_DIR=str(cache), TA_DEVICE=device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # jieba's, at its import
        import textattack
    textattack.shared.utils.logger.setLevel(logging.ERROR)  # "unknown if model is compatible"
    logging.getLogger("jieba").setLevel(logging.ERROR)  # "Building prefix dict", at a Chinese text
    # TextAttack joins columns with this token and searches the text for words. Its own <SPLIT>
    # contains letters, which damages a second column that starts with "I" or "S"; U+FFFF is in no
    # text and no word.
    textattack.shared.AttackedText.SPLIT_TOKEN = "\uffff"


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables, and restore the whole environment afterwards."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
