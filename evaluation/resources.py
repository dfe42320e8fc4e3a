"""What attacks need from outside: found, checked and fingerprinted before any row is attacked.

Nothing here loads a pickle, and nothing is downloaded behind the user's back: a resource that is
missing ends in one line with the command that fetches it. No TextAttack at import.
"""

import hashlib
import json
import logging
import os
from pathlib import Path

from evaluation import RECIPES
from evaluation.minilm import neighbour_table
from evaluation.readers import read_neighbours
from training.batching import cache_folder
from training.models import MINILM_SHA256
from utils.cli import UserError
from utils.files import sha256_of, write_atomically

# Files by which NLTK's packages are found, whether they are folders or zips. The tagger is the JSON
# one; the older averaged_perceptron_tagger is a pickle.
_NLTK = {
    "tagger": (
        "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json",
        "taggers/universal_tagset/en-ptb.map",
    ),
    "wordnet": ("corpora/wordnet/data.noun",),
}


def _fetch(name: str) -> tuple[str, Path | str, str]:
    """(what it is, where it is looked for by default, the command that puts it there)."""
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
    """Paths of the recipe's resources, the given ones first. UserError for one that is missing.

    `given`: word_vectors, sentence_encoder, masked_lm, neighbours; None where no flag was given.
    MiniLM's own neighbour table is computed where it has not been yet.
    """
    needs = RECIPES[recipe]
    if "neighbours" in needs and given.get("neighbours") is None:
        raise UserError(f"{recipe} needs --neighbours FILE, a JSON table: word -> list of words")
    for name in needs:
        if name in _NLTK:
            _require_nltk(name)
    paths = {}
    for name in needs:
        if name == "neighbours":
            paths[name] = _existing(Path(given[name]), "the neighbour table")
            read_neighbours(paths[name])  # small: better refused now than after the long import
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
        raise UserError(f"{what} is not at {default}; fetch it with: {command} (or pass --{name})")
    return Path(default)


def _existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise UserError(f"{what}: there is no {path}")
    return path


def _in_hub_cache(name: str, command: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError as e:
        raise UserError(
            f"the masked language model {name} is not in the hub's cache; fetch it with: {command} "
            "(or pass --masked_lm FOLDER)"
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
            "point NLTK_DATA to a folder that holds it)"
        ) from e


def describe(recipe: str, paths: dict[str, Path]) -> dict:
    """For the record: each resource's name and the first 16 hex digits of its SHA-256."""
    facts = {name: {"name": path.name, "sha256": _digest(path)} for name, path in paths.items()}
    for name in RECIPES[recipe]:
        if name in _NLTK:
            facts[name] = {"name": _NLTK[name][0], "sha256": _nltk_digest(_NLTK[name][0])}
        elif name == "minilm":
            facts[name] = {"name": "builtin/minilm", "sha256": MINILM_SHA256[:16]}
    if recipe.startswith("textfooler"):
        return facts | {"stop_words": {"name": "textfooler"}}
    source = provide_stop_words()
    return facts | {"stop_words": {"name": source, "sha256": _stop_words_digest()}}


def _digest(path: Path) -> str:
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
    """Let NLTK find stop words, which TextAttack reads at import; says whose they are.

    Where NLTK has none, scikit-learn's list is put into our cache folder in NLTK's layout.
    """
    import nltk

    folder = cache_folder() / "nltk_data"
    own = folder / "corpora" / "stopwords" / "english"
    try:
        found = nltk.data.find("corpora/stopwords/english")
        return "scikit-learn" if str(found) == str(own) else "nltk"
    except LookupError:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        text = "\n".join(sorted(ENGLISH_STOP_WORDS)) + "\n"
        write_atomically(own, lambda p: p.write_text(text, encoding="utf-8"))
        nltk.data.path.append(str(folder))
        return "scikit-learn"


def import_textattack(device: str) -> None:
    """Import TextAttack (ten seconds) with everything in place, so that it downloads nothing.

    TextAttack takes its cache folder and device from the environment; it also redirects the hub's
    cache, which is undone.
    """
    import nltk
    import transformers  # noqa: F401  reads the hub's cache folder before TextAttack moves it

    provide_stop_words()
    nltk.download = _refuse_download
    cache = cache_folder() / "textattack"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "post_install_check_3").touch()  # else its import starts six downloads
    before = dict(os.environ)
    os.environ.update(TA_CACHE_DIR=str(cache), TA_DEVICE=device)
    try:
        import textattack
    finally:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)
    textattack.shared.utils.logger.setLevel(logging.ERROR)  # "unknown if model is compatible"
    # Columns are joined by this while words are sought by name: with TextAttack's own <SPLIT>, a
    # second column that starts with "I" or "S" is taken apart. U+FFFF is in no text and no word.
    textattack.shared.AttackedText.SPLIT_TOKEN = "\uffff"


def _refuse_download(*_, **__) -> bool:
    """In place of nltk.download, which WordNet's swap calls: what is needed was checked before."""
    return False
