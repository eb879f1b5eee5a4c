"""The endpoints in a worker, which come by messages: the control process watches them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from agent.base.latest import Latest
from agent.base.watch_status import ReportedFailure, WatchStatus
from agent.snapshot import EndpointSource
from agent.workers.messages import HandedEndpoints
from agent.workers.reports import AskedAgain, GatewaysWanted, RefusalsUnexplained, WorkerRequest
from upstreams.endpoints import EndpointSet
from upstreams.spec import Gateways, Lookup, QueryDestination, Upstream

Key = tuple[Lookup, float | None]


class HandedSources:
    """Endpoints by lookup (agent.snapshot.EndpointSources); `say` sends a request to the control process."""

    def __init__(self, say: Callable[[WorkerRequest], None]) -> None:
        self._say = say
        self._sources: dict[Key, EndpointSource] = {}
        self._numbers: dict[int, Key] = {}

    def source(self, lookup: Lookup, poll_interval: float | None, /) -> EndpointSource:
        """Return the source of a lookup.

        The first call for gateways asks the control process to watch them.
        """
        key = _key(lookup, poll_interval)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = _unknown(lookup)
            if isinstance(lookup, Gateways):
                self._say(GatewaysWanted(lookup.datacenter))
        return source

    def want(self, upstreams: Iterable[Upstream], /) -> None:
        """Do nothing: the control process has the same upstreams, and watches them."""

    def explain_refusals(self) -> None:
        """Ask the control process, which asks Consul (agent.snapshot.EndpointSources)."""
        self._say(RefusalsUnexplained())

    def take(self, handed: HandedEndpoints) -> None:
        """Apply a newer state of a source."""
        key = _key(handed.lookup, handed.poll_interval)
        source = self._sources.setdefault(key, _unknown(handed.lookup))
        self._numbers[handed.number] = key
        source.is_polled = partial(bool, handed.polled)
        source.ask_again = partial(self._say, AskedAgain(handed.number))
        source.status.failing = ReportedFailure("handed_on", handed.failing) if handed.failing else None
        if handed.endpoints is not None and handed.endpoints != source.endpoints.value:
            source.endpoints.publish(handed.endpoints)

    def drop(self, number: int) -> None:
        """Forget a source that will not be updated any more."""
        key = self._numbers.pop(number, None)
        if key is not None and key not in self._numbers.values():
            self._sources.pop(key, None)


def _unknown(lookup: Lookup) -> EndpointSource:
    endpoints: Latest[EndpointSet] = Latest()
    status = WatchStatus(name=f"endpoints {lookup}")
    query = isinstance(lookup, QueryDestination)
    return EndpointSource(
        endpoints=endpoints,
        status=status,
        ask_again=lambda: None,
        is_polled=partial(bool, query),
        answers_at_once=not query,
    )


def _key(lookup: Lookup, poll_interval: float | None) -> Key:
    return lookup, poll_interval if isinstance(lookup, QueryDestination) else None
