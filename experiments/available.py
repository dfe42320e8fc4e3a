"""Which attacks a plan runs, and which of them can run on this machine."""

import importlib.util
import os
from argparse import Namespace

from experiments.scales import usual_recipes


def recipes_of(args: Namespace) -> list[str]:
    """Those of --recipes, else the target's; at mini scale only those that can run here."""
    if args.recipes:
        return args.recipes
    usual = usual_recipes(args.target, args.scale)
    return [recipe for recipe in usual if args.scale != "mini" or can_run(recipe)]


def can_run(recipe: str) -> bool:
    """Whether the files that one of the mini scale's recipes needs are here."""
    if recipe == "textfooler-neighbours":
        tagger = "taggers/averaged_perceptron_tagger_eng"
        return bool(os.environ.get("NEIGHBOURS")) and _nltk_has(tagger)
    return recipe != "pwws" or _nltk_has("corpora/wordnet")


def _nltk_has(package: str) -> bool:
    if importlib.util.find_spec("nltk") is None:
        return False
    import nltk

    for name in (package, f"{package}.zip"):
        try:
            nltk.data.find(name)
            return True
        except LookupError:
            pass
    return False
