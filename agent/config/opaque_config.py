"""Reads the opaque `Config` maps of a registration key by key: a value, a default, or a named problem.

Consul stores these maps unread: numbers arrive as integers or floats, durations as milliseconds or as Go
strings, and any value may have the wrong type (docs/consul-api.md#registration and #config-keys).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from agent.config.parsers import InvalidDuration, parse_duration

E = TypeVar("E", bound=StrEnum)

LONGEST = 365 * 86400.0  # seconds: a year. A longer time is a typing mistake, and could overflow a date
_MOST_DIGITS = 18
_MOST_COUNT = 2**53 - 1  # the largest whole number that all readers of JSON agree on (RFC 8259 §6)
_MOST_SHOWN = 80  # characters quoted of a wrong value
_MOST_KEYS = 20  # unknown keys that are named
ENVOYS = "envoy_"  # how the keys begin that only configure Envoy itself


class ProblemReason(StrEnum):
    """Why a part of a registration is not served as written, while the rest is."""

    WRONG_VALUE = "wrong_value"
    NO_LOCAL_APP = "no_local_app"
    TRANSPARENT_PROXY = "transparent_proxy"
    EXPOSED_PATHS = "exposed_paths"  # one of them, or the checks
    UNKNOWN_KEYS = "unknown_keys"  # of another proxy, or misspelt
    OVERRULED = "overruled"  # another field of the registration says otherwise
    MULTI_PORT = "multi_port"  # of Consul 2
    NO_NAME = "no_name"
    NO_BIND = "no_bind"
    BAD_BIND = "bad_bind"
    DUPLICATE_BIND = "duplicate_bind"  # another listener of ours has the address
    APP_BIND = "bind_of_the_app"
    DEREGISTERED = "deregistered"  # Consul does not know the proxy any more
    UNKNOWN_TYPE = "unknown_type"
    PEERED = "peered"
    OTHER_NAMESPACE = "other_namespace"
    OTHER_PARTITION = "other_partition"
    NAMED_PORT = "named_port"  # of another service, of Consul 2


NOT_SERVED = frozenset(  # by these an upstream is left out
    {ProblemReason.NO_NAME, ProblemReason.NO_BIND, ProblemReason.BAD_BIND, ProblemReason.DUPLICATE_BIND}
    | {ProblemReason.APP_BIND, ProblemReason.UNKNOWN_TYPE, ProblemReason.PEERED}
    | {ProblemReason.OTHER_NAMESPACE, ProblemReason.OTHER_PARTITION, ProblemReason.NAMED_PORT}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A part of a registration that is not honoured: where, why, and what is done instead or to change."""

    where: str
    reason: ProblemReason
    detail: str
    harmless: bool = False  # keys that only configure Envoy itself

    def __str__(self) -> str:
        return f"{self.where}: {self.reason.value}: {self.detail}"


def unknown(where: str, keys: Iterable[str]) -> Iterator[Problem]:
    """Yield the problem of these unknown keys, and one for Envoy's own among them; of many some are named."""
    names = sorted(keys)
    envoys = [name for name in names if name.startswith(ENVOYS)]
    others = [name for name in names if not name.startswith(ENVOYS)]
    for some, says in ((others, "not honoured here"), (envoys, "for Envoy alone, no effect here")):
        more = f" and {len(some) - _MOST_KEYS} more" if len(some) > _MOST_KEYS else ""
        detail = f"{says}: {', '.join(map(_short, some[:_MOST_KEYS]))}{more}"
        if some:
            reason, harmless = ProblemReason.UNKNOWN_KEYS, some is envoys
            yield Problem(where=where, reason=reason, detail=detail, harmless=harmless)


def unknown_keys(fields: Mapping[str, object], known: Collection[str]) -> list[str]:
    """Return the keys that are not known and whose values say something."""
    return [key for key in fields if key not in known and says_something(fields[key])]


