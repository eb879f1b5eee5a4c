"""Decodes request bodies by the shape they must have, with the error texts of Consul's decoder.

A shape is a type (str, int, float, bool), `[shape]` for a list, `Fields` for an object with known keys,
`Mapped` for one with keys of the client's own, ANYTHING for a value that is passed through unread, or
DURATION, which takes `"10s"` or nanoseconds and yields seconds. Keys of `Fields` match in any case and with
underscores (`sidecar_service` is `SidecarService`) and come out in their canonical spelling; null counts as
absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from datacenter.state.durations import parse_duration
from datacenter.state.errors import ApiError, bad_request
from datacenter.state.store import Document


class Special(Enum):
    """Shapes that are no Python type."""

    ANYTHING = "interface {}"
    DURATION = "time.Duration"


_GO_NAMES = {str: "string", int: "int", float: "float64", bool: "bool"}
_JSON_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}

_TRAILING_COMMA = "Illegal trailing comma"  # since Python 3.13, which points at the comma; Go at what follows
_SYNTAX = {  # Python's complaint -> Go's
    "Expecting property name": "looking for beginning of object key string",
    f"{_TRAILING_COMMA} before end of object": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "": "looking for beginning of value",
}

MOST_DEPTH = 100  # of nested lists and objects; Go takes 10,000, which Python could not write again
_MOST_INT = 2**63  # Go's int has 64 bits

ANYTHING = Special.ANYTHING
DURATION = Special.DURATION


@dataclass(frozen=True, slots=True)
class Mapped:
    """An object whose keys the client chooses."""

    of: Shape


class Fields:
    """An object of known keys; `also` adds spellings: other -> canonical.

    `name` is Go's name of the type, empty for what Go decodes into a type without a name. Unknown keys are
    refused, or dropped where Consul drops them (`drops_unknown`).
    """

    __slots__ = ("_canonical", "drops_unknown", "name", "shapes")

    def __init__(
        self,
        name: str,
        shapes: Mapping[str, Shape],
        also: Mapping[str, str] | None = None,
        *,
        drops_unknown: bool = False,
    ) -> None:
        self.name = name
        self.drops_unknown = drops_unknown
        self.shapes = dict(shapes)
        self._canonical = {_folded(key): key for key in shapes}
        self._canonical |= {_folded(other): key for other, key in (also or {}).items()}

    def canonical(self, key: str) -> str | None:
        """Return the canonical spelling of a key, None for an unknown one."""
        return self._canonical.get(_folded(key))


Shape = type[str] | type[int] | type[float] | type[bool] | list["Shape"] | Mapped | Fields | Special


class Malformed(ValueError):
    """The body does not fit; the text is Go's."""


def decode(body: bytes, shape: Fields) -> Document:
    """Return the object in a request's body. Raises ApiError 400 `Request decode failed: …`."""
    try:
        value = first_value(body)
        if value is None:
            return {}
        return _object(_a_dict(value, f"Go value of type {_go_type(shape)}"), shape)
    except ValueError as error:
        raise ApiError(400, f"Request decode failed: {error}") from error


def decode_or_bad_request(body: bytes, shape: Fields) -> Document:
    """Decode as `decode` does, for endpoints whose error texts start with `Bad request: `."""
    try:
        return decode(body, shape)
    except ApiError as error:
        raise bad_request(error.text) from error


