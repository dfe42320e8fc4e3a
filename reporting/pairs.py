"""A sheet of original and adversarial texts for a person to read, as CSV and as HTML.

The HTML marks the changed words. Anybody may have written the texts, so all of them are escaped.
"""

import difflib
import html
import re
from collections.abc import Sequence

import numpy as np

from evaluation.finished_attacks import AttackedRow
from evaluation.quality import Quality, RowMeasures
from reporting import render
from training.tasks import Task
from utils.runs import seed_for

COLUMNS = ["model", "recipe", "row_id", "label", "predicted_before", "predicted_after"]
COLUMNS += ["judge_before", "judge_after", "context", "original", "adversarial"]
COLUMNS += ["words_changed", "words_total", "similarity", "perplexity_ratio"]
FOR_A_PERSON = ["same_label", "reads_well"]  # columns to be filled in

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 1.5em; max-width: 75em; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 1px solid #999; padding: .4em .6em; text-align: left; vertical-align: top; }
th, .facts { font-size: 80%; }
td p { margin: 0 0 .5em; overflow-wrap: anywhere; white-space: pre-wrap; }
.context { color: #555; }
del { background: #fde0dc; text-decoration: line-through; }
ins { background: #d9f2d9; text-decoration: underline; font-weight: bold; }
.box { width: 5em; }
@media print { body { margin: 0; font-size: 10pt; } tr { break-inside: avoid; }
  thead { display: table-header-group; } }
"""


def pair_of(
    result: Quality, row: AttackedRow, measures: RowMeasures, task: Task
) -> dict[str, object]:
    """A row of the sheet: the values of COLUMNS. Labels are names; context: the columns that were
    not attacked."""
    names, column = task.label_names, task.attack_column
    others = [f"{name}: {text}" for name, text in row.original.items() if name != column]
    return {
        "model": result.model,
        "recipe": result.recipe,
        "row_id": row.row_id,
        "label": names[row.label],
        "predicted_before": names[row.predicted_before],
        "predicted_after": names[row.predicted_after],
        "judge_before": names[measures.judge_before],
        "judge_after": names[measures.judge_after],
        "context": " ".join(others),
        "original": row.original[column],
        "adversarial": row.perturbed[column],
        "words_changed": row.words_changed,
        "words_total": row.words_total,
        "similarity": measures.similarity,
        "perplexity_ratio": measures.perplexity_ratio,
    }


def sample(rows: int, limit: int, seed: int, attack_id: str) -> list[int]:
    """At most `limit` positions of `rows`, in order; they depend on the seed and the attack."""
    draw = np.random.default_rng(seed_for(seed, "pairs to read", attack_id))
    return sorted(draw.permutation(rows)[:limit].tolist())


def csv_text(pairs: Sequence[dict]) -> str:
    empty = dict.fromkeys(FOR_A_PERSON)
    return render.csv_text([pair | empty for pair in pairs], COLUMNS + FOR_A_PERSON)


def marked(original: str, adversarial: str) -> tuple[str, str]:
    """Both texts as HTML: removed words of the first in <del>, new words of the second in <ins>.

    Adjacent changed words share one mark.
    """
    tokens = [list(render.TOKEN.finditer(text)) for text in (original, adversarial)]
    words = [[token.group() for token in of_text] for of_text in tokens]
    steps = difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes()
    changed = [step for step in steps if step[0] != "equal"]
    return (
        _with_marks(original, tokens[0], [(i, j) for _, i, j, _, _ in changed], "del"),
        _with_marks(adversarial, tokens[1], [(i, j) for _, _, _, i, j in changed], "ins"),
    )


def _with_marks(text: str, tokens: list[re.Match], spans: list[tuple[int, int]], tag: str) -> str:
    """`spans` of tokens, [first, end), in order; empty ones are skipped."""
    parts, done = [], 0
    for first, end in spans:
        if first == end:
            continue
        start, stop = tokens[first].start(), tokens[end - 1].end()
        parts += [html.escape(text[done:start]), f"<{tag}>{html.escape(text[start:stop])}</{tag}>"]
        done = stop
    return "".join([*parts, html.escape(text[done:])])


def html_text(title: str, remark: str, pairs: Sequence[dict]) -> str:
    """One page without scripts, images or links, with boxes for a person's answers."""
    heads = ["#", "row", "original and adversarial text", "changed", "same label?", "reads well?"]
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        # Even a text that was not escaped could neither load nor run anything.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(remark)}</p>\n<table>",
        "<thead><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr></thead>\n<tbody>",
        *(_html_row(i, pair) for i, pair in enumerate(pairs, 1)),
        "</tbody>\n</table>\n</body>\n</html>\n",
    ]
    return "\n".join(lines)


def _html_row(position: int, pair: dict) -> str:
    e = {name: html.escape(str(value)) for name, value in pair.items()}
    before, after = marked(pair["original"], pair["adversarial"])
    context = f'<p class="context">{e["context"]}</p>' if pair["context"] else ""
    return (
        f'<tr><td>{position}</td><td class="facts">{e["model"]}<br>{e["recipe"]}<br>{e["row_id"]}'
        f"<br>label: <b>{e['label']}</b><br>model: {e['predicted_before']} &rarr; "
        f"{e['predicted_after']}<br>judge: {e['judge_before']} &rarr; {e['judge_after']}</td>"
        f"<td>{context}<p>{before}</p><p>{after}</p></td>"
        f'<td class="facts">{e["words_changed"]} of {e["words_total"]} words<br>similarity '
        f"{pair['similarity']:.2f}<br>perplexity &times; {pair['perplexity_ratio']:.2f}</td>"
        '<td class="box"></td><td class="box"></td></tr>'
    )
