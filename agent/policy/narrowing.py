"""Allowances that hold for some datacenters only: Consul's intentions cannot say so, their Meta can (pure).

    source-datacenters = "dc1 dc3"        in the Meta of a service-intentions entry: for all its sources
    source-datacenters:web = "dc1"        the same for its source `web` alone
    destination-datacenters = "dc2"       where the destination runs

Names are separated by spaces or commas; `*` is every datacenter. The case of a datacenter's name does not
matter, that of a source does, as in Consul. Meta replicates with its intention: what is set once in the
primary is in force everywhere. Several that speak of one caller must all agree. A narrowing only ever takes
away: it is asked about what is allowed already, never about a denial.

An agent's own settings say the same as `SOURCE@DC,DC=>DC,DC`: `web@dc1,dc3`, `*@dc1`, `web@*=>dc2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ANY = "*"

_KEY = re.compile(r"(source|destination)-datacenters?(?::(.*))?", re.DOTALL)
_OURS = ("source-datacenter", "destination-datacenter")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SETTING = re.compile(r"([^@\s]+)@([^=\s]+)(?:=>([^=\s]+))?")

Datacenters = frozenset[str] | None  # None: every one


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """From which datacenters a source may call, and into which; `origin` says who asks for it."""

    source: str = ANY
    sources: Datacenters = None
    destinations: Datacenters = None
    origin: str = ""

    def covers(self, service: str) -> bool:
        """Whether it speaks of that source."""
        return self.source in {ANY, service}

    def objection(self, source: str, destination: str) -> str:
        """Why a caller of that datacenter may not call into that one, for a person; empty if it may.

        A destination datacenter that is not known yet (empty) is in no list.
        """
        if self.sources is not None and source.lower() not in self.sources:
            return f"{source} is not among the source datacenters {_printed(self.sources)} ({self.origin})"
        if self.destinations is not None and destination.lower() not in self.destinations:
            among = f"among the destination datacenters {_printed(self.destinations)} ({self.origin})"
            return f"{destination or 'our datacenter, not known yet,'} is not {among}"
        return ""

    def __str__(self) -> str:
        into = "" if self.destinations is None else f"=>{_printed(self.destinations)}"
        return f"{self.source}@{_printed(self.sources)}{into}"


def parse_meta(meta: Mapping[str, object], source: str) -> tuple[Narrowing, ...]:
    """The narrowings in an intention's Meta that speak of its source. Keys in any case, `_` for `-` too.

    Whatever cannot be read lets nobody in: a narrowing was meant.
    """
    return tuple(
        narrowing
        for key, value in sorted(meta.items())
        if (narrowing := _of_meta(key, value)) is not None and (source == ANY or narrowing.covers(source))
    )


def parse_setting(text: str) -> Narrowing:
    """Read `SOURCE@DC,DC[=>DC,DC]`; raise ValueError."""
    parts = _SETTING.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r}: write SOURCE@DC,DC or SOURCE@DC,DC=>DC,DC; * is any")
    source, sources, destinations = parts.groups()
    lists = [_names(part) for part in (sources, destinations or ANY)]
    if any(names is not None and not names for names in lists):
        raise ValueError(f"{text!r}: a datacenter is a name of letters, digits, - and _")
    return Narrowing(source=source, sources=lists[0], destinations=lists[1], origin="narrow, a setting")


def _of_meta(key: str, value: object) -> Narrowing | None:
    name, colon, source = key.partition(":")
    folded = name.lower().replace("_", "-")
    if not folded.startswith(_OURS):
        return None
    origin = f"Meta {key}"
    parts = _KEY.fullmatch(f"{folded}{colon}{source}")
    if parts is None or not isinstance(value, str):
        return Narrowing(sources=frozenset(), origin=f"{origin}, which cannot be read")
    names, whom = _names(value), parts[2] or ANY
    if parts[1] == "source":
        return Narrowing(source=whom, sources=names, origin=origin)
    return Narrowing(source=whom, destinations=names, origin=origin)


def _names(text: str) -> Datacenters:
    """The datacenters of a list; none at all if any of them is no name."""
    found = frozenset(_split(text.lower()))
    if ANY in found:
        return None
    return found if all(map(_NAME.fullmatch, found)) else frozenset()


def _split(text: str) -> Iterator[str]:
    return filter(None, re.split(r"[\s,]+", text))


def _printed(names: Datacenters) -> str:
    if names is None:
        return ANY
    return ",".join(sorted(names)) or "(none)"
