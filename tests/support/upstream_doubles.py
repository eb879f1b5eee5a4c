"""What an upstream's targets need, in tests' hands: sources to publish to, events written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

import trio

from agent.base.latest import Latest
from agent.base.watch_status import WatchStatus
from agent.outbound.upstream_state import TargetEvents, UpstreamContext
from agent.snapshot import EndpointSource, EndpointSources
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet
from upstreams.reach import AddressWarning, DialAddress
from upstreams.spec import Destination, Lookup, Upstream, WanMode


@dataclass(slots=True)
class Told:
    """agent.outbound.upstream_state.TargetEvents, written down."""

    changes: list[tuple[str, str]] = field(default_factory=list)
    ejections: list[str] = field(default_factory=list)
    doubts: list[tuple[str, AddressWarning]] = field(default_factory=list)

    def target_changed(self, upstream: Upstream, before: Destination, after: Destination, /) -> None:
        self.changes.append((str(before), str(after)))

    def ejected(self, upstream: Upstream, endpoint: Endpoint, seconds: float, /) -> None:
        self.ejections.append(endpoint.service_id)

    def doubted(
        self, upstream: Upstream, endpoint: Endpoint, dialling: DialAddress, found: AddressWarning, /
    ) -> None:
        self.doubts.append((endpoint.service_id, found))


@dataclass(slots=True)
class Lookups:
    """A source for everything, made when it is first looked up; `asked` counts the early questions."""

    made: dict[str, EndpointSource] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    polled: bool = False
    answers: dict[str, Callable[[], EndpointSet]] = field(default_factory=dict)  # to an early question

    wanted: list[list[str]] = field(default_factory=list)

    def want(self, upstreams: Iterable[Upstream], /) -> None:
        self.wanted.append([str(upstream.destination) for upstream in upstreams])

    def explain_refusals(self) -> None:
        """Nothing is refused here."""

    def source(self, lookup: Lookup, _poll_interval: float | None, /) -> EndpointSource:
        name = str(lookup)
        if name not in self.made:
            self.made[name] = EndpointSource(
                endpoints=Latest(),
                status=WatchStatus(name=name),
                ask_again=lambda: self._ask(name),
                is_polled=lambda: self.polled,
            )
        return self.made[name]

    def answer(self, name: str, *endpoints: Endpoint) -> None:
        """The lookup of that name has a new answer."""
        self.made[name].endpoints.publish(EndpointSet(endpoints=endpoints))

    def _ask(self, name: str) -> None:
        self.asked[name] += 1
        if name in self.answers:
            self.made[name].endpoints.publish(self.answers[name]())


def surroundings(
    sources: EndpointSources,
    events: TargetEvents,
    clock: Callable[[], float] = trio.current_time,
    loads: Counter[EndpointKey] | None = None,
) -> UpstreamContext:
    """dc1, everything random drawn from one seed."""
    return UpstreamContext(
        sources=sources,
        own_datacenter=lambda: "dc1",
        wan=WanMode.AUTO,
        clock=clock,
        rng=Random(1),
        loads=Counter() if loads is None else loads,
        events=events,
    )
