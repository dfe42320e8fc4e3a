"""The attacks by name: TextAttack's recipes with each outside resource given, and offline kin.

TextAttack's own build() makes the recipes that can be made so; what a name of ours changes stands
here, each constant with what its paper says and what the code behind it does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textattack import Attack, attack_recipes
from textattack.constraints.grammaticality import PartOfSpeech
from textattack.constraints.overlap import MaxWordsPerturbed
from textattack.constraints.pre_transformation import (
    InputColumnModification,
    RepeatModification,
    StopwordModification,
)
from textattack.constraints.semantics import WordEmbeddingDistance
from textattack.constraints.semantics.sentence_encoders import UniversalSentenceEncoder
from textattack.search_methods import GreedyWordSwapWIR
from textattack.shared import WordEmbedding
from textattack.shared.utils import GLOBAL_OBJECTS
from textattack.transformations import WordSwapEmbedding

from evaluation import readers
from evaluation.goals import LogOdds, Softmax, WeightedSaliency, watch_ranking
from evaluation.minilm import SIMILARITY_THRESHOLDS, MiniLM
from evaluation.textattack_parts import MaskedLMSwap, MiniLMSimilarity, NeighbourTable
from evaluation.victim import Victim
from training.tasks import Task


@dataclass(frozen=True)
class Loaded:
    """A recipe's resources in memory; None for those it does not need."""

    embedding: WordEmbedding | None = None
    sentence_encoder: Callable | None = None
    masked_lm: tuple | None = None
    minilm: MiniLM | None = None


def load(recipe: str, paths: dict[str, Path], device: str) -> Loaded:
    """Read what `resources.locate` found. UserError for a file that is not what it should be."""
    embedding = None
    if "word_vectors" in paths:
        words, vectors = readers.read_word_vectors(paths["word_vectors"])
        # 50: the most that any recipe asks for.
        nearest = readers.kept_nearest_words(paths["word_vectors"], vectors, 50, device)
        index = {word: i for i, word in enumerate(words)}
        embedding = WordEmbedding(vectors, index, words, nearest)
    elif "neighbours" in paths:
        embedding = NeighbourTable(readers.read_neighbours(paths["neighbours"]))
    path, lm_path = paths.get("sentence_encoder"), paths.get("masked_lm")
    return Loaded(
        embedding=embedding,
        sentence_encoder=readers.load_sentence_encoder(path) if path else None,
        masked_lm=readers.load_masked_lm(lm_path) if lm_path else None,
        minilm=MiniLM(device) if recipe in SIMILARITY_THRESHOLDS else None,
    )


def build(
    recipe: str,
    victim: Victim,
    task: Task,
    loaded: Loaded,
    score_with: str = "log_odds",
    similarity_threshold: float | None = None,
    query_budget: int | None = None,
) -> Attack:
    """The recipe as a TextAttack Attack on `victim`.

    `score_with`: log_odds or softmax (see goals). `similarity_threshold` replaces the recipe's
    own, for recipes with MiniLM's similarity. `query_budget`: victim queries per row; None: any.
    """
    if similarity_threshold is None:
        similarity_threshold = SIMILARITY_THRESHOLDS.get(recipe)
    made = _BUILDERS[recipe](victim, loaded, similarity_threshold)
    constraints = [
        c
        for c in made.pre_transformation_constraints + made.constraints
        # TextFooler's own rule knows MNLI's columns only.
        if not isinstance(c, InputColumnModification)
    ]
    if len(task.text_columns) > 1:
        # D12. The columns must be given in the order of the input, or the rule never fires.
        others = set(task.text_columns) - {task.attack_column}
        constraints.insert(0, InputColumnModification(list(task.text_columns), others))
    for constraint in constraints:
        if isinstance(constraint, UniversalSentenceEncoder):
            constraint.model = loaded.sentence_encoder
    search = made.search_method
    if recipe == "pwws" and score_with == "log_odds":
        search = WeightedSaliency()
    # Batches are cut by the victim, which sorts all candidates by length first.
    goal = {"log_odds": LogOdds, "softmax": Softmax}[score_with](
        victim, model_batch_size=2**20, query_budget=query_budget or float("inf")
    )
    watch_ranking(search)
    return Attack(goal, constraints, made.transformation, search)


