"""The regular expressions of intentions: RE2, which cannot backtrack, and always the whole text.

Consul's patterns are written for Envoy, whose engine this is. Python's own `re` reads another language and
can be made to run for hours by a pattern or by a caller; it is never used for them. The engine is optional
(extra `l7`, 3.4 MB in memory) and imported only once there is a pattern.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

MAX_MEMORY = 1 << 20  # bytes per pattern; a pattern that needs more to be compiled is not taken


class UnsupportedPattern(ValueError):
    """No engine, or not a pattern it takes; the text says which."""


class _Compiled:  # derived, so no field: neither compared nor told to another process
    __slots__ = ("_fullmatch",)

    _fullmatch: Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Pattern(_Compiled):
    """A compiled pattern, known by its text. Raises UnsupportedPattern.

    The engine's object is no field: it is made anew where a pattern arrives from another process.
    """

    text: str
    ignore_case: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "_fullmatch", _engine(self.text, self.ignore_case))

    def matches(self, text: str) -> bool:
        """Whether the pattern describes all of `text`."""
        return self._fullmatch(text.encode()) is not None


def compile_pattern(text: str, *, ignore_case: bool = False) -> Pattern:
    """Compile once, to be matched often; raise UnsupportedPattern."""
    return Pattern(text, ignore_case)


def _engine(text: str, ignore_case: bool) -> Callable[[bytes], object]:
    try:
        re2 = importlib.import_module("re2")
    except ImportError as error:
        raise UnsupportedPattern(
            "regular expressions need the extra l7: pip install 'connect-sidecar[l7]'"
        ) from error
    options = re2.Options()
    options.log_errors = False  # to our standard error, past the journal
    options.max_mem = MAX_MEMORY
    options.case_sensitive = not ignore_case
    try:
        fullmatch: Callable[[bytes], object] = re2.compile(text, options=options).fullmatch
    except re2.error as error:
        raise UnsupportedPattern(f"{text!r}: {_reason(error)}") from error
    return fullmatch


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
