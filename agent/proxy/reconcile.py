"""Goes along with the registration: what it changes is changed, and nothing else is touched."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from agent.config.registration import Registration
from agent.net.accept import Admission
from agent.net.listeners import Listeners, Opening
from agent.outbound.listeners import Feeds, UpstreamListeners
from agent.outbound.upstream_state import Sources, Surroundings, TargetEvents
from agent.parts import PUBLIC, Parts
from agent.proxy.dataplane import Handlers
from agent.relay.relay import Relay

PUBLIC_PURPOSE = "callers from the mesh"


class Directory(Feeds, Sources, Protocol):
    """Who is told which upstreams there are, and says where they are."""


@dataclass(slots=True, kw_only=True)
class Following:
    """Carries a registration out: strictly the first, then each change of it."""

    parts: Parts
    listeners: Listeners
    upstreams: UpstreamListeners
    handlers: Handlers
    connections: trio.Nursery
    inherited: socket.socket | None
    watch_intentions: Callable[[], None]

    async def bind(self, registration: Registration) -> None:
        """At start: take every address. Raises BindFailed."""
        if self._opens_public(registration):
            await self.listeners.bind(PUBLIC, self._public(registration))
            self.watch_intentions()
        await self.upstreams.bind(registration.upstreams)

    async def follow(self, before: Registration, version: int) -> None:
        """Carry out every change after that version, for ever."""
        while True:
            after, version = await self.parts.placement.newer(version)
            await self.change(before, after)
            before = after

    async def change(self, before: Registration, after: Registration) -> None:
        """Carry out one change."""
        await self._move_public(before, after)
        await self.upstreams.follow(after.upstreams, self.parts.settings.drain_seconds, self.connections)

    async def _move_public(self, before: Registration, after: Registration) -> None:
        opening = self.listeners.get(PUBLIC)
        wanted = self._opens_public(after)
        stays = opening is not None and wanted and self._same_place(before, after)
        if opening is not None and stays:
            opening.admission.limit = self._limit(after)
            return
        await self.listeners.close(PUBLIC)
        if wanted:
            self.watch_intentions()  # until they are known callers are refused by name
            await self.listeners.add(PUBLIC, self._public(after))

    def _same_place(self, before: Registration, after: Registration) -> bool:
        return self.inherited is not None or before.public_bind == after.public_bind

    def _opens_public(self, registration: Registration) -> bool:
        return registration.public_bind is not None and registration.local_app is not None

    def _public(self, registration: Registration) -> Opening:
        assert registration.public_bind is not None  # asked before
        return Opening(
            purpose=PUBLIC_PURPOSE,
            address=registration.public_bind,
            handler=self.handlers.inbound,
            admission=Admission(self._limit(registration), self.parts.settings.max_handshakes or None),
            inherited=self.inherited,
            checked=True,
        )

    def _limit(self, registration: Registration) -> int | None:
        return registration.max_inbound_connections or self.parts.settings.max_connections or None


def assemble(
    parts: Parts,
    relay: Relay,
    *,
    listeners: Listeners,
    directory: Directory,
    connections: trio.Nursery,
    events: TargetEvents,
    inherited: socket.socket | None,
    watch_intentions: Callable[[], None],
) -> Following:
    """What serves and listens, put together; the parts know it from now on."""
    handlers = Handlers(parts, relay)
    settings = parts.settings
    around = Surroundings(
        sources=directory,
        own_datacenter=parts.own_datacenter,
        wan=settings.wan_addresses,
        rng=parts.rng,
        loads=parts.loads,
        events=events,
    )
    parts.listeners = listeners
    parts.upstreams = UpstreamListeners(
        listeners=listeners,
        feeds=directory,
        ledger=parts.ledger,
        serve=handlers.outbound,
        around=around,
        limit=settings.max_connections or None,
        unsettled_limit=settings.max_handshakes or None,
        current={},
    )
    return Following(
        parts=parts,
        listeners=listeners,
        upstreams=parts.upstreams,
        handlers=handlers,
        connections=connections,
        inherited=inherited,
        watch_intentions=watch_intentions,
    )