def describe(attack: Attack) -> list[str]:
    """The parts of an attack in TextAttack's own words, each on one line."""
    parts = [
        attack.search_method,
        attack.transformation,
        *attack.pre_transformation_constraints,
        *attack.constraints,
    ]
    return [" ".join(repr(part).split()) for part in parts]


def _stock(recipe: type, victim: Victim, loaded: Loaded) -> Attack:
    """TextAttack's recipe. Its word vectors, pickles that it would download, are replaced by ours
    through the table where it looks for vectors that are loaded already."""
    GLOBAL_OBJECTS["textattack_counterfitted_GLOVE_embedding"] = loaded.embedding
    return recipe.build(victim)


def _textfooler(victim: Victim, loaded: Loaded, _) -> Attack:
    """Jin et al., AAAI 2020. 50 counter-fitted neighbours; word cosine >= 0.7 in the paper, 0.5 in
    its code and here; USE angular similarity >= 0.84 (0.5 before the angle is divided by pi) on
    windows of 15 words, texts shorter than that exempt, against the text of the step before."""
    return _stock(attack_recipes.TextFoolerJin2019, victim, loaded)


def _textbugger(victim: Victim, loaded: Loaded, _) -> Attack:
    """Li et al., NDSS 2019. Five bugs; the paper takes 5 GloVe neighbours and USE cosine >= 0.8,
    TextAttack counter-fitted ones and 0.8 as angular similarity."""
    return _stock(attack_recipes.TextBuggerLi2018, victim, loaded)


def _pwws(victim: Victim, loaded: Loaded, _) -> Attack:
    """Ren et al., ACL 2019. WordNet synonyms; without the paper's swap of named entities, which
    needs the whole data set."""
    return _stock(attack_recipes.PWWSRen2019, victim, loaded)


def _deepwordbug(victim: Victim, loaded: Loaded, _) -> Attack:
    """Gao et al., SPW 2018. Four character bugs, edit distance at most 30 (paper and code)."""
    return _stock(attack_recipes.DeepWordBugGao2018, victim, loaded)


def _bertattack(victim: Victim, loaded: Loaded, _) -> Attack:
    """Li et al., EMNLP 2020, with the constants of TextAttack's recipe."""
    model, tokenizer = loaded.masked_lm
    # K = 48 candidates "for all data sets" (the authors, to TextAttack).
    swap = MaskedLMSwap("bert-attack", model, tokenizer, max_candidates=48)
    constraints = [
        RepeatModification(),
        StopwordModification(),
        # "0.4 for most data sets" (the authors); the paper calls it epsilon.
        MaxWordsPerturbed(max_percent=0.4),
        # The paper filters finished texts by a threshold per data set, 0.2 to 0.7; TextAttack
        # filters candidates by 0.2, of the whole text.
        UniversalSentenceEncoder(threshold=0.2, metric="cosine", compare_against_original=True),
    ]
    # The paper masks each word to rank it; TextAttack writes [UNK] in its place.
    return _attack(victim, constraints, swap, GreedyWordSwapWIR("unk"))


def _bae(victim: Victim, loaded: Loaded, _) -> Attack:
    """BAE-R of Garg and Ramakrishnan, EMNLP 2020, with the constants of TextAttack's recipe."""
    model, tokenizer = loaded.masked_lm
    # K = 50 (paper), whole words of the language model, however unlikely.
    swap = MaskedLMSwap("bae", model, tokenizer, max_candidates=50, min_confidence=0.0)
    similarity = UniversalSentenceEncoder(
        # The paper says 0.8; its code compares an angle that is not divided by pi, hence
        # 1 - 0.2 / pi. TextAttack applies that number to the cosine.
        threshold=0.936338023,
        metric="cosine",
        compare_against_original=True,
        window_size=15,
        skip_text_shorter_than_window=True,  # the code: threshold 0.1 for short texts
    )
    return _bae_frame(victim, swap, similarity)


