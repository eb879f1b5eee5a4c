"""The state of an agent in one line, problems first, for a person.

The same line is the first of `sidecar status` and of `/ready`, the STATUS of systemd, and the head of the
page at `/`. It is made of what the agent knows anyway, once a second, so it asks no other process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.base.phase import Phase

_BETWEEN = " · "
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
FEW = 3  # names in one part of the line


class Health(StrEnum):
    """Whether the agent serves, and whether an operator has to look."""

    OK = "ok"
    DEGRADED = "degraded"  # it serves, and something is wrong
    FAILING = "failing"  # it does not serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the headline is made of. Times in seconds.

    `missing`: what keeps the agent from serving. `empty`, `unknown`: upstreams without an instance that may
    be dialled, and those whose first answer has not come. `silent`: how long Consul has not answered; None
    while it does. `refused`: watches that Consul answers with an error. `leaf_left`: None before a leaf.
    `failing`: calls that fail, one text each. `start_timeout`: after how long a start gives up, 0 for never.
    """

    phase: Phase
    missing: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    upstreams: int = 0
    empty: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    silent: float | None = None
    refused: tuple[str, ...] = ()
    leaf_left: float | None = None
    failing: tuple[str, ...] = ()
    start_timeout: float = 0.0


def health(facts: Facts) -> Health:
    """Return the health that the headline tells of."""
    if facts.missing or facts.phase is not Phase.SERVING:
        return Health.FAILING
    return Health.DEGRADED if any(_problems(facts)) else Health.OK


def headline(facts: Facts) -> str:
    """Return the line."""
    if facts.phase is Phase.DRAINING:
        return "draining"
    if facts.phase is Phase.STARTING:
        pieces = (*(facts.missing or ("almost ready",)), *facts.complaints)
        return starting(pieces, facts.start_timeout)
    if facts.missing:
        parts = ["not ready", *_silence(facts), *facts.missing, *_problems(facts)]
    else:
        parts = ["serving", *_problems(facts)]
    if facts.leaf_left is not None and facts.leaf_left > 0:  # one that has expired is missing
        parts.append(f"leaf {rough(facts.leaf_left)}")
    return _BETWEEN.join(parts)


def starting(pieces: Sequence[str], timeout: float) -> str:
    """Return the line of a start that waits for `pieces`, and gives up after `timeout` seconds; 0: never."""
    end = [f"gives up after {timeout:g} s"] if timeout else []
    return _BETWEEN.join(("starting", *pieces, *end))


def rough(seconds: float) -> str:
    """Return a duration in its two largest units, rounded down: `28 s`, `12 min`, `2 d 23 h`."""
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return _two(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    return _two(whole // _DAY, "d", whole % _DAY // _HOUR, "h")


def _problems(facts: Facts) -> Iterator[str]:
    yield from facts.complaints
    if facts.empty:
        yield _counted(facts.empty, facts.upstreams, "no instance")
    if not facts.missing:
        yield from _silence(facts)
    if facts.silent is None and facts.unknown:  # while Consul is silent, that is why
        yield _counted(facts.unknown, facts.upstreams, "no answer yet")
    if facts.refused:
        yield f"Consul refuses {few(facts.refused)}"
    if facts.missing:
        return  # which is why calls fail
    named = (*facts.empty, *facts.unknown)  # calls to them fail for a reason that is told already
    yield from (
        one for one in facts.failing if not any(f" {name} fail: no_endpoints" in one for name in named)
    )


def _silence(facts: Facts) -> Iterator[str]:
    """Yield that Consul is silent: before what is missing, since that is most often why."""
    if facts.silent is not None:
        yield f"Consul silent {rough(facts.silent)}"


def _counted(names: tuple[str, ...], of: int, what: str) -> str:
    verb = "has" if len(names) == 1 else "have"
    return f"{len(names)} of {of} upstreams {verb} {what} ({few(names)})"


def few(every: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    names = tuple(every)
    more = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {more} more" if more > 0 else "")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"
