"""Settings: each is declared once, as a field of a dataclass, with help, check, default and role.

A script's settings are one dataclass that inherits the groups it shares with other scripts, so
`args.lr` is plain to read and a function can ask for the small group that it needs. Flags, a run's
identity, what a record keeps, and the names of environment variables follow from the declaration.

The parser is our own because its users need one line for an error and an answer before torch is
imported; transformers' HfArgumentParser, which reads dataclasses too, can do neither.
"""

import argparse
import dataclasses
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, TypeVar, get_type_hints

from utils.cli import Parser

S = TypeVar("S")


class Role(Enum):
    """What a setting is. All but OUTPUT are part of a run's identity."""

    RECIPE = "how weights or scores come out; kept in manifests and records"
    TICKET = "which weights are removed, and what the weights start from"
    SEED = "the seed of the run"
    DATA = "which rows; a later stage inherits it"
    DATA_PLACE = "where the rows lie; a later stage inherits it"
    PLACE = "a file or folder that is read"
    KEEP = "which epochs are kept or measured; changes no step"
    MEASURE = "what an attack or a table measures, and with what"
    COMPUTE = "device, precision and kernels; may change the last digits"
    OUTPUT = "where results go, how much is printed, when the run is saved"


REQUIRED: Any = object()


def setting(
    default: Any,
    help: str,
    check: Callable[[str], Any] | None = None,
    *,
    choices: tuple[str, ...] | None = None,
    role: Role = Role.RECIPE,
    nargs: str | None = None,
    unset: str | None = None,
    metavar: str | None = None,
    positional: bool = False,
    earlier: Any = None,
) -> Any:
    """A field of a settings dataclass.

    `default`: REQUIRED, or the value where the flag is not given; None where something else
    decides, which `unset` or `help` then says. `check`: turns the flag's text into its value, or
    raises argparse.ArgumentTypeError. A field of type bool becomes a pair of flags, --x and --no-x.
    `positional`: a word without a flag. `earlier`: what runs did before the setting existed, if
    that is not the default.
    """
    metadata = {"help": help, "check": check, "choices": choices, "role": role, "nargs": nargs}
    metadata |= {"unset": unset, "metavar": metavar, "positional": positional, "earlier": earlier}
    return _field(default, metadata)


def changed(group: type, name: str, default: Any, role: Role | None = None, **metadata: Any) -> Any:
    """A group's setting with another default, for a script where that is usual.

    The role, and `metadata` such as choices and nargs, may differ too. The help may not: a flag has
    one meaning.
    """
    of_group = dict(group.__dataclass_fields__[name].metadata)
    role = role or of_group["role"]
    return _field(default, of_group | {"role": role, "unset": None} | metadata)


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    metadata["required"] = default is REQUIRED
    value = None if default is REQUIRED else default
    if isinstance(value, list):
        return dataclasses.field(default_factory=value.copy, metadata=metadata)
    return dataclasses.field(default=value, metadata=metadata)


def parse(settings: type[S], description: str, argv: list[str] | None = None) -> S:
    """The settings that the command line gives. Each class in the hierarchy is a group of flags,
    titled by the first line of its docstring. An error ends the process with one line, status 2."""
    parser = Parser(description)
    add_flags(parser, settings)
    return settings(**vars(parser.parse_args(argv)))


def add_flags(parser: argparse.ArgumentParser, settings: type) -> None:
    """The flags of a settings class, for a parser that has others as well."""
    for group, fields in _groups(settings):
        title = (group.__doc__ or "").split("\n")[0].rstrip(".")
        _add_flags(parser.add_argument_group(title), group, fields)


def _groups(settings: type) -> list[tuple[type, list[dataclasses.Field]]]:
    """The classes of the hierarchy and the fields that each declares, the script's own first."""
    effective = {f.name: f for f in dataclasses.fields(settings)}
    groups, seen = [], set()
    for cls in settings.__mro__:
        names = [n for n in cls.__dict__.get("__annotations__", {}) if n in effective]
        own = [effective[n] for n in names if n not in seen]
        seen |= set(names)
        if own:
            groups.append((cls, own))
    return groups


_type_hints = cache(get_type_hints)  # a plan parses a thousand commands


def _add_flags(group: Any, cls: type, fields: list[dataclasses.Field]) -> None:
    types = _type_hints(cls)
    for f in fields:
        m = f.metadata
        default = _default_of(f)
        text = m["help"] + (f" (default: {m['unset']})" if m["unset"] else "")
        kwargs: dict[str, Any] = {"help": text, "required": m["required"], "default": default}
        if types[f.name] in (bool, bool | None):
            kwargs["action"] = argparse.BooleanOptionalAction
        else:
            kwargs |= {"type": m["check"]} | {k: m[k] for k in ("choices", "nargs", "metavar")}
            kwargs = {k: v for k, v in kwargs.items() if v is not None or k == "default"}
        if m["positional"]:
            del kwargs["required"]  # argparse decides by nargs
        group.add_argument(f.name if m["positional"] else f"--{f.name}", **kwargs)


def _default_of(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def by_role(settings: Any, *roles: Role) -> dict[str, Any]:
    """The settings of these roles, by name."""
    fields = dataclasses.fields(settings)
    return {f.name: getattr(settings, f.name) for f in fields if f.metadata["role"] in roles}


def identity_of(settings: Any) -> dict[str, Any]:
    """What defines a run: two calls that differ in one of these are two runs."""
    return by_role(settings, *(role for role in Role if role is not Role.OUTPUT))


def identity_before(settings: Any) -> dict[str, Any]:
    """What a run did whose manifest lacks a setting, because the setting did not exist yet."""
    values = {}
    for f in dataclasses.fields(settings):
        earlier = f.metadata["earlier"]
        values[f.name] = _default_of(f) if earlier is None else earlier
    return {name: values[name] for name in identity_of(settings)}


def recipe_of(settings: Any) -> dict[str, Any]:
    """How weights or scores come out, whichever the data, the seed and the machine."""
    return by_role(settings, Role.RECIPE)


def names_of(settings: type, *roles: Role) -> tuple[str, ...]:
    """The names of a class' settings of these roles."""
    return tuple(f.name for f in dataclasses.fields(settings) if f.metadata["role"] in roles)


def variable_of(name: str) -> str:
    """The environment variable of the shell stages that sets --name."""
    return name.upper()
