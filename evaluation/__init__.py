"""TextAttack's attacks on our checkpoints: victim, recipes, resources, and what is recorded.

`protocol`, `checkpoints`, `resources`, `readers` and `minilm` do without TextAttack; the other
modules import it, which may be done only after `resources.import_textattack`.
"""

# Recipe -> what it needs. All but TextFooler's kin also use NLTK's stop words, for which
# `provide_stop_words` has a substitute.
RECIPES: dict[str, tuple[str, ...]] = {
    "textfooler": ("word_vectors", "sentence_encoder", "tagger"),
    "textbugger": ("word_vectors", "sentence_encoder"),
    "bertattack": ("masked_lm", "sentence_encoder"),
    "bertattack-released": ("word_vectors", "sentence_encoder", "tagger"),
    "bae": ("masked_lm", "sentence_encoder", "tagger"),
    "pwws": ("wordnet",),
    "deepwordbug": (),
    "textfooler-minilm": ("minilm_table", "minilm"),
    "textbugger-minilm": ("minilm_table", "minilm"),
    "textfooler-neighbours": ("neighbours", "tagger", "minilm"),
}

# For from_pretrained: a folder is read, nothing is fetched, and no code that lies in it is run.
LOCAL = {"local_files_only": True, "trust_remote_code": False}
