"""What one connection's account costs, in µs of CPU: dark, as it comes, and with `connection_log`.

It is steady where the load of a whole pair is not: only the time of this thread counts.
"""

from __future__ import annotations

import time
from pathlib import Path

import trio

from agent.base.clock import now
from agent.connections.ledger import Ledger
from agent.connections.records import Direction, Party
from agent.log.events import Journal
from agent.log.log import LogOptions
from agent.relay.splice import Ending
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain
from tests.bench.dark import finish

CONNECTIONS, ROUNDS = 3000, 7
_WEB = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service="web")
_PEER = Peer(id=_WEB, serial="0a:01", not_after=now(), root="")


def accounts(log: Path) -> dict[str, float]:
    """Return the µs of one connection by how much is seen: the best round of each. Lines go to `log`."""
    return trio.run(_accounts, log)


async def _accounts(log: Path) -> dict[str, float]:
    found = {}
    with log.open("w") as stream:
        for name, lines in (("off", False), ("default", False), ("default, connection_log", True)):
            ledgers = [
                Ledger(now, Journal(stream, now, LogOptions(connections=lines))) for _ in range(ROUNDS)
            ]
            found[name] = min(_round(ledger, dark=name == "off") for ledger in ledgers)
    return found


def _round(ledger: Ledger, *, dark: bool) -> float:
    began = time.thread_time()
    for _ in range(CONNECTIONS):
        connection = ledger.begin(Direction.INBOUND, "10.0.0.1:5", nothing)
        connection.peer, connection.ours = _PEER, Party(id=_WEB, serial="0b:01")
        connection.rule = "web => db (allow, precedence 9)"
        connection.dialled, connection.cipher = "127.0.0.1:8080", "TLSv1.3 TLS_AES_256_GCM_SHA384"
        connection.handshake_seconds, connection.connect_seconds = 0.002, 0.0001
        connection.relaying()
        connection.progress.add_plain(100)
        connection.progress.add_tls(1000)
        connection.end(Ending.CLEAN)
        if dark:
            finish(ledger, connection)
        else:
            ledger.finish(connection)
    return (time.thread_time() - began) / CONNECTIONS * 1e6


def nothing() -> None:
    """End nothing: there is no socket."""
