"""Decodes values by a shape as Consul's weak decoder does, which reads config entries and CA configurations.

See docs/consul-api.md#config-entries.

It takes `"3"` and `3.5` for 3, `1` for true, and one value for a list of one, and the other way round. A
duration comes out in nanoseconds, as Go keeps it. Mistakes are told all at once, by the path of the value;
keys that are not known only if there are no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping

from datacenter.http.decode import ANYTHING, DURATION, Fields, Mapped, Shape, Special
from datacenter.state.durations import parse_duration
from datacenter.state.store import Document

_BOOLEANS = {"1": True, "t": True, "true": True, "": False, "0": False, "f": False, "false": False}
_INTEGER = re.compile(r"(?:[+-]?\d{1,18})?", re.ASCII)  # of 64 bits
_FRACTION = re.compile(r"(?:[+-]?\d{1,18}(?:\.\d{1,18})?)?", re.ASCII)
_GO_TYPES: dict[type, str] = {
    dict: "map[string]interface {}",
    list: "[]interface {}",
    str: "string",
    bool: "bool",
    int: "float64",
    float: "float64",
}
_GO_KINDS: dict[type, str] = {**_GO_TYPES, dict: "map", list: "slice"}


class WeaklyMalformed(ValueError):
    """The value does not fit; the text is Go's, and names each mistake by its path."""


def decode_weakly(value: object, shape: Fields, *, known: bool = True) -> Document:
    """Return the value by its shape. `known`: an unknown key is a mistake. Raises WeaklyMalformed."""
    reader = _Reader()
    document = reader.fields(value, shape, "")
    if reader.mistakes:
        listed = "\n".join(f"* {mistake}" for mistake in sorted(reader.mistakes))
        raise WeaklyMalformed(f"{len(reader.mistakes)} error(s) decoding:\n\n{listed}")
    if known and reader.unknown:
        count = "1 error" if len(reader.unknown) == 1 else f"{len(reader.unknown)} errors"
        listed = "\n".join(f"\t* invalid config key {json.dumps(key)}" for key in sorted(reader.unknown))
        raise WeaklyMalformed(f"{count} occurred:\n{listed}\n\n")
    return document


def go_kind(value: object) -> str:
    """Return the kind that Go has for a value of JSON."""
    return _GO_KINDS[type(value)]


class _Misfit(Exception):
    """One value does not fit."""


class _Reader:
    """Goes through one document and collects what does not fit."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self.unknown: list[str] = []

    def fields(self, value: object, shape: Fields, path: str) -> Document:
        result: Document = {}
        for key, item in self._map(value, path).items():
            name = shape.canonical(key)
            if name is None:
                self.unknown.append(_below(path, key))
            elif item is not None:
                result[name] = self._value(item, shape.shapes[name], _below(path, name))
        return result

    def _map(self, value: object, path: str) -> Mapping[str, object]:
        if isinstance(value, dict):
            return value
        self.mistakes.append(f"'{path}' expected a map, got '{go_kind(value)}'")
        return {}

    def _value(self, value: object, shape: Shape, path: str) -> object:
        if isinstance(shape, list):
            return [self._value(item, shape[0], f"{path}[{at}]") for at, item in enumerate(_listed(value))]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if shape is ANYTHING:
            return value
        if value is None:
            return _zero(shape)
        if isinstance(shape, Fields):
            return self.fields(value, shape, path)
        if isinstance(shape, Mapped):
            return self._mapping(value, shape.of, path)
        return self._scalar(value, shape, path)

    def _mapping(self, value: object, inner: Shape, path: str) -> Document:
        items = {} if value == [] else self._map(value, path)
        if inner is ANYTHING:
            return dict(items)  # a null of the client's own stays
        return {
            key: self._value(item, inner, f"{path}[{key}]") for key, item in items.items() if item is not None
        }

    def _scalar(self, value: object, shape: Shape, path: str) -> object:
        name, read = _SCALARS[shape]
        if not isinstance(value, str | bool | int | float):
            of = f"got unconvertible type '{_GO_TYPES[type(value)]}', value: '{_printed(value)}'"
            self.mistakes.append(f"'{path}' expected type '{name}', {of}")
            return None
        try:
            return read(value, path)
        except _Misfit as misfit:
            self.mistakes.append(str(misfit))
            return None


def _listed(value: object) -> list[object]:
    if isinstance(value, list):
        return value
    return [] if value == {} else [value]


def _zero(shape: Shape) -> object:
    """Return what Go has where nothing was given: a null inside a list."""
    if isinstance(shape, Fields | Mapped):
        return {}
    return 0 if isinstance(shape, Special | list) else shape()


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _text(value: str | float, _path: str) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else _printed(value)


def _number(value: str | float, path: str) -> int:
    return int(_parsed(value, path, "int", "ParseInt"))


def _fraction(value: str | float, path: str) -> float:
    return _parsed(value, path, "float", "ParseFloat")


def _parsed(value: str | float, path: str, kind: str, function: str) -> float:
    if not isinstance(value, str):
        return value
    if not (_INTEGER if kind == "int" else _FRACTION).fullmatch(value):
        why = f"strconv.{function}: parsing {json.dumps(value)}: invalid syntax"
        raise _Misfit(f"cannot parse '{path}' as {kind}: {why}")
    return int(value or "0") if kind == "int" else float(value or "0")


def _boolean(value: str | float, path: str) -> bool:
    if not isinstance(value, str):
        return value != 0
    if value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    why = f"strconv.ParseBool: parsing {json.dumps(value)}: invalid syntax"
    raise _Misfit(f"cannot parse '{path}' as bool: {why}")


def _nanoseconds(value: str | float, path: str) -> int:
    if not isinstance(value, str):
        return int(value)
    try:
        return round(parse_duration(value) * 1e9)
    except ValueError as error:
        raise _Misfit(f"error decoding '{path}': {error}") from None


_SCALARS: dict[Shape, tuple[str, Callable[[str | float, str], object]]] = {
    str: ("string", _text),
    int: ("int", _number),
    float: ("float64", _fraction),
    bool: ("bool", _boolean),
    DURATION: ("time.Duration", _nanoseconds),
}


def _printed(value: object) -> str:
    """Return a value as Go prints it."""
    match value:
        case dict():
            return f"map[{_joined(f'{key}:{_printed(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{_joined(map(_printed, value))}]"
        case bool():
            return str(value).lower()
        case None:
            return "<nil>"
        case _:
            return f"{value:g}" if isinstance(value, float) else str(value)


def _joined(words: Iterable[str]) -> str:
    return " ".join(words)
