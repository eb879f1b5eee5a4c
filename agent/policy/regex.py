"""The regular expressions of intentions: RE2, which cannot backtrack, matched against the whole text.

Consul's patterns are written for Envoy, which uses RE2. Python's `re` has another syntax, and a pattern or a
caller can make it run for hours; it is never used for them. RE2 is optional (extra `l7`, 3.4 MB resident) and
is imported only for the first pattern.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass

# The parts of a pattern: escaped bytes, quoted or not; quotations; classes; percent signs; the rest.
_TOKENS = re.compile(
    r"""(?P<bytes>(?:\\?%[0-9A-Fa-f]{2})+)
    | (?P<quotation>\\Q) | (?P<quoted>\\.)
    | (?P<class>\[\^?\]?(?:\\.|\[:[a-z^]+:\]|[^\]\\])*\])
    | (?P<percent>%) | (?P<other>[^\\\[%]+|.)""",
    re.VERBOSE | re.DOTALL,
)
MAX_MEMORY = 1 << 20  # bytes per pattern; a pattern that needs more is refused


class UnsupportedPattern(ValueError):
    """RE2 is not installed, or it refuses the pattern; the text says which."""


class _Compiled:  # `_fullmatch` is derived, so it is no field: neither compared nor sent to another process
    __slots__ = ("_fullmatch",)

    _fullmatch: Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Pattern(_Compiled):
    """A compiled pattern, compared by its text. Raises UnsupportedPattern.

    RE2's object is not sent to other processes; they compile the text again.
    """

    text: str
    ignore_case: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "_fullmatch", _engine(self.text, self.ignore_case))

    def matches(self, text: str) -> bool:
        """Return whether the pattern describes all of `text`."""
        return self._fullmatch(text.encode()) is not None


def compile_pattern(text: str, *, ignore_case: bool = False) -> Pattern:
    """Compile a pattern. Raises UnsupportedPattern."""
    return Pattern(text, ignore_case)


def _engine(text: str, ignore_case: bool) -> Callable[[bytes], object]:
    try:
        re2 = importlib.import_module("re2")
    except ImportError as error:
        raise UnsupportedPattern(
            "regular expressions need the extra l7: pip install 'connect-sidecar[l7]'"
        ) from error
    options = re2.Options()
    options.log_errors = False  # they would go to standard error, past the log
    options.max_mem = MAX_MEMORY
    options.case_sensitive = not ignore_case
    try:
        fullmatch: Callable[[bytes], object] = re2.compile(text, options=options).fullmatch
    except re2.error as error:
        raise UnsupportedPattern(f"{text!r}: {_reason(error)}") from error
    return fullmatch


def generous_patterns(text: str) -> tuple[Pattern, ...]:
    """Return the meanings of a denying pattern for paths: an escape means its character, or itself.

    Raises UnsupportedPattern also where the meaning of a percent sign is uncertain.
    """
    meant = "".join(map(_meant, _TOKENS.finditer(text))) if "%" in text else text
    return tuple(compile_pattern(one, ignore_case=True) for one in dict.fromkeys((text, meant)))


def _meant(token: re.Match[str]) -> str:
    kind, text = token.lastgroup, token[0]
    if kind == "bytes":
        return _characters(text)
    if kind in {"percent", "quotation"} or (kind != "other" and "%" in text):
        raise UnsupportedPattern(f"{token.string!r}: a percent sign that is no escape; write %25 for it")
    return text


def _characters(escapes: str) -> str:
    """Return the characters that the escapes stand for; those that no request can have stay escaped."""
    try:
        characters = bytes.fromhex(re.sub(r"\\?%", "", escapes)).decode()
    except UnicodeDecodeError as error:
        raise UnsupportedPattern(f"{escapes}: not UTF-8") from error
    return "".join(map(_character, characters))


def _character(character: str) -> str:
    if character in "/\\" or ord(character) < 0x20 or character == "\x7f":
        return f"%{ord(character):02X}"
    literal = not character.isascii() or character.isalnum() or character == "_"
    return character if literal else f"\\{character}"


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
