"""Decides which instances are used for a while though Consul's newest answer offers none.

When the client agent beside an instance restarts, its node leaves the catalog with all it has, and comes back
with checks that have not run yet: `critical`, though none has found anything. The app serves all the while.
So an instance of which no check says anything bad is used for a short time, as long as it answers with its
identity:

- `vanished`: it has gone together with its whole node;
- `unchecked`: it is listed, and every check that does not pass is one which the agent runs, and whose result
it has lost: there was one, and now there is none.

Its time counts from its loss, and anew from its return: an agent that was away for long must still run the
checks. A further loss, before Consul has offered it again, lengthens nothing.

All of this holds only while the answer has no other instance to offer. An instance is obeyed at once if a
check has found it critical, if it is in maintenance, or if others of its node are still there without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from upstreams.endpoints import Checks, Endpoint, EndpointKey, EndpointSet, Status

_USABLE = (Status.PASSING, Status.WARNING)


@dataclass(frozen=True, slots=True)
class Kept:
    """An instance that is used until `until`, though the newest answer does not offer it.

    `returned`: it was listed since, with checks that have not run.
    """

    endpoint: Endpoint
    until: float
    returned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The newest answer of a lookup, its usable instances, and those that are used beside them.

    Times are seconds of a clock that never goes back.
    """

    answer: EndpointSet
    usable: tuple[Endpoint, ...] = ()
    kept: tuple[Kept, ...] = ()

    @property
    def endpoints(self) -> EndpointSet:
        """What is used now: the answer, in which kept instances stand as such."""
        if not self.kept:
            return self.answer
        kept = {one.endpoint.key: one.endpoint for one in self.kept}
        others = (endpoint for endpoint in self.answer.endpoints if endpoint.key not in kept)
        return replace(self.answer, endpoints=(*kept.values(), *others))

    @property
    def ends(self) -> float | None:
        """When the first of the kept instances is used no more; None if there is none."""
        return min((one.until for one in self.kept), default=None)

    def without_the_late(self, now: float) -> Memory:
        """Return the same without the instances whose time is over."""
        return replace(self, kept=tuple(one for one in self.kept if one.until > now))


def remember(before: Memory | None, answer: EndpointSet, *, now: float, grace: float) -> Memory:
    """Return what is known after a newer answer; an instance is kept for `grace` seconds, 0 for none."""
    usable = tuple(endpoint for endpoint in answer.endpoints if endpoint.status in _USABLE)
    if usable or before is None or grace <= 0:
        return Memory(answer=answer, usable=usable)
    known = [Kept(endpoint, now + grace) for endpoint in before.usable]
    known += [one for one in before.kept if one.until > now]
    listed = {endpoint.key: endpoint for endpoint in answer.endpoints}
    nodes = {(key.datacenter, key.node) for key in listed}
    kept = (_still_used(one, listed, nodes, now + grace) for one in known)
    return Memory(answer=answer, kept=tuple(one for one in kept if one is not None))


def _still_used(
    one: Kept, listed: dict[EndpointKey, Endpoint], nodes: set[tuple[str, str]], anew: float
) -> Kept | None:
    """Return the instance as it is used by now; None if Consul's word about it is obeyed.

    One that has returned is used until `anew`.
    """
    before = one.endpoint
    newer = listed.get(before.key)
    if newer is None:
        left_others = (before.datacenter, before.node) in nodes and before.status is not Status.VANISHED
        return None if left_others else replace(one, endpoint=replace(before, status=Status.VANISHED))
    lost = before.checks is Checks.TOLD and newer.checks is Checks.UNTOLD
    if not lost or newer.expected != before.expected:
        return None
    unchecked = replace(newer, status=Status.UNCHECKED, checks=Checks.TOLD)
    return Kept(unchecked, one.until if one.returned else anew, returned=True)
