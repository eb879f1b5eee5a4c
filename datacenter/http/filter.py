"""The part of go-bexpr that `?filter=` needs: selectors, comparisons, and, or, not, parentheses.

    Service.Meta.version == "1" and (not "v1" in Service.Tags or Checks.Status != critical)

A selector that leads through a list holds if it holds for any element. Selectors are checked against the
shape of the filtered documents, so that a misspelt one is an error and not an empty answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from datacenter.state.errors import ApiError
from datacenter.state.store import Document

Test = Callable[[Document], bool]

# A shape is None for a value, LIST for a list of values, MAP for the client's own keys, or known fields.
LIST, MAP = "list", "map"
Shape = None | str | Mapping[str, "Shape"]

SERVICE_SHAPE: dict[str, Shape] = {
    **dict.fromkeys(("Kind", "ID", "Service", "Port", "Address", "SocketPath", "EnableTagOverride")),
    "Tags": LIST,
    "Meta": MAP,
    "TaggedAddresses": MAP,
    "Weights": dict.fromkeys(("Passing", "Warning")),
    "Connect": {"Native": None},
    "Proxy": {
        **dict.fromkeys(("DestinationServiceName", "DestinationServiceID")),
        **dict.fromkeys(("LocalServiceAddress", "LocalServicePort", "LocalServiceSocketPath", "Mode")),
        "MeshGateway": {"Mode": None},
        "Upstreams": {
            **dict.fromkeys(("DestinationType", "DestinationName", "Datacenter")),
            **dict.fromkeys(("LocalBindAddress", "LocalBindPort", "LocalBindSocketPath")),
            "MeshGateway": {"Mode": None},
        },
    },
}
CHECK_SHAPE: dict[str, Shape] = {
    **dict.fromkeys(("Node", "CheckID", "Name", "Status", "Notes", "Output", "Type")),
    **dict.fromkeys(("ServiceID", "ServiceName", "Interval", "Timeout", "ExposedPort")),
    "ServiceTags": LIST,
}
NODE_SHAPE: dict[str, Shape] = {
    **dict.fromkeys(("ID", "Node", "Address", "Datacenter")),
    "TaggedAddresses": MAP,
    "Meta": MAP,
}
INTENTION_SHAPE: dict[str, Shape] = {
    **dict.fromkeys(("ID", "Description", "SourceNS", "SourceName", "SourceType", "Action")),
    **dict.fromkeys(("DestinationNS", "DestinationName", "Precedence")),
    "Meta": MAP,
}
HEALTH_SHAPE: dict[str, Shape] = {"Node": NODE_SHAPE, "Service": SERVICE_SHAPE, "Checks": CHECK_SHAPE}
CATALOG_SERVICE_SHAPE: dict[str, Shape] = {
    **NODE_SHAPE,
    "NodeMeta": MAP,
    **{f"Service{key}": shape for key, shape in SERVICE_SHAPE.items() if key != "Service"},
    "ServiceName": None,
}

MOST_DEPTH = 50  # of nested `not` and parentheses

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*" | `[^`]*`)
      | (?P<mark>== | != | [()\[\]])
      | (?P<word>[^\s()\[\]"`=!]+)
    )""",
    re.VERBOSE,
)


class _Refused(Exception):
    """The expression cannot be used; the text is what follows `Failed to create boolean …: `."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A compiled filter. `fixed`: by the path of a selector, a text that it has in each document that passes.

    So a list of a thousand documents need not be tested one by one where they are known by that text.
    """

    test: Test
    fixed: Mapping[tuple[str, ...], str]

    def __call__(self, document: Document) -> bool:
        """Return whether the document passes."""
        return self.test(document)


def compile_filter(expression: str, shape: Shape) -> Filter:
    """Return the filter for documents of this shape. Raises ApiError 500 in the catalog's words."""
    if not expression:
        return Filter(test=lambda _: True, fixed={})
    try:
        return _Parser(expression, shape).whole()
    except _Refused as error:
        raise ApiError(500, f"Failed to create boolean expression evaluator: {error}") from error


def service_document(service: Document) -> Document:
    """Return a stored service in the form that selectors name."""
    return {**service, "Connect": {"Native": service["Native"]}}


@dataclass(frozen=True, slots=True)
class _Selector:
    path: tuple[str, ...]

    def values(self, document: object) -> list[object]:
        """Return all values the path leads to; a list multiplies it, a missing key ends it."""
        found = [document]
        for name in self.path:
            spread = [each for item in found for each in (item if isinstance(item, list) else [item])]
            found = [item[name] for item in spread if isinstance(item, dict) and name in item]
        return found

    def texts(self, document: object) -> list[str]:
        return [_text(value) for value in self.values(document)]

    def contains(self, document: object, wanted: str) -> bool:
        """Return whether a list has the element, a map the key, or a text the part."""
        for value in self.values(document):
            if isinstance(value, str) and wanted in value:
                return True
            if isinstance(value, list | dict) and wanted in value:
                return True
        return False

    def empty(self, document: object) -> bool:
        return not any(self.values(document))


