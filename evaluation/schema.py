"""Reading a dataclass from JSON: each field declares its rule, earlier names and default once.

People edit, cut and merge record files by hand. A wrong value must not become a traceback later,
or worse, a number in a table.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Rule(NamedTuple):
    """What a value must be: in words, for the error, and as a test."""

    words: str
    admits: Callable[[Any], bool]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_finite, value))


def _are(kind: type, values: Iterable) -> bool:
    return all(isinstance(value, kind) for value in values)


TEXT = Rule("a text", lambda v: isinstance(v, str))
MAPPING = Rule("an object", lambda v: isinstance(v, dict))
FINITE = Rule("a finite number", _is_finite)
PERCENT = Rule("a number from 0 to 100", lambda v: _is_finite(v) and 0 <= v <= 100)
SHARE = Rule("a number in [0, 1)", lambda v: _is_finite(v) and 0 <= v < 1)
WHOLE = Rule("a whole number", lambda v: type(v) is int)
COUNT = Rule("a whole number above 0", lambda v: type(v) is int and v > 0)
TEXTS = Rule("a list of texts", lambda v: isinstance(v, list) and _are(str, v))
TEXTS_BY_NAME = Rule("an object of texts", lambda v: MAPPING.admits(v) and _are(str, v.values()))
LABELS = Rule("a text or a list", lambda v: isinstance(v, str | list))
PAIR_OF_TEXTS = Rule("a list of two texts", lambda v: TEXTS.admits(v) and len(v) == 2)
OBJECTS = Rule("a list of objects", lambda v: isinstance(v, list) and _are(dict, v))
ENCODER = Rule(
    "an object with a text as name",
    lambda v: MAPPING.admits(v) and isinstance(v.get("name"), str | None),
)
INTERVALS = Rule(
    "an object of pairs of numbers",
    lambda v: MAPPING.admits(v) and all(x is None or _is_interval(x) for x in v.values()),
)


def key(
    rule: Rule,
    default: Any = MISSING,
    *,
    earlier: tuple[str, ...] = (),
    kind: type | None = None,
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """A field of a record.

    Without a `default` the key is required. With one, it may be absent or null. `earlier`: names
    that the key had in earlier versions. `kind`: dataclass of the object, or of each object in the
    list, that the key holds. `convert`: applied to an accepted value.
    """
    metadata = {"rule": rule, "earlier": earlier, "kind": kind, "convert": convert}
    return field(default=default, metadata=metadata)


def read(kind: type[T], found: Mapping[str, Any], where: str = "", **further: Any) -> T:
    """A `kind` from a JSON object. `further`: fields that the object does not hold.

    Raises ValueError, with the path of the key, where a key is missing or breaks its rule.
    """
    values = {f.name: v for f in fields(kind) if (v := _value(f, found, where)) is not None}  # type: ignore[arg-type]
    return kind(**values, **further)


def _value(f: Field, found: Mapping[str, Any], where: str) -> Any:
    if "rule" not in f.metadata:
        return None
    name = next((n for n in (f.name, *f.metadata["earlier"]) if n in found), f.name)
    value, path, rule = found.get(name), where + name, f.metadata["rule"]
    if f.default is MISSING and name not in found:
        raise ValueError(f"{path} is missing")
    if value is None and f.default is not MISSING:
        return None
    if not rule.admits(value):
        raise ValueError(f"{path} must be {rule.words}, but is {str(value)[:40]!r}")
    kind, convert = f.metadata["kind"], f.metadata["convert"]
    if kind and isinstance(value, list):
        return [read(kind, part, f"{path}[{i}].") for i, part in enumerate(value)]
    if kind and isinstance(value, dict):
        return read(kind, value, f"{path}.")
    return convert(value) if convert else value
