"""Whether a value that was read as JSON has the form that a type names. For files that anybody may have written.

`fits` knows what the records and events of a capture are made of: numbers, texts, flags, None, unions, tuples, lists
and mappings of these. Lists pass for tuples: JSON has no other. Pure.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def check_fields(kind: type[Any], values: Mapping[str, Any]) -> None:
    """Raises ValueError for a field of the dataclass `kind` whose value has another form; unknown ones are not seen."""
    for name, hint in _hints(kind).items():
        if name in values and not fits(hint, values[name]):
            raise ValueError(f"{kind.__name__}.{name}: {type(values[name]).__name__} has no place here")


def fits(hint: Any, value: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(fits(one, value) for one in inner)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(fits(inner[0], one) for one in value)
        return len(value) == len(inner) and all(map(fits, inner, value))
    if origin is list:
        return isinstance(value, list) and all(fits(inner[0], one) for one in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(fits(inner[1], one) for one in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _hints(kind: type[Any]) -> Mapping[str, Any]:
    if kind not in _KNOWN:
        hints = typing.get_type_hints(kind)
        _KNOWN[kind] = {one.name: hints[one.name] for one in fields(kind)}
    return _KNOWN[kind]


_KNOWN: dict[type[Any], Mapping[str, Any]] = {}
"""One entry for each dataclass that is checked."""
