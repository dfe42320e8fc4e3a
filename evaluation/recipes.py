"""The recipes: TextAttack's with their resources passed in, and variants that need no download.

TextAttack's build() makes a recipe where it can. Where a recipe differs, each constant states what
the paper says and what its code does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nltk
from textattack import Attack, attack_recipes
from textattack.constraints.grammaticality import PartOfSpeech
from textattack.constraints.overlap import MaxWordsPerturbed
from textattack.constraints.pre_transformation import (
    InputColumnModification,
    RepeatModification,
    StopwordModification,
)
from textattack.constraints.semantics import WordEmbeddingDistance
from textattack.constraints.semantics.sentence_encoders import (
    SentenceEncoder,
    UniversalSentenceEncoder,
)
from textattack.search_methods import GreedyWordSwapWIR
from textattack.shared import WordEmbedding
from textattack.shared.utils import GLOBAL_OBJECTS
from textattack.transformations import WordSwapEmbedding

from evaluation import readers
from evaluation.margin_search import Margin, MarginSearch
from evaluation.minilm import SIMILARITY_THRESHOLDS, MiniLM
from evaluation.textattack_parts import (
    LogOdds,
    MaskedLMSwap,
    MiniLMSimilarity,
    NeighbourTable,
    Softmax,
    Use3Similarity,
    WeightedSaliency,
    watch_ranking,
)
from evaluation.use3 import THRESHOLD, Use3
from evaluation.victim import Victim
from training.tasks import Task


@dataclass(frozen=True)
class Loaded:
    """The resources of a recipe in memory; None for those that it does not need."""

    embedding: WordEmbedding | None = None
    sentence_encoder: Callable | None = None
    masked_lm: tuple | None = None
    minilm: MiniLM | None = None
    use3: Use3 | None = None
    has_tagger: bool = False


def load(paths: dict[str, Path], device: str) -> Loaded:
    """Read the files that `resources.locate` returned. Raises UserError for a damaged file."""
    embedding = None
    if "word_vectors" in paths:
        words, vectors = readers.read_word_vectors(paths["word_vectors"])
        # 50 is the largest number of neighbors that a recipe uses.
        nearest = readers.cached_nearest_words(paths["word_vectors"], vectors, 50, device)
        index = {word: i for i, word in enumerate(words)}
        embedding = WordEmbedding(vectors, index, words, nearest)
    elif "neighbours" in paths:
        embedding = NeighbourTable(readers.read_neighbours(paths["neighbours"]))
    path, lm_path = paths.get("sentence_encoder"), paths.get("masked_lm")
    return Loaded(
        embedding=embedding,
        sentence_encoder=readers.load_sentence_encoder(path) if path else None,
        masked_lm=readers.load_masked_lm(lm_path) if lm_path else None,
        minilm=MiniLM(device) if "minilm" in paths else None,
        use3=Use3() if "use3" in paths else None,
        has_tagger="tagger" in paths,
    )


def build(
    recipe: str,
    victim: Victim,
    task: Task,
    loaded: Loaded,
    score_with: str = "log_odds",
    similarity_threshold: float | None = None,
    query_budget: int | None = None,
    search: str = "stock",
) -> Attack:
    """The recipe as a TextAttack Attack on `victim`.

    `score_with`: log_odds or softmax (`textattack_parts`). `similarity_threshold`: replaces that of
    a recipe with MiniLM's similarity. `query_budget`: maximum number of victim queries per row;
    None means unlimited. `search`: of `presets.SEARCHES`; all but stock rank by log-odds and do not
    stop at success.
    """
    if similarity_threshold is None:
        similarity_threshold = SIMILARITY_THRESHOLDS.get(recipe)
    recipe_attack = _BUILDERS[recipe](victim, loaded, similarity_threshold)
    constraints = [
        c
        for c in recipe_attack.pre_transformation_constraints + recipe_attack.constraints
        # TextFooler's own rule covers only the columns of MNLI.
        if not isinstance(c, InputColumnModification)
    ]
    if len(task.text_columns) > 1:
        # D12. The rule never applies unless it gets the columns in the order of the input.
        others = set(task.text_columns) - {task.attack_column}
        constraints.insert(0, InputColumnModification(list(task.text_columns), others))
    for constraint in constraints:
        if isinstance(constraint, UniversalSentenceEncoder):
            constraint.model = loaded.sentence_encoder
    if search == "unconstrained":
        constraints = [c for c in constraints if not isinstance(c, SentenceEncoder)]
    method, goal = recipe_attack.search_method, LogOdds if score_with == "log_odds" else Softmax
    if search != "stock":
        order = "random" if search == "restart" else method.wir_method
        method, goal = MarginSearch(order, width=4 if search == "beam" else 1), Margin
    elif recipe == "pwws" and score_with == "log_odds":
        method = WeightedSaliency()
    watch_ranking(method)
    # The victim cuts the batches itself, after it has sorted all candidates by length.
    queries = {"model_batch_size": 2**20, "query_budget": query_budget or float("inf")}
    return Attack(goal(victim, **queries), constraints, recipe_attack.transformation, method)


def describe(attack: Attack) -> list[str]:
    """TextAttack's description of each part of an attack, one line per part."""
    constraints = [*attack.pre_transformation_constraints, *attack.constraints]
    parts = [attack.search_method, attack.transformation, *constraints]
    return [" ".join(repr(part).split()) for part in parts]


