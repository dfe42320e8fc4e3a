"""Pages made from invented records, and what they hold."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from conftest import call
from record_tools import attack, controlled, write


def page_of(tmp_path: Path, lines: list[dict], *flags: str) -> str:
    """The page that report.py --html writes from records."""
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
