"""Pages made from invented records, and what they hold."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from conftest import call
from record_tools import attack, controlled, write

from evaluation.outcomes import LETTERS
from evaluation.protocol import fingerprint
from utils.files import write_json


def page_of(tmp_path: Path, lines: list[dict], *flags: str) -> str:
    """The page that report.py --html writes from records, and from what is in tmp_path/runs."""
    if lines:
        write(tmp_path / "runs", lines)
    call(
        "report", "--records", tmp_path / "runs", "--output_dir", tmp_path / "out", "--html", *flags
    )
    return (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def outcomes(right: int, fooled: int, wrong: int) -> str:
    return "r" * right + "f" * fooled + "w" * wrong


def two_models(seeds=(1, 2, 3), ticket=60, dense=40, **changes) -> list[dict]:
    """A ticket and its dense control with the same epochs, on 100 rows."""
    lines = []
    for seed in seeds:
        of_ticket = outcomes(ticket + seed, 80 - ticket, 20 - seed)
        lines.append(controlled(seed, row_outcomes=of_ticket, **changes))
        of_dense = outcomes(dense - seed, 40 + seed, 100 - 40 - dense)
        lines.append(attack(seed=seed, row_outcomes=of_dense, **changes))
    return lines


def attacked(folder: Path, record: dict, texts: list[tuple[str, str]], **changes) -> dict:
    """Write the folder of an attack below a run, and the record that belongs to it.

    `texts`: original and adversarial text of each row; row_outcomes of the record says the rest.
    """
    ids = [f"test:{i}" for i in range(len(texts))]
    settings = {"task": record["task"], "recipe": record["recipe"], "checkpoint": "last"}
    settings |= {"rows": record["rows"], "model": [record["seed"], record["ticket"]]}
    names = {letter: name for name, letter in LETTERS.items()}
    rows = [
        {
            "row_id": row_id,
            "outcome": names[letter],
            "label": i % 2,
            "predicted_before": 1 - i % 2 if letter == "w" else i % 2,
            "predicted_after": i % 2 if letter == "r" else 1 - i % 2,
            "queries": 10 + i,
            "original": {"text": original},
            "perturbed": {"text": adversarial},
        }
        for i, (row_id, letter, (original, adversarial)) in enumerate(
            zip(ids, record["row_outcomes"], texts, strict=True)
        )
    ]
    labels = "".join(str(row["label"]) for row in rows)
    record |= {"attack_id": fingerprint([settings, ids]), "row_labels": labels}
    record |= {"label_names": ["negative", "positive"], "kind": "attack"} | changes
    place = folder / "attacks" / "name"
    write(place, rows, "rows.jsonl")
    write_json(place / "attack.json", {"settings": settings, "row_ids": ids})
    write_json(place / "summary.json", record)
    write(folder, [record])
    return record


class _Texts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.texts: list[str] = []
        self.skipped = 0

    def handle_starttag(self, tag, attributes):
        self.skipped += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.skipped -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.skipped:
            self.texts.append(data)


def shown_text(html: str) -> str:
    """The text of a page, with single spaces."""
    parser = _Texts()
    parser.feed(html)
    return " ".join(" ".join(parser.texts).split())


def data_of(html: str, name: str) -> object:
    """The data that a page embeds under this id."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.S)
    return json.loads(found[1])