def says_something(value: object) -> bool:
    """Return whether a value differs from one that is left out: Consul answers many that are empty."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, Mapping):
            pending += one.values()
        elif one:
            return True
    return False


@dataclass(slots=True, kw_only=True)
class ConfigReader:
    """Reads one map; `problems` collects the values that cannot be used."""

    where: str
    config: Mapping[str, object]
    problems: list[Problem] = field(default_factory=list)

    def seconds(self, key: str, default: float) -> float:
        """Return a positive time in seconds, from a number of milliseconds or a Go duration."""
        value = self.config.get(key)
        if value is None:
            return default
        seconds = _milliseconds(value)
        if seconds is None or not 0 < seconds <= LONGEST:
            self._wrong(key, value, f"not a positive time of at most a year; {default:g} s is used")
            return default
        return seconds

    def duration(self, key: str) -> float | None:
        """Return a positive time in seconds, from a Go duration; None if absent or wrong."""
        value = self.config.get(key)
        if value is None:
            return None
        try:
            seconds = parse_duration(value) if isinstance(value, str) else 0.0
        except InvalidDuration:
            seconds = 0.0
        if not 0 < seconds <= LONGEST:
            self._wrong(key, value, "not a positive duration such as 10s, of at most a year; ignored")
            return None
        return seconds

    def count(self, key: str) -> int | None:
        """Return a whole number of at least 1; None if absent or wrong."""
        value = self.config.get(key)
        if value is None:
            return None
        number = _whole(value)
        if number is None or not 1 <= number <= _MOST_COUNT:
            self._wrong(key, value, "not a whole number of at least 1, below 2^53; no limit is set")
            return None
        return number

    def number(self, key: str, default: int, most: int) -> int:
        """Return a whole number from 0 to `most`."""
        value = self.config.get(key)
        if value is None:
            return default
        number = _whole(value)
        if number is None or not 0 <= number <= most:
            self._wrong(key, value, f"not a whole number from 0 to {most}; {default} is used")
            return default
        return number

    def port(self, key: str) -> int | None:
        """Return a TCP port; None for 0, and if absent or wrong."""
        value = self.config.get(key)
        number = _whole(value)
        if value is None or number == 0:
            return None
        if number is None or not 1 <= number <= 65535:
            self._wrong(key, value, "not a port; ignored")
            return None
        return number

    def flag(self, key: str) -> bool:
        """Return a boolean; False if absent or wrong."""
        value = self.config.get(key)
        if not isinstance(value, bool | None):
            self._wrong(key, value, "neither true nor false; false is used")
        return value is True

    def text(self, key: str, default: str) -> str:
        """Return a string that is not empty."""
        value = self.config.get(key)
        if value is None or value == "":
            return default
        if not isinstance(value, str):
            self._wrong(key, value, f"not a string; {default!r} is used")
            return default
        return value

    def choice(self, key: str, kind: type[E]) -> E | None:
        """Return a member of an enumeration; None if absent or wrong."""
        value = self.config.get(key)
        if value is None:
            return None
        found = next((member for member in kind if member.value == value), None)
        if found is None:
            self._wrong(key, value, f"not one of {', '.join(kind)}; ignored")
        return found

    def tables(self, key: str) -> list[ConfigReader]:
        """Return a reader for each map in the list under `key`; they share the list of problems."""
        value = self.config.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            self._wrong(key, value, "not a list of maps; ignored")
            return []
        return [
            ConfigReader(where=f"{self.where}.{key}[{number}]", config=item, problems=self.problems)
            for number, item in enumerate(value)
        ]

    def spelt(self, *keys: str) -> str:
        """Return which of several spellings of a key is present; the first if none is."""
        return next((key for key in keys if key in self.config), keys[0])

    def within(self, key: str) -> ConfigReader:
        """Return a reader for the map under `key`; it shares the list of problems."""
        value = self.config.get(key)
        inner: Mapping[str, object] = {}
        if isinstance(value, Mapping):
            inner = value
        elif value is not None:
            self._wrong(key, value, "not a map; ignored")
        return ConfigReader(where=f"{self.where}.{key}", config=inner, problems=self.problems)

    def problem(self, key: str, detail: str) -> None:
        """Note that the value under `key` cannot be used."""
        where = f"{self.where}.{key}"
        self.problems.append(Problem(where=where, reason=ProblemReason.WRONG_VALUE, detail=detail))

    def _wrong(self, key: str, value: object, remedy: str) -> None:
        self.problem(key, f"{shown(value)} is {remedy}")


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def shown(value: object) -> str:
    """Return the value as text, short enough for a log line."""
    try:
        text = repr(value)
    except ValueError:  # Python formats no number of more than 4300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "a value nested too deep"
    return _short(text)


def _milliseconds(value: object) -> float | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = _whole(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000 if abs(value) <= LONGEST * 1000 else None
    if not isinstance(value, str):
        return None
    try:
        return parse_duration(value)
    except InvalidDuration:
        return None


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value) if len(value) <= _MOST_DIGITS else None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None