def _stock(recipe: type, victim: Victim, loaded: Loaded, _=None) -> Attack:
    """TextAttack's recipe with our word vectors in its table; otherwise it downloads pickles."""
    GLOBAL_OBJECTS["textattack_counterfitted_GLOVE_embedding"] = loaded.embedding
    return recipe.build(victim)


def _pwws(victim: Victim, loaded: Loaded, _) -> Attack:
    """Ren et al., ACL 2019, without the swap of named entities, which needs the whole data set."""
    # WordNet's swap downloads data that `resources.locate` has found already.
    download, nltk.download = nltk.download, lambda *_, **__: False
    try:
        return _stock(attack_recipes.PWWSRen2019, victim, loaded)
    finally:
        nltk.download = download


def _bertattack(victim: Victim, loaded: Loaded, _) -> Attack:
    """Li et al., EMNLP 2020, with the constants of TextAttack's recipe."""
    # K = 48 candidates "for all data sets" (the authors to TextAttack).
    swap = MaskedLMSwap("bert-attack", *loaded.masked_lm, max_candidates=48)
    # "0.4 for most data sets" (the authors); epsilon in the paper.
    words = MaxWordsPerturbed(max_percent=0.4)
    # The paper filters finished texts by 0.2 to 0.7, depending on the data set; TextAttack filters
    # each candidate by 0.2, over the whole text.
    similarity = UniversalSentenceEncoder(0.2, metric="cosine", compare_against_original=True)
    # To rank a word, the paper masks it; TextAttack replaces it with [UNK].
    return _attack(victim, swap, GreedyWordSwapWIR("unk"), words, similarity)


def _bae(victim: Victim, loaded: Loaded, _) -> Attack:
    """BAE-R of Garg and Ramakrishnan, EMNLP 2020, with the constants of TextAttack's recipe."""
    # K = 50 (paper): whole words of the language model, without a minimum probability.
    swap = MaskedLMSwap("bae", *loaded.masked_lm, max_candidates=50, min_confidence=0.0)
    # 0.8 in the paper. Its code compares an angle without the division by pi: 1 - 0.2 / pi.
    # TextAttack applies that number to the cosine. The code: threshold 0.1 for short texts.
    return _bae_frame(victim, swap, threshold=0.936338023, skip_text_shorter_than_window=True)


def _bertattack_released(victim: Victim, loaded: Loaded, _) -> Attack:
    """The attack that the released code of Robust Lottery Tickets calls BERT-Attack (D5).

    BAE's search and constraints with neighbors of word vectors instead of a masked LM, and a weak
    sentence constraint.
    """
    swap = WordSwapEmbedding(max_candidates=50, embedding=loaded.embedding)
    return _bae_frame(victim, swap, threshold=0.2, skip_text_shorter_than_window=False)


def _bae_frame(victim: Victim, swap, **similarity) -> Attack:
    # As in TextFooler, whose code BAE's code extends.
    tagger = PartOfSpeech(allow_verb_noun_swap=True)
    window = UniversalSentenceEncoder(
        metric="cosine", compare_against_original=True, window_size=15, **similarity
    )
    return _attack(victim, swap, GreedyWordSwapWIR("delete"), tagger, window)


