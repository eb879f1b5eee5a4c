"""Serves a caller whose HTTP requests are judged one by one, on a TLS connection or a stream of a tunnel."""

from __future__ import annotations

from agent.connections.connection import Connection
from agent.http1.head import FieldNames
from agent.inbound.http_connection import HttpConnection
from agent.inbound.http_service import HttpService
from agent.inbound.verdict import Inbound, identity
from agent.relay.splice import Ending
from agent.relay.streams import WatchedStream


async def serve_requests(
    stream: WatchedStream, connection: Connection, preamble: bytes, inbound: Inbound
) -> Ending:
    """Serve requests until the end, which the ledger then has; `preamble` begins each dial of the app."""
    assert connection.peer is not None  # proven before a verdict
    connection.relaying()
    service = HttpService(
        policy=inbound.policy,
        freshness=inbound.freshness,
        app=inbound.app,
        connect_timeout=inbound.connect_timeout,
        relay=inbound.relay,
        ledger=inbound.ledger,
        preamble=preamble,
        shun=inbound.shun,
        names=FieldNames.UNDERSCORES if inbound.underscores_in_headers else FieldNames.PLAIN,
    )
    caller = identity(inbound.credentials, connection.peer)
    http = HttpConnection(stream, service, peer=connection.peer, identity=caller, connection=connection)
    return await http.serve()
