"""Reading a dataclass from JSON, by the types of its fields and further rules of single fields.

People edit, cut and merge record files by hand. A wrong value must not become a traceback later,
or worse, a number in a table.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class Rule(NamedTuple):
    """What a value must be: in words, for the error, and as a test."""

    words: str
    admits: Callable[[Any], bool]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_finite, value))


def _is_bin(value: Any) -> bool:
    is_triple = isinstance(value, list) and len(value) == 3 and all(map(_is_finite, value))
    return is_triple and value[0] > 0


def _are(kind: type, values: Iterable) -> bool:
    return all(isinstance(value, kind) for value in values)


TEXT = Rule("a text", lambda v: isinstance(v, str))
MAPPING = Rule("an object", lambda v: isinstance(v, dict))
YES_OR_NO = Rule("true or false", lambda v: isinstance(v, bool))
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

BINS = Rule(
    "a list of [rows, top probability, accuracy]",
    lambda v: isinstance(v, list) and all(map(_is_bin, v)),
)


_RULES = {str: TEXT, bool: YES_OR_NO, int: WHOLE, float: FINITE, dict: MAPPING}


def key(
    rule: Rule | None = None,
    default: Any = MISSING,
    *,
    earlier: tuple[str, ...] = (),
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """A field of a record whose type does not say everything.

    Without a `default` the key is required. With one, it may be absent or null. `rule`: by default
    that of the type. `earlier`: names that the key had in earlier versions. `convert`: applied to
    an accepted value.
    """
    return field(default=default, metadata={"rule": rule, "earlier": earlier, "convert": convert})


def read(kind: type[T], line: Mapping[str, Any], where: str = "", **further: Any) -> T:
    """A `kind` from a JSON object. `further`: fields that the object does not hold.

    Raises ValueError, with the path of the key, where a key is missing or breaks its rule.
    """
    hints, values = _type_hints(kind), dict(further)
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name not in further and (value := _value(f, hints[f.name], line, where)) is not None:
            values[f.name] = value
    return kind(**values)


_type_hints: Callable[[type], dict[str, Any]] = cache(get_type_hints)


def _value(f: Field, hint: Any, line: Mapping[str, Any], where: str) -> Any:
    name = next((n for n in (f.name, *f.metadata.get("earlier", ())) if n in line), f.name)
    value, path = line.get(name), where + name
    if f.default is MISSING and name not in line:
        raise ValueError(f"{path} is missing")
    if value is None and f.default is not MISSING:
        return None
    by_type, kind = _of_type(hint)
    rule, convert = f.metadata.get("rule") or by_type, f.metadata.get("convert")
    if not rule.admits(value):
        raise ValueError(f"{path} must be {rule.words}, but is {str(value)[:40]!r}")
    if kind and isinstance(value, list):
        return [read(kind, part, f"{path}[{i}].") for i, part in enumerate(value)]
    if kind and isinstance(value, dict):
        return read(kind, value, f"{path}.")
    return convert(value) if convert else value


def _of_type(hint: Any) -> tuple[Rule, type | None]:
    """The rule of a type, and the dataclass that the value, or each item of the list, becomes."""
    hint = get_args(hint)[0] if isinstance(hint, UnionType) else hint  # X | None
    item = next(iter(get_args(hint)), None)
    if is_dataclass(hint):
        return MAPPING, hint  # type: ignore[return-value]
    if is_dataclass(item):
        return OBJECTS, item  # type: ignore[return-value]
    return TEXTS if get_origin(hint) in (list, tuple) else _RULES[get_origin(hint) or hint], None
