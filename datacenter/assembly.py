"""Puts one datacenter together: its endpoints, and the order in which its services start."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from datacenter.ca import endpoints as ca_api
from datacenter.faults import endpoints as faults
from datacenter.faults.endpoints import PATH
from datacenter.faults.injection import FaultyFrame, FaultyWire
from datacenter.federation import endpoints as federation
from datacenter.http import page, telemetry
from datacenter.http.context import Clock, Datacenter, Route
from datacenter.http.forward import HttpWire, KnownDatacenters, WireForwarder
from datacenter.http.frame import Answers, Frame
from datacenter.intentions import config_endpoints as config_api
from datacenter.intentions import endpoints as intentions_api
from datacenter.intentions.config_entries import refile
from datacenter.queries import endpoints as queries
from datacenter.queries import execution as query_execution
from datacenter.services import agent_checks, agent_self, agent_services, catalog, checks, coordinates, health
from datacenter.state.settings import Settings
from datacenter.state.store import Store
from datacenter.state.switches import Faults

_LOG = logging.getLogger(__name__)

# The first route that matches wins: a fixed path goes before one with a name in its place.
MODULES: Sequence[Callable[[Datacenter], list[Route]]] = (
    agent_self.routes,
    agent_services.routes,
    agent_checks.routes,
    catalog.routes,
    health.routes,
    coordinates.routes,
    query_execution.routes,
    queries.routes,
    ca_api.routes,
    intentions_api.routes,
    config_api.routes,
    federation.routes,
    faults.routes,
    page.routes,
    telemetry.routes,
)


class Service(Protocol):
    """A task that runs as long as the datacenter does."""

    def __call__(self, dc: Datacenter, *, task_status: trio.TaskStatus[None]) -> Awaitable[object]: ...


SERVICES: Sequence[Service] = (checks.run, federation.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A running datacenter that does not listen yet."""

    dc: Datacenter
    frame: Answers


def all_routes(dc: Datacenter) -> list[Route]:
    """Return every endpoint."""
    return [route for module in MODULES for route in module(dc)]


@asynccontextmanager
async def assembled(
    settings: Settings,
    store: Store,
    *,
    clock: Clock,
    rng: random.Random,
    lost_lines: Callable[[], int] = lambda: 0,
) -> AsyncIterator[Assembled]:
    """Run the datacenter within the block; the caller closes the store."""
    known = KnownDatacenters(settings.name, store)
    switches = Faults() if settings.enable_faults else None
    async with HttpWire() as wire, trio.open_nursery() as nursery:
        carrier = FaultyWire(wire, switches) if switches else wire
        dc = Datacenter(
            settings=settings,
            store=store,
            clock=switches.clock(clock) if switches else clock,
            rng=rng,
            federation=known,
            forwarder=WireForwarder(settings.name, known, carrier),
            faults=switches,
            lost_lines=lost_lines,
        )
        refile(store)
        agent_self.register_own_node(dc)
        for service in SERVICES:
            await nursery.start(service, dc)
        frame = Frame(dc, all_routes(dc))
        if switches:
            _LOG.warning("faults can be switched on at %s: this is a datacenter for tests", PATH)
        yield Assembled(dc=dc, frame=FaultyFrame(frame, switches) if switches else frame)
        nursery.cancel_scope.cancel()
