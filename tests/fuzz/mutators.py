"""Ways to change an input by its structure, so that most of what comes out is read past its beginning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from tests.certs.signing import element
from tests.fuzz.target import Mutate, Plain

_PLAINLY = 0.25  # of all changes are the fuzzer's own
_HOLE = "\ue000"
_DEEP = 1200  # brackets; Python's own recursion ends at a thousand
_ODD = (
    *("null", "true", "false", "0", "-0", "-1", "1", "1.5", "1e400", "-1e400", "NaN", "65535", "65536"),
    *("18446744073709551615", "18446744073709551616", "9" * 4301, '""', '"\\u0000"', '"\\ud800"', "[]", "{}"),
    *('"*"', '"default"', '" "', '"0"', '"1e3"', f'"{"9" * 4301}"', "[null]", '{"": null}', '[[],{},""]'),
    *("[" * _DEEP + "]" * _DEEP, '{"a":' * _DEEP + "0" + "}" * _DEEP),
)


def json_with(words: Sequence[str]) -> Mutate:
    """A mutator of JSON documents; `words` are the keys and values that mean something to their reader."""

    def mutate(data: bytes, most: int, rng: Random, plain: Plain) -> bytes:
        if rng.random() < _PLAINLY:
            return plain(data, most)
        try:
            changed = _changed(json.loads(data), words, rng)
        except (ValueError, RecursionError):
            return plain(data, most)
        return changed if len(changed) <= most else plain(data, most)

    return mutate


def _changed(document: Any, words: Sequence[str], rng: Random) -> bytes:
    text = _text(document, words, rng)
    return json.dumps(_with_hole(document, words, rng)).replace(json.dumps(_HOLE), text).encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys, or with None for one more."""
    if isinstance(document, dict | list):
        yield document, None
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def _with_hole(document: Any, words: Sequence[str], rng: Random) -> Any:
    """The document with one place open, or gone, or there twice."""
    places = list(_places(document))
    if not places:
        return _HOLE
    holder, key = rng.choice(places)
    if key is None:
        if isinstance(holder, dict):
            holder[rng.choice(words)] = _HOLE
        else:
            holder.insert(rng.randint(0, len(holder)), _HOLE)
    elif rng.random() < 0.2:
        del holder[key]
    elif isinstance(holder, list) and rng.random() < 0.2:
        holder.append(holder[key])
    else:
        holder[key] = _HOLE
    return document


def _text(document: Any, words: Sequence[str], rng: Random) -> str:
    """JSON for the open place: something odd, a word, or what stands elsewhere in the document."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(_ODD)
    if kind < 0.7:
        return json.dumps(rng.choice(words))
    places = [(holder, key) for holder, key in _places(document) if key is not None]
    if not places:
        return rng.choice(_ODD)
    holder, key = rng.choice(places)
    return json.dumps(holder[key])


def der(data: bytes, most: int, rng: Random, plain: Plain) -> bytes:
    """Change the content of one element of a DER encoding, and mend the lengths of those around it."""
    elements = list(_elements(data, 0, len(data)))
    if not elements or rng.random() < _PLAINLY:
        return plain(data, most)
    path = rng.choice(elements)
    changed = _replaced(data, path, _content(data, path, elements, rng, plain))
    return changed if len(changed) <= most else plain(data, most)


Path = list[tuple[int, int, int]]  # from the outermost element in: start, start of the content, end


def _elements(data: bytes, start: int, end: int, above: Path | None = None) -> Iterator[Path]:
    """Every element between two places, with those around it; what is no DER ends the search there."""
    while start < end:
        header = _header(data, start, end)
        if header is None:
            return
        begins, ends = header
        path = [*(above or []), (start, begins, ends)]
        yield path
        if data[start] & 0x20 or data[start] == 0x04:  # constructed, or octets, which often hold more DER
            yield from _elements(data, begins, ends, path)
        start = ends


def _header(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the content of the element at that place begins and ends."""
    if end - start < 2:
        return None
    length, begins = data[start + 1], start + 2
    if length & 0x80:
        count = length & 0x7F
        length, begins = int.from_bytes(data[begins : begins + count], "big"), begins + count
    return (begins, begins + length) if begins + length <= end else None


def _content(data: bytes, path: Path, elements: list[Path], rng: Random, plain: Plain) -> bytes:
    """A new element for the place: changed inside, twice, gone, of another tag, or another one."""
    start, begins, ends = path[-1]
    whole, content = data[start:ends], data[begins:ends]
    other_start, _, other_ends = rng.choice(elements)[-1]
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: element(data[start], plain(content, len(content) + 16) if content else b"\0"),
        lambda: element(data[start], plain(content, len(content) + 16) if content else b"\0"),
        lambda: element(rng.choice((0x01, 0x02, 0x04, 0x05, 0x0C, 0x16, 0x30, 0x82, 0x86)), content),
        lambda: whole + whole,
        lambda: b"",
        lambda: data[other_start:other_ends],
    )
    return rng.choice(changes)()


def _replaced(data: bytes, path: Path, new: bytes) -> bytes:
    """The whole with the innermost element of the path replaced."""
    start, _, ends = path[-1]
    for outer_start, outer_begins, outer_ends in reversed(path[:-1]):
        content = data[outer_begins:start] + new + data[ends:outer_ends]
        new, start, ends = element(data[outer_start], content), outer_start, outer_ends
    return data[:start] + new + data[ends:]
