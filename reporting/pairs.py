"""A sheet of original and adversarial texts for a person to read: CSV, and HTML with the changed
words marked. The texts are anybody's: all of them are escaped."""

import csv
import difflib
import html
import io
import re

import numpy as np

from reporting.csv_cells import number, text_cell
from utils.runs import seed_for

TEXTS = (
    "model",
    "recipe",
    "row_id",
    "label",
    "predicted_before",
    "predicted_after",
    "judge_before",
    "judge_after",
    "context",
    "original",
    "adversarial",
)
NUMBERS = ("words_changed", "words_total", "similarity", "perplexity_ratio")
FOR_A_PERSON = ("same_label", "reads_well")  # left empty

_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")

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


def sample(rows: int, limit: int, seed: int, attack_id: str) -> list[int]:
    """At most `limit` positions of `rows`, in order, drawn by the seed and the attack alone."""
    draw = np.random.default_rng(seed_for(seed, "pairs to read", attack_id))
    return sorted(draw.permutation(rows)[:limit].tolist())


def csv_text(pairs: list[dict]) -> str:
    """`pairs`: with the keys TEXTS and NUMBERS."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*TEXTS, *NUMBERS, *FOR_A_PERSON])
    for pair in pairs:
        cells = [text_cell(pair[name]) for name in TEXTS]
        writer.writerow([*cells, *(number(pair[name]) for name in NUMBERS), "", ""])
    return text.getvalue()


def marked(original: str, adversarial: str) -> tuple[str, str]:
    """Both texts as HTML: words of the first that are gone in <del>, new ones of the other in
    <ins>. Neighbouring words are marked as one."""
    tokens = [list(_TOKEN.finditer(text)) for text in (original, adversarial)]
    words = [[token.group() for token in of_text] for of_text in tokens]
    steps = difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes()
    changed = [step for step in steps if step[0] != "equal"]
    return (
        _with_marks(original, tokens[0], [(i, j) for _, i, j, _, _ in changed], "del"),
        _with_marks(adversarial, tokens[1], [(i, j) for _, _, _, i, j in changed], "ins"),
    )


def _with_marks(text: str, tokens: list[re.Match], stretches: list, tag: str) -> str:
    """`stretches`: of tokens, (first, behind the last), in order; empty ones are passed over."""
    parts, done = [], 0
    for first, behind in stretches:
        if first == behind:
            continue
        start, end = tokens[first].start(), tokens[behind - 1].end()
        parts += [html.escape(text[done:start]), f"<{tag}>{html.escape(text[start:end])}</{tag}>"]
        done = end
    return "".join([*parts, html.escape(text[done:])])


def html_text(title: str, remark: str, pairs: list[dict]) -> str:
    """One page without scripts, images or links; boxes at the right for a person's answers."""
    heads = [
        "#",
        "row",
        "original, and what the attack made of it",
        "changed",
        "same label?",
        "reads well?",
    ]
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        # Should a text escape all the same, it may still load and run nothing.
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
    e = {name: html.escape(str(pair[name])) for name in TEXTS}
    before, after = marked(pair["original"], pair["adversarial"])
    context = f'<p class="context">{e["context"]}</p>' if pair["context"] else ""
    return (
        f'<tr><td>{position}</td><td class="facts">{e["model"]}<br>{e["recipe"]}<br>{e["row_id"]}'
        f"<br>label: <b>{e['label']}</b><br>model: {e['predicted_before']} &rarr; "
        f"{e['predicted_after']}<br>judge: {e['judge_before']} &rarr; {e['judge_after']}</td>"
        f"<td>{context}<p>{before}</p><p>{after}</p></td>"
        f'<td class="facts">{pair["words_changed"]} of {pair["words_total"]} words<br>similarity '
        f"{pair['similarity']:.2f}<br>perplexity &times; {pair['perplexity_ratio']:.2f}</td>"
        '<td class="box"></td><td class="box"></td></tr>'
    )
