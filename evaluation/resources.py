"""External resources of the recipes: found, checked and fingerprinted before the first row.

Nothing is downloaded without the user's knowledge: the error for a missing resource states the
command that fetches it. No pickle is loaded. This module imports TextAttack only in
`import_textattack`.
"""

import contextlib
import hashlib
import json
import logging
import warnings
from pathlib import Path

import nltk
from huggingface_hub import snapshot_download  # reads the cache folder before TextAttack is there
from huggingface_hub.errors import LocalEntryNotFoundError

from evaluation.minilm import neighbour_table
from evaluation.presets import RECIPES
from evaluation.readers import read_neighbours
from training.batching import cache_folder
from training.loading import MINILM_SHA256
from utils.cli import UserError
from utils.files import sha256_of, write_atomically
from utils.process_state import environment

# Files that show whether an NLTK package is present, as a folder or a zip. The tagger is the one in
# JSON; the older averaged_perceptron_tagger is a pickle.
_NLTK = {
    "tagger": (
        "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json",
        "taggers/universal_tagset/en-ptb.map",
    ),
    "wordnet": ("corpora/wordnet/data.noun",),
}


# (what it is, its default place in the cache folder or the hub, the command that fetches it there)
_FILES = {
    "word_vectors": (
        "the counter-fitted word vectors",
        "counter-fitted-vectors.txt.zip",
        "curl -L --create-dirs -o {place} https://github.com/nmrksic/counter-fitting/raw/master/"
        "word_vectors/counter-fitted-vectors.txt.zip",
    ),
    "sentence_encoder": (
        "the Universal Sentence Encoder",
        "universal-sentence-encoder",
        "mkdir -p {place} && curl -L 'https://tfhub.dev/google/universal-sentence-encoder/3"
        "?tf-hub-format=compressed' | tar -xz -C {place}",
    ),
    "masked_lm": (
        "the masked language model",
        "bert-base-uncased",
        "hf download bert-base-uncased --include '*.json' '*.txt' 'model.safetensors'",
    ),
    "neighbours": ("the neighbor table", "", ""),
}


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
    for name in _NLTK.keys() & needs:
        try:
            for place in _NLTK[name]:
                nltk.data.find(place)
        except LookupError as e:
            packages = " ".join(place.split("/")[1] for place in _NLTK[name])
            raise UserError(
                f"NLTK's {name} is missing; fetch it with: python -m nltk.downloader {packages} "
                "(or set NLTK_DATA to a folder that has it)"
            ) from e
    paths = {name: _locate_one(name, given.get(name)) for name in needs if name in _FILES}
    if "neighbours" in paths:
        read_neighbours(paths["neighbours"])  # reports a damaged table before TextAttack's import
    if "minilm_table" in needs:
        paths["neighbours"] = neighbour_table(device)[1]
    return paths


def _locate_one(name: str, given: str | None) -> Path:
    what, default, command = _FILES[name]
    place = cache_folder() / default
    if given is not None:
        if not Path(given).exists():
            raise UserError(f"{what}: {given} does not exist; check the path")
        return Path(given)
    if name == "masked_lm":
        place = f"{default} in the hub's cache"
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(default, local_files_only=True))
    elif place.exists():
        return place
    raise UserError(
        f"{what} is not at {place}; fetch it with: {command.format(place=place)} (or give its path "
        f"with --{name})"
    )


def describe(recipe: str, paths: dict[str, Path]) -> dict:
    """Record entries: the name of each resource and the first 16 hex digits of its SHA-256."""
    facts = {name: {"name": path.name, "sha256": digest_of(path)} for name, path in paths.items()}
    for name in RECIPES[recipe]:
        if name in _NLTK:
            with nltk.data.find(_NLTK[name][0]).open() as f:
                facts[name] = {"name": _NLTK[name][0], "sha256": _sha256(f.read())}
        elif name == "minilm":
            facts[name] = {"name": "builtin/minilm", "sha256": MINILM_SHA256[:16]}
    if recipe.startswith("textfooler"):
        return facts | {"stop_words": {"name": "textfooler"}}
    source = provide_stop_words()
    words = " ".join(sorted(nltk.corpus.stopwords.words("english")))
    return facts | {"stop_words": {"name": source, "sha256": _sha256(words.encode())}}


def digest_of(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file, or of the listing of a folder's files."""
    if path.is_file():
        return sha256_of(path)[:16]
    files = sorted(p for p in path.rglob("*") if p.is_file())
    listing = [(p.relative_to(path).as_posix(), sha256_of(p)) for p in files]
    return _sha256(json.dumps(listing).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def provide_stop_words() -> str:
    """Make sure that NLTK finds stop words, which TextAttack reads at import. Returns their source.

    If NLTK has none, scikit-learn's list is written to the cache folder in NLTK's layout.
    """
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
    provide_stop_words()
    cache = cache_folder() / "textattack"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "post_install_check_3").touch()  # without it the import starts six downloads
    with environment(TA_CACHE_DIR=str(cache), TA_DEVICE=device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # jieba's, at its import
        import textattack
    textattack.shared.utils.logger.setLevel(logging.ERROR)  # "unknown if model is compatible"
    logging.getLogger("jieba").setLevel(logging.ERROR)  # "Building prefix dict", at a Chinese text
    # TextAttack joins columns with this token and searches the text for words. Its own <SPLIT>
    # contains letters, which damages a second column that starts with "I" or "S"; U+FFFF is in no
    # text and no word.
    textattack.shared.AttackedText.SPLIT_TOKEN = "\uffff"