def _bertattack_released(victim: Victim, loaded: Loaded, _) -> Attack:
    """What the released code of Robust Lottery Tickets attacks with under BERT-Attack's name (D5):
    BAE's frame, embedding neighbours for its masked LM, and a weak sentence constraint."""
    swap = WordSwapEmbedding(max_candidates=50, embedding=loaded.embedding)
    similarity = UniversalSentenceEncoder(
        threshold=0.2,
        metric="cosine",
        compare_against_original=True,
        window_size=15,
        skip_text_shorter_than_window=False,
    )
    return _bae_frame(victim, swap, similarity)


def _bae_frame(victim: Victim, swap, similarity: UniversalSentenceEncoder) -> Attack:
    constraints = [
        RepeatModification(),
        StopwordModification(),
        PartOfSpeech(allow_verb_noun_swap=True),  # as TextFooler, from which BAE's code is made
        similarity,
    ]
    return _attack(victim, constraints, swap, GreedyWordSwapWIR("delete"))


def _textfooler_table(victim: Victim, loaded: Loaded, threshold: float) -> Attack:
    """TextFooler on a table of neighbours and with MiniLM's similarity: its search, stop words,
    window of 15 words and comparison with the text of the step before stay.

    Dropped: the floor of word similarity, which the tables have in them. NLTK's tagger stays
    where the recipe asks for it; MiniLM's table was checked for parts of speech when made.
    """
    stock = _stock(attack_recipes.TextFoolerJin2019, victim, loaded)
    dropped = (WordEmbeddingDistance, UniversalSentenceEncoder)
    kept = [c for c in stock.constraints if not isinstance(c, dropped)]
    return _with_minilm(victim, loaded, threshold, stock, kept)


def _textfooler_minilm(victim: Victim, loaded: Loaded, threshold: float) -> Attack:
    attack = _textfooler_table(victim, loaded, threshold)
    attack.constraints = [c for c in attack.constraints if not isinstance(c, PartOfSpeech)]
    return attack


def _textbugger_minilm(victim: Victim, loaded: Loaded, threshold: float) -> Attack:
    """TextBugger's five bugs, the fifth with 5 neighbours of MiniLM's table, and MiniLM's
    similarity on TextFooler's window."""
    stock = _stock(attack_recipes.TextBuggerLi2018, victim, loaded)
    return _with_minilm(victim, loaded, threshold, stock, [])


def _with_minilm(victim: Victim, loaded: Loaded, threshold: float, stock: Attack, kept: list):
    similarity = MiniLMSimilarity(
        threshold,
        loaded.minilm,
        window_size=15,  # TextFooler's code; the paper encodes sentences
        compare_against_original=False,  # TextFooler's code
        # TextFooler's code exempts texts shorter than the window; here they are checked too,
        # since a third of SST-2's sentences are that short.
        skip_text_shorter_than_window=False,
    )
    constraints = [*stock.pre_transformation_constraints, *kept, similarity]
    return _attack(victim, constraints, stock.transformation, stock.search_method)


def _attack(victim: Victim, constraints: list, transformation, search) -> Attack:
    return Attack(Softmax(victim), constraints, transformation, search)


_BUILDERS = {
    "textfooler": _textfooler,
    "textbugger": _textbugger,
    "bertattack": _bertattack,
    "bertattack-released": _bertattack_released,
    "bae": _bae,
    "pwws": _pwws,
    "deepwordbug": _deepwordbug,
    "textfooler-minilm": _textfooler_minilm,
    "textbugger-minilm": _textbugger_minilm,
    "textfooler-neighbours": _textfooler_table,
}