def _attack(victim: Victim, swap, search, *constraints) -> Attack:
    frame = [RepeatModification(), StopwordModification(), *constraints]
    return Attack(Softmax(victim), frame, swap, search)


def _with_minilm(
    recipe: type,
    constraint_types: tuple[type, ...],
    victim: Victim,
    loaded: Loaded,
    threshold: float,
) -> Attack:
    """TextAttack's recipe with a table of neighbors and MiniLM's similarity."""
    similarity = MiniLMSimilarity(
        threshold,
        loaded.minilm,
        window_size=15,  # TextFooler's code; the paper encodes whole sentences
        compare_against_original=False,  # TextFooler's code: with the text of the previous step
        # TextFooler's code exempts texts shorter than the window. Here they are checked too,
        # because a third of SST-2's sentences are that short.
        skip_text_shorter_than_window=False,
    )
    return _with_similarity(recipe, constraint_types, similarity, victim, loaded)


def _textfooler_use3(victim: Victim, loaded: Loaded, _) -> Attack:
    """TextFooler with the multilingual USE v3, and neighbors from given vectors or a table."""
    similarity = Use3Similarity(
        THRESHOLD,
        loaded.use3,
        window_size=15,  # code; the paper encodes whole sentences
        compare_against_original=False,  # code: with the previous step's text; paper: the original
        skip_text_shorter_than_window=True,  # code; the paper does not mention it
    )
    # Minimum word cosine: 0.7 in the paper, 0.5 in the code and here. A table has no cosines.
    has_vectors = not isinstance(loaded.embedding, NeighbourTable)
    constraint_types = (WordEmbeddingDistance,) * has_vectors + (PartOfSpeech,) * loaded.has_tagger
    return _with_similarity(
        attack_recipes.TextFoolerJin2019, constraint_types, similarity, victim, loaded
    )


def _with_similarity(
    recipe: type,
    constraint_types: tuple[type, ...],
    similarity: SentenceEncoder,
    victim: Victim,
    loaded: Loaded,
) -> Attack:
    """TextAttack's recipe with another sentence similarity.

    Its search, stop words and transformation stay, and so do its constraints of these types.
    """
    stock = _stock(recipe, victim, loaded)
    constraints = [c for c in stock.constraints if isinstance(c, constraint_types)]
    constraints = [*stock.pre_transformation_constraints, *constraints, similarity]
    return Attack(Softmax(victim), constraints, stock.transformation, stock.search_method)


_BUILDERS = {
    # Jin et al., AAAI 2020. 50 counter-fitted neighbors. Word cosine: >= 0.7 in the paper, >= 0.5
    # in its code and here. USE angular similarity >= 0.84 (0.5 before the angle is divided by pi),
    # on windows of 15 words, compared with the text of the previous step; shorter texts are exempt.
    "textfooler": partial(_stock, attack_recipes.TextFoolerJin2019),
    # Li et al., NDSS 2019. Five bugs. The paper uses 5 GloVe neighbors and USE cosine >= 0.8;
    # TextAttack uses counter-fitted neighbors and angular similarity >= 0.8.
    "textbugger": partial(_stock, attack_recipes.TextBuggerLi2018),
    "bertattack": _bertattack,
    "bertattack-released": _bertattack_released,
    "bae": _bae,
    "pwws": _pwws,
    # Gao et al., SPW 2018. Four character bugs; edit distance <= 30 in the paper and the code.
    "deepwordbug": partial(_stock, attack_recipes.DeepWordBugGao2018),
    # TextFooler. The minimum word similarity is dropped, because the tables contain similar words
    # only, and the tagger, because MiniLM's table contains equal parts of speech only.
    "textfooler-minilm": partial(_with_minilm, attack_recipes.TextFoolerJin2019, ()),
    # TextBugger's five bugs; the fifth uses 5 neighbors of MiniLM's table.
    "textbugger-minilm": partial(_with_minilm, attack_recipes.TextBuggerLi2018, ()),
    "textfooler-neighbours": partial(
        _with_minilm, attack_recipes.TextFoolerJin2019, (PartOfSpeech,)
    ),
    # TextFooler: 50 neighbors; nouns may replace verbs and verbs nouns.
    "textfooler-use3": _textfooler_use3,
}
