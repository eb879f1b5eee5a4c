"""Serves a connection of our app by a warm connection, without dial, handshake or wait."""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import StrEnum

import trio

from agent.connections.connection import Connection
from agent.connections.ledger import Ledger
from agent.connections.records import FailedAttempt
from agent.outbound.upstream_state import UpstreamState, counted
from agent.outbound.warm_connection import WarmConnection
from agent.relay.close import close_both, has_left
from agent.relay.pump import explain_system
from agent.relay.relay import Relay
from agent.relay.splice import Ending, Transfer
from upstreams.route import dialled


class WarmUse(StrEnum):
    """Why a warm connection that looked usable did not serve."""

    BROKEN = "warm_connection_broken"  # an attempt's reason; the connection's if bytes of our app were sent


async def serve_warm(
    sock: socket.socket,
    connection: Connection,
    failed: list[FailedAttempt],
    *,
    targets: UpstreamState,
    relay: Relay,
    ledger: Ledger,
    on_served: Callable[[], None],
) -> bool:
    """Serve the connection until its end; return False, with no byte of our app taken, if none is usable.

    A warm connection that breaks before a byte was stale, which is no failure of its endpoint: the next warm
    one, or a dial, serves instead, and `failed` notes it.
    """
    while targets.warm is not None and (warm := targets.warm.take()) is not None:
        on_served()
        with counted(targets, warm.candidate.hop.key):
            transfer = await _relay(sock, warm, connection, relay)
        detail = f"{transfer.ending.value}: {transfer.detail}"
        if transfer.refused and transfer.untouched:
            attempt = FailedAttempt(
                endpoint=str(warm.candidate), address=connection.dialled, reason=WarmUse.BROKEN, detail=detail
            )
            failed.append(attempt)
            ledger.attempt_failed(connection, attempt)
            if has_left(sock):
                return False
            continue
        if transfer.answered:
            targets.succeeded(warm.candidate)
        if transfer.refused:
            connection.end(WarmUse.BROKEN, detail)
        else:
            connection.end(transfer.ending, transfer.detail)
        close_both(sock, None, transfer.ending)
        return True
    return False


async def _relay(sock: socket.socket, warm: WarmConnection, connection: Connection, relay: Relay) -> Transfer:
    ending: Ending | None = None
    try:
        connection.peer, connection.ours = warm.peer, warm.ours
        connection.dialled = dialled(warm.candidate, warm.dialling, "warm")
        connection.relaying()
        transfer = await _pass_on(sock, warm, connection) if warm.early else None
        if transfer is None:
            transfer = await relay.run(sock, warm.tls, connection.progress)
        ending = transfer.ending
        return transfer
    finally:
        close_both(None, warm.sock, ending)


async def _pass_on(sock: socket.socket, warm: WarmConnection, connection: Connection) -> Transfer | None:
    """Send our app the bytes the far side has sent already; return the transfer if our app has left."""
    progress, rest = connection.progress, memoryview(warm.early)
    try:
        while rest:
            await trio.lowlevel.wait_writable(sock)
            sent = sock.send(rest)
            progress.add_plain(sent)
            rest = rest[sent:]
    except OSError as error:
        ending, detail = Ending.PLAIN_RESET, explain_system(error)
        return Transfer(to_plain=progress.to_plain, to_tls=0, ending=ending, detail=detail)
    return None
