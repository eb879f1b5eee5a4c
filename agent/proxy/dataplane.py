"""What is done with an accepted connection: the newest values are looked up here, at the moment of use."""

from __future__ import annotations

import socket

import trio

from agent.config.options import ProxyProtocol
from agent.connections.connection import Connection, Handling
from agent.connections.reauthorize import Judge
from agent.connections.records import Audited, FailedAttempt, Finished, RefusedRequest
from agent.inbound.inbound import handling, serve_inbound
from agent.net.accept import Place
from agent.net.handshake import Way
from agent.outbound.outbound import serve_outbound
from agent.outbound.upstream_state import Targets
from agent.parts import Parts
from agent.policy.http_mode import HttpMode
from agent.relay.relay import Relay

STEPS = 4  # of handshakes before every other task has its turn, where requests are judged: some 2 ms of work


class Handlers:
    """Serves connections of both directions with the parts of one agent."""

    def __init__(self, parts: Parts, relay: Relay) -> None:
        self._parts = parts
        self._relay = relay
        self._steps = trio.CapacityLimiter(STEPS)

    async def inbound(self, sock: socket.socket, place: Place) -> None:
        """A caller from the mesh."""
        parts = self._parts
        registration = parts.placement.value
        if registration is None or registration.local_app is None:  # the app was taken from the registration
            sock.close()
            return
        await serve_inbound(
            sock,
            contexts=parts.contexts,
            intentions=parts.intentions,
            app=registration.local_app,
            relay=self._relay,
            ledger=parts.ledger,
            clock=parts.clock,
            handshake_timeout=registration.handshake_timeout,
            connect_timeout=registration.local_connect_timeout,
            http=registration.http,
            underscores_in_headers=registration.underscores_in_headers,
            deny_list=parts.deny_file.latest,
            proxy_protocol=parts.settings.proxy_protocol is ProxyProtocol.V2,
            way=self.way(registration.http),
            settled=place.settle,
        )

    def way(self, http: HttpMode) -> Way:
        """How a handshake makes way for those who are there: they are the relay's, or tasks of their own."""
        intentions = self._parts.intentions.value
        if intentions is None or handling(intentions, http) is not Handling.BY_REQUEST:
            return self._relay.make_way
        return self._among_tasks

    async def _among_tasks(self) -> None:
        await self._relay.make_way()
        async with self._steps:  # which lets every task that can run go first
            pass

    async def outbound(self, sock: socket.socket, place: Place, targets: Targets) -> None:
        """Our app."""
        parts = self._parts
        registration = parts.placement.value
        assert registration is not None  # an upstream comes out of one
        await serve_outbound(
            sock,
            targets=targets,
            contexts=parts.contexts,
            relay=self._relay,
            ledger=parts.ledger,
            clock=parts.clock,
            handshake_timeout=registration.handshake_timeout,
            deny_list=parts.deny_file.latest,
            outgoing=parts.outgoing,
            settled=place.settle,
        )


class Reactions:
    """Hears of every connection (agent.connections.connection.ConnectionEvents), and acts on it."""

    def __init__(self) -> None:
        self._parts: Parts | None = None
        self._judge: Judge | None = None

    def attach(self, parts: Parts, judge: Judge) -> None:
        """The ledger is made with its listener, and the parts with the ledger: so these come last."""
        self._parts = parts
        self._judge = judge

    def opened(self, connection: Connection, /) -> None:
        """It has a peer, which will expire."""
        if self._parts is not None and self._judge is not None:
            self._parts.journal.opened(connection)
            self._judge.opened(connection)

    def closed(self, finished: Finished, /) -> None:
        """It has ended."""
        if self._parts is not None:
            self._parts.journal.closed(finished)

    def refused(self, finished: Finished, /) -> None:
        """It has ended before it began."""
        if self._parts is not None:
            self._parts.journal.refused(finished)

    def request_refused(self, connection: Connection, refused: RefusedRequest, /) -> None:
        """An HTTP request was answered here."""
        if self._parts is not None:
            self._parts.journal.request_refused(connection, refused)

    def audited(self, connection: Connection, audited: Audited, /) -> None:
        """What would have been denied was let through."""
        if self._parts is not None:
            self._parts.journal.audited(connection, audited)

    def attempt_failed(self, connection: Connection, attempt: FailedAttempt, /) -> None:
        """A candidate does not serve."""
        if self._parts is not None:
            self._parts.journal.attempt_failed(connection, attempt)