def first_value(body: bytes) -> object:
    """Return the first value in the body; like Go, ignore what follows it. Raises Malformed."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        value = _DECODER.raw_decode(text)[0]
    except RecursionError:
        raise Malformed("exceeded max depth") from None
    except json.JSONDecodeError as error:
        if not text.strip():
            raise Malformed("EOF") from error
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            raise Malformed("unexpected EOF") from error
        after = text[error.pos + 1 :].lstrip() if error.msg.startswith(_TRAILING_COMMA) else text[error.pos :]
        found = after[0].replace("'", "\\'")
        where = next((after for said, after in _SYNTAX.items() if error.msg.startswith(said)), _SYNTAX[""])
        raise Malformed(f"invalid character '{found}' {where}") from error
    if _depth(value) > MOST_DEPTH:
        raise Malformed("exceeded max depth")
    return _without_surrogates(value) if "\\u" in text else value


def _constant(name: str) -> float:
    """Refuse constants that Python reads and JSON lacks."""
    raise Malformed(f"invalid character '{name.lstrip('-')[0]}' looking for beginning of value")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Malformed(f"json: cannot unmarshal number {text} into Go value of type float64")
    return number


def _int(text: str) -> int:
    _float(text)
    return int(text)


_DECODER = json.JSONDecoder(parse_constant=_constant, parse_float=_float, parse_int=_int)


def _depth(value: object) -> int:
    """Return how deep lists and objects are nested."""
    depth, level = 0, [value]
    while level := [inner for outer in level for inner in _inside(outer)]:
        depth += 1
    return depth


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _without_surrogates(value: object) -> object:
    """Replace half a surrogate pair by the replacement character, as Go does."""
    utf16 = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
    settled: object = json.loads(utf16.decode("utf-16", "replace"))
    return settled


def _object(value: Mapping[str, object], shape: Fields) -> Document:
    result: Document = {}
    for key, item in value.items():
        name = shape.canonical(key)
        if name is None:
            if shape.drops_unknown:
                continue
            raise Malformed(f"json: unknown field {json.dumps(key)}")
        if item is not None:
            result[name] = _value(item, shape.shapes[name], f"{shape.name}.{name}")
    return result


def _value(value: object, shape: Shape, where: str) -> object:
    target = f"Go struct field {where} of type"
    match shape:
        case Special.ANYTHING:
            return value
        case Special.DURATION:
            return _duration(value, f"{target} time.Duration")
        case Fields():
            return _object(_a_dict(value, f"{target} {_go_type(shape)}"), shape)
        case Mapped(of=inner):
            return _mapping(_a_dict(value, f"{target} {_go_type(shape)}"), inner, where)
        case list():
            items = _a_list(value, f"{target} {_go_type(shape)}")
            return [_value(item, shape[0], where) for item in items]
        case _:
            return _scalar(value, shape, target)


def _mapping(items: Document, inner: Shape, where: str) -> Document:
    if inner is ANYTHING:
        return items  # a null of the client's own stays
    return {key: _value(item, inner, where) for key, item in items.items() if item is not None}


def _go_type(shape: Shape) -> str:
    """Return a shape in Go's words."""
    match shape:
        case Special():
            return shape.value
        case Fields():
            return f"structs.{shape.name}" if shape.name else "struct"
        case Mapped(of=inner):
            return f"map[string]{_go_type(inner)}"
        case list():
            return f"[]{_go_type(shape[0])}"
        case _:
            return _GO_NAMES[shape]


def _scalar(value: object, shape: type, target: str) -> object:
    if shape is float and type(value) is int:
        return value
    if shape is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if shape is int and type(value) is int and abs(value) >= _MOST_INT:
        raise Malformed(f"json: cannot unmarshal number {value} into {target} int")
    if type(value) is not shape:
        raise _mismatch(value, f"{target} {_GO_NAMES[shape]}")
    return value


def _duration(value: object, target: str) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_INT:
        return value / 1e9
    raise _mismatch(value, target)


def _a_dict(value: object, target: str) -> Document:
    if not isinstance(value, dict):
        raise _mismatch(value, target)
    return value


def _a_list(value: object, target: str) -> list[object]:
    if not isinstance(value, list):
        raise _mismatch(value, target)
    return value


def _mismatch(value: object, target: str) -> Malformed:
    return Malformed(f"json: cannot unmarshal {_JSON_NAMES.get(type(value), 'null')} into {target}")


def _folded(key: str) -> str:
    return key.replace("_", "").lower()
