"""What is done with an accepted connection: the newest values are looked up here, at the moment of use."""

from __future__ import annotations

import socket

from agent.inbound import serve_inbound
from agent.judge import Judge
from agent.ledger import Connection, Finished
from agent.listener import Place
from agent.options import ProxyProtocol
from agent.outbound import serve_outbound
from agent.particulars import Audited, FailedAttempt, RefusedRequest
from agent.parts import Parts
from agent.relay import Relay
from agent.targets import Targets


class Handlers:
    """Serves connections of both directions with the parts of one agent."""

    def __init__(self, parts: Parts, relay: Relay) -> None:
        self._parts = parts
        self._relay = relay

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
            deny_list=parts.deny_file.latest,
            proxy_protocol=parts.settings.proxy_protocol is ProxyProtocol.V2,
            settled=place.settle,
        )

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
    """Hears of every connection (agent.ledger.ConnectionEvents): writes it down, and does what follows."""

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
