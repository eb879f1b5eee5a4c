"""Consul's intentions for one destination, and which of them decides about a source.

See docs/consul-api.md#intentions.

The match answer is read once for each change. Its order is not relied on: precedence is computed as Consul
computes it. `authorize.py` decides what a rule means for a caller, together with our settings.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import msgspec

from agent.base.incremental import Incremental, Work
from agent.policy.intention import Effect, Intention, Order, Source, deciding_order, read_rule
from agent.policy.wire import WILDCARD, read_item
from certs.spiffe import ServiceId


class InvalidIntentions(ValueError):
    """An answer of the wrong shape; the text names the path of the field."""


PIECE = 100  # intentions read in one step: about a millisecond
_NOWHERE = sys.maxsize


class _Index:  # derived values, so they are no fields: neither compared nor sent to another process
    __slots__ = ("_doubts", "_of_peers", "_places", "by_request", "narrows")

    by_request: bool  # whether requests have to be parsed, for any caller
    narrows: bool  # whether any rule is narrowed
    _places: Mapping[Source, int]  # the first rule that names each source
    _doubts: Mapping[Source, int]  # the same for rules that are not understood
    _of_peers: Mapping[Source, int]  # the same for rules about callers from other datacenters


@dataclass(frozen=True, slots=True, kw_only=True)
class Intentions(_Index):
    """The rules for one destination, in deciding order, and the default policy.

    `default_unknown`: why the default allows nothing although Consul's header allows; `default_origin`: what
    Consul says about the default beside that header.
    """

    destination: str
    rules: tuple[Intention, ...]
    default_allow: bool
    default_unknown: str = ""
    default_origin: str = ""

    def __post_init__(self) -> None:
        """Index the rules by source, so that the number of rules does not slow a verdict."""
        places: dict[Source, int] = {}
        doubts: dict[Source, int] = {}
        of_peers: dict[Source, int] = {}
        for place, rule in enumerate(self.rules):
            index = of_peers if rule.of_peer else doubts if rule.doubt else places
            index.setdefault(rule.origin, place)
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_doubts", doubts)
        object.__setattr__(self, "_of_peers", of_peers)
        by_request = any(rule.effect is Effect.BY_REQUEST and not rule.doubt for rule in self.rules)
        object.__setattr__(self, "by_request", by_request)
        narrows = any(rule.narrowings for rule in self.rules)
        object.__setattr__(self, "narrows", narrows)

    @property
    def header_names(self) -> frozenset[str]:
        """The headers, folded, that any permission looks at."""
        return frozenset().union(*(rule.permissions.header_names for rule in self.rules if rule.permissions))

    @property
    def default(self) -> str:
        """The default policy: allow, deny or unknown."""
        if self.default_unknown:
            return "unknown"
        return "allow" if self.default_allow else "deny"

    @property
    def unsupported(self) -> list[str]:
        """The rules that deny because they, or their permissions, are not understood; for a person."""
        unreadable = ((rule, rule.permissions) for rule in self.rules if rule.permissions is not None)
        return [
            *(str(rule) for rule in self.rules if rule.doubt),
            *(f"{rule}, {found.detail}" for rule, found in unreadable if found.unreadable is not None),
        ]

    def with_default(self, allow: bool | None, said: str) -> Intentions:
        """Return the same with Consul's own answer about its default.

        The stricter of it and the header holds.

        `allow` is None if there was no answer; then `said` is why, else it is Consul's reason.
        """
        if not self.default_unknown:
            return self
        verb = "allows" if allow else "does not tell" if allow is None else "denies"
        return replace(
            self,
            default_allow=allow is True,
            default_unknown=said if allow is None else "",
            default_origin=f"authorize {verb}: {said}",
        )

    def deciding(self, source: ServiceId, datacenter: str) -> Intention | None:
        """Return the first rule, by precedence, that names the source; None leaves it to the default policy.

        `datacenter` is the destination's, empty while unknown. The source's name is compared exactly, case
        included, as in Consul. A wildcard does not cross partitions.
        """
        found = _first(self._places, source.partition, source)
        if self._doubts:
            found = min(found, _first(self._doubts, WILDCARD, source))
        if self._of_peers and source.datacenter.lower() != datacenter.lower():
            found = min(found, _first(self._of_peers, WILDCARD, source))
        return None if found == _NOWHERE else self.rules[found]


def parse_match(answer: Sequence[object] | None, destination: str, *, default_allow: bool) -> Intentions:
    """Read one destination's list of the match answer (None: no rules). Raises InvalidIntentions."""
    return Incremental(read_match(answer, destination, default_allow=default_allow)).run_now()


def read_match(
    answer: Sequence[object] | None, destination: str, *, default_allow: bool, default_unknown: str = ""
) -> Work[Intentions]:
    """Read the same in steps, since ten thousand intentions take a tenth of a second.

    Raises InvalidIntentions.

    Consul selects the list by our name, so the list is for our name. The items are JSON (msgspec.Raw), or
    decoded.
    """
    rules: list[tuple[Order, Intention]] = []
    for place, raw in enumerate(answer or ()):
        if place % PIECE == PIECE - 1:
            yield
        try:
            rule = read_rule(read_item(raw), destination)
        except msgspec.DecodeError as error:
            detail = str(error).replace("`$", f"`$[{place}]")
            raise InvalidIntentions(f"intentions of {destination}: {detail}") from error
        if rule is not None:
            rules.append((deciding_order(rule), rule))
    rules.sort(key=itemgetter(0))
    ordered = tuple(rule for _, rule in rules)
    return Intentions(
        destination=destination,
        rules=ordered,
        default_allow=default_allow,
        default_unknown=default_unknown,
    )


def _first(index: Mapping[Source, int], partition: str, source: ServiceId) -> int:
    """Return the first rule that names the source, by name or wildcard; _NOWHERE if none does."""
    return min(
        index.get((partition, source.namespace, source.service), _NOWHERE),
        index.get((partition, source.namespace, WILDCARD), _NOWHERE),
        index.get((partition, WILDCARD, source.service), _NOWHERE),
        index.get((partition, WILDCARD, WILDCARD), _NOWHERE),
    )
