"""Narrowings: allowances that hold for some datacenters only, which intentions cannot express. No effects.

    source-datacenters = "dc1 dc3"        in the Meta of a service-intentions entry: for all its sources
    source-datacenters:web = "dc1"        for its source `web` alone
    destination-datacenters = "dc2"       the datacenter of the destination

Names are separated by spaces or commas; `*` is every datacenter. The case of a datacenter's name is ignored,
that of a source is not, as in Consul. Meta replicates with its intention, so an entry in the primary applies
everywhere. If several narrowings apply to a caller, all of them must allow it. A narrowing is applied to
allowed calls only.

An agent's own settings express the same as `SOURCE@DC,DC=>DC,DC`: `web@dc1,dc3`, `*@dc1`, `web@*=>dc2`.
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
    """The datacenters from which a source may call, and to which.

    `origin`: where the narrowing was written.
    """

    source: str = ANY
    sources: Datacenters = None
    destinations: Datacenters = None
    origin: str = ""

    def covers(self, service: str) -> bool:
        """Return whether it applies to that source."""
        return self.source in {ANY, service}

    def objection(self, source: str, destination: str) -> str:
        """Return why a caller of datacenter `source` may not call `destination`, for a person.

        Empty if it may.

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
    """Return the narrowings in an intention's Meta for its source. Keys may have any case, and `_` for `-`.

    A value that cannot be read excludes every datacenter, since a narrowing was intended.
    """
    return tuple(
        narrowing
        for key, value in sorted(meta.items())
        if (narrowing := _of_meta(key, value)) is not None and (source == ANY or narrowing.covers(source))
    )


def parse_setting(text: str) -> Narrowing:
    """Read `SOURCE@DC,DC[=>DC,DC]`. Raises ValueError."""
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
    """Return the datacenters of a list; an empty set if any of them is no name."""
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
