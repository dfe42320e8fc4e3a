"""External resources of the recipes: found, checked and fingerprinted before the first row.

Nothing is downloaded without the user's knowledge: the error for a missing resource states the
command that fetches it. No pickle is loaded. This module imports TextAttack only in
`import_textattack`.
"""

import hashlib
import json
import logging
import warnings
from pathlib import Path

import huggingface_hub  # noqa: F401  reads its cache folder before TextAttack changes it
import nltk

from evaluation import availability, use3
from evaluation.minilm import neighbour_table
from evaluation.presets import needs_of
from evaluation.readers import read_neighbours
from evaluation.resource_table import IN_NLTK
from training.loading import MINILM_SHA256
from utils.cache import writable_cache
from utils.files import sha256_of, write_atomically
from utils.process_state import environment


def locate(recipe: str, given: dict[str, str | None], device: str) -> dict[str, Path]:
    """Paths of the recipe's resources: the given path, or the place where it was found.

    `given`: a path or None for each of word_vectors, sentence_encoder, masked_lm and neighbours.
    That of NLTK's packages is a name for `nltk.data.find`, that of a package's encoder its name.
    MiniLM's neighbor table is computed at its first use. Raises UserError for missing resources.
    """
    availability.check([recipe], given)
    paths = {}
    for name in needs_of(recipe, given):
        if name == "minilm_table":
            paths["neighbours"] = neighbour_table(device)[1]
        elif name in ("minilm", "use3"):
            paths[name] = Path(name)
        else:
            paths[name] = availability.find(name, given.get(name))
            if name == "neighbours":
                read_neighbours(paths[name])  # reports a damaged table before TextAttack's import
    return paths


def describe(recipe: str, paths: dict[str, Path]) -> dict:
    """Record entries: the name of each resource and the first 16 hex digits of its SHA-256."""
    facts: dict[str, dict] = {}
    for name, path in paths.items():
        if name in IN_NLTK:
            with nltk.data.find(str(path)).open() as f:
                facts[name] = {"name": str(path), "sha256": _sha256(f.read())}
        elif name == "minilm":
            facts[name] = {"name": "builtin/minilm", "sha256": MINILM_SHA256[:16]}
        elif name == "use3":
            facts[name] = use3.describe()
        else:
            facts[name] = {"name": path.name, "sha256": digest_of(path)}
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
    folder = writable_cache() / "nltk_data"
    substitute = folder / "corpora" / "stopwords" / "english"
    if availability.in_nltk("corpora/stopwords/english"):
        path = nltk.data.find("corpora/stopwords/english")
        return "scikit-learn" if str(path) == str(substitute) else "nltk"
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    text = "\n".join(sorted(ENGLISH_STOP_WORDS)) + "\n"
    write_atomically(substitute, lambda p: p.write_text(text, encoding="utf-8"))
    # Not in the folder of NLTK's own packages: NLTK finds a folder before it looks into a zip.
    nltk.data.path.append(str(folder))
    return "scikit-learn"


def import_textattack(device: str) -> None:
    """Import TextAttack, which takes ten seconds, so that it downloads nothing.

    TextAttack reads its cache folder and device from the environment and redirects the cache of the
    hub; both changes are undone. Its own settings keep the values that our recipes need.
    """
    provide_stop_words()
    cache = writable_cache() / "textattack"
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