class _Parser:
    def __init__(self, expression: str, shape: Shape) -> None:
        self._tokens = _tokens(expression)
        self._place = 0  # of the next token
        self._depth = 0  # of what is within `not` and parentheses
        self._shape = shape
        self._fixed: dict[tuple[str, ...], str] = {}  # by what has been read of it

    def whole(self) -> Filter:
        test = self._either()
        if self._place < len(self._tokens):
            raise _Refused(f"no match found, unexpected {self._tokens[self._place][1]!r}")
        return Filter(test=test, fixed=self._fixed)

    def _either(self) -> Test:
        before = dict(self._fixed)
        tests = [self._both()]
        while self._take_word("or"):
            tests.append(self._both())
        if len(tests) > 1:
            self._fixed = before
        return lambda document: any(test(document) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._take_word("and"):
            tests.append(self._one())
        return lambda document: all(test(document) for test in tests)

    def _one(self) -> Test:
        if self._take_word("not"):
            before = dict(self._fixed)
            test = self._within(self._one)
            self._fixed = before
            return _negated(test)
        if self._take_mark("("):
            inner = self._within(self._either)
            if not self._take_mark(")"):
                raise _Refused('no match found, expected: ")"')
            return inner
        return self._match()

    def _within(self, read: Callable[[], Test]) -> Test:
        if self._depth == MOST_DEPTH:
            raise _Refused(f"over {MOST_DEPTH} expressions within one another")
        self._depth += 1
        test = read()
        self._depth -= 1
        return test

    def _match(self) -> Test:
        kind, first = self._next()
        if self._take_word("in"):
            return self._membership(self._selector(), first)
        if self._peek_words("not", "in"):
            return _negated(self._membership(self._selector(), first))
        if kind == "text":
            raise _Refused(f"no match found, unexpected {first!r}")
        return self._comparison(self._selector(first))

    def _comparison(self, selector: _Selector) -> Test:
        if self._take_mark("=="):
            wanted = self._next()[1]
            self._fixed[selector.path] = wanted
            return _equality(selector, wanted)
        if self._take_mark("!="):
            return _negated(_equality(selector, self._next()[1]))
        if self._take_word("is"):
            negated = self._take_word("not")
            if not self._take_word("empty"):
                raise _Refused('no match found, expected: "empty"')
            return _negated(selector.empty) if negated else selector.empty
        negated = self._take_word("not")
        test = self._operation(selector)
        return _negated(test) if negated else test

    def _operation(self, selector: _Selector) -> Test:
        if self._take_word("contains"):
            return self._membership(selector, self._next()[1])
        if self._take_word("matches"):
            try:
                pattern = re.compile(self._next()[1])
            except re.error as error:
                raise _Refused(f"Failed to compile regular expression: {error}") from error
            return lambda document: any(pattern.search(text) for text in selector.texts(document))
        raise _Refused('no match found, expected: "==", "!=", "contains", "in", "is" or "matches"')

    def _membership(self, selector: _Selector, wanted: str) -> Test:
        return lambda document: selector.contains(document, wanted)

    def _selector(self, first: str | None = None) -> _Selector:
        path = (self._next()[1] if first is None else first).split(".")
        while self._take_mark("["):
            path.append(self._next()[1])
            if not self._take_mark("]"):
                raise _Refused('no match found, expected: "]"')
        shape = self._shape
        for name in path:
            if shape == MAP:
                break
            if not isinstance(shape, Mapping) or name not in shape:
                raise _Refused(f'Selector "{".".join(path)}" is not valid')
            shape = shape[name]
        return _Selector(tuple(path))

    def _next(self) -> tuple[str, str]:
        if self._place == len(self._tokens):
            raise _Refused("no match found, expected: a selector or a value")
        self._place += 1
        return self._tokens[self._place - 1]

    def _take_mark(self, mark: str) -> bool:
        return self._take("mark", mark)

    def _take_word(self, word: str) -> bool:
        return self._take("word", word)

    def _take(self, kind: str, value: str) -> bool:
        return self._take_all((kind, value))

    def _peek_words(self, first: str, second: str) -> bool:
        return self._take_all(("word", first), ("word", second))

    def _take_all(self, *wanted: tuple[str, str]) -> bool:
        """Consume these tokens if they are next; return whether they were."""
        end = self._place + len(wanted)
        if tuple(self._tokens[self._place : end]) != wanted:
            return False
        self._place = end
        return True


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position = 0
    end = len(expression.rstrip())
    while position < end:
        match = _TOKEN.match(expression, position)
        if match is None or match.lastgroup is None:
            raise _Refused(f"no match found at character {position + 1}")
        value = match.group(match.lastgroup)
        if match.lastgroup == "text":
            value = value[1:-1] if value[0] == "`" else re.sub(r"\\(.)", r"\1", value[1:-1])
        tokens.append((match.lastgroup, value))
        position = match.end()
    return tokens


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _equality(selector: _Selector, wanted: str) -> Test:
    return lambda document: wanted in selector.texts(document)


def _negated(test: Test) -> Test:
    return lambda document: not test(document)
