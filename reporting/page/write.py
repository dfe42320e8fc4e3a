"""One self-contained HTML file from a template: no network, and no script but page.js."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reporting import render
from utils.files import write_atomically

FOLDER = Path(__file__).resolve().parent


def write(path: Path, template: str, context: Mapping[str, object]) -> Path:
    """Render a template of this folder. Everything but our own CSS and script is escaped."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embedded"] = embedded
    css, script = (
        Markup((FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js")
    )
    html = environment.get_template(template).render(
        css=css, script=script, script_sha256=_sha256(script), render=render, **context
    )
    # A text can hold half a surrogate pair, which is no UTF-8; in JSON its escape is the same text.
    data = html.encode("utf-8", "backslashreplace")
    write_atomically(path, lambda p: p.write_bytes(data))
    return path


def _sha256(script: str) -> str:
    """For the page's content security policy, so that the browser runs no other script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def embedded(value: object) -> Markup:
    """JSON for a <script> element of data: nothing in it can end the element or a line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
